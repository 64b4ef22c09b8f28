//! Atomics, futexes and the robust list: the one place through which the engine touches what others may touch.
//!
//! # Death, told by the kernel
//! A thread that dies leaves the kernel its robust list (`set_robust_list(2)`, `get_robust_list(2)`). Beside the list
//! proper, its head has one *pending* address, meant for a lock that is just being taken or given back. At a thread's
//! end (also by `exec` and by `SIGKILL`) the kernel looks at the word there: does it hold this thread's id, it gets
//! `FUTEX_OWNER_DIED` and, if it has `FUTEX_WAITERS`, one sleeper is woken; is it 0, one sleeper is woken. That is all
//! an object's lock needs, since a thread holds one at a time. The C library's own list is left alone, and no pointer
//! stands in shared memory, where somebody else could change it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::Once;
use std::time::{Duration, Instant};

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitvFlags};
use rustix::time::{ClockId, Timespec};

/// The bits of a lock's word that the kernel knows: `FUTEX_TID_MASK`, `FUTEX_OWNER_DIED`, `FUTEX_WAITERS`.
pub(crate) const OWNER: u32 = 0x3fff_ffff;
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;
pub(crate) const WAITERS: u32 = 0x8000_0000;

/// How many words a thread can sleep on at once here.
pub(crate) const WORDS_MAX: usize = 4;

/// Sleeps while each word holds its value, until one of them is woken. The kernel takes them in their order: it stands in
/// the queue of one before it compares the next.
///
/// # Errors
/// `EAGAIN`: one held something else. `ETIMEDOUT`: the deadline has passed. `EINTR`.
pub(crate) fn futex_wait_any(words: &[(&AtomicU32, u32)], deadline: Option<Instant>) -> Result<(), Errno> {
    let mut waits = [const { Wait::new() }; WORDS_MAX];
    for (wait, (word, value)) in waits.iter_mut().zip(words) {
        wait.val = u64::from(*value);
        wait.uaddr = word.as_ptr().cast::<std::ffi::c_void>().into();
        wait.flags = WaitFlags::SIZE_U32;
    }
    let waits = waits.get(..words.len()).ok_or(Errno::INVAL)?;
    futex::waitv(waits, WaitvFlags::empty(), deadline.map(monotonic).as_ref(), ClockId::Monotonic).map(drop)
}

/// The deadline by the kernel's clock.
fn monotonic(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let nanoseconds = now.tv_nsec + i64::from(left.subsec_nanos());
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX).saturating_add(nanoseconds / NANOSECONDS);
    Timespec { tv_sec: now.tv_sec.saturating_add(seconds), tv_nsec: nanoseconds % NANOSECONDS }
}

const NANOSECONDS: i64 = Duration::from_secs(1).as_nanos() as i64;

/// Wakes up to `count` sleepers on `word`: how many there were.
pub(crate) fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    // The only errors are of the address, which is mapped: nobody is left waiting by them.
    futex::wake(word, Flags::empty(), count).unwrap_or(0)
}

/// Whether there is a thread with this id.
pub(crate) fn thread_exists(id: u32) -> bool {
    // SAFETY: the call takes no pointers.
    let outcome = unsafe { libc::sched_getscheduler(id as i32) };
    outcome >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// `struct robust_list_head` of `<linux/futex.h>`.
#[repr(C)]
struct RobustHead {
    list: *const RobustHead,
    futex_offset: isize,
    pending: *const u8,
}

/// What the calling thread needs to know of itself to take locks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    head: *mut RobustHead,
    /// Which fork this was learned after: a child's thread has another id.
    generation: u32,
}

/// From an entry of the robust list to its word, as glibc has it. What stands in segments is laid out for it.
pub(crate) const FUTEX_OFFSET: isize = -32;

static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static THREAD: Cell<Option<Thread>> = const { Cell::new(None) };
    /// For a thread whose C library has not registered a list: one of our own.
    static OWN_HEAD: Cell<RobustHead> =
        const { Cell::new(RobustHead { list: ptr::null(), futex_offset: FUTEX_OFFSET, pending: ptr::null() }) };
}

impl Thread {
    /// The calling thread.
    #[inline]
    pub(crate) fn current() -> Thread {
        match THREAD.get() {
            Some(thread) if thread.generation == FORKS.load(Ordering::Relaxed) => thread,
            _ => Thread::learn(),
        }
    }

    #[cold]
    fn learn() -> Thread {
        static AT_FORK: Once = Once::new();
        extern "C" fn in_child() {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
        AT_FORK.call_once(|| {
            // SAFETY: the handler only adds to an atomic. It fails for want of memory alone; a child's thread would then
            // go by its parent's id, and the first lock that it meets would tell.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        let generation = FORKS.load(Ordering::Relaxed);
        let id = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let thread = Thread { id, head: robust_head(), generation };
        THREAD.set(Some(thread));
        thread
    }

    /// From here on the kernel looks at `word` should this thread die. Gives what it would have looked at so far, for
    /// [`Thread::forget`]: a signal handler may come here while the thread is here.
    #[inline]
    pub(crate) fn remember(self, word: &AtomicU32) -> *const u8 {
        // SAFETY: the head is this thread's own, valid as long as the thread; nobody else writes it. The address is a
        // number to the kernel, which reads it at the thread's end only.
        unsafe {
            let before = ptr::read_volatile(&raw const (*self.head).pending);
            let offset = (*self.head).futex_offset;
            let pending = ptr::from_ref(word).cast::<u8>().wrapping_offset(offset.wrapping_neg());
            ptr::write_volatile(&raw mut (*self.head).pending, pending);
            // The kernel reads it when this thread dies, at whatever instruction: it must stand before the lock's word is
            // touched.
            compiler_fence(Ordering::SeqCst);
            before
        }
    }

    /// The kernel is to look at what it would have looked at before.
    #[inline]
    pub(crate) fn forget(self, before: *const u8) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as in `remember`.
        unsafe { ptr::write_volatile(&raw mut (*self.head).pending, before) };
    }
}

/// The head that the kernel knows for the calling thread; registers one where there is none.
fn robust_head() -> *mut RobustHead {
    let mut head: *mut RobustHead = ptr::null_mut();
    let mut len = 0_usize;
    // SAFETY: both pointers are valid for the call, which asks about the calling thread (0).
    let outcome = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    if outcome == 0 && !head.is_null() && len == size_of::<RobustHead>() {
        return head;
    }
    OWN_HEAD.with(|own| {
        let head = own.as_ptr();
        // SAFETY: the head is this thread's and lives as long; an empty list points to itself.
        unsafe {
            (*head).list = head;
            libc::syscall(libc::SYS_set_robust_list, head, size_of::<RobustHead>());
        }
        head
    })
}
