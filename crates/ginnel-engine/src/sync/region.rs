//! Shared memory that somebody else has mapped, as the place for a lock: `mmap(2)`.
//!
//! A mutex, a condition variable, a read-write lock, a barrier and an unnamed semaphore lie at any aligned offset in any
//! shared mapping, as many as there is room for, each at another address in each process. What stands there is atomics
//! only, of which every pattern of bits is valid.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::{Errno, Result};

/// Memory that several processes have mapped, readable and writable.
///
/// ```
/// use ginnel_engine::sync::mutex::Mutex;
/// use ginnel_engine::sync::region::Region;
/// use ginnel_engine::wait::Patience;
///
/// let region = Region::anonymous(4096)?; // for the children of this process
/// let mutex = Mutex::init(region, 128)?;
/// mutex.lock(Patience::Endless)?;
/// mutex.unlock()?;
/// # Ok::<(), ginnel_engine::Errno>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    start: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'a ()>,
}

// SAFETY: what is done there is done by atomics, from any thread.
unsafe impl Send for Region<'_> {}
// SAFETY: as above.
unsafe impl Sync for Region<'_> {}

/// What may stand in shared memory.
///
/// # Safety
/// Atomics only: every pattern of bits is one, and anybody may change them at any time.
pub(crate) unsafe trait Words {}

impl<'a> Region<'a> {
    /// Memory that is mapped already.
    ///
    /// # Safety
    /// The bytes are mapped, readable and writable, for as long as `'a`, and shared. Whoever else uses them does so by
    /// atomics or raw copies. A thread that holds a lock in there keeps them mapped until it has given it back or ends:
    /// its list of them runs through the memory.
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Region<'a> {
        Region { start, len, memory: PhantomData }
    }

    /// New memory, for this process and the children that it forks, to its end.
    ///
    /// # Errors
    /// `ENOMEM`. `EINVAL`: no bytes.
    pub fn anonymous(len: usize) -> Result<Region<'static>> {
        // SAFETY: a new mapping, where the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Region { start, len, memory: PhantomData })
    }

    /// How many bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Its words from an offset on.
    ///
    /// # Errors
    /// `EINVAL`: not within the region, or not aligned.
    pub(crate) fn place<T: Words>(self, offset: usize) -> Result<&'a T> {
        self.places(offset, 1).map(|places| &places[0])
    }

    /// As [`Region::place`], several.
    ///
    /// # Errors
    /// As [`Region::place`].
    pub(crate) fn places<T: Words>(self, offset: usize, count: usize) -> Result<&'a [T]> {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        let address = self.start.addr().get().wrapping_add(offset);
        if end.is_none_or(|end| end > self.len) || !address.is_multiple_of(align_of::<T>()) {
            return Err(Errno::INVAL);
        }
        // SAFETY: within the region, which is mapped for as long as 'a, and aligned. It is atomics, which may be shared with
        // anybody.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset).cast::<T>(), count) })
    }
}
