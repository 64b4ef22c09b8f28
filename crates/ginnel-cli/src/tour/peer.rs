//! The other process of a row.

use std::io::{Read, Write};
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
        Peer::start(row, Peer::command(row, words)?.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// Starts a peer that inherits two descriptors, as its standard input and output.
    pub(crate) fn inheriting(
        row: &Row,
        words: &[String],
        stdin: impl Into<OwnedFd>,
        stdout: impl Into<OwnedFd>,
    ) -> RowResult<Peer> {
        Peer::start(row, Peer::command(row, words)?.stdin(stdin.into()).stdout(stdout.into()))
    }

    /// Starts a peer and waits until it has called [`announce`].
    pub(crate) fn announced(row: &Row, command: &mut Command) -> RowResult<Peer> {
        let mut peer = Peer::start(row, command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let mut pipe =
            peer.child.stdout.take().ok_or_else(|| RowError::Failed("no pipe to the peer".into()))?;
        pipe.read_exact(&mut [0])
            .map_err(|_| RowError::Failed("the peer ended before it was ready".into()))?;
        Ok(peer)
    }

    /// The command line that is a peer of this row.
    pub(crate) fn command(row: &Row, words: &[String]) -> RowResult<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(VERB).arg(row.name).arg("--peer").args(words);
        Ok(command)
    }

    fn start(row: &Row, command: &mut Command) -> RowResult<Peer> {
        Ok(Peer { name: row.name, child: command.spawn()? })
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

/// Says, in a peer, that it is ready for what its runner will do.
pub(crate) fn announce() -> RowResult<()> {
    let mut out = std::io::stdout();
    out.write_all(b".")?;
    Ok(out.flush()?)
}
