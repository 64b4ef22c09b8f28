//! What is measured, as both homes have it.

pub(crate) mod kernel;
pub(crate) mod user;

use crate::error::Result;
use crate::message::Message;
use crate::place::{Limits, Place};

/// How large a queue is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) message_bytes: usize,
    /// How many bytes a System V queue is to hold if the kernel's limits allow it. Both homes get the same.
    pub(crate) bytes: u64,
    /// How many it must hold.
    pub(crate) bytes_needed: u64,
    /// How many messages a POSIX queue is to hold if the kernel's limits allow it. Both homes get the same.
    pub(crate) messages: u64,
}

/// A message queue, opened by one process.
pub(crate) trait Queue: Sized {
    /// Makes queue number `number` of the place.
    fn make(place: &Place, number: u32, shape: Shape, limits: &Limits) -> Result<()>;
    fn open(place: &Place, number: u32) -> Result<Self>;
    fn remove(place: &Place, number: u32);
    /// Sends a message of the type (or with the priority) that stands in it; waits while the queue is full.
    fn send(&self, message: &Message) -> Result<()>;
    /// Receives a message of this type (0: of any) that is as long as the buffer; waits while there is none.
    fn recv(&self, message: &mut Message, kind: i64) -> Result<()>;
}

/// Counting semaphores, opened by one process.
pub(crate) trait Semaphores: Sized {
    /// Makes two, of these values.
    fn make(place: &Place, values: [u16; 2]) -> Result<()>;
    fn open(place: &Place) -> Result<Self>;
    fn remove(place: &Place);
    fn take(&self, index: u16) -> Result<()>;
    fn give(&self, index: u16) -> Result<()>;
}

/// A mutex that processes share.
pub(crate) trait Mutex: Sized {
    fn make(place: &Place) -> Result<Self>;
    fn lock(&self) -> Result<()>;
    fn unlock(&self) -> Result<()>;
}
