//! Commands in a row, each reading what the one before it writes: the shell's `|`, without a shell.
//!
//! # What a user sees
//! A [`Pipeline`] is made of argument vectors ([`Pipeline::new`]) or of a line ([`Pipeline::parse`]: words, quotes, `|`,
//! `<`, `>`, `>>`, `2>`, `2>&1`; what would need a shell is refused by name). [`Pipeline::spawn`] starts it, and the
//! [`RunningPipeline`] has the status of every stage, where a shell has the last one's.
//!
//! All stages are one process group of their own, so that a signal reaches all of them and not the caller; or, with
//! [`Pipeline::callers_group`], they are in the caller's, as those of `sh -c` are. With
//! [`Pipeline::foreground`] they get the terminal as a shell's job does: Ctrl-C goes to them.
//!
//! Files are opened here, not in the stage: one that is a FIFO makes [`Pipeline::spawn`] wait for its other end.
//!
//! A stage that cannot be started is an error that names it; those started before it are killed and reaped. A
//! `RunningPipeline` that is dropped before it was waited for is killed (`SIGKILL`) and reaped.
//!
//! # How it works inside
//! pipe, fork, dup2, exec. Every pipe is close-on-exec from birth, each end is given to exactly one stage and closed
//! here as soon as that stage runs: no stage holds an end that is not its own, so the end of the stream and `EPIPE`
//! arrive where they should.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Pid;

use super::child;
use super::foreground::Terminal;
use super::pipe::{PipeReader, PipeWriter, pipe};
use super::popen::explain_spawn;
use super::words;
use crate::Deadline;
use crate::error::{Error, Label, Result};

/// One command of a pipeline.
///
/// ```
/// use ginnel::stream::{Pipeline, pipeline::Stage};
///
/// let stage = |words: &[&str]| Stage { arguments: words.iter().map(Into::into).collect(), redirects: vec![] };
/// let pipeline = Pipeline::from_stages(vec![stage(&["echo", "$HOME | *"]), stage(&["rev"])])?;
/// assert_eq!(pipeline.stages()[1], stage(&["rev"]));
/// assert_eq!(pipeline.output()?.stdout, b"* | EMOH$\n", "no shell looked at the words");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// The program, then its arguments.
    pub arguments: Vec<OsString>,
    /// Where its streams go instead, in the order they are applied.
    pub redirects: Vec<Redirect>,
}

/// A stream of a stage that goes elsewhere: `<`, `>`, `2>&1`.
///
/// ```
/// use ginnel::stream::{Pipeline, pipeline::{Redirect, Stage, Standard}};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path().join("log");
/// let append = Redirect::Write { of: Standard::Output, path: path.clone(), append: true };
/// for word in ["one", "two"] {
///     let stage = Stage { arguments: vec!["echo".into(), word.into()], redirects: vec![append.clone()] };
///     Pipeline::from_stages(vec![stage])?.spawn()?.wait()?;
/// }
/// assert_eq!(std::fs::read_to_string(path)?, "one\ntwo\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// `< path`
    Read {
        /// The file.
        path: PathBuf,
    },
    /// `> path`, `>> path`, `2> path`
    Write {
        /// Which stream.
        of: Standard,
        /// The file, made if it is not there.
        path: PathBuf,
        /// Whether to write at its end, rather than empty it first.
        append: bool,
    },
    /// `2>&1`, `1>&2`: to where the other goes at this point.
    Same {
        /// Which stream.
        of: Standard,
        /// Where to.
        to: Standard,
    },
}

/// One of the two standard streams that write.
///
/// ```
/// use ginnel::stream::{Pipeline, pipeline::{Redirect, Standard}};
///
/// let pipeline = Pipeline::parse("sh -c 'echo oops >&2' 2>&1 | tr a-z A-Z")?;
/// let redirects = &pipeline.stages()[0].redirects;
/// assert_eq!(redirects[0], Redirect::Same { of: Standard::Error, to: Standard::Output });
/// assert_eq!(pipeline.output()?.stdout, b"OOPS\n");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

