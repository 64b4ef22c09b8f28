//! Typed access to a [`Mapping`]: values in and out by copy, atomics in place, arrays, and offsets for pointers.
//!
//! # What a user sees
//! Another process may write at any time, so nothing here is a reference to the memory, but for atomics. A copy that
//! races with a write holds some old and some new bytes; only an aligned value of 1, 2, 4 or 8 bytes is never torn.
//! What must be consistent stands under a lock, or is published by an atomic: the writer stores the data, then the
//! flag with
//! `Release`; the reader loads the flag with `Acquire`, then the data.
//!
//! Linked structures hold [`Offset`]s: a pointer is good in one process only, as each maps the memory elsewhere.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};

use super::copy;
use super::mapping::{Access, Mapping, ReadWrite, within};
use crate::error::{Error, Result};

const READ: &str = "memory read";
const WRITE: &str = "memory write";
const ATOMIC: &str = "memory atomic";

/// A long copy looks for lost pages in between: at the most this many bytes of zeros are copied in vain.
const CHUNK: usize = 64 * 1024;

impl<A: Access> Mapping<A> {
    /// Copies the value at `offset`, which need not be aligned.
    ///
    /// # Errors
    /// `EINVAL`: it is not within the mapping. `EFAULT`: the memory is gone (see [`Mapping::check`]).
    pub fn read_at<T: AnyBitPattern>(&self, offset: usize) -> Result<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let from = self.place(READ, offset, size_of::<T>())?;
        // SAFETY: `place` checked the range; the value is as large, and our own.
        unsafe { copy::load(from, value.as_mut_ptr().cast(), size_of::<T>()) };
        self.check_range(READ, offset..offset + size_of::<T>())?;
        // SAFETY: every byte was written, and every bit pattern is a value.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies the bytes from `offset` on into `buffer`, all of which they fill.
    ///
    /// # Errors
    /// As [`Mapping::read_at`]; what `buffer` holds then is not specified.
    pub fn read_bytes(&self, offset: usize, buffer: &mut [u8]) -> Result<()> {
        let mut from = self.place(READ, offset, buffer.len())?;
        let mut at = offset;
        for chunk in buffer.chunks_mut(CHUNK) {
            // SAFETY: `place` checked the whole range, of which this is a part.
            unsafe {
                copy::load(from, chunk.as_mut_ptr(), chunk.len());
                from = from.add(chunk.len());
            }
            self.check_range(READ, at..at + chunk.len())?;
            at += chunk.len();
        }
        Ok(())
    }

    /// Copies a range into a vector.
    ///
    /// # Errors
    /// As [`Mapping::read_at`].
    pub fn read_vec(&self, range: impl RangeBounds<usize>) -> Result<Vec<u8>> {
        let bytes = self.bytes(READ, range)?;
        let mut buffer = vec![0; bytes.len()];
        self.read_bytes(bytes.start, &mut buffer)?;
        Ok(buffer)
    }

    /// Copies the value that an [`Offset`] points to.
    ///
    /// # Errors
    /// As [`Mapping::read_at`]; `EINVAL` too for [`Offset::NULL`].
    pub fn read<T: AnyBitPattern>(&self, offset: Offset<T>) -> Result<T> {
        self.read_at(self.target(READ, offset)?)
    }

    /// Loads the byte at `offset`, with `Acquire`: what was written before the `Release` that stored it is seen after.
    ///
    /// # Errors
    /// As [`Mapping::read_at`].
    pub fn load_u8(&self, offset: usize) -> Result<u8> {
        self.load::<AtomicU8, _>(offset, |atomic| atomic.load(Ordering::Relaxed))
    }

    /// Loads the `u16` at `offset`, with `Acquire`, as [`Mapping::load_u8`].
    ///
    /// # Errors
    /// As [`Mapping::read_at`]; `EINVAL` too when it is not aligned.
    pub fn load_u16(&self, offset: usize) -> Result<u16> {
        self.load::<AtomicU16, _>(offset, |atomic| atomic.load(Ordering::Relaxed))
    }

    /// Loads the `u32` at `offset`, with `Acquire`, as [`Mapping::load_u8`].
    ///
    /// # Errors
    /// As [`Mapping::read_at`]; `EINVAL` too when it is not aligned.
    pub fn load_u32(&self, offset: usize) -> Result<u32> {
        self.load::<AtomicU32, _>(offset, |atomic| atomic.load(Ordering::Relaxed))
    }

