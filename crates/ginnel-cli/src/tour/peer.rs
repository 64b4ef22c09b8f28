//! The other process of a row.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use super::{Row, RowError, RowResult, VERB};

/// A peer of this row's runner. Dropping it kills it.
pub(crate) struct Peer {
    name: &'static str,
    child: Child,
}

impl Peer {
    /// Starts a peer that shares nothing with this process but what `words` name.
    pub(crate) fn unrelated(row: &Row, words: &[String]) -> RowResult<Peer> {
        Peer::spawn(row, words, Stdio::null(), Stdio::null())
    }

    /// Starts a peer that inherits two descriptors, as its standard input and output.
    pub(crate) fn inheriting(
        row: &Row,
        words: &[String],
        stdin: OwnedFd,
        stdout: OwnedFd,
    ) -> RowResult<Peer> {
        Peer::spawn(row, words, stdin.into(), stdout.into())
    }

    fn spawn(row: &Row, words: &[String], stdin: Stdio, stdout: Stdio) -> RowResult<Peer> {
        let child = Command::new(std::env::current_exe()?)
            .arg(VERB)
            .arg(row.name)
            .arg("--peer")
            .args(words)
            .stdin(stdin)
            .stdout(stdout)
            .spawn()?;
        Ok(Peer { name: row.name, child })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for the peer's end, which must be a good one: it has checked what it received.
    pub(crate) fn finish(mut self) -> RowResult<()> {
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(RowError::Failed(format!("the peer of {} ended with {status}", self.name)))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