/// Where an outer end of a pipeline leads.
///
/// ```
/// use ginnel::stream::{Pipeline, pipe, pipeline::End};
///
/// let (reader, writer) = pipe()?;
/// let mut first = Pipeline::parse("echo hullo")?.stdin(End::Null).stdout(writer).spawn()?;
/// let second = Pipeline::parse("tr u e")?.stdin(reader).output()?;
/// assert_eq!(second.stdout, b"hello\n");
/// assert!(first.wait()?.success());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug, Default)]
pub enum End {
    /// Where this process's own leads.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// Into a pipe, whose other end [`RunningPipeline`] has.
    Piped,
    /// To this descriptor: a file, a FIFO, a socket.
    Fd(OwnedFd),
}

impl<T: Into<OwnedFd>> From<T> for End {
    fn from(fd: T) -> End {
        End::Fd(fd.into())
    }
}

/// Commands to be run in a row.
///
/// ```
/// use ginnel::stream::Pipeline;
///
/// let out = Pipeline::parse("printf 'pear\napple\nfig\n' | sort | head -n 1")?.output()?;
/// assert_eq!(out.stdout, b"apple\n");
/// assert!(out.status.success());
///
/// let refused = Pipeline::parse("rm -rf $HOME").unwrap_err();
/// assert!(refused.to_string().contains("$ is for a shell to do"));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    stages: Vec<Stage>,
    stdin: End,
    stdout: End,
    stderr: End,
    foreground: bool,
    callers_group: bool,
    tapped: bool,
    announce: Option<Arc<OwnedFd>>,
}

impl Pipeline {
    /// A pipeline of these commands, each an argument vector.
    ///
    /// ```
    /// use ginnel::stream::Pipeline;
    ///
    /// let out = Pipeline::new([vec!["echo", "a b;c"], vec!["tr", "b", "x"]])?.output()?;
    /// assert_eq!(out.stdout, b"a x;c\n");
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EINVAL`: no commands, or an empty one.
    pub fn new<S: Into<OsString>>(
        commands: impl IntoIterator<Item = impl IntoIterator<Item = S>>,
    ) -> Result<Pipeline> {
        let stages = commands.into_iter().map(|command| Stage {
            arguments: command.into_iter().map(Into::into).collect(),
            redirects: Vec::new(),
        });
        Pipeline::from_stages(stages.collect())
    }

    /// The pipeline that this line says.
    ///
    /// # Errors
    /// `EINVAL`: the line is not complete, or has something in it that needs a shell; the hint says what.
    pub fn parse(line: &str) -> Result<Pipeline> {
        words::parse(line)
            .map_err(|why| Error::invalid("parse", &Label::new(format!("pipeline {line:?}")), why))
            .and_then(Pipeline::from_stages)
    }

    /// A pipeline of these stages.
    ///
    /// # Errors
    /// `EINVAL`: no stages, or one without a program.
    pub fn from_stages(stages: Vec<Stage>) -> Result<Pipeline> {
        if stages.is_empty() || stages.iter().any(|stage| stage.arguments.is_empty()) {
            return Err(Error::invalid("pipeline", &Label::from("pipeline"), "every stage needs a program"));
        }
        let inherit = || End::Inherit;
        Ok(Pipeline {
            stages,
            stdin: inherit(),
            stdout: inherit(),
            stderr: inherit(),
            foreground: false,
            callers_group: false,
            tapped: false,
            announce: None,
        })
    }

    /// Its stages.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Where the first stage reads from; this process's standard input unless said.
    pub fn stdin(mut self, end: impl Into<End>) -> Pipeline {
        self.stdin = end.into();
        self
    }

    /// Where the last stage writes to; this process's standard output unless said.
    pub fn stdout(mut self, end: impl Into<End>) -> Pipeline {
        self.stdout = end.into();
        self
    }

    /// Where every stage writes its errors to; this process's standard error unless said.
    pub fn stderr(mut self, end: impl Into<End>) -> Pipeline {
        self.stderr = end.into();
        self
    }

    /// Gives the pipeline this process's terminal while it runs, as a shell does: it may read from it, and Ctrl-C
    /// goes to it. Has no effect without a controlling terminal. Ctrl-Z stops it while the caller waits on: send `SIGCONT`.
    pub fn foreground(mut self, foreground: bool) -> Pipeline {
        self.foreground = foreground;
        self
    }

    /// Leaves the stages in the caller's process group, as `sh -c` does: what the terminal sends (Ctrl-C, Ctrl-Z) goes
    /// to the caller and to all of them, and they may read from the terminal if the caller may.
    ///
    /// ```
    /// use ginnel::notify::Group;
    /// use ginnel::stream::Pipeline;
    ///
    /// let running = Pipeline::parse("sleep 9 | sleep 9")?.callers_group(true).spawn()?;
    /// assert_eq!(running.group(), Group::own().id());
    /// for pid in running.pids() {
    ///     assert_eq!(Group::of(pid)?, Group::own());
    /// }
    /// running.kill()?; // The stages, and nobody else of the group.
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    pub fn callers_group(mut self, callers_group: bool) -> Pipeline {
        self.callers_group = callers_group;
        self
    }