    /// Loads the `u64` at `offset`, with `Acquire`, as [`Mapping::load_u8`].
    ///
    /// # Errors
    /// As [`Mapping::read_at`]; `EINVAL` too when it is not aligned.
    pub fn load_u64(&self, offset: usize) -> Result<u64> {
        self.load::<AtomicU64, _>(offset, |atomic| atomic.load(Ordering::Relaxed))
    }

    /// `count` values of type `T`, one after the other from `offset` on.
    ///
    /// # Errors
    /// `EINVAL`: they are not within the mapping.
    pub fn array<T: Pod>(&self, offset: usize, count: usize) -> Result<Array<'_, T, A>> {
        let Some(len) = size_of::<T>().checked_mul(count) else {
            return Err(self.outside(READ, format!("an array of {count} values of {} bytes", size_of::<T>())));
        };
        self.place(READ, offset, len)?;
        Ok(Array { mapping: self, offset, count, value: PhantomData })
    }

    /// A relaxed load and a fence: the one form of an atomic load that Rust allows on read-only pages.
    fn load<T: Atomic, V>(&self, offset: usize, load: impl FnOnce(&T) -> V) -> Result<V> {
        let value = load(self.atomic(offset)?);
        fence(Ordering::Acquire);
        self.check_range(ATOMIC, offset..offset + size_of::<T>())?;
        Ok(value)
    }

    fn atomic<T: Atomic>(&self, offset: usize) -> Result<&T> {
        let place = self.place(ATOMIC, offset, size_of::<T>())?.cast::<T>();
        if !place.is_aligned() {
            let (size, name) = (size_of::<T>(), std::any::type_name::<T>());
            return Err(Error::invalid(
                ATOMIC,
                self.object(),
                format!("offset {offset} is not aligned: {name} stands at a multiple of {size}"),
            ));
        }
        // SAFETY: within the mapping, which lives as long as the borrow of `self`; aligned; any bits are a value; all
        // access to it, here and elsewhere, is by atomics and racy copies.
        Ok(unsafe { &*place })
    }

    fn place(&self, operation: &'static str, offset: usize, len: usize) -> Result<*mut u8> {
        match offset.checked_add(len) {
            // SAFETY: `offset` is within the mapping, or just past its end.
            Some(end) if end <= self.len() => Ok(unsafe { self.as_ptr().add(offset) }),
            _ => Err(self.outside(operation, format!("{len} bytes at offset {offset}"))),
        }
    }

    fn target<T>(&self, operation: &'static str, offset: Offset<T>) -> Result<usize> {
        offset.get().ok_or_else(|| Error::invalid(operation, self.object(), "the offset is null"))
    }
}

impl Mapping<ReadWrite> {
    /// Copies a value to `offset`, which need not be aligned.
    ///
    /// # Errors
    /// `EINVAL`: it is not within the mapping. `EFAULT`: the memory is gone (see [`Mapping::check`]).
    pub fn write_at<T: NoUninit>(&self, offset: usize, value: T) -> Result<()> {
        self.write_bytes(offset, bytemuck::bytes_of(&value))
    }

    /// Copies bytes to `offset`.
    ///
    /// # Errors
    /// As [`Mapping::write_at`]; with `EFAULT` a part may have been written.
    pub fn write_bytes(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let mut to = self.place(WRITE, offset, bytes.len())?;
        let mut at = offset;
        for chunk in bytes.chunks(CHUNK) {
            // SAFETY: `place` checked the whole range, of which this is a part; the mapping is writable by its type.
            unsafe {
                copy::store(chunk.as_ptr(), to, chunk.len());
                to = to.add(chunk.len());
            }
            self.check_range(WRITE, at..at + chunk.len())?;
            at += chunk.len();
        }
        Ok(())
    }

    /// Copies a value to where an [`Offset`] points.
    ///
    /// # Errors
    /// As [`Mapping::write_at`]; `EINVAL` too for [`Offset::NULL`].
    pub fn write<T: NoUninit>(&self, offset: Offset<T>, value: T) -> Result<()> {
        self.write_at(self.target(WRITE, offset)?, value)
    }

