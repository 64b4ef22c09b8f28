//! Async forms of the message family.

use super::{Polled, retry};
use crate::error::Result;
use crate::message::sysv_queue::{Received, Select, SysvQueue};

impl Polled<SysvQueue> {
    /// [`SysvQueue::send`].
    ///
    /// # Errors
    /// As [`SysvQueue::send`].
    pub async fn send(&self, message_type: i64, payload: &[u8]) -> Result<()> {
        retry(|| self.0.try_send(message_type, payload)).await
    }

    /// [`SysvQueue::recv`].
    ///
    /// # Errors
    /// As [`SysvQueue::recv`].
    pub async fn recv(&self, select: Select, buffer: &mut [u8]) -> Result<Received> {
        retry(|| self.0.try_recv(select, buffer)).await
    }
}
