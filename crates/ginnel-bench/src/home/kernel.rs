//! The kernel's home, by the C library's calls and nothing between: what a wrapper costs must not make the other look fast.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::{Mutex, Queue, Semaphores, Shape};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::place::{Limits, Place};

const NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;

/// A System V queue: `msgget(2)`, `msgop(2)`.
pub(crate) struct SysvQueue {
    id: i32,
}

fn sysv_queue(place: &Place, number: u32, flags: i32) -> Result<i32> {
    // SAFETY: the call takes numbers only.
    match unsafe { libc::msgget(place.key_of(number), flags) } {
        -1 => Err(refused("msgget")),
        id => Ok(id),
    }
}

impl Queue for SysvQueue {
    fn make(place: &Place, number: u32, shape: Shape, limits: &Limits) -> Result<()> {
        let bytes = limits.sysv_bytes(shape.message_bytes, shape.bytes, shape.bytes_needed)?;
        let id = sysv_queue(place, number, NEW)?;
        let mut status = std::mem::MaybeUninit::<libc::msqid_ds>::zeroed();
        // SAFETY: the pointer is valid for both calls, and an all-zero value is one.
        unsafe {
            if libc::msgctl(id, libc::IPC_STAT, status.as_mut_ptr()) != 0 {
                return Err(Error::last("msgctl"));
            }
            (*status.as_mut_ptr()).msg_qbytes = bytes as libc::msglen_t;
            if libc::msgctl(id, libc::IPC_SET, status.as_mut_ptr()) != 0 {
                return Err(Error::last("msgctl"));
            }
        }
        Ok(())
    }

    fn open(place: &Place, number: u32) -> Result<SysvQueue> {
        Ok(SysvQueue { id: sysv_queue(place, number, 0)? })
    }

    fn remove(place: &Place, number: u32) {
        if let Ok(id) = sysv_queue(place, number, 0) {
            // SAFETY: IPC_RMID takes no buffer.
            unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }

    #[inline]
    fn send(&self, message: &Message) -> Result<()> {
        // SAFETY: the type, then as many bytes of payload as are said.
        match unsafe { libc::msgsnd(self.id, message.whole().as_ptr().cast(), message.bytes(), 0) } {
            0 => Ok(()),
            _ => Err(Error::last("msgsnd")),
        }
    }

    #[inline]
    fn recv(&self, message: &mut Message, kind: i64) -> Result<()> {
        let bytes = message.bytes();
        // SAFETY: room for the type, then for as many bytes of payload as are said.
        let got = unsafe { libc::msgrcv(self.id, message.whole_mut().as_mut_ptr().cast(), bytes, kind, 0) };
        received(got, bytes, "msgrcv")
    }
}

#[inline]
fn received(got: isize, bytes: usize, call: &str) -> Result<()> {
    match got {
        -1 => Err(Error::last(call)),
        got if got as usize == bytes => Ok(()),
        got => Err(Error::failed(format!("{call} gave {got} bytes of {bytes}"))),
    }
}

/// A POSIX queue: `mq_overview(7)`.
pub(crate) struct PosixQueue {
    descriptor: libc::mqd_t,
}

fn c_name(place: &Place, number: u32) -> Result<CString> {
    CString::new(place.name_of(number)).map_err(Error::failed)
}

impl Queue for PosixQueue {
    fn make(place: &Place, number: u32, shape: Shape, limits: &Limits) -> Result<()> {
        let depth = limits.posix_depth(shape.message_bytes, shape.messages)?;
        let name = c_name(place, number)?;
        let mut attributes = std::mem::MaybeUninit::<libc::mq_attr>::zeroed();
        // SAFETY: an all-zero value is one; the name ends with a NUL; `mq_open` takes a mode and attributes here.
        let descriptor = unsafe {
            (*attributes.as_mut_ptr()).mq_maxmsg = depth as libc::c_long;
            (*attributes.as_mut_ptr()).mq_msgsize = shape.message_bytes as libc::c_long;
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
            libc::mq_open(name.as_ptr(), flags, 0o600 as libc::mode_t, attributes.as_ptr())
        };
        match descriptor {
            -1 => Err(refused("mq_open")),
            descriptor => {
                // SAFETY: it was opened above and nobody else has it.
                unsafe { libc::mq_close(descriptor) };
                Ok(())
            }
        }
    }

