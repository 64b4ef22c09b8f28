//! The same as `primitive`, for model checking: each access to shared memory is a point at which another thread may go on,
//! or this one may be killed, and the futexes and the robust list are the kernel's as `primitive` describes it.
//!
//! Built with `--cfg ginnel_model` only. Threads are shuttle's tasks, one of which runs at a time: so what is checked is
//! each order of the accesses, not what a weakly ordered processor makes of them; `fence_all` has nothing to do. There is no
//! time: a sleep ends by a wake, or never. So whoever is forgotten is a deadlock, which shuttle reports. (Only who waits for
//! the lock looks again after a second death: the first to be told of the first may be the second, see `lock`.)
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(crate) use std::sync::atomic::Ordering;

use rustix::io::Errno;
use shuttle::rand::Rng;

pub(crate) const OWNER: u32 = 0x3fff_ffff;
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;
pub(crate) const WAITERS: u32 = 0x8000_0000;
pub(crate) const FUTEX_OFFSET: isize = -32;
pub(crate) const WORDS_MAX: usize = 32;

/// Of a thread that was killed: unwinds it without having it do anything.
struct Death;

#[derive(Default)]
struct Mortal {
    /// How many accesses it has left.
    accesses: Option<usize>,
    is_dead: bool,
    has_ended: bool,
    pending: usize,
    linked: Vec<usize>,
}

struct Sleeper {
    words: Vec<usize>,
    /// Whether it would look again in time.
    looks: bool,
    bed: Arc<(shuttle::sync::Mutex<bool>, shuttle::sync::Condvar)>,
}

#[derive(Default)]
struct Kernel {
    threads: HashMap<u32, Mortal>,
    sleepers: HashMap<u32, Sleeper>,
    queues: HashMap<usize, VecDeque<u32>>,
    /// What was done, in the order in which it was.
    story: Vec<String>,
    deaths: usize,
}

thread_local! {
    /// One for each model that runs: all tasks of an execution are run by one thread.
    static KERNEL: &'static Mutex<Kernel> = Box::leak(Box::default());
}

/// Never held where another thread may go on.
fn kernel() -> MutexGuard<'static, Kernel> {
    KERNEL.with(|kernel| kernel.lock().unwrap_or_else(PoisonError::into_inner))
}

fn me() -> u32 {
    usize::from(shuttle::current::me()) as u32 + 1
}

/// Another thread may go on here. Whether this one lives.
fn step() -> bool {
    let id = me();
    {
        let mut kernel = kernel();
        let thread = kernel.threads.entry(id).or_default();
        if thread.is_dead {
            return false;
        }
        match &mut thread.accesses {
            Some(0) => {
                thread.is_dead = true;
                drop(kernel);
                tell(format_args!("is killed"));
                resume_unwind(Box::new(Death));
            }
            Some(accesses) => *accesses -= 1,
            None => {}
        }
    }
    // An access to anything of shuttle's is where it switches.
    shuttle::sync::atomic::AtomicBool::new(true).load(Ordering::SeqCst);
    true
}

/// Notes what a thread does.
fn tell(what: std::fmt::Arguments<'_>) {
    let id = me();
    kernel().story.push(format!("thread {id}: {what}"));
}

/// What was done in the execution so far: accesses by their address, in the order in which they were made.
pub fn story() -> Vec<String> {
    kernel().story.clone()
}

/// Starts a model anew. To be called first in each execution.
pub fn start() {
    *kernel() = Kernel::default();
}

/// Starts a thread that is killed after some number of accesses less than `within`; none: it lives to its end.
pub fn spawn(
    within: Option<usize>,
    work: impl FnOnce() + Send + 'static,
) -> shuttle::thread::JoinHandle<bool> {
    shuttle::thread::spawn(move || {
        let accesses = within.map(|within| shuttle::rand::thread_rng().gen_range(0..within));
        kernel().threads.entry(me()).or_default().accesses = accesses;
        let lived = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(()) => true,
            Err(payload) if payload.is::<Death>() => false,
            Err(payload) => resume_unwind(payload),
        };
        end();
        lived
    })
}

/// What the kernel does when a thread has ended: first its list, then what was pending.
fn end() {
    let id = me();
    let (linked, pending, was_killed) = {
        let mut kernel = kernel();
        leave_queues(&mut kernel, id);
        let thread = kernel.threads.entry(id).or_default();
        let was_killed = std::mem::take(&mut thread.is_dead);
        thread.accesses = None;
        (std::mem::take(&mut thread.linked), thread.pending, was_killed)
    };
    for word in linked {
        mark(word, id, false);
    }
    if pending != 0 {
        mark(pending, id, true);
    }
    kernel().threads.entry(id).or_default().has_ended = true;
    if was_killed {
        pass_time();
    }
}

