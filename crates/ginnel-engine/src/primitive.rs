//! Atomics, futexes and the robust list: the one place through which the engine touches what others may touch.
//!
//! # Death, told by the kernel
//! A thread that dies leaves the kernel its robust list (`set_robust_list(2)`, `get_robust_list(2)`). Beside the list
//! proper, its head has one *pending* address, meant for a lock that is just being taken or given back. At a thread's
//! end (also by `exec` and by `SIGKILL`) the kernel looks at the word there: does it hold this thread's id, it gets
//! `FUTEX_OWNER_DIED` and, if it has `FUTEX_WAITERS`, one sleeper is woken; is it 0, one sleeper is woken. That is all
//! an object's lock needs, since a thread holds one at a time, and no pointer stands in shared memory for it.
//!
//! While a thread is blocked, a second word must tell of its death: the `life` of its slot ([`Thread::link`]). That one is
//! linked into the list proper, behind what the C library has there (see `links`), and out of it before the thread goes
//! on. The kernel goes through the list first and looks at the pending word last: `wait` counts on that order.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::Once;
use std::time::{Duration, Instant};

use std::sync::atomic::AtomicPtr;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitvFlags};
use rustix::time::{ClockId, Timespec};

use crate::links;

mod sentinel;

pub(crate) use sentinel::futex_wait_any_heeding;

/// The bits of a lock's word that the kernel knows: `FUTEX_TID_MASK`, `FUTEX_OWNER_DIED`, `FUTEX_WAITERS`.
pub(crate) const OWNER: u32 = 0x3fff_ffff;
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;
pub(crate) const WAITERS: u32 = 0x8000_0000;

/// How many words a thread can sleep on at once here.
pub(crate) const WORDS_MAX: usize = 32;

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

/// How many words [`futex_wait_which`] can sleep on.
const WHICH_MAX: usize = 8;

/// As [`futex_wait_any`], by any clock: which word was woken. If several were, the last of them: so the kernel has had it
/// since it has this call.
///
/// # Errors
/// As [`futex_wait_any`]; `EINVAL`: no such clock or time.
pub(crate) fn futex_wait_which(
    words: &[(&AtomicU32, u32)],
    deadline: Option<(ClockId, Timespec)>,
) -> Result<usize, Errno> {
    let mut waits = [const { Wait::new() }; WHICH_MAX];
    for (wait, (word, value)) in waits.iter_mut().zip(words) {
        wait.val = u64::from(*value);
        wait.uaddr = word.as_ptr().cast::<std::ffi::c_void>().into();
        wait.flags = WaitFlags::SIZE_U32;
    }
    let waits = waits.get(..words.len()).ok_or(Errno::INVAL)?;
    let clock = deadline.map_or(ClockId::Monotonic, |(clock, _)| clock);
    futex::waitv(waits, WaitvFlags::empty(), deadline.map(|(_, time)| time).as_ref(), clock)
}

/// The deadline by the kernel's clock.
pub(crate) fn monotonic(deadline: Instant) -> Timespec {
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

/// `MEMBARRIER_CMD_*` of `<linux/membarrier.h>`.
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Has [`fence_all`] reach the threads of this process: whether it will.
fn register_for_fences() -> bool {
    membarrier(REGISTER_GLOBAL_EXPEDITED)
}

/// A full barrier in every thread that runs in a registered process: what they have stored is seen from here on, or what
/// they load from here on sees what was stored before. So those who give a lock back, often, need no barrier of their
/// own, and those who go to sleep, seldom, pay for it. Where the kernel refuses, who goes to sleep looks again in time.
pub(crate) fn fence_all() {
    if !membarrier(GLOBAL_EXPEDITED) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
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

/// What a thread needs to know of itself to take locks.
#[derive(Debug)]
struct Knowledge {
    id: Cell<u32>,
    process: Cell<u32>,
    /// Whether a lock may be given back by a plain store: see [`fence_all`].
    is_registered: Cell<bool>,
    /// Which fork this was learned after, and one: a child's thread has another id.
    generation: Cell<u32>,
    head: Cell<*mut RobustHead>,
}

/// The calling thread: a pointer to what it knows of itself, for as long as it lives. No more, as it is passed around under
/// each lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(*const Knowledge);

/// From an entry of the robust list to its word, as glibc has it. What stands in segments is laid out for it.
pub(crate) const FUTEX_OFFSET: isize = -32;

/// The forks of this process's line so far, and one.
static FORKS: AtomicU32 = AtomicU32::new(1);
/// Says [`FORKS`], in a page that the kernel clears in each child (`MADV_WIPEONFORK`): also of `_Fork(3)` and of a bare
/// `clone(2)`, which do not ask the C library's handlers. Until there is such a page, `FORKS` itself. (A child of `vfork(2)`
/// has its parent's memory, and may do nothing but end or become another program.)
static WITNESS: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const FORKS).cast_mut());

