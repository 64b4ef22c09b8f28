//! The user-space home, by the engine's own types.

use super::{Mutex, Queue, Semaphores, Shape};
use crate::error::{Error, Result};
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

pub(crate) struct SysvSemaphores<const UNDO: bool>;

impl<const UNDO: bool> Semaphores for SysvSemaphores<UNDO> {
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
