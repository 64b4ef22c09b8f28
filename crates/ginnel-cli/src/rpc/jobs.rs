//! Running the command of `ginnel serve`, once a request, so many at a time.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use ginnel::Deadline;
use ginnel::notify::PidFd;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::Answer;
use crate::guardian::Guardian;
use crate::objects;

/// How much of standard error is kept for its last line.
const COMPLAINT_BYTES: usize = 4096;
/// A pipe that is writable takes this much without waiting (`PIPE_BUF`).
const PIPE_CHUNK: usize = 4096;

/// The command, and how it may be run.
pub(crate) struct Jobs {
    command: Vec<OsString>,
    /// How long one run may take.
    limit: Option<Duration>,
    pub(crate) parallel: usize,
    /// The guardian's process group, which ends with us.
    group: i32,
    running: Mutex<usize>,
    ended: Condvar,
}

/// What is known of the client whose request it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) pid: Option<i32>,
    /// As the kernel vouches for it.
    pub(crate) uid: Option<u32>,
}

/// The longest payload of a reply, and what sets that limit.
#[derive(Clone, Debug)]
pub(crate) struct ReplyLimit {
    pub(crate) bytes: usize,
    pub(crate) why: String,
}

impl Jobs {
    pub(crate) fn new(
        command: Vec<OsString>,
        limit: Option<Duration>,
        parallel: usize,
        guardian: &Guardian,
    ) -> Jobs {
        Jobs {
            command,
            limit,
            parallel,
            group: guardian.group(),
            running: Mutex::new(0),
            ended: Condvar::new(),
        }
    }

    /// Runs the command for one request, when it is its turn.
    pub(crate) fn run(&self, caller: Caller, payload: &[u8], limit: &ReplyLimit) -> Answer {
        let _permit = self.permit();
        match self.execute(caller, payload, limit.bytes) {
            Ok(Outcome { overflow: true, .. }) => Answer::refused(format!(
                "the reply is longer than {} bytes, the most that {}",
                limit.bytes, limit.why
            )),
            Ok(outcome) => outcome.answer(self.limit),
            Err(error) => {
                let program = self.command.first().map(|program| program.display().to_string());
                Answer::refused(format!("{}: {error}", program.unwrap_or_default()))
            }
        }
    }

    fn permit(&self) -> Permit<'_> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = self
            .ended
            .wait_while(running, |running| *running >= self.parallel)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Permit(self)
    }

    fn execute(&self, caller: Caller, payload: &[u8], output_bytes_max: usize) -> io::Result<Outcome> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["GINNEL_CLIENT_PID", "GINNEL_CLIENT_UID"] {
            command.env_remove(name);
        }
        if let Some(pid) = caller.pid {
            command.env("GINNEL_CLIENT_PID", pid.to_string());
        }
        if let Some(uid) = caller.uid {
            command.env("GINNEL_CLIENT_UID", uid.to_string());
        }
        let child = match command.process_group(self.group).spawn() {
            // The guardian was killed, and its group is gone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                command.process_group(0).spawn()?
            }
            outcome => outcome?,
        };
        Run::new(child, payload, output_bytes_max)?.finish(self.limit)
    }
}

/// The right to run one command.
struct Permit<'a>(&'a Jobs);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_one();
    }
}

/// How a run ended.
struct Outcome {
    status: ExitStatus,
    output: Vec<u8>,
    complaint: Vec<u8>,
    overflow: bool,
    timed_out: bool,
}

impl Outcome {
    fn answer(self, limit: Option<Duration>) -> Answer {
        if self.timed_out {
            let limit = limit.unwrap_or_default();
            return Answer::refused(format!("the command was not done after {limit:?}, and was killed"));
        }
        match (self.status.code(), self.status.signal()) {
            (Some(0), _) => Answer { status: 0, payload: self.output },
            (Some(code), _) => Answer { status: code, payload: last_line(&self.complaint) },
            (None, signal) => {
                Answer { status: 256 + signal.unwrap_or_default(), payload: last_line(&self.complaint) }
            }
        }
    }
}

fn last_line(text: &[u8]) -> Vec<u8> {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.rfind(|line| !line.is_empty()).unwrap_or_default().to_vec()
}