/// Which fork this process comes after; 0 if it is one that no handler has told of.
#[inline]
fn generation_now() -> u32 {
    // SAFETY: `FORKS`, or a page that is never unmapped; both are atomics.
    unsafe { &*WITNESS.load(Ordering::Relaxed) }.load(Ordering::Relaxed)
}

/// Maps the page, once. Without it, forks are told of by the C library's handlers alone.
#[cold]
fn map_witness() {
    const BYTES: usize = 4096;
    let flags = MapFlags::PRIVATE;
    // SAFETY: new memory, where the kernel chooses, for atomics only.
    let page = unsafe {
        mmap_anonymous(ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, flags)
            .and_then(|page| madvise(page, BYTES, Advice::LinuxWipeOnFork).map(|()| page))
    };
    if let Ok(page) = page {
        let page = page.cast::<AtomicU32>();
        // SAFETY: the page just mapped.
        unsafe { &*page }.store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
        WITNESS.store(page, Ordering::Relaxed);
    }
}

thread_local! {
    static KNOWLEDGE: Knowledge = const {
        Knowledge {
            id: Cell::new(0),
            process: Cell::new(0),
            is_registered: Cell::new(false),
            // Of no fork: not even of one that nobody has counted yet, whose page says 0.
            generation: Cell::new(u32::MAX),
            head: Cell::new(ptr::null_mut()),
        }
    };
    /// For a thread whose C library has not registered a list: one of our own.
    static OWN_HEAD: Cell<RobustHead> =
        const { Cell::new(RobustHead { list: ptr::null(), futex_offset: FUTEX_OFFSET, pending: ptr::null() }) };
}

impl Thread {
    /// The calling thread.
    #[inline]
    pub(crate) fn current() -> Thread {
        KNOWLEDGE.with(|knowledge| {
            if knowledge.generation.get() != generation_now() {
                Thread::learn(knowledge);
            }
            Thread(knowledge)
        })
    }

    #[inline]
    fn knowledge(&self) -> &Knowledge {
        // SAFETY: the thread's own, which lives as long as the thread; a `Thread` cannot be sent to another.
        unsafe { &*self.0 }
    }

    /// Its number, as the kernel writes it into the words of the dead.
    #[inline]
    pub(crate) fn id(self) -> u32 {
        self.knowledge().id.get()
    }

    /// Of which process: `getpid(2)` is a system call.
    #[inline]
    pub(crate) fn process(self) -> u32 {
        self.knowledge().process.get()
    }

    /// Whether a lock may be given back by a plain store: see [`fence_all`].
    #[inline]
    pub(crate) fn is_registered(self) -> bool {
        self.knowledge().is_registered.get()
    }

    #[inline]
    fn head(self) -> *mut RobustHead {
        self.knowledge().head.get()
    }

    #[cold]
    fn learn(knowledge: &Knowledge) {
        static AT_FORK: Once = Once::new();
        extern "C" fn in_child() {
            FORKS.fetch_add(1, Ordering::Relaxed);
            crate::process::credentials_may_have_changed();
        }
        AT_FORK.call_once(|| {
            // SAFETY: the handler only adds to an atomic. It fails for want of memory alone; a child's thread would then
            // go by its parent's id, and the first lock that it meets would tell.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            map_witness();
        });
        if generation_now() == 0 {
            // In a child. The handler may have counted this fork already: once more does no harm. Its first threads may
            // come here at the same time: they go by the first one's number.
            let forks = FORKS.fetch_add(1, Ordering::Relaxed) + 1;
            // SAFETY: as in `generation_now`; it is not 0 where there is no page.
            let witness = unsafe { &*WITNESS.load(Ordering::Relaxed) };
            let _ = witness.compare_exchange(0, forks, Ordering::Relaxed, Ordering::Relaxed);
        }
        let generation = generation_now();
        knowledge.id.set(rustix::thread::gettid().as_raw_nonzero().get() as u32);
        knowledge.process.set(rustix::process::getpid().as_raw_nonzero().get() as u32);
        knowledge.is_registered.set(register_for_fences());
        knowledge.head.set(robust_head());
        knowledge.generation.set(generation);
    }

