//! Whether a signal handler has run while a thread slept, also one with `SA_RESTART`: `sigaction(2)`, `futex_waitv(2)`.
//!
//! After a handler with `SA_RESTART` the kernel goes into `futex_waitv` again, and the program never learns of it. But it
//! reads the words anew then. So a sleeper adds a word of its own, the *sentinel*, at a place where the signal's frame is
//! sure to write, below the stack pointer: once a frame was there, the sentinel does not hold its value, the call ends
//! with `EAGAIN`, and the word read back says why.
//!
//! # Where the frame is
//! Below the red zone of 128 bytes the kernel puts the processor's state, on a multiple of 64, in the standard form of
//! `xsave`, and behind it, so right under the red zone, `FP_XSTATE_MAGIC2`. That is where the sentinel is. How large the
//! state is depends on what the processor has, not on what is in use; but for the tiles of AMX, which count from their
//! first use on: they are a multiple of 64 bytes behind a multiple of 64, so the magic word is where it is without them.
//!
//! # What it does not see
//! A handler that ran before the sentinel was planted. One on an alternate stack (`sigaltstack(2)`). Anything where there
//! is no `xsave`, on other processors, under valgrind, which makes frames of its own, and takes a write below the stack for
//! an error. There `SA_RESTART` restarts.