/// A command at work, and its three pipes; each is `None` when it is done with.
struct Run<'a> {
    child: Child,
    pidfd: PidFd,
    input: Option<std::process::ChildStdin>,
    output: Option<std::process::ChildStdout>,
    errors: Option<std::process::ChildStderr>,
    to_write: &'a [u8],
    outcome: Outcome,
    output_bytes_max: usize,
}

impl Run<'_> {
    fn new(mut child: Child, payload: &[u8], output_bytes_max: usize) -> io::Result<Run<'_>> {
        let pidfd = match PidFd::of_child(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        let outcome = Outcome {
            status: ExitStatus::default(),
            output: Vec::new(),
            complaint: Vec::new(),
            overflow: false,
            timed_out: false,
        };
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Run { child, pidfd, input, output, errors, to_write: payload, outcome, output_bytes_max })
    }

    /// Feeds it and listens to it until it has ended and its output is closed, by its own children too.
    fn finish(mut self, limit: Option<Duration>) -> io::Result<Outcome> {
        let deadline = Deadline::from(limit);
        let mut exited = false;
        while !exited || self.output.is_some() || self.errors.is_some() {
            let ready = self.poll(exited, deadline)?;
            let Some(ready) = ready else {
                self.outcome.timed_out = true;
                objects::kill_tree(&self.pidfd);
                break;
            };
            exited |= ready.exited;
            if ready.input || (exited && self.input.is_some()) {
                self.feed(exited);
            }
            if ready.output {
                self.listen();
            }
            if ready.errors {
                self.listen_to_errors();
            }
        }
        self.outcome.status = self.child.wait()?;
        Ok(self.outcome)
    }

    /// `None`: the deadline has passed.
    fn poll<'a>(&'a self, exited: bool, deadline: Deadline) -> io::Result<Option<Ready>> {
        let mut fds = Vec::with_capacity(4);
        let mut add = |fd: BorrowedFd<'a>, events| {
            fds.push(PollFd::from_borrowed_fd(fd, events));
            fds.len() - 1
        };
        let input = self.input.as_ref().map(|pipe| add(pipe.as_fd(), PollFlags::OUT));
        let output = self.output.as_ref().map(|pipe| add(pipe.as_fd(), PollFlags::IN));
        let errors = self.errors.as_ref().map(|pipe| add(pipe.as_fd(), PollFlags::IN));
        let end = (!exited).then(|| add(self.pidfd.as_fd(), PollFlags::IN));
        let left = deadline
            .remaining()
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |index: Option<usize>| index.is_some_and(|index| !fds[index].revents().is_empty());
        Ok(Some(Ready {
            input: is_ready(input),
            output: is_ready(output),
            errors: is_ready(errors),
            exited: is_ready(end),
        }))
    }

    fn feed(&mut self, exited: bool) {
        let Some(input) = &mut self.input else { return };
        let chunk = &self.to_write[..self.to_write.len().min(PIPE_CHUNK)];
        match (exited, input.write(chunk)) {
            (false, Ok(len)) if len < self.to_write.len() => self.to_write = &self.to_write[len..],
            // All is written, or nobody is there who would read it: a command need not read its input.
            _ => self.input = None,
        }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 8192];
        match self.output.as_mut().map(|output| output.read(&mut buffer)) {
            Some(Ok(len)) if len > 0 => self.outcome.output.extend(&buffer[..len]),
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.output = None,
        }
        if self.outcome.output.len() > self.output_bytes_max {
            self.outcome.overflow = true;
            self.outcome.output = Vec::new();
            // Closed: whoever writes on gets SIGPIPE.
            self.output = None;
        }
    }

    fn listen_to_errors(&mut self) {
        let mut buffer = [0; COMPLAINT_BYTES];
        match self.errors.as_mut().map(|errors| errors.read(&mut buffer)) {
            Some(Ok(len)) if len > 0 => {
                // The server's own standard error shows all of it; a closed one hides it.
                let _ = io::stderr().write_all(&buffer[..len]);
                let complaint = &mut self.outcome.complaint;
                complaint.extend(&buffer[..len]);
                complaint.drain(..complaint.len().saturating_sub(COMPLAINT_BYTES));
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.errors = None,
        }
    }
}

/// What is to be done for a command.
struct Ready {
    input: bool,
    output: bool,
    errors: bool,
    exited: bool,
}