    /// Makes two pipes between each two stages, and leaves it to the caller to move the bytes from one to the other: see
    /// [`RunningPipeline::taps`].
    pub fn tapped(mut self, tapped: bool) -> Pipeline {
        self.tapped = tapped;
        self
    }

    /// Has each stage write its process id, in digits, and a newline to this descriptor before it executes its program.
    ///
    /// For a process that cleans up when the caller is killed. It reads all of them even if that happens while the
    /// stages are being started: each has the descriptor open until it has written to it, so its end comes after that.
    ///
    /// ```
    /// use std::io::Read;
    /// use ginnel::stream::{Pipeline, pipe};
    ///
    /// let (mut reader, writer) = pipe()?;
    /// let mut running = Pipeline::parse("true | true")?.announce(writer).spawn()?;
    /// let mut told = String::new();
    /// reader.read_to_string(&mut told)?;
    /// let told: Vec<i32> = told.lines().map(|pid| pid.parse().unwrap()).collect();
    /// assert_eq!(told, running.pids());
    /// # running.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce(mut self, to: impl Into<OwnedFd>) -> Pipeline {
        self.announce = Some(Arc::new(to.into()));
        self
    }

    /// Starts all stages.
    ///
    /// # Errors
    /// As `execve(2)` for the stage that the error names (`ENOENT`, `EACCES`, ...) or `open(2)` for its redirection;
    /// `EAGAIN`, `ENOMEM`, `EMFILE`. Nothing of the pipeline runs then.
    pub fn spawn(self) -> Result<RunningPipeline> {
        let mut running = RunningPipeline {
            parent: std::process::id(),
            members: Vec::new(),
            group: None,
            callers_group: self.callers_group,
            announce: self.announce,
            taps: Vec::new(),
            terminal: (self.foreground && !self.callers_group).then(Terminal::controlling).flatten(),
            stdin: None,
            stdout: None,
            stderr: None,
        };
        let (input, writer) = source(self.stdin)?;
        let (output, reader) = sink(self.stdout)?;
        let (errors, errors_reader) = sink(self.stderr)?;
        (running.stdin, running.stdout, running.stderr) = (writer, reader, errors_reader);

        let (mut next_input, mut output) = (input, Some(output));
        let last = self.stages.len() - 1;
        for (index, stage) in self.stages.into_iter().enumerate() {
            let stdin = next_input;
            let stdout;
            (stdout, next_input) = if index == last {
                (output.take().unwrap_or(Slot::Inherit), Slot::Inherit)
            } else {
                let (mut reader, writer) = pipe()?;
                if self.tapped {
                    let (next, to) = pipe()?;
                    running.taps.push(Tap { from: std::mem::replace(&mut reader, next), to });
                }
                (Slot::Fd(writer.into()), Slot::Fd(reader.into()))
            };
            let slots = Slots { stdin, stdout, stderr: errors.try_clone()? };
            // On an error `running` is dropped, which kills and reaps what runs.
            running.start(index, stage, slots)?;
        }
        // Whoever reads it waits for the end, which is the stages' to give.
        running.announce = None;
        Ok(running)
    }

    /// Runs the pipeline, collects what it writes, and waits for its end. What it writes to its standard error is
    /// collected too if that is [`End::Piped`].
    ///
    /// # Errors
    /// As [`Pipeline::spawn`]; `EINTR`: a signal handler ran, and the pipeline was killed.
    pub fn output(self) -> Result<PipelineOutput> {
        self.output_deadline(b"", Deadline::NEVER)
    }

    /// Runs the pipeline, gives it `input` if its standard input is [`End::Piped`], collects what it writes, and waits
    /// until the deadline for its end.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed, and the pipeline was killed. Else as [`Pipeline::output`].
    pub fn output_deadline(mut self, input: &[u8], deadline: impl Into<Deadline>) -> Result<PipelineOutput> {
        let deadline = deadline.into();
        self.stdout = End::Piped;
        let mut running = self.spawn()?;
        let stdin = running.stdin.take().map(|writer| (writer, input));
        let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
        let said = child::converse(stdin, stdout.as_ref(), stderr.as_ref(), deadline, &LABEL)?;
        let status = running.wait_deadline(deadline)?;
        Ok(PipelineOutput { stdout: said.output, stderr: said.errors, status })
    }
}