/// As [`super::futex_wait_any`], and whether a handler was seen to have run since it was called.
///
/// # Errors
/// As [`super::futex_wait_any`]: `EINTR` after a handler without `SA_RESTART`, and otherwise whatever else it is.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64", not(miri))))]
pub(crate) fn futex_wait_any_heeding(
    words: &[(&super::AtomicU32, u32)],
    deadline: Option<std::time::Instant>,
) -> (Result<(), rustix::io::Errno>, bool) {
    (super::futex_wait_any(words, deadline), false)
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
pub(crate) use frame::futex_wait_any_heeding;

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
mod frame {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use rustix::io::Errno;
    use rustix::time::Timespec;

    use super::super::{AtomicU32, WORDS_MAX, futex_wait_any, monotonic};

    /// What no frame has at that place: it has 0x46505845.
    const SENTINEL: u32 = 0x6769_6e6e;
    /// `FUTEX2_SIZE_U32`, `FUTEX2_PRIVATE`.
    const SIZE_U32: u32 = 0x02;
    const PRIVATE: u32 = 128;
    const MONOTONIC: u32 = libc::CLOCK_MONOTONIC.cast_unsigned();
    /// The red zone, and the magic word behind the state.
    const ABOVE_STATE: i32 = 128 + 4;

    /// The state of x87 and SSE, and the header of `xsave`, which are always there.
    const STATE_LEAST: u32 = 512 + 64;
    /// AMX's tiles.
    const TILES: u32 = 18;

    /// `struct futex_waitv` of `<linux/futex.h>`.
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Entry {
        value: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }

    impl Entry {
        const SENTINEL: Entry =
            Entry { value: SENTINEL as u64, address: 0, flags: SIZE_U32 | PRIVATE, reserved: 0 };
    }

    /// As the module says.
    pub(crate) fn futex_wait_any_heeding(
        words: &[(&AtomicU32, u32)],
        deadline: Option<Instant>,
    ) -> (Result<(), Errno>, bool) {
        let Some(size) = size_of_state() else { return (futex_wait_any(words, deadline), false) };
        if words.len() > WORDS_MAX {
            return (Err(Errno::INVAL), false);
        }
        let mut entries = [Entry::SENTINEL; WORDS_MAX + 1];
        for (entry, (word, value)) in entries.iter_mut().zip(words) {
            let address = word.as_ptr().expose_provenance() as u64;
            *entry = Entry { value: u64::from(*value), address, flags: SIZE_U32, reserved: 0 };
        }
        let deadline = deadline.map(monotonic);
        let time = deadline.as_ref().map_or(std::ptr::null(), std::ptr::from_ref::<Timespec>);
        let outcome: i64;
        let found: u32;
        // In one block, so the stack pointer is the one at which the kernel is entered.
        // SAFETY: `futex_waitv` reads the entries and the time, which live here, and words that are mapped. Right under the red
        // zone nothing is anybody's; the next function that is called has its frame there. `r9` points at the last entry
        // that counts, which is within the array.
        unsafe {
            asm!(
                "lea {place}, [rsp - {above}]",
                "sub {place}, {size}",
                "and {place}, -64",
                "add {place}, {size}",
                "mov dword ptr [{place}], {sentinel}",
                "mov qword ptr [r9 + 8], {place}",
                "syscall",
                "mov {place}, qword ptr [r9 + 8]",
                "mov {found:e}, dword ptr [{place}]",
                place = out(reg) _,
                found = lateout(reg) found,
                size = in(reg) u64::from(size),
                above = const ABOVE_STATE,
                sentinel = const SENTINEL,
                inlateout("rax") libc::SYS_futex_waitv => outcome,
                in("rdi") entries.as_mut_ptr(),
                in("rsi") words.len() + 1,
                in("rdx") 0_u64,
                in("r10") time,
                in("r8") u64::from(MONOTONIC),
                in("r9") entries.as_mut_ptr().wrapping_add(words.len()),
                out("rcx") _,
                out("r11") _,
            );
        }
        let outcome = if outcome < 0 { Err(Errno::from_raw_os_error(-outcome as i32)) } else { Ok(()) };
        (outcome, found != SENTINEL)
    }

    /// How many bytes of state a frame has, but for the tiles. None: it cannot be told.
    fn size_of_state() -> Option<u32> {
        // To ask the processor takes long where it is a virtual one: once in a process. 1: in vain.
        static SIZE: AtomicU32 = AtomicU32::new(0);
        let size = match SIZE.load(Ordering::Relaxed) {
            0 => {
                let features = if runs_in_valgrind() { None } else { features() };
                let size = features.map_or(1, |features| reach(features & !(1 << TILES)));
                SIZE.store(size, Ordering::Relaxed);
                size
            }
            size => size,
        };
        (size > 1).then_some(size)
    }

    /// What `xsave` saves: the kernel has enabled it for all threads. None: there is no `xsave`.
    fn features() -> Option<u64> {
        const OSXSAVE: u32 = 1 << 27;
        if __cpuid(0).eax < 0xd || __cpuid(1).ecx & OSXSAVE == 0 {
            return None;
        }
        let (low, high): (u32, u32);
        // SAFETY: the instruction is there, and reads a register.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
        Some(u64::from(high) << 32 | u64::from(low))
    }

    /// How far these features reach in the standard form.
    fn reach(features: u64) -> u32 {
        let end_of = |feature: u32| {
            let leaf = __cpuid_count(0xd, feature);
            leaf.eax.saturating_add(leaf.ebx)
        };
        let ends = (2..63).filter(|feature| features & 1 << feature != 0).map(end_of);
        ends.fold(STATE_LEAST, u32::max)
    }

    /// Valgrind's `RUNNING_ON_VALGRIND`: five instructions that do nothing, and that it knows.
    fn runs_in_valgrind() -> bool {
        let request = [0x1001_u64, 0, 0, 0, 0, 0];
        let mut answer = 0_u64;
        // SAFETY: to a processor `rdi` is turned by 128 bits in all, and `rbx` exchanged for itself; valgrind reads the request.
        unsafe {
            asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                in("rax") request.as_ptr(),
                inout("rdx") answer,
                inout("rdi") 0_u64 => _,
            );
        }
        answer != 0
    }

    #[cfg(test)]
    mod tests {
        use std::arch::asm;
        use std::sync::atomic::{AtomicUsize, Ordering};

        use super::{ABOVE_STATE, SENTINEL, size_of_state};

        static STATE: AtomicUsize = AtomicUsize::new(0);

        extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
            // SAFETY: the kernel gives the handler a context.
            let context = unsafe { &*context.cast::<libc::ucontext_t>() };
            STATE.store(context.uc_mcontext.fpregs.expose_provenance(), Ordering::SeqCst);
        }

        #[test]
        fn a_frame_has_its_state_and_the_magic_word_where_they_were_computed() {
            // SAFETY: the handler only stores to an atomic, and reads what it was given.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
            }
            let size = u64::from(size_of_state().expect("a processor of this century"));
            let (stack, found): (u64, u32);
            // SAFETY: the signal comes to this thread while the stack pointer is as it was read, and the place is below it.
            unsafe {
                asm!(
                    "mov {stack}, rsp",
                    "mov {place}, rsp",
                    "sub {place}, {above}",
                    "sub {place}, {size}",
                    "and {place}, -64",
                    "add {place}, {size}",
                    "mov dword ptr [{place}], {sentinel}",
                    "syscall",
                    "mov {found:e}, dword ptr [{place}]",
                    stack = out(reg) stack,
                    place = out(reg) _,
                    found = out(reg) found,
                    size = in(reg) size,
                    above = const ABOVE_STATE,
                    sentinel = const SENTINEL,
                    inout("rax") libc::SYS_tgkill => _,
                    in("rdi") u64::from(std::process::id()),
                    in("rsi") rustix::thread::gettid().as_raw_nonzero().get() as u64,
                    in("rdx") libc::SIGUSR2 as u64,
                    out("rcx") _,
                    out("r11") _,
                );
            }
            let expected = (stack - ABOVE_STATE as u64 - size) / 64 * 64;
            assert_eq!(STATE.load(Ordering::SeqCst) as u64, expected);
            assert_eq!(found, 0x4650_5845, "FP_XSTATE_MAGIC2");
        }
    }
}