/// Two deaths in a row are for the clock to tell, to those who look at it: they do.
fn pass_time() {
    let beds: Vec<_> = {
        let mut kernel = kernel();
        kernel.deaths += 1;
        if kernel.deaths < 2 {
            return;
        }
        let looking: Vec<_> =
            kernel.sleepers.iter().filter(|(_, sleeper)| sleeper.looks).map(|(id, _)| *id).collect();
        looking
            .into_iter()
            .filter_map(|id| {
                let bed = kernel.sleepers.get(&id).map(|sleeper| sleeper.bed.clone());
                leave_queues(&mut kernel, id);
                bed
            })
            .collect()
    };
    for bed in beds {
        *bed.0.lock().expect("nobody panics with it") = true;
        bed.1.notify_one();
    }
}

fn mark(address: usize, id: u32, pending: bool) {
    // SAFETY: a word of a segment that lives as long as the execution: the tests see to it.
    let word = unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(address)) };
    loop {
        let value = word.load(Ordering::SeqCst);
        if value & OWNER == id {
            let marked = value & WAITERS | OWNER_DIED;
            if word.compare_exchange(value, marked, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                continue;
            }
            if value & WAITERS != 0 {
                futex_wake(word, 1);
            }
        } else if pending && value == 0 {
            futex_wake(word, 1);
        }
        return;
    }
}

fn leave_queues(kernel: &mut Kernel, id: u32) {
    if let Some(sleeper) = kernel.sleepers.remove(&id) {
        for word in sleeper.words {
            if let Some(queue) = kernel.queues.get_mut(&word) {
                queue.retain(|other| *other != id);
            }
        }
    }
}

pub(crate) fn futex_wait_any(words: &[(&AtomicU32, u32)], deadline: Option<Instant>) -> Result<(), Errno> {
    if !step() {
        return Err(Errno::INTR);
    }
    let id = me();
    let bed = Arc::new((shuttle::sync::Mutex::new(false), shuttle::sync::Condvar::new()));
    kernel().sleepers.insert(id, Sleeper { words: Vec::new(), looks: deadline.is_some(), bed: bed.clone() });
    for (word, value) in words {
        let address = word.address();
        {
            let mut kernel = kernel();
            let Some(sleeper) = kernel.sleepers.get_mut(&id) else { return Ok(()) }; // woken already
            sleeper.words.push(address);
            kernel.queues.entry(address).or_default().push_back(id);
        }
        if word.0.load(Ordering::SeqCst) != *value {
            let mut kernel = kernel();
            let woken = !kernel.sleepers.contains_key(&id);
            leave_queues(&mut kernel, id);
            return if woken { Ok(()) } else { Err(Errno::AGAIN) };
        }
        if !step() {
            return Err(Errno::INTR);
        }
    }
    tell(format_args!("sleeps"));
    let (woken, changed) = &*bed;
    let mut woken = woken.lock().expect("nobody panics with it");
    while !*woken {
        woken = changed.wait(woken).expect("nobody panics with it");
    }
    drop(woken);
    tell(format_args!("is woken"));
    step();
    Ok(())
}

/// There are no signals.
pub(crate) fn futex_wait_any_heeding(
    words: &[(&AtomicU32, u32)],
    deadline: Option<Instant>,
) -> (Result<(), Errno>, bool) {
    (futex_wait_any(words, deadline), false)
}

pub(crate) fn futex_wake(word: &AtomicU32, count: u32) -> usize {
    if !step() {
        return 0;
    }
    tell(format_args!("wakes {:x}", word.address()));
    let mut woken = 0;
    while woken < count as usize {
        let bed = {
            let mut kernel = kernel();
            let Some(id) = kernel.queues.get(&word.address()).and_then(|queue| queue.front().copied()) else {
                break;
            };
            let bed = kernel.sleepers.get(&id).map(|sleeper| sleeper.bed.clone());
            leave_queues(&mut kernel, id);
            bed
        };
        if let Some(bed) = bed {
            *bed.0.lock().expect("nobody panics with it") = true;
            bed.1.notify_one();
            woken += 1;
        }
    }
    woken
}

pub(crate) fn fence_all() {}

/// No time passes.
pub(crate) fn seconds() -> u64 {
    0
}

pub(crate) fn compiler_fence(_: Ordering) {}