const LABEL: Label = Label::Static("pipeline");

/// What [`Pipeline::output`] collected.
///
/// ```
/// use ginnel::stream::{Pipeline, pipeline::End};
///
/// let output = Pipeline::parse("sh -c 'echo said; echo moaned >&2; exit 3'")?.stderr(End::Piped).output()?;
/// assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"said\n"[..], &b"moaned\n"[..]));
/// assert_eq!(output.status.last().code(), Some(3));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PipelineOutput {
    /// What the last stage wrote.
    pub stdout: Vec<u8>,
    /// What all stages wrote to their standard error, if that was [`End::Piped`].
    pub stderr: Vec<u8>,
    /// How each stage ended.
    pub status: PipelineStatus,
}

/// How each stage of a pipeline ended.
///
/// ```
/// use ginnel::stream::Pipeline;
///
/// let status = Pipeline::parse("true | false | sh -c 'exit 3' | true")?.spawn()?.wait()?;
/// assert!(!status.success(), "every stage counts");
/// assert!(status.last().success(), "what a shell without pipefail looks at");
/// let (stage, failed) = status.first_failure().unwrap();
/// assert_eq!((stage, failed.command.as_str(), failed.status.code()), (1, "false", Some(1)));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PipelineStatus {
    /// One for each stage, in order.
    pub stages: Vec<StageStatus>,
}

/// How one stage ended.
///
/// ```
/// use ginnel::stream::Pipeline;
///
/// let mut running = Pipeline::parse("true | sh -c 'exit 3'")?.spawn()?;
/// let pids = running.pids();
/// let status = running.wait()?;
///
/// let second = &status.stages[1];
/// assert_eq!((second.command.as_str(), second.status.code()), ("sh -c exit 3", Some(3)));
/// assert_eq!(second.pid, pids[1]);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StageStatus {
    /// The command, as it was given.
    pub command: String,
    /// Its process id, which may belong to another process by now.
    pub pid: i32,
    /// Exit code or signal.
    pub status: ExitStatus,
}

impl PipelineStatus {
    /// Whether every stage ended with 0 (what `set -o pipefail` makes a shell look at).
    pub fn success(&self) -> bool {
        self.stages.iter().all(|stage| stage.status.success())
    }