    /// From here on the kernel looks at `word` should this thread die. Gives what it would have looked at so far, for
    /// [`Thread::forget`]: a signal handler may come here while the thread is here.
    #[inline]
    pub(crate) fn remember(self, word: &AtomicU32) -> *const u8 {
        // SAFETY: the head is this thread's own, valid as long as the thread; nobody else writes it. The address is a
        // number to the kernel, which reads it at the thread's end only.
        unsafe {
            let before = ptr::read_volatile(&raw const (*self.head()).pending);
            let offset = (*self.head()).futex_offset;
            let pending = ptr::from_ref(word).cast::<u8>().wrapping_offset(offset.wrapping_neg());
            ptr::write_volatile(&raw mut (*self.head()).pending, pending);
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
        unsafe { ptr::write_volatile(&raw mut (*self.head()).pending, before) };
    }
}

/// The kernel looks at a word for as long as this lives, beside those that are linked.
pub(crate) struct Watch {
    thread: Thread,
    before: *const u8,
}

impl Watch {
    pub(crate) fn on(thread: Thread, word: &AtomicU32) -> Watch {
        Watch { thread, before: thread.remember(word) }
    }

    /// For who has had [`Thread::remember`] give `before`.
    pub(crate) fn from_before(thread: Thread, before: *const u8) -> Watch {
        Watch { thread, before }
    }

    /// The kernel goes on looking at the word; what it would have looked at before.
    pub(crate) fn into_before(self) -> *const u8 {
        std::mem::ManuallyDrop::new(self).before
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.thread.forget(self.before);
    }
}

/// A word linked into the calling thread's robust list, until this is dropped.
#[derive(Debug)]
pub(crate) struct Linked {
    thread: Thread,
    generation: u32,
    entry: *const AtomicU64,
}

impl Thread {
    /// From here on the kernel marks `life` should this thread die, if it holds the thread's id. `entry` and the word before
    /// it are for the list's pointers; all three must stay mapped until the link is dropped.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: this thread's C library has laid its list out in another way. `ENOLCK`: too many are linked.
    pub(crate) fn link(
        self,
        life: &AtomicU32,
        previous: &AtomicU64,
        entry: &AtomicU64,
    ) -> Result<Linked, Errno> {
        // Still linked: only if somebody has scribbled. Twice would be a ring that the kernel does not get out of.
        self.unlink_entry(entry);
        previous.store(0, Ordering::Relaxed);
        self.link_entry(life, entry)?;
        Ok(Linked { thread: self, generation: self.generation(), entry })
    }

    /// As [`Thread::link`], to be unlinked by [`Thread::unlink_entry`].
    #[inline]
    pub(crate) fn link_entry(self, life: &AtomicU32, entry: &AtomicU64) -> Result<(), Errno> {
        let address = ptr::from_ref(entry).cast::<u8>();
        // SAFETY: the head is this thread's own, valid as long as the thread; nobody else writes it.
        let offset = unsafe { (*self.head()).futex_offset };
        if address.wrapping_offset(offset) != ptr::from_ref(life).cast::<u8>() {
            return Err(Errno::OPNOTSUPP);
        }
        // SAFETY: this thread's head; the entry stays mapped, as the caller knows.
        unsafe { links::push(self.head().cast(), self.generation(), entry) }
    }

    /// Which fork it was learned after.
    #[inline]
    fn generation(self) -> u32 {
        self.knowledge().generation.get()
    }

    /// Unlinks an entry: whether this thread had it linked.
    #[inline]
    pub(crate) fn unlink_entry(self, entry: &AtomicU64) -> bool {
        // SAFETY: this thread's head; what is linked is mapped.
        unsafe { links::remove(self.head().cast(), self.generation(), entry) }
    }

    /// Whether this thread has linked an entry.
    pub(crate) fn has_linked(self, entry: &AtomicU64) -> bool {
        links::contains(self.generation(), entry)
    }

    /// Whether it may link another lock.
    #[inline]
    pub(crate) fn has_room(self) -> bool {
        links::has_room(self.generation())
    }
}

impl Linked {
    /// Whether this is the process in which it was linked: not a child that a signal handler has forked.
    pub(crate) fn is_own(&self) -> bool {
        self.generation == generation_now()
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        if self.is_own() {
            // SAFETY: as in `unlink_entry`.
            unsafe { links::remove(self.thread.head().cast(), self.generation, self.entry) };
        }
        // Else the child's list is another, and empty.
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

/// The seconds since 1970, as the kernel's IPC objects have them.
#[inline]
pub(crate) fn seconds() -> u64 {
    // SAFETY: the call writes nothing if the pointer is null.
    unsafe { libc::time(ptr::null_mut()) }.cast_unsigned()
}
