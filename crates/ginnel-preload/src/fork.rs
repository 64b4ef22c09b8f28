//! One lock for the seldom changes of what this process has open: in the child of a fork it is free.
//!
//! A fork has one of its parent's threads. What another one had locked would stay locked for ever, and what it had begun would
//! stay half done. So a fork waits for the changes that are in progress. The standard library's mutexes, which know
//! nothing of forks, are taken only by who has this lock.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;

struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex, used by its functions only.
unsafe impl Sync for Lock {}

/// Recursive: a signal handler may fork.
static CHANGES: Lock = Lock(UnsafeCell::new(libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP));

/// Runs when the library is loaded, in a process that has a namespace.
pub(crate) fn load() {
    // SAFETY: the functions do nothing that a fork's child may not.
    unsafe { libc::pthread_atfork(Some(take), Some(give), Some(renew)) };
}

extern "C" fn take() {
    // SAFETY: a mutex that is never destroyed.
    unsafe { libc::pthread_mutex_lock(CHANGES.0.get()) };
}

extern "C" fn give() {
    // SAFETY: as above. To give what is not taken is refused.
    unsafe { libc::pthread_mutex_unlock(CHANGES.0.get()) };
}

/// In the child it is still the parent's thread's, which is another one by its number.
extern "C" fn renew() {
    // SAFETY: there is no other thread.
    unsafe { CHANGES.0.get().write(libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP) };
}

/// While it lives, no other thread changes anything, and no fork happens.
pub(crate) struct Changing(PhantomData<*const ()>);

/// Waits until nobody else changes anything.
pub(crate) fn changing() -> Changing {
    take();
    Changing(PhantomData)
}

impl Drop for Changing {
    fn drop(&mut self) {
        give();
    }
}