    /// How the last stage ended: the status of the pipeline in a plain shell.
    pub fn last(&self) -> ExitStatus {
        self.stages.last().map(|stage| stage.status).unwrap_or_default()
    }

    /// The first stage that did not end with 0, and its number.
    pub fn first_failure(&self) -> Option<(usize, &StageStatus)> {
        self.stages.iter().enumerate().find(|(_, stage)| !stage.status.success())
    }
}

/// Where one stream of a stage leads.
#[derive(Debug)]
enum Slot {
    Inherit,
    Fd(OwnedFd),
}

struct Slots {
    stdin: Slot,
    stdout: Slot,
    stderr: Slot,
}

impl Slot {
    fn try_clone(&self) -> Result<Slot> {
        match self {
            Slot::Inherit => Ok(Slot::Inherit),
            Slot::Fd(fd) => Ok(Slot::Fd(duplicate(fd)?)),
        }
    }

    /// The same place, for the stream with another number.
    fn duplicate_as(&self, standard: Standard) -> Result<Slot> {
        match (self, standard) {
            (Slot::Fd(fd), _) => Ok(Slot::Fd(duplicate(fd)?)),
            (Slot::Inherit, Standard::Output) => Ok(Slot::Fd(duplicate(std::io::stdout())?)),
            (Slot::Inherit, Standard::Error) => Ok(Slot::Fd(duplicate(std::io::stderr())?)),
        }
    }
}

pub(super) fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().map_err(|error| Error::from_io("dup", &error, &LABEL))
}

fn null() -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null");
    file.map(OwnedFd::from).map_err(|error| Error::from_io("open", &error, &Label::from("/dev/null")))
}

fn source(end: End) -> Result<(Slot, Option<PipeWriter>)> {
    Ok(match end {
        End::Inherit => (Slot::Inherit, None),
        End::Null => (Slot::Fd(null()?), None),
        End::Fd(fd) => (Slot::Fd(fd), None),
        End::Piped => {
            let (reader, writer) = pipe()?;
            (Slot::Fd(reader.into()), Some(writer))
        }
    })
}

fn sink(end: End) -> Result<(Slot, Option<PipeReader>)> {
    Ok(match end {
        End::Inherit => (Slot::Inherit, None),
        End::Null => (Slot::Fd(null()?), None),
        End::Fd(fd) => (Slot::Fd(fd), None),
        End::Piped => {
            let (reader, writer) = pipe()?;
            (Slot::Fd(writer.into()), Some(reader))
        }
    })
}

impl Slots {
    fn apply(&mut self, redirect: &Redirect) -> Result<()> {
        let opened = |result: std::io::Result<File>, path: &PathBuf| {
            let object = || Label::new(path.display().to_string());
            result
                .map(|file| Slot::Fd(file.into()))
                .map_err(|error| Error::from_io("open", &error, &object()))
        };
        match redirect {
            Redirect::Read { path } => self.stdin = opened(File::open(path), path)?,
            Redirect::Write { of, path, append } => {
                let mut how = OpenOptions::new();
                how.create(true).write(true).append(*append).truncate(!*append);
                *self.of(*of) = opened(how.open(path), path)?;
            }
            Redirect::Same { of, to } => *self.of(*of) = self.of(*to).duplicate_as(*to)?,
        }
        Ok(())
    }

    fn of(&mut self, standard: Standard) -> &mut Slot {
        match standard {
            Standard::Output => &mut self.stdout,
            Standard::Error => &mut self.stderr,
        }
    }
}