pub(crate) fn thread_exists(id: u32) -> bool {
    kernel().threads.get(&id).is_some_and(|thread| !thread.has_ended)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(u32);

impl Thread {
    pub(crate) fn current() -> Thread {
        Thread(me())
    }

    pub(crate) fn id(self) -> u32 {
        self.0
    }

    pub(crate) fn process(self) -> u32 {
        self.0
    }

    pub(crate) fn is_registered(self) -> bool {
        true
    }

    pub(crate) fn remember(self, word: &AtomicU32) -> *const u8 {
        self.forget_for(word.address())
    }

    fn forget_for(self, address: usize) -> *const u8 {
        let mut kernel = kernel();
        let thread = kernel.threads.entry(self.0).or_default();
        let before = thread.pending;
        if !thread.is_dead {
            thread.pending = address;
        }
        std::ptr::without_provenance(before)
    }

    pub(crate) fn forget(self, before: *const u8) {
        self.forget_for(before.addr());
    }

    pub(crate) fn link(self, life: &AtomicU32, _: &AtomicU64, _: &AtomicU64) -> Result<Linked, Errno> {
        kernel().threads.entry(self.0).or_default().linked.push(life.address());
        Ok(Linked { thread: self, life: life.address() })
    }

    /// The kernel's limit is not modelled.
    pub(crate) fn has_room(self) -> bool {
        true
    }
}

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

#[derive(Debug)]
pub(crate) struct Linked {
    thread: Thread,
    life: usize,
}

impl Linked {
    pub(crate) fn is_own(&self) -> bool {
        true
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        let mut kernel = kernel();
        let thread = kernel.threads.entry(self.thread.0).or_default();
        if !thread.is_dead {
            thread.linked.retain(|life| *life != self.life);
        }
    }
}

macro_rules! atomic {
    ($name:ident, $plain:ty, $value:ty) => {
        /// A word of shared memory.
        #[repr(transparent)]
        #[derive(Debug)]
        pub struct $name($plain);

        #[allow(missing_docs, clippy::missing_errors_doc)]
        impl $name {
            /// # Safety
            /// As the standard library's.
            pub unsafe fn from_ptr<'a>(address: *mut $value) -> &'a $name {
                // SAFETY: the caller's, and the same layout.
                unsafe { &*address.cast() }
            }

            pub fn as_ptr(&self) -> *mut $value {
                self.0.as_ptr()
            }

            fn address(&self) -> usize {
                std::ptr::from_ref(self).expose_provenance()
            }

            pub fn load(&self, _: Ordering) -> $value {
                step();
                let value = self.0.load(Ordering::SeqCst);
                tell(format_args!("load {:x}: {value:#x}", self.address()));
                value
            }

            pub fn store(&self, value: $value, _: Ordering) {
                if step() {
                    self.0.store(value, Ordering::SeqCst);
                    tell(format_args!("store {:x}: {value:#x}", self.address()));
                }
            }

            pub fn swap(&self, value: $value, _: Ordering) -> $value {
                if !step() {
                    return self.0.load(Ordering::SeqCst);
                }
                tell(format_args!("swap {:x}: {value:#x}", self.address()));
                self.0.swap(value, Ordering::SeqCst)
            }

            pub fn fetch_add(&self, value: $value, _: Ordering) -> $value {
                let value = if step() { value } else { 0 };
                tell(format_args!("add {:x}: {value:#x}", self.address()));
                self.0.fetch_add(value, Ordering::SeqCst)
            }

            pub fn fetch_sub(&self, value: $value, _: Ordering) -> $value {
                let value = if step() { value } else { 0 };
                self.0.fetch_sub(value, Ordering::SeqCst)
            }

            pub fn fetch_or(&self, value: $value, _: Ordering) -> $value {
                let value = if step() { value } else { 0 };
                self.0.fetch_or(value, Ordering::SeqCst)
            }

            pub fn fetch_and(&self, value: $value, _: Ordering) -> $value {
                let value = if step() { value } else { <$value>::MAX };
                self.0.fetch_and(value, Ordering::SeqCst)
            }

            pub fn fetch_max(&self, value: $value, _: Ordering) -> $value {
                let value = if step() { value } else { 0 };
                self.0.fetch_max(value, Ordering::SeqCst)
            }

            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                _: Ordering,
                _: Ordering,
            ) -> Result<$value, $value> {
                if step() {
                    let outcome = self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
                    tell(format_args!("exchange {:x}: {old:#x} for {new:#x}: {outcome:x?}", self.address()));
                    outcome
                } else {
                    Err(self.0.load(Ordering::SeqCst))
                }
            }

            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, success, failure)
            }
        }
    };
}

atomic!(AtomicU32, std::sync::atomic::AtomicU32, u32);
atomic!(AtomicU64, std::sync::atomic::AtomicU64, u64);
