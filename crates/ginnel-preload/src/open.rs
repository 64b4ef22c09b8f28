//! What this process has open, by id: found without a lock, closed when nobody uses it any more.
//!
//! C programs name a System V object by a number in each call. The first call opens it, the others find it here.
//!
//! # How it works inside
//! A table of places, of which an id has a few to choose from; where all are taken, it takes one over from another id, which
//! is opened again when it is needed. Who uses what stands there says so first, in a record of its thread, and looks again;
//! who takes something out of the table fences all threads, looks through the records, and keeps what somebody uses for
//! later. So the many who use pay no locked instruction, and the few who close pay for all.
//!
//! A fork has one thread: what its parent's other threads said they use is nobody's any more.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering, compiler_fence, fence};
use std::sync::{Mutex, PoisonError};

use ginnel_engine::Result;

use crate::fork::changing;

/// How many objects of a kind are open at once.
const PLACES: usize = 4096;
/// How many of the places an id has to choose from.
const CHOICES: usize = 16;
/// How deep calls can be within each other in a thread: by signal handlers.
const DEPTH: usize = 8;

/// An open object and its id.
struct Entry<T> {
    id: i32,
    object: T,
}

struct Place<T> {
    /// Whose it is, for looking: what counts is the entry's.
    id: AtomicI32,
    entry: AtomicPtr<Entry<T>>,
}

impl<T> Place<T> {
    const fn free() -> Place<T> {
        Place { id: AtomicI32::new(NOBODY), entry: AtomicPtr::new(ptr::null_mut()) }
    }
}

/// No object's id.
const NOBODY: i32 = -1;

/// The open objects of a kind.
pub(crate) struct Open<T: 'static> {
    places: [Place<T>; PLACES],
    /// Taken out while somebody used it.
    retired: Mutex<Vec<Retired<T>>>,
}

struct Retired<T>(*mut Entry<T>);

// SAFETY: it owns what it points to.
unsafe impl<T: Send> Send for Retired<T> {}

/// What a thread uses just now.
struct Record {
    uses: [AtomicPtr<()>; DEPTH],
    taken: AtomicU32,
    next: AtomicPtr<Record>,
}

static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// A thread's record, given back when it ends.
struct Own {
    record: Cell<*const Record>,
    depth: Cell<usize>,
}

impl Drop for Own {
    fn drop(&mut self) {
        let record = self.record.replace(ptr::null());
        // SAFETY: records are never freed.
        if let Some(record) = unsafe { record.as_ref() } {
            record.taken.store(0, Ordering::Release);
        }
    }
}

thread_local! {
    static OWN: Own = const { Own { record: Cell::new(ptr::null()), depth: Cell::new(0) } };
}

/// Runs when the library is loaded, in a process that has a namespace.
pub(crate) fn load() {
    // SAFETY: the function does nothing that a fork's child may not.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
}

#[cold]
fn take_record() -> *const Record {
    let mut at = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are never freed.
    while let Some(record) = unsafe { at.as_ref() } {
        if record.taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return record;
        }
        at = record.next.load(Ordering::Acquire);
    }
    let none = [const { AtomicPtr::new(ptr::null_mut()) }; DEPTH];
    let record = Box::into_raw(Box::new(Record {
        uses: none,
        taken: AtomicU32::new(1),
        next: AtomicPtr::new(ptr::null_mut()),
    }));
    let mut first = RECORDS.load(Ordering::Acquire);
    loop {
        // SAFETY: just made, never freed.
        unsafe { &*record }.next.store(first, Ordering::Release);
        match RECORDS.compare_exchange(first, record, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return record,
            Err(now) => first = now,
        }
    }
}

extern "C" fn after_fork() {
    let own = OWN.try_with(|own| own.record.get()).unwrap_or(ptr::null());
    let mut at = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are never freed.
    while let Some(record) = unsafe { at.as_ref() } {
        if !ptr::eq(record, own) {
            record.uses.iter().for_each(|place| place.store(ptr::null_mut(), Ordering::Relaxed));
            record.taken.store(0, Ordering::Release);
        }
        at = record.next.load(Ordering::Acquire);
    }
}

/// Every thread of this process has done what it did before, or sees what is there now.
fn fence_all() {
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    fence(Ordering::SeqCst);
    // SAFETY: the call takes no pointers.
    unsafe {
        if libc::syscall(libc::SYS_membarrier, PRIVATE_EXPEDITED, 0, 0) != 0 {
            libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0);
            libc::syscall(libc::SYS_membarrier, PRIVATE_EXPEDITED, 0, 0);
        }
    }
}

fn is_used(entry: *mut ()) -> bool {
    let mut at = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are never freed.
    while let Some(record) = unsafe { at.as_ref() } {
        if record.uses.iter().any(|place| place.load(Ordering::Acquire) == entry) {
            return true;
        }
        at = record.next.load(Ordering::Acquire);
    }
    false
}