/// A pipeline that was started. Dropping it kills and reaps every stage that was not waited for.
///
/// ```
/// use std::io::{Read, Write};
/// use ginnel::stream::{Pipeline, pipeline::End};
///
/// let mut upper = Pipeline::parse("tr a-z A-Z | rev")?.stdin(End::Piped).stdout(End::Piped).spawn()?;
/// upper.stdin.take().unwrap().write_all(b"lennig\n")?;
/// let mut text = String::new();
/// upper.stdout.take().unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "GINNEL\n");
/// assert!(upper.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RunningPipeline {
    /// The process whose children they are. A forked child's copy neither kills nor reaps them.
    parent: u32,
    members: Vec<Member>,
    group: Option<Pid>,
    callers_group: bool,
    announce: Option<Arc<OwnedFd>>,
    terminal: Option<Terminal>,
    /// What the first stage reads from, if that is [`End::Piped`]. Drop it to let the stage see the end.
    pub stdin: Option<PipeWriter>,
    /// What the last stage writes to, if that is [`End::Piped`].
    pub stdout: Option<PipeReader>,
    /// What all stages write their errors to, if that is [`End::Piped`].
    pub stderr: Option<PipeReader>,
    /// The places between the stages, in order, if the pipeline is [tapped](Pipeline::tapped). No byte passes one unless
    /// the caller moves it, and no end: drop a tap when its `from` is at its end, or its `to` has no reader any more.
    pub taps: Vec<Tap>,
}

/// The place between two stages of a [tapped](Pipeline::tapped) pipeline.
///
/// ```
/// use ginnel::stream::{Pipeline, pipe::splice};
///
/// let mut running = Pipeline::parse("seq 100000 | tail -n 1")?.tapped(true).spawn()?;
/// let tap = running.taps.remove(0);
/// let mut bytes = 0;
/// loop {
///     match splice(&tap.from, &tap.to, 1 << 16)? {
///         0 => break,
///         moved => bytes += moved,
///     }
/// }
/// drop(tap);
/// assert_eq!(bytes, 588_895);
/// assert!(running.wait()?.success());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Tap {
    /// What the stage before writes.
    pub from: PipeReader,
    /// What the stage after reads.
    pub to: PipeWriter,
}

#[derive(Debug)]
struct Member {
    child: Child,
    command: String,
    object: Label,
    status: Option<ExitStatus>,
}

impl RunningPipeline {
    fn start(&mut self, index: usize, stage: Stage, mut slots: Slots) -> Result<()> {
        let words: Vec<_> = stage.arguments.iter().map(|word| word.to_string_lossy()).collect();
        let command_line = words.join(" ");
        let object = Label::new(format!("stage {} ({command_line})", index + 1));
        for redirect in &stage.redirects {
            slots.apply(redirect).map_err(|error| {
                let hint = format!("for {object}");
                error.with_hint(hint)
            })?;
        }
        let mut command = Command::new(&stage.arguments[0]);
        command.args(&stage.arguments[1..]);
        if !self.callers_group {
            command.process_group(self.group.map_or(0, |group| group.as_raw_nonzero().get()));
        }
        if let Slot::Fd(fd) = slots.stdin {
            command.stdin(fd);
        }
        if let Slot::Fd(fd) = slots.stdout {
            command.stdout(fd);
        }
        if let Slot::Fd(fd) = slots.stderr {
            command.stderr(fd);
        }
        if let (Some(terminal), None) = (&self.terminal, self.group) {
            terminal.hand_over_at_exec(&mut command)?;
        }
        if let Some(to) = &self.announce {
            announce_at_exec(&mut command, to.clone());
        }
        // The command owns the stage's ends; it goes at the end of this function, and our copies of them with it.
        let child = command.spawn().map_err(|error| explain_spawn(&error, &object))?;
        if !self.callers_group {
            self.group.get_or_insert(child::pid(&child));
        }
        self.members.push(Member { child, command: command_line, object, status: None });
        Ok(())
    }

    /// The process group of all stages: the first one's process id, or the caller's group.
    pub fn group(&self) -> i32 {
        self.group.unwrap_or_else(rustix::process::getpgrp).as_raw_nonzero().get()
    }

    /// The process ids of all stages.
    pub fn pids(&self) -> Vec<i32> {
        self.members.iter().map(|member| child::pid(&member.child).as_raw_nonzero().get()).collect()
    }

