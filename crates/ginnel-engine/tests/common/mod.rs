//! Processes that are stepped and killed at any instruction.
#![allow(unsafe_code, dead_code, missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicU64, Ordering};

use ginnel_testkit::{Child, Exit, blocked_in, fork, wait_until};
use rustix::fs::{Mode, OFlags};

pub fn directory() -> std::os::fd::OwnedFd {
    rustix::fs::open("/dev/shm", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub fn signal_self(signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Installs a handler, without `SA_RESTART`.
pub fn handle(signal: i32, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeroes is a valid sigaction; the handler does nothing that is not allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

pub fn pause_for_ever() -> ! {
    loop {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    }
}

static STEPS: AtomicU64 = AtomicU64::new(0);
static KILLS: AtomicU64 = AtomicU64::new(0);

/// After the checks of an operation's kills: says how many instructions were stepped and how many processes killed since
/// the last time, in the one form that `just crash` collects. A violation would have ended the test before.
pub fn crash(operation: &str) {
    let [steps, kills] = [&STEPS, &KILLS].map(|count| count.swap(0, Ordering::Relaxed));
    assert!(kills > 0, "{operation}: nobody was killed");
    println!("crash: {operation}: {steps} instructions stepped, {kills} kills, 0 violations");
}

/// The same of words overwritten, for `just hostile`.
pub fn tried(object: &str, words: usize) {
    assert!(words > 0, "{object}: no word was overwritten");
    println!("hostile: {object}: {words} words tried");
}

/// A child that stops itself before and after `work`, traced by this process.
pub struct Stepped(Child);

impl Stepped {
    pub fn start(work: impl Fn()) -> Stepped {
        let child = fork(|| {
            // SAFETY: this request takes no pointers.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
            signal_self(libc::SIGSTOP);
            work();
            signal_self(libc::SIGSTOP);
        });
        let stepped = Stepped(child);
        assert_eq!(stepped.stop(), libc::SIGSTOP);
        stepped
    }

    pub fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// Waits for its next stop: the signal.
    pub fn stop(&self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours to write.
        unsafe { libc::waitpid(self.0.pid(), &mut status, libc::__WALL) };
        assert!(libc::WIFSTOPPED(status), "the stepped process ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// One instruction: whether it is still in the work.
    pub fn step(&self) -> bool {
        STEPS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: this request uses neither address nor data; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0.pid(), 0, 0) }, 0);
        self.stop() == libc::SIGTRAP
    }

    /// As far as the beginning or the end of its next system call: whether it is still in the work. Enough for what changes
    /// only files: nobody sees a difference between two calls.
    pub fn step_call(&self) -> bool {
        STEPS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: this request uses neither address nor data; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.0.pid(), 0, 0) }, 0);
        self.stop() == libc::SIGTRAP
    }

    /// One instruction, or into a system call that blocks: `blocked` is asked time and again until the instruction ends.
    /// Gives what [`Stepped::step`] gives.
    pub fn step_watched(&self, mut blocked: impl FnMut(i32)) -> bool {
        self.step_while(|pid| {
            blocked(pid);
            true
        })
    }

    /// One instruction, or as far as the sleep in which it ends.
    pub fn step_unless(&self, sleeps: &mut bool) -> bool {
        self.step_while(|_| {
            *sleeps = true;
            false
        })
    }

    fn step_while(&self, mut patient: impl FnMut(i32) -> bool) -> bool {
        STEPS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as in `step`.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.0.pid(), 0, 0) }, 0);
        for look in 1_u64.. {
            let mut status = 0;
            // SAFETY: `status` is ours to write.
            if unsafe { libc::waitpid(self.0.pid(), &mut status, libc::__WALL | libc::WNOHANG) } != 0 {
                assert!(libc::WIFSTOPPED(status), "the stepped process ended: {status:#x}");
                return libc::WSTOPSIG(status) == libc::SIGTRAP;
            }
            let asleep = look.is_multiple_of(200) && blocked_in(self.0.pid(), libc::SYS_futex_waitv);
            if asleep && !patient(self.0.pid()) {
                return true;
            }
        }
        unreachable!("the test's own deadline comes first")
    }

    /// Lets it run to the end of its work.
    pub fn finish(self, what: &str) {
        // SAFETY: this request uses neither address nor data; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_CONT, self.0.pid(), 0, 0) }, 0);
        let mut status = 0;
        wait_until(what, || {
            // SAFETY: `status` is ours to write.
            unsafe { libc::waitpid(self.0.pid(), &mut status, libc::__WALL | libc::WNOHANG) != 0 }
        });
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "{what}: {status:#x}");
        self.end();
    }

    /// Out of a system call in which it sleeps: it stops before it would go on.
    pub fn interrupt(&self) {
        self.0.signal(libc::SIGSTOP);
        // The end of the instruction that has slept, or the signal itself.
        assert!([libc::SIGSTOP, libc::SIGTRAP].contains(&self.stop()));
    }

    /// No longer traced, and stopped where it is, by a `SIGSTOP` of its own.
    pub fn leave_stopped(self) -> Child {
        let pid = self.0.pid();
        // SAFETY: this request takes a number; the tracee is our own child.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, libc::SIGSTOP) }, 0);
        self.0
    }

    pub fn kill(self) {
        KILLS.fetch_add(1, Ordering::Relaxed);
        self.end();
    }

    fn end(self) {
        self.0.kill();
        assert_eq!(self.0.wait(), Exit::Signal(libc::SIGKILL));
    }
}

