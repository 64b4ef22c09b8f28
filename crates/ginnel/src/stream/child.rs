//! What popen and pipelines have in common: waiting for a child until a deadline, and talking to it without a deadlock.

use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::io::{ByteRead, ByteWrite};
use super::pipe::{PipeReader, PipeWriter};
use crate::error::{Error, Label, Result};
use crate::{Deadline, wait};

/// Waits for the child's end and reaps it.
///
/// By a pidfd and `poll(2)`, since `Child::wait` would hide `EINTR`.
pub(super) fn wait_deadline(child: &mut Child, deadline: Deadline, object: &Label) -> Result<ExitStatus> {
    let reap = |child: &mut Child| {
        child.try_wait().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::CHILD))
    };
    let fail = |errno| Error::new("waitpid", errno, object);
    if let Some(status) = reap(child).map_err(fail)? {
        return Ok(status);
    }
    if deadline.is_now() {
        return Err(fail(Errno::AGAIN));
    }
    let pidfd = rustix::process::pidfd_open(pid(child), PidfdFlags::empty())
        .map_err(|errno| Error::new("pidfd_open", errno, object))?;
    loop {
        wait::ready(pidfd.as_fd(), PollFlags::IN, deadline, "waitpid", object)?;
        if let Some(status) = reap(child).map_err(fail)? {
            return Ok(status);
        }
        // It has ended, and is its tracer's to reap first.
        if deadline.has_passed() {
            return Err(fail(deadline.errno()));
        }
    }
}

/// A child's process id. It stays the child's until it is reaped.
pub(super) fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// The signal with this number, as the kernel counts them.
pub(super) fn signal(number: i32, object: &Label) -> Result<Signal> {
    Signal::from_named_raw(number).ok_or_else(|| {
        Error::invalid("kill", object, format!("{number} is no standard signal; see `kill -l`"))
    })
}

const CHUNK_BYTES: usize = 16 << 10;
const DRAIN_BYTES_MAX: usize = 1 << 20;

/// What a child said: also when it was cut short.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
}

/// Moves bytes whichever way one can go, until the input is written (and closed) and both outputs have ended.
///
/// That nobody reads the input any more is no error: `head` does not read all that it is given.
pub(super) fn converse(
    mut input: Option<(PipeWriter, &[u8])>,
    mut output: Option<&PipeReader>,
    mut errors: Option<&PipeReader>,
    deadline: Deadline,
    object: &Label,
) -> Result<Said> {
    let mut said = Said::default();
    loop {
        if let Some((writer, rest)) = input.take() {
            input = feed(&writer, rest)?.map(|rest| (writer, rest));
        }
        drain(&mut output, &mut said.output)?;
        drain(&mut errors, &mut said.errors)?;
        if deadline.has_passed() && (input.is_some() || output.is_some() || errors.is_some()) {
            return Err(Error::new("poll", deadline.errno(), object));
        }
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(3);
        fds.extend(input.iter().map(|(writer, _)| PollFd::new(writer, PollFlags::OUT)));
        fds.extend(output.map(|reader| PollFd::new(reader, PollFlags::IN)));
        fds.extend(errors.map(|reader| PollFd::new(reader, PollFlags::IN)));
        if fds.is_empty() {
            return Ok(said);
        }
        match rustix::event::poll(&mut fds, deadline.remaining_timespec().as_ref()) {
            Ok(0) => return Err(Error::new("poll", deadline.errno(), object)),
            Ok(_) => {}
            Err(errno) => return Err(Error::new("poll", errno, object)),
        }
    }
}

/// Writes what there is room for: what is left, `None` when nothing is.
fn feed<'a>(writer: &PipeWriter, mut rest: &'a [u8]) -> Result<Option<&'a [u8]>> {
    while !rest.is_empty() {
        match writer.try_write(rest) {
            Ok(len) => rest = &rest[len..],
            Err(error) if error.is_would_block() => return Ok(Some(rest)),
            Err(error) if error.raw() == Errno::PIPE => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Reads what is there, at most what the largest pipe holds: a command that never stops writing must not keep the caller
/// from looking at the clock. Forgets the reader at its end.
fn drain(from: &mut Option<&PipeReader>, into: &mut Vec<u8>) -> Result<()> {
    let Some(reader) = *from else { return Ok(()) };
    let mut chunk = [0; CHUNK_BYTES];
    for _ in 0..DRAIN_BYTES_MAX / CHUNK_BYTES {
        match reader.try_read(&mut chunk) {
            Ok(0) => {
                *from = None;
                return Ok(());
            }
            Ok(len) => into.extend_from_slice(&chunk[..len]),
            Err(error) if error.is_would_block() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