    fn open(place: &Place, number: u32) -> Result<PosixQueue> {
        let name = c_name(place, number)?;
        // SAFETY: the name ends with a NUL.
        match unsafe { libc::mq_open(name.as_ptr(), libc::O_RDWR) } {
            -1 => Err(Error::last("mq_open")),
            descriptor => Ok(PosixQueue { descriptor }),
        }
    }

    fn remove(place: &Place, number: u32) {
        if let Ok(name) = c_name(place, number) {
            // SAFETY: the name ends with a NUL.
            unsafe { libc::mq_unlink(name.as_ptr()) };
        }
    }

    #[inline]
    fn send(&self, message: &Message) -> Result<()> {
        let payload = message.payload();
        // SAFETY: as many bytes as are said.
        let outcome = unsafe { libc::mq_send(self.descriptor, payload.as_ptr().cast(), payload.len(), 0) };
        if outcome == 0 { Ok(()) } else { Err(Error::last("mq_send")) }
    }

    #[inline]
    fn recv(&self, message: &mut Message, _kind: i64) -> Result<()> {
        let payload = message.payload_mut();
        let (start, bytes) = (payload.as_mut_ptr().cast(), payload.len());
        // SAFETY: room for as many bytes as are said; no priority is asked for.
        let got = unsafe { libc::mq_receive(self.descriptor, start, bytes, std::ptr::null_mut()) };
        received(got, bytes, "mq_receive")
    }
}

impl Drop for PosixQueue {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this one's own.
        unsafe { libc::mq_close(self.descriptor) };
    }
}

/// A System V semaphore set: `semget(2)`, `semop(2)`; with `SEM_UNDO` or without.
pub(crate) struct SysvSemaphores<const UNDO: bool> {
    id: i32,
}

fn sysv_semaphores(place: &Place, flags: i32) -> Result<i32> {
    // SAFETY: the call takes numbers only.
    match unsafe { libc::semget(place.key_of(0), 2, flags) } {
        -1 => Err(refused("semget")),
        id => Ok(id),
    }
}

impl<const UNDO: bool> SysvSemaphores<UNDO> {
    #[inline]
    fn operate(&self, index: u16, by: i16) -> Result<()> {
        let sem_flg = if UNDO { libc::SEM_UNDO as i16 } else { 0 };
        let mut operation = libc::sembuf { sem_num: index, sem_op: by, sem_flg };
        // SAFETY: one operation, as is said.
        match unsafe { libc::semop(self.id, &raw mut operation, 1) } {
            0 => Ok(()),
            _ => Err(Error::last("semop")),
        }
    }
}

impl<const UNDO: bool> Semaphores for SysvSemaphores<UNDO> {
    fn make(place: &Place, values: [u16; 2]) -> Result<()> {
        let id = sysv_semaphores(place, NEW)?;
        for (index, value) in values.iter().enumerate() {
            // SAFETY: SETVAL takes a number.
            if unsafe { libc::semctl(id, index as i32, libc::SETVAL, libc::c_int::from(*value)) } != 0 {
                return Err(Error::last("semctl"));
            }
        }
        Ok(())
    }

    fn open(place: &Place) -> Result<Self> {
        Ok(SysvSemaphores { id: sysv_semaphores(place, 0)? })
    }

    fn remove(place: &Place) {
        if let Ok(id) = sysv_semaphores(place, 0) {
            // SAFETY: IPC_RMID takes no argument.
            unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
        }
    }

    #[inline]
    fn take(&self, index: u16) -> Result<()> {
        self.operate(index, -1)
    }

    #[inline]
    fn give(&self, index: u16) -> Result<()> {
        self.operate(index, 1)
    }
}

/// Two named POSIX semaphores, the C library's: `sem_overview(7)`.
pub(crate) struct PosixSemaphores {
    semaphores: [NonNull<libc::sem_t>; 2],
}

impl Semaphores for PosixSemaphores {
    fn make(place: &Place, values: [u16; 2]) -> Result<()> {
        for (number, value) in (0..).zip(values) {
            let name = c_name(place, number)?;
            let flags = libc::O_CREAT | libc::O_EXCL;
            // SAFETY: the name ends with a NUL; a mode and a value follow.
            let made = unsafe {
                libc::sem_open(name.as_ptr(), flags, 0o600 as libc::mode_t, libc::c_uint::from(value))
            };
            if made == libc::SEM_FAILED {
                return Err(refused("sem_open"));
            }
            // SAFETY: it was opened above, and is not used any more.
            unsafe { libc::sem_close(made) };
        }
        Ok(())
    }