/// Every how many instructions to kill: all take minutes, `GINNEL_STRIDE=1` is for them.
pub fn stride_or(otherwise: usize) -> usize {
    std::env::var("GINNEL_STRIDE").map_or(otherwise, |stride| stride.parse().unwrap())
}

/// How long a test of many kills may take: with a stride of 1, for hours.
pub fn limit() -> std::time::Duration {
    std::time::Duration::from_secs(if stride_or(2) == 1 { 4 * 3600 } else { 900 })
}

const SHARED_BYTES: usize = 1 << 17;
const NUMBERS_BYTES: usize = 4096;

/// Memory that the test's processes share, for what is tested: behind the first 512 numbers.
pub fn region() -> ginnel_engine::sync::region::Region<'static> {
    let first = std::ptr::NonNull::from(number(NUMBERS_BYTES / 8)).cast();
    // SAFETY: the rest of the mapping, which stays; all access to it is atomic.
    unsafe { ginnel_engine::sync::region::Region::new(first, SHARED_BYTES - NUMBERS_BYTES) }
}

/// A word of [`region`].
pub fn word(offset: usize) -> &'static std::sync::atomic::AtomicU64 {
    number((NUMBERS_BYTES + offset) / 8)
}

/// A number in memory that the test's processes share.
pub fn number(index: usize) -> &'static std::sync::atomic::AtomicU64 {
    use std::sync::OnceLock;
    static NUMBERS: OnceLock<usize> = OnceLock::new();
    let base = *NUMBERS.get_or_init(|| {
        // SAFETY: new memory, where the kernel chooses.
        let made = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SHARED_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(made, libc::MAP_FAILED);
        made as usize
    });
    assert!(index < SHARED_BYTES / 8);
    let place = std::ptr::with_exposed_provenance_mut::<u64>(base + 8 * index);
    // SAFETY: within the mapping, which stays, and aligned; all access to it is atomic.
    unsafe { std::sync::atomic::AtomicU64::from_ptr(place) }
}

pub fn is_stopped(child: &Child) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap().contains(") T ")
}

pub fn killed(child: Child) {
    child.kill();
    assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
}

/// A sequence that looks random, the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Values to overwrite a word with.
pub fn hostile(offset: usize) -> [u64; 6] {
    let random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(offset as u64 + 1);
    [0, u64::MAX, 3, 0x4000_0000, random, random.rotate_left(31)]
}
