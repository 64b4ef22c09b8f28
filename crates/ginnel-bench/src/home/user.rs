//! The user-space home, by the engine's own types.

use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::sysv_semaphore;
use ginnel_engine::wait::Patience;

use super::{Mutex, Queue, Semaphores, Shape};
use crate::error::{Error, Named, Result};
use crate::message::Message;
use crate::place::{Limits, Place};

fn not_yet<T>() -> Result<T> {
    Err(Error::Unavailable("the user-space home has none yet".into()))
}

pub(crate) struct SysvQueue;

impl Queue for SysvQueue {
    fn make(_: &Place, _: u32, _: Shape, _: &Limits) -> Result<()> {
        not_yet()
    }

    fn open(_: &Place, _: u32) -> Result<Self> {
        not_yet()
    }

    fn remove(_: &Place, _: u32) {}

    fn send(&self, _: &Message) -> Result<()> {
        not_yet()
    }

    fn recv(&self, _: &mut Message, _: i64) -> Result<()> {
        not_yet()
    }
}

pub(crate) struct PosixQueue;

impl Queue for PosixQueue {
    fn make(_: &Place, _: u32, _: Shape, _: &Limits) -> Result<()> {
        not_yet()
    }

    fn open(_: &Place, _: u32) -> Result<Self> {
        not_yet()
    }

    fn remove(_: &Place, _: u32) {}

    fn send(&self, _: &Message) -> Result<()> {
        not_yet()
    }

    fn recv(&self, _: &mut Message, _: i64) -> Result<()> {
        not_yet()
    }
}

/// The namespace of the row, which is a directory in the place's.
fn home(place: &Place) -> Result<Namespace> {
    Namespace::options().create(true).open(place.directory.join("home")).map_err(Error::failed)
}

const NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;

/// A System V semaphore set; with `SEM_UNDO` or without.
pub(crate) struct SysvSemaphores<const UNDO: bool>(sysv_semaphore::SysvSemaphores);

impl<const UNDO: bool> SysvSemaphores<UNDO> {
    #[inline]
    fn operate(&self, index: u16, by: i16) -> Result<()> {
        let sem_flg = if UNDO { libc::SEM_UNDO as i16 } else { 0 };
        let operation = libc::sembuf { sem_num: index, sem_op: by, sem_flg };
        self.0.operate(&[operation], Patience::Endless).named("semop")
    }
}

impl<const UNDO: bool> Semaphores for SysvSemaphores<UNDO> {
    fn make(place: &Place, values: [u16; 2]) -> Result<()> {
        let home = home(place)?;
        let id = sysv_semaphore::SysvSemaphores::get(&home, place.key_of(0), 2, NEW).named("semget")?;
        sysv_semaphore::SysvSemaphores::open(&home, id)
            .and_then(|set| set.set_values(&values))
            .named("semctl")
    }

    fn open(place: &Place) -> Result<Self> {
        let home = home(place)?;
        let id = sysv_semaphore::SysvSemaphores::get(&home, place.key_of(0), 0, 0).named("semget")?;
        Ok(SysvSemaphores(sysv_semaphore::SysvSemaphores::open(&home, id).named("opening the set")?))
    }

    fn remove(place: &Place) {
        // Its directory goes with the row, too.
        let _ = home(place).map(|home| {
            let id = sysv_semaphore::SysvSemaphores::get(&home, place.key_of(0), 0, 0)?;
            sysv_semaphore::SysvSemaphores::remove(&home, id)
        });
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

pub(crate) struct PosixSemaphores;

impl Semaphores for PosixSemaphores {
    fn make(_: &Place, _: [u16; 2]) -> Result<()> {
        not_yet()
    }

    fn open(_: &Place) -> Result<Self> {
        not_yet()
    }

    fn remove(_: &Place) {}

    fn take(&self, _: u16) -> Result<()> {
        not_yet()
    }

    fn give(&self, _: u16) -> Result<()> {
        not_yet()
    }
}

pub(crate) struct RobustMutex;

impl Mutex for RobustMutex {
    fn make(_: &Place) -> Result<Self> {
        not_yet()
    }

    fn lock(&self) -> Result<()> {
        not_yet()
    }

    fn unlock(&self) -> Result<()> {
        not_yet()
    }
}
