//! Permission to go on: what several processes wait for.
//!
//! | module | what |
//! | --- | --- |
//! | [`mutex`] | a lock whose holder may die with it |
//! | [`condvar`] | waiting for what is guarded by a mutex |
//! | [`rwlock`] | many readers or one writer |
//! | [`barrier`] | going on together |
//! | [`posix_semaphore`] | a counter, named or in any mapping |
//! | [`sysv_semaphore`] | sets of counters, with undo |
//! | [`region`] | the memory that these are put into |
//! | `robust` | what they stand on: a lock that one sleeps with, and nobody left asleep by a death |
//! | `slots` | who is in there: for the locks that several hold |
//!
//! What stands on `robust` is proven by kills, and is not in the model (`--cfg ginnel_model`).

#[cfg(not(ginnel_model))]
pub mod barrier;
#[cfg(not(ginnel_model))]
pub mod condvar;
#[cfg(not(ginnel_model))]
pub mod mutex;
#[cfg(not(ginnel_model))]
pub mod posix_semaphore;
#[cfg(not(ginnel_model))]
pub mod region;
#[cfg(not(ginnel_model))]
pub mod rwlock;
pub mod sysv_semaphore;

#[cfg(not(ginnel_model))]
mod robust;
#[cfg(not(ginnel_model))]
mod slots;
