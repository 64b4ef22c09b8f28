//! The other process of a row.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use ginnel::process::{ForkedChild, fork};

use super::{Row, RowError, RowResult, VERB, ensure};

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
        command.args(Peer::arguments(row)).args(words);
        Ok(command)
    }

    /// What makes this program a peer of this row, which ends with this process.
    pub(crate) fn arguments(row: &Row) -> [String; 5] {
        let parent = std::process::id();
        [VERB.into(), row.name.into(), "--parent".into(), parent.to_string(), "--peer".into()]
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

/// A peer that is a fork of its runner, which has memory in common with it. Dropping it kills it.
pub(crate) struct Forked(ForkedChild);

impl Forked {
    pub(crate) fn start(body: impl FnOnce() -> RowResult<()>) -> RowResult<Forked> {
        let parent = std::process::id();
        let child = fork(|| match end_with(parent).and_then(|()| body()) {
            Ok(()) => 0,
            Err(RowError::Failed(why) | RowError::Unavailable(why)) => {
                eprintln!("the forked child: {why}");
                1
            }
        })?;
        Ok(Forked(child))
    }

    /// Waits for the child's end, which must be a good one.
    pub(crate) fn finish(self) -> RowResult<()> {
        let status = self.0.wait()?;
        ensure(status.success(), format!("the forked child ended with {status}"))
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has this process killed when its parent ends, however that ends; an error if it has ended already.
///
/// It is the process's own and not inherited: each process of a row asks for itself.
pub(crate) fn end_with(parent: u32) -> RowResult<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| RowError::Failed(format!("prctl: {errno}")))?;
    ensure(std::os::unix::process::parent_id() == parent, "the parent process has ended")
}