    /// The stages as errors name them: `stage 2 (grep root)`.
    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.object.to_string()).collect()
    }

    /// Waits for the end of every stage. The pipe to the first one is closed before.
    ///
    /// Mind the deadlock: what is written to a pipe that nobody reads is not waited for to the end. Read `stdout` and
    /// `stderr` first, or use [`Pipeline::output`].
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran; what still runs runs on, wait again.
    ///
    /// # Blocking
    /// Until the last stage has ended.
    pub fn wait(&mut self) -> Result<PipelineStatus> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// The statuses, if every stage has ended.
    ///
    /// # Errors
    /// `EAGAIN`: one still runs.
    pub fn try_wait(&mut self) -> Result<PipelineStatus> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Waits until the deadline for the end of every stage.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the stage that the error names still runs. Else as [`RunningPipeline::wait`].
    pub fn wait_deadline(&mut self, deadline: impl Into<Deadline>) -> Result<PipelineStatus> {
        let deadline = deadline.into();
        self.stdin = None;
        for member in &mut self.members {
            if member.status.is_none() {
                member.status = Some(child::wait_deadline(&mut member.child, deadline, &member.object)?);
            }
        }
        self.terminal = None;
        let stages = self.members.iter().map(|member| StageStatus {
            command: member.command.clone(),
            pid: child::pid(&member.child).as_raw_nonzero().get(),
            status: member.status.unwrap_or_default(),
        });
        Ok(PipelineStatus { stages: stages.collect() })
    }

    /// Sends all stages a standard signal, by its number, and whatever they started that is still in their group (in the
    /// caller's group the stages only). A stage that has left the group, as `setsid(1)` does, gets it too.
    ///
    /// # Errors
    /// `ESRCH`: all have ended and were waited for. `EINVAL`: no such signal. `EPERM`: one changed its user; the others
    /// got it.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let signal = child::signal(signal, &LABEL)?;
        let living = self.members.iter().filter(|member| member.status.is_none());
        // A stage may have left the group (`setsid`). The group's number is taken as long as one of its members is there, if
        // only as a zombie.
        let (members, leavers): (Vec<_>, Vec<_>) = living
            .map(|member| child::pid(&member.child))
            .partition(|pid| self.group.is_some() && rustix::process::getpgid(Some(*pid)).ok() == self.group);
        let mut outcome = match (self.group, members.is_empty()) {
            (Some(group), false) => rustix::process::kill_process_group(group, signal),
            _ if leavers.is_empty() => Err(Errno::SRCH),
            _ => Ok(()),
        };
        for pid in leavers {
            outcome = outcome.and(rustix::process::kill_process(pid, signal));
        }
        outcome.map_err(|errno| Error::new("kill", errno, &LABEL))
    }

    /// Ends all stages with `SIGKILL`; [`wait`](RunningPipeline::wait) reaps them.
    ///
    /// # Errors
    /// `ESRCH`: all have ended and were waited for.
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }
}

fn announce_at_exec(command: &mut Command, to: Arc<OwnedFd>) {
    // SAFETY: between fork and exec this makes two system calls, both async-signal-safe; it formats into an array of its
    // own, allocates nothing and takes no lock. The closure owns a share of the descriptor.
    unsafe {
        command.pre_exec(move || {
            let mut line = [b'\n'; 12];
            let mut at = line.len() - 1;
            let mut rest = rustix::process::getpid().as_raw_nonzero().get();
            while rest > 0 {
                at -= 1;
                line[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            // Whoever was to clean up has gone: that is no reason not to run.
            let _ = rustix::io::write(&to, &line[at..]);
            Ok(())
        });
    }
}

impl Drop for RunningPipeline {
    fn drop(&mut self) {
        if self.parent != std::process::id() {
            return;
        }
        // Nothing to kill where everything was waited for.
        let _ = self.kill();
        for member in self.members.iter_mut().filter(|member| member.status.is_none()) {
            let _ = member.child.wait();
        }
    }
}