impl<T: Send + Sync> Open<T> {
    pub(crate) const fn new() -> Open<T> {
        Open { places: [const { Place::free() }; PLACES], retired: Mutex::new(Vec::new()) }
    }

    /// Uses the object with this id, which is opened if it is not.
    ///
    /// # Errors
    /// Those of `open` and of the call.
    #[inline]
    pub(crate) fn with<O>(
        &self,
        id: i32,
        open: impl FnOnce() -> Result<T>,
        call: impl FnOnce(&T) -> Result<O>,
    ) -> Result<O> {
        OWN.with(|own| {
            if own.record.get().is_null() {
                own.record.set(take_record());
            }
            let depth = own.depth.get();
            // SAFETY: records are never freed.
            let record = unsafe { &*own.record.get() };
            let Some(uses) = record.uses.get(depth) else {
                return call(&open()?);
            };
            own.depth.set(depth + 1);
            let _end = End { own, uses, depth };
            let Some(place) = self.places_of(id).find(|place| place.id.load(Ordering::Relaxed) == id) else {
                return self.with_new(id, open, uses, call);
            };
            let mut entry = place.entry.load(Ordering::Acquire);
            loop {
                uses.store(entry.cast(), Ordering::Relaxed);
                // The other half is `fence_all`.
                compiler_fence(Ordering::SeqCst);
                let now = place.entry.load(Ordering::Acquire);
                if now == entry {
                    break;
                }
                entry = now;
            }
            // SAFETY: it stands in the table after this thread has said that it uses it.
            match unsafe { entry.as_ref() } {
                Some(found) if found.id == id => call(&found.object),
                _ => self.with_new(id, open, uses, call),
            }
        })
    }

    #[cold]
    fn with_new<O>(
        &self,
        id: i32,
        open: impl FnOnce() -> Result<T>,
        uses: &AtomicPtr<()>,
        call: impl FnOnce(&T) -> Result<O>,
    ) -> Result<O> {
        let entry = Box::into_raw(Box::new(Entry { id, object: open()? }));
        uses.store(entry.cast(), Ordering::SeqCst);
        {
            let _changing = changing();
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            let is = |wanted: i32| move |place: &&Place<T>| place.id.load(Ordering::Relaxed) == wanted;
            // Another thread may have been first.
            let place = self.places_of(id).find(is(id)).or_else(|| self.places_of(id).find(is(NOBODY)));
            let place = place.unwrap_or_else(|| self.place(id, entry.addr() / 64));
            let before = place.entry.swap(entry, Ordering::AcqRel);
            place.id.store(id, Ordering::Release);
            if !before.is_null() {
                retired.push(Retired(before));
            }
            Self::free(&mut retired);
        }
        // SAFETY: this thread has said that it uses it.
        call(unsafe { &(*entry).object })
    }

    #[inline]
    fn places_of(&self, id: i32) -> impl Iterator<Item = &Place<T>> {
        (0..CHOICES).map(move |choice| self.place(id, choice))
    }

    #[inline]
    fn place(&self, id: i32, choice: usize) -> &Place<T> {
        // The higher half of an id is a sequence number.
        let mixed = (id as u32).wrapping_mul(0x9e37_79b1) >> 20;
        &self.places[(mixed as usize + choice % CHOICES) % PLACES]
    }

    /// Those that are open now.
    #[cold]
    pub(crate) fn ids(&self) -> Vec<i32> {
        let _changing = changing();
        let _retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = self.places.iter().map(|place| place.id.load(Ordering::Relaxed));
        ids.filter(|id| *id != NOBODY).collect()
    }

    /// The object with this id is open no more.
    #[cold]
    pub(crate) fn forget(&self, id: i32) {
        let _changing = changing();
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // Places change with the mutex only.
        for place in self.places_of(id).filter(|place| place.id.load(Ordering::Relaxed) == id) {
            place.id.store(NOBODY, Ordering::Release);
            let entry = place.entry.swap(ptr::null_mut(), Ordering::AcqRel);
            if !entry.is_null() {
                retired.push(Retired(entry));
            }
        }
        Self::free(&mut retired);
    }

    fn free(retired: &mut Vec<Retired<T>>) {
        if retired.is_empty() {
            return;
        }
        fence_all();
        retired.retain(|Retired(entry)| {
            let stays = is_used(entry.cast());
            if !stays {
                // SAFETY: it is in no place any more, and nobody has said since that it is used.
                drop(unsafe { Box::from_raw(*entry) });
            }
            stays
        });
    }
}

/// Ends what a thread said it uses, however the call ends.
struct End<'o> {
    own: &'o Own,
    uses: &'o AtomicPtr<()>,
    depth: usize,
}

impl Drop for End<'_> {
    #[inline]
    fn drop(&mut self) {
        self.uses.store(ptr::null_mut(), Ordering::Release);
        self.own.depth.set(self.depth);
    }
}