    fn open(place: &Place) -> Result<PosixSemaphores> {
        let open = |number: u32| {
            let name = c_name(place, number)?;
            // SAFETY: the name ends with a NUL.
            let opened = unsafe { libc::sem_open(name.as_ptr(), 0) };
            if opened == libc::SEM_FAILED {
                return Err(Error::last("sem_open"));
            }
            NonNull::new(opened).ok_or_else(|| Error::failed("sem_open gave nothing"))
        };
        Ok(PosixSemaphores { semaphores: [open(0)?, open(1)?] })
    }

    fn remove(place: &Place) {
        for number in 0..2 {
            if let Ok(name) = c_name(place, number) {
                // SAFETY: the name ends with a NUL.
                unsafe { libc::sem_unlink(name.as_ptr()) };
            }
        }
    }

    #[inline]
    fn take(&self, index: u16) -> Result<()> {
        // SAFETY: open until this is dropped.
        let outcome = unsafe { libc::sem_wait(self.semaphores[usize::from(index)].as_ptr()) };
        if outcome == 0 { Ok(()) } else { Err(Error::last("sem_wait")) }
    }

    #[inline]
    fn give(&self, index: u16) -> Result<()> {
        // SAFETY: open until this is dropped.
        let outcome = unsafe { libc::sem_post(self.semaphores[usize::from(index)].as_ptr()) };
        if outcome == 0 { Ok(()) } else { Err(Error::last("sem_post")) }
    }
}

impl Drop for PosixSemaphores {
    fn drop(&mut self) {
        for semaphore in self.semaphores {
            // SAFETY: opened by `open`, and not used any more.
            unsafe { libc::sem_close(semaphore.as_ptr()) };
        }
    }
}

/// The C library's robust mutex in shared memory: `pthread_mutexattr_setrobust(3)`.
pub(crate) struct RobustMutex {
    raw: NonNull<libc::pthread_mutex_t>,
}

const MUTEX_BYTES: usize = size_of::<libc::pthread_mutex_t>();

impl Mutex for RobustMutex {
    fn make(_place: &Place) -> Result<RobustMutex> {
        // SAFETY: a new mapping, where the kernel wants it.
        let start = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), MUTEX_BYTES, access, MapFlags::SHARED)?
        };
        let raw = NonNull::new(start.cast()).ok_or_else(|| Error::failed("mmap gave no memory"))?;
        let mut attributes = std::mem::MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised first; the mutex has memory of its own, which nobody uses yet.
        let outcomes = unsafe {
            [
                libc::pthread_mutexattr_init(attributes),
                libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(raw.as_ptr(), attributes),
            ]
        };
        match outcomes.into_iter().find(|outcome| *outcome != 0) {
            None => Ok(RobustMutex { raw }),
            Some(errno) => Err(errno_of("pthread_mutex_init", errno)),
        }
    }

    #[inline]
    fn lock(&self) -> Result<()> {
        // SAFETY: initialised, and mapped until this is dropped.
        match unsafe { libc::pthread_mutex_lock(self.raw.as_ptr()) } {
            0 => Ok(()),
            errno => Err(errno_of("pthread_mutex_lock", errno)),
        }
    }

    #[inline]
    fn unlock(&self) -> Result<()> {
        // SAFETY: as in `lock`.
        match unsafe { libc::pthread_mutex_unlock(self.raw.as_ptr()) } {
            0 => Ok(()),
            errno => Err(errno_of("pthread_mutex_unlock", errno)),
        }
    }
}

impl Drop for RobustMutex {
    fn drop(&mut self) {
        // SAFETY: mapped by `make`, and not used any more.
        let _ = unsafe { rustix::mm::munmap(self.raw.as_ptr().cast(), MUTEX_BYTES) };
    }
}

#[cold]
fn errno_of(call: &str, errno: i32) -> Error {
    Error::failed(format!("{call}: {}", std::io::Error::from_raw_os_error(errno)))
}

/// What the call that makes an object failed with: what this host lacks or refuses is not to be had.
#[cold]
fn refused(call: &str) -> Error {
    let error = std::io::Error::last_os_error();
    let text = format!("{call}: {error}");
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EMFILE | libc::ENOENT) => {
            Error::Unavailable(text)
        }
        _ => Error::Failed(text),
    }
}