    /// Sets every byte of a range.
    ///
    /// # Errors
    /// As [`Mapping::write_bytes`].
    pub fn fill(&self, range: impl RangeBounds<usize>, byte: u8) -> Result<()> {
        let bytes = self.bytes(WRITE, range)?;
        let block = [byte; 4096];
        for at in bytes.clone().step_by(block.len()) {
            let len = block.len().min(bytes.end - at);
            self.write_bytes(at, &block[..len])?;
        }
        Ok(())
    }

    /// Copies a range to `to` in the same mapping; the two may overlap.
    ///
    /// # Errors
    /// As [`Mapping::write_bytes`].
    pub fn copy_within(&self, range: impl RangeBounds<usize>, to: usize) -> Result<()> {
        let from = self.bytes(READ, range)?;
        self.place(WRITE, to, from.len())?;
        let mut block = [0; 4096];
        let count = from.len().div_ceil(block.len());
        for turn in 0..count {
            // Away from the overlap: a block is read before one that is written on top of it.
            let index = if to > from.start { count - 1 - turn } else { turn };
            let done = index * block.len();
            let len = block.len().min(from.len() - done);
            self.read_bytes(from.start + done, &mut block[..len])?;
            self.write_bytes(to + done, &block[..len])?;
        }
        Ok(())
    }

    /// The byte at `offset` as an atomic, shared with every other process that has the memory mapped.
    ///
    /// # Errors
    /// `EINVAL`: it is not within the mapping. `EFAULT`: the memory was found gone before; what is lost later,
    /// [`Mapping::check`] tells.
    pub fn atomic_u8(&self, offset: usize) -> Result<&AtomicU8> {
        self.atomic_here(offset)
    }

    /// The `u16` at `offset` as an atomic, as [`Mapping::atomic_u8`].
    ///
    /// # Errors
    /// As [`Mapping::atomic_u8`]; `EINVAL` too when it is not aligned.
    pub fn atomic_u16(&self, offset: usize) -> Result<&AtomicU16> {
        self.atomic_here(offset)
    }

    /// The `u32` at `offset` as an atomic, as [`Mapping::atomic_u8`]. A futex is one of these.
    ///
    /// # Errors
    /// As [`Mapping::atomic_u8`]; `EINVAL` too when it is not aligned.
    pub fn atomic_u32(&self, offset: usize) -> Result<&AtomicU32> {
        self.atomic_here(offset)
    }

    /// The `u64` at `offset` as an atomic, as [`Mapping::atomic_u8`].
    ///
    /// # Errors
    /// As [`Mapping::atomic_u8`]; `EINVAL` too when it is not aligned.
    pub fn atomic_u64(&self, offset: usize) -> Result<&AtomicU64> {
        self.atomic_here(offset)
    }

    fn atomic_here<T: Atomic>(&self, offset: usize) -> Result<&T> {
        let atomic = self.atomic(offset)?;
        self.check_range(ATOMIC, offset..offset + size_of::<T>())?;
        Ok(atomic)
    }
}

/// An integer atomic: as large as it is aligned, and every bit pattern is a value.
trait Atomic: 'static {}
impl Atomic for AtomicU8 {}
impl Atomic for AtomicU16 {}
impl Atomic for AtomicU32 {}
impl Atomic for AtomicU64 {}

/// Values of one type, one after the other in a [`Mapping`]: see [`Mapping::array`].
///
/// ```
/// use ginnel::memory::Anonymous;
///
/// let mapping = Anonymous::map(4096)?;
/// let squares = mapping.array::<u32>(64, 10)?;
/// for i in 0..squares.len() {
///     squares.set(i, (i * i) as u32)?;
/// }
/// assert_eq!(squares.get(9)?, 81);
/// assert_eq!(squares.read_vec(2..4)?, [4, 9]);
/// # Ok::<(), ginnel::Error>(())
/// ```
pub struct Array<'a, T: Pod, A: Access = ReadWrite> {
    mapping: &'a Mapping<A>,
    offset: usize,
    count: usize,
    value: PhantomData<fn(T) -> T>,
}

impl<T: Pod, A: Access> Array<'_, T, A> {
    /// How many values it has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Copies the value at `index`.
    ///
    /// # Errors
    /// `EINVAL`: there is none. `EFAULT`: the memory is gone (see [`Mapping::check`]).
    pub fn get(&self, index: usize) -> Result<T> {
        self.mapping.read_at(self.place(READ, index, 1)?)
    }

    /// Copies the values from `index` on into `buffer`, all of which they fill.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn read(&self, index: usize, buffer: &mut [T]) -> Result<()> {
        self.mapping.read_bytes(self.place(READ, index, buffer.len())?, bytemuck::cast_slice_mut(buffer))
    }

    /// Copies a range of values into a vector.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn read_vec(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let range = within(range, self.count).map_err(|range| self.outside(READ, &range))?;
        let mut values = vec![T::zeroed(); range.len()];
        self.read(range.start, &mut values)?;
        Ok(values)
    }

    /// Copies the values, one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> {
        (0..self.count).map(|index| self.get(index))
    }

    fn place(&self, operation: &'static str, index: usize, count: usize) -> Result<usize> {
        match index.checked_add(count) {
            Some(end) if end <= self.count => Ok(self.offset + index * size_of::<T>()),
            _ => Err(self.outside(operation, &format!("a row of {count} values at index {index}"))),
        }
    }

    fn outside(&self, operation: &'static str, what: &str) -> Error {
        let why = format!("{what} is not within the array, which has {} values", self.count);
        Error::invalid(operation, self.mapping.object(), why)
    }
}

impl<T: Pod> Array<'_, T, ReadWrite> {
    /// Copies a value to `index`.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        self.mapping.write_at(self.place(WRITE, index, 1)?, value)
    }

    /// Copies values to `index` and the places after it.
    ///
    /// # Errors
    /// As [`Array::get`].
    pub fn write(&self, index: usize, values: &[T]) -> Result<()> {
        self.mapping.write_bytes(self.place(WRITE, index, values.len())?, bytemuck::cast_slice(values))
    }
}

impl<T: Pod, A: Access> Clone for Array<'_, T, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Pod, A: Access> Copy for Array<'_, T, A> {}

impl<T: Pod, A: Access> fmt::Debug for Array<'_, T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, at) = (std::any::type_name::<T>(), self.offset);
        write!(f, "Array({} of {name} at {at} of {})", self.count, self.mapping.object())
    }
}

/// What a pointer is within one process: where in the mapping a `T` stands, the same for every process.
///
/// It is 8 bytes, may itself stand in shared memory, and is null when it is 0: in fresh memory, which is zeros, every
/// offset is null. So nothing that is pointed to can stand at the first byte.
///
/// ```
/// use ginnel::memory::{Anonymous, Offset};
///
/// #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
/// #[repr(C)]
/// struct Node {
///     value: u64,
///     next: Offset<Node>,
/// }
///
/// let mapping = Anonymous::map(4096)?;
/// let (first, second) = (Offset::new(64), Offset::new(128));
/// mapping.write(first, Node { value: 1, next: second })?;
/// mapping.write(second, Node { value: 2, next: Offset::NULL })?;
///
/// let mut sum = 0;
/// let mut next = first;
/// while !next.is_null() {
///     let node = mapping.read(next)?;
///     sum += node.value;
///     next = node.next;
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[repr(transparent)]
pub struct Offset<T>(u64, PhantomData<fn(T) -> T>);

impl<T> Offset<T> {
    /// Points to nothing.
    pub const NULL: Offset<T> = Offset(0, PhantomData);

    /// The place `offset` bytes from the mapping's start; null for 0.
    pub const fn new(offset: usize) -> Offset<T> {
        Offset(offset as u64, PhantomData)
    }

    /// How many bytes from the mapping's start it is; `None` for null.
    ///
    /// It may have come from another process's memory: whoever uses it checks it, as every method of [`Mapping`] does.
    pub const fn get(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0 as usize) }
    }

    /// Whether it points to nothing.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
}

// SAFETY: transparent over a u64 (the marker has no size), for which all bits, and all zeros, are a value.
unsafe impl<T> Zeroable for Offset<T> {}
// SAFETY: as above; it has no padding.
unsafe impl<T: 'static> Pod for Offset<T> {}

impl<T> Clone for Offset<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Offset<T> {}

impl<T> PartialEq for Offset<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Offset<T> {}

impl<T> Default for Offset<T> {
    fn default() -> Self {
        Offset::NULL
    }
}

impl<T> fmt::Debug for Offset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(offset) => write!(f, "Offset({offset})"),
            None => f.write_str("Offset(null)"),
        }
    }
}
