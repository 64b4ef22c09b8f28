//! A pipeline launched as the textbooks draw it, stopped after every call, with the true state of the kernel's
//! tables: `pipe(2)`, `fork(2)`, `dup2(2)`, `close(2)`, `execve(2)`, `ptrace(2)`.
//!
//! What a user sees: a shell process is forked that launches `a | b | c`, and after each of its calls, and of each
//! child's until its `execve`, a [`Step`] has all descriptor tables, and the open file table with its reference
//! counts. They are read, not reckoned: the processes stand still, `/proc` has their descriptors, and `kcmp(2)` says
//! which of these share an open file description. The order is always the same. After a fork the child goes first,
//! until its `execve`, where it is held; then the shell goes on. When the shell has made its last call all programs
//! start at once.
//!
//! - A command that cannot be executed: its `execve` shows the errno, then its `_exit` is a step too; the other stages
//!   run, and its status is 127 (not found) or 126 (found, not executable), as in a shell. `PATH` is searched before
//!   the fork, so there is one `execve`: the one that succeeds, or the last that would fail.
//! - The pipeline stays in the caller's process group, so in its foreground on a terminal: Ctrl-C reaches the caller
//!   and all stages, and no call is there that the textbooks do not have. There is no job control.
//! - If the caller dies, even by `SIGKILL`, all processes die: by `PTRACE_O_EXITKILL` while they are traced, after that
//!   by `PR_SET_PDEATHSIG`. So too if `on_step` fails or panics.
//! - "Outside" are the descriptors of the calling process: all that the shell has inherited came from there.
//! - A set-user-ID program gets no privileges by the `execve` of a traced process, unless the tracer is privileged.
//!
//! How it works inside: the calling thread is the tracer. One process at a time runs from one system call's exit to
//! the next; calls that textbooks leave out pass unseen (`picture/launch.rs` lists them). The letters of open files are
//! kept from step to step by the references that the call did not touch: one call changes at most one process's
//! descriptors.

mod board;
mod launch;
mod render;
mod trace;

pub use render::Renderer;

use crate::descriptors::{Access, Descriptor, DescriptorTable, ObjectId};
use crate::open_files::{FileId, OpenFile, Reference, open_files};
use crate::{Error, Result};
use launch::Plan;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::Ordering::SeqCst;
use std::{io, process};
use trace::Stop;

/// The state after one call.
///
/// ```
/// use ginnel_inspect::picture::{Step, picture};
///
/// let mut steps: Vec<Step> = Vec::new();
/// picture(&[vec!["true".into()]], |step| {
///     steps.push(step.clone());
///     Ok(())
/// })?;
///
/// assert_eq!((steps[0].call.as_str(), steps[0].process.as_str()), ("start", "shell"));
/// let executed = steps.iter().find(|step| step.call.starts_with("execve(")).unwrap();
/// assert_eq!(executed.process, "true");
/// assert_eq!(executed.processes.len(), 2, "the shell lives on beside it");
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// 0 is the state before the first call.
    pub number: usize,
    /// The call and its result: `pipe() = [3, 4]`, `execve("/bin/cat", ["cat"])`, `close(3)`; `start` in step 0.
    pub call: String,
    /// The process that made it.
    pub pid: i32,
    /// That process's label, after the call: `shell`; `child 1 (to be cat)`; after its `execve`, `cat`.
    pub process: String,
    /// The descriptor tables of the processes that live: the shell, then its children in the order of their forks.
    pub processes: Vec<ProcessTable>,
    /// The open file table. A letter is one open file description in all steps, and is not used again.
    pub open_files: Vec<OpenFile>,
}

/// A process and its descriptor table.
///
/// ```
/// use ginnel_inspect::picture::picture;
///
/// let mut after_fork = Vec::new();
/// picture(&[vec!["true".into()]], |step| {
///     if step.call.starts_with("fork()") {
///         after_fork = step.processes.clone();
///     }
///     Ok(())
/// })?;
///
/// let (shell, child) = (&after_fork[0], &after_fork[1]);
/// assert_eq!((shell.label.as_str(), child.label.as_str()), ("shell", "child 1 (to be true)"));
/// assert_eq!(shell.descriptors, child.descriptors, "inherited, number by number");
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessTable {
    /// The process.
    pub pid: i32,
    /// Its label, as in [`Step::process`].
    pub label: String,
    /// Its descriptors by their number.
    pub descriptors: BTreeMap<i32, Entry>,
}

/// A descriptor, and the open file that it refers to.
///
/// ```
/// use ginnel_inspect::{descriptors::Access, picture::picture};
///
/// let mut leads_to = String::new();
/// picture(&[vec!["echo".into()], vec!["true".into()]], |step| {
///     if step.process == "echo" && step.call.starts_with("execve(") {
///         let stdout = &step.processes[1].descriptors[&1];
///         assert_eq!(stdout.descriptor.access, Access::Write);
///         let file = step.open_files.iter().find(|file| file.id == stdout.open_file).unwrap();
///         leads_to = file.object.clone();
///     }
///     Ok(())
/// })?;
/// assert_eq!(leads_to, "pipe 1 (write end)");
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The [`OpenFile::id`].
    pub open_file: FileId,
    /// What `/proc` says of it.
    #[serde(flatten)]
    pub descriptor: Descriptor,
}

/// How the pipeline ended.
///
/// ```
/// use ginnel_inspect::picture::picture;
///
/// let outcome = picture(&[vec!["false".into()], vec!["true".into()]], |_| Ok(()))?;
/// let codes: Vec<_> = outcome.stages.iter().map(|stage| stage.code).collect();
/// assert_eq!(codes, [Some(1), Some(0)]);
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Each stage, from left to right.
    pub stages: Vec<StageOutcome>,
}

/// How one stage ended.
///
/// ```
/// use ginnel_inspect::picture::picture;
///
/// let killed = vec!["sh".into(), "-c".into(), "kill -TERM $$".into()];
/// let outcome = picture(&[killed], |_| Ok(()))?;
///
/// let stage = &outcome.stages[0];
/// assert_eq!((stage.command.as_str(), stage.code, stage.signal), ("sh", None, Some(15)));
/// assert_eq!(stage.shell_status(), 143);
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageOutcome {
    /// The command's name.
    pub command: String,
    /// Its process.
    pub pid: i32,
    /// Its exit status: 127 if the command was not found. None if a signal killed it.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

impl StageOutcome {
    /// What a shell's `$?` is for it: the exit status, or 128 and the signal.
    pub fn shell_status(&self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

/// Launches `stages` as one pipeline, shows each step, and waits for the end of all.
///
/// A stage is a command and its arguments; the command is looked up in `PATH`. The stages get the caller's environment,
/// signal mask, directory, and its descriptors 0, 1 and 2 with whatever else is not close-on-exec.
///
/// ```
/// use ginnel_inspect::picture::picture;
///
/// let stages = [vec!["echo".into(), "hello".into()], vec!["grep".into(), "-q".into(), "hello".into()]];
/// let mut calls = Vec::new();
/// let outcome = picture(&stages, |step| {
///     calls.push(step.call.clone());
///     Ok(())
/// })?;
///
/// assert!(calls[1].starts_with("pipe() = ["));
/// assert!(calls[2].starts_with("fork() = "));
/// assert_eq!(outcome.stages[1].code, Some(0));
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
///
/// # Errors
/// No process is left when an error comes back.
/// - `EINVAL`: no stages, or one of no words; a word with a null byte.
/// - `EPERM`, `ENOSYS`: the host allows no `ptrace(2)` or no `kcmp(2)`.
/// - `EMFILE`, `EAGAIN` and so on: a call of the launch failed. Its step has been shown.
/// - `EINTR`: a signal handler of the caller ran.
/// - What `on_step` gave.
///
/// # Blocking
/// Until all stages have ended. Another thread of the caller that waits for any child (`waitpid(-1)`) steals the stops.
pub fn picture(stages: &[Vec<OsString>], on_step: impl FnMut(&Step) -> io::Result<()>) -> Result<Outcome> {
    let plan = Plan::new(stages)?;
    let shell = plan.start()?;
    let mut tracer = Tracer {
        plan: &plan,
        shell: Process { pid: shell, label: "shell".into() },
        children: Vec::new(),
        forks: 0,
        running: true,
        memory: Memory::default(),
        on_step,
    };
    tracer.start()?;
    tracer.launch()?;
    tracer.let_go()?;
    tracer.outcome()
}

#[derive(Clone)]
struct Process {
    pid: i32,
    label: String,
}

struct Tracer<'a, F> {
    plan: &'a Plan,
    shell: Process,
    /// The children that live.
    children: Vec<Process>,
    /// How many children there were.
    forks: usize,
    /// Whether the shell is there to be waited for.
    running: bool,
    memory: Memory,
    on_step: F,
}

/// What a process did between two stops.
enum Call {
    Fork(i32),
    Execute,
    /// A call of the picture that changes descriptors only.
    Descriptors,
    /// The shell has made its last call.
    Done,
    Ended,
}

impl<F: FnMut(&Step) -> io::Result<()>> Tracer<'_, F> {
    /// Brings the shell to where its first call is next.
    fn start(&mut self) -> Result<()> {
        let shell = self.shell.pid;
        self.expect_stopped()?;
        trace::set_options(shell)?;
        let inherited = DescriptorTable::read(shell)?;
        let highest = inherited.descriptors.last_key_value().map_or(-1, |(&fd, _)| fd);
        self.plan.board.highest_descriptor().store(highest, SeqCst);
        trace::run(shell)?;
        self.expect_stopped()?;
        self.show("start".into(), &self.shell.clone(), &[])
    }

    fn expect_stopped(&mut self) -> Result<()> {
        match trace::wait(self.shell.pid)? {
            Stop::Signal(libc::SIGSTOP) => Ok(()),
            Stop::Ended => Err(self.shell_ended()),
            stop => Err(Error::new("ptrace", format!("the shell: {stop:?}"), io::ErrorKind::Other)),
        }
    }

    fn shell_ended(&mut self) -> Error {
        self.running = false;
        Error::new("fork", "the shell", io::Error::from_raw_os_error(libc::ECHILD))
            .with_hint("it was killed, or it may not be traced: see kernel.yama.ptrace_scope")
    }

    /// Runs the shell to its last call, and each child to its `execve`.
    fn launch(&mut self) -> Result<()> {
        loop {
            let shell = self.shell.clone();
            match self.next_call(&shell)? {
                Call::Fork(pid) => self.launch_child(pid)?,
                Call::Done => return Ok(()),
                Call::Ended => return Err(self.shell_ended()),
                _ => {}
            }
        }
    }

    /// Runs a new child to its `execve`, where it is held, or to its end.
    fn launch_child(&mut self, pid: i32) -> Result<()> {
        loop {
            // Someone else may have killed it.
            let Some(child) = self.children.iter().find(|child| child.pid == pid).cloned() else {
                return Ok(());
            };
            match self.next_call(&child)? {
                Call::Execute | Call::Ended => return Ok(()),
                _ => {}
            }
        }
    }

    /// Runs a process to the exit of the next call of the picture, and shows the state there.
    fn next_call(&mut self, process: &Process) -> Result<Call> {
        let pid = process.pid;
        let (mut entry, mut signal) = ((0, [0; 6]), 0);
        loop {
            match trace::run_to_system_call(pid, signal) {
                // Someone else has killed it: the wait says so.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                done => done?,
            }
            signal = 0;
            match trace::wait(pid)? {
                Stop::Entry { number, arguments } => {
                    entry = (number, arguments);
                    if number == libc::SYS_exit_group {
                        return self.exited(process, arguments[0] as i32);
                    }
                }
                Stop::Exit(result) => {
                    if let Some(call) = self.after(process, entry.0, entry.1, result)? {
                        return Ok(call);
                    }
                }
                Stop::Executed => return self.executed(pid),
                Stop::Forked => {}
                Stop::Signal(libc::SIGSTOP) if pid == self.shell.pid => return Ok(Call::Done),
                Stop::Signal(other) => signal = other,
                Stop::Ended => {
                    self.forget(pid);
                    return Ok(Call::Ended);
                }
            }
        }
    }

    /// Shows the state after a system call, if it is one of the picture's.
    fn after(
        &mut self,
        process: &Process,
        number: i64,
        arguments: [u64; 6],
        result: i64,
    ) -> Result<Option<Call>> {
        let Some(name) = picture_call(number) else { return Ok(None) };
        let (first, second) = (arguments[0] as i32, arguments[1] as i32);
        let text = match name {
            "dup2" => format!("dup2({first}, {second})"),
            "close" => format!("close({first})"),
            "execve" => self.plan.commands[self.forks - 1].exec_call.clone(),
            _ => format!("{name}()"),
        };
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result as i32);
            self.show(format!("{text} = -1 {}", render::errno(&error)), process, &[])?;
            // A command that cannot be executed is the pipeline's affair; all else ends the launch.
            return if name == "execve" { Ok(None) } else { Err(Error::new(name, &process.label, error)) };
        }
        match name {
            "pipe" => {
                let ends = trace::read_two_descriptors(process.pid, arguments[0])?;
                self.memory.pipe_made(DescriptorTable::read(process.pid)?.descriptors.get(&ends[0]));
                self.show(format!("{text} = {ends:?}"), process, &ends)?;
            }
            "fork" => {
                let child = result as i32;
                self.expect_child(child)?;
                self.show(format!("{text} = {child}"), process, &[])?;
                return Ok(Some(Call::Fork(child)));
            }
            "dup2" => self.show(text, process, &[second])?,
            "close" => self.show(text, process, &[first])?,
            // The stop for the new program came before this exit.
            _ => return Ok(None),
        }
        Ok(Some(Call::Descriptors))
    }

    /// Takes a new child in: it is traced from its birth, and stops before its first instruction.
    fn expect_child(&mut self, pid: i32) -> Result<()> {
        let label = format!("child {} (to be {})", self.forks + 1, self.plan.commands[self.forks].label);
        self.forks += 1;
        self.children.push(Process { pid, label });
        if let Stop::Ended = trace::wait(pid)? {
            self.forget(pid);
        }
        Ok(())
    }

    fn executed(&mut self, pid: i32) -> Result<Call> {
        let command = &self.plan.commands[self.forks - 1];
        let process = Process { pid, label: command.label.clone() };
        if let Some(child) = self.children.iter_mut().find(|child| child.pid == pid) {
            *child = process.clone();
        }
        self.show(command.exec_call.clone(), &process, &[])?;
        Ok(Call::Execute)
    }

    /// Lets a process end that is about to.
    fn exited(&mut self, process: &Process, code: i32) -> Result<Call> {
        trace::run(process.pid)?;
        while !matches!(trace::wait(process.pid)?, Stop::Ended) {
            trace::run(process.pid)?;
        }
        self.forget(process.pid);
        if process.pid != self.shell.pid {
            self.show(format!("_exit({code})"), process, &[])?;
        }
        Ok(Call::Ended)
    }

    /// A process has been waited for to its end.
    fn forget(&mut self, pid: i32) {
        self.children.retain(|child| child.pid != pid);
        self.running &= pid != self.shell.pid;
    }

    /// Reads the state of all processes, and hands it on.
    ///
    /// `touched` are the descriptors of `by` whose meaning the call has changed.
    fn show(&mut self, call: String, by: &Process, touched: &[i32]) -> Result<()> {
        let living: Vec<_> = [&self.shell].into_iter().chain(&self.children).cloned().collect();
        let tables = living.iter().map(|one| DescriptorTable::read(one.pid)).collect::<Result<Vec<_>>>()?;
        // All that the shell has inherited is from this process, which has it still.
        let own = DescriptorTable::read(process::id() as i32)?;
        let mut files = open_files(&tables, &[own])?;
        let touched: Vec<_> = touched.iter().map(|&fd| Reference { pid: by.pid, fd }).collect();
        self.memory.name(&mut files, &touched);
        let processes =
            living.into_iter().zip(tables).map(|(one, table)| self.memory.table(one, table)).collect();
        let number = self.memory.steps;
        self.memory.steps += 1;
        let step =
            Step { number, call, pid: by.pid, process: by.label.clone(), processes, open_files: files };
        (self.on_step)(&step).map_err(|error| Error::new("on_step", format!("step {number}"), error))
    }

    /// Lets all programs start, and the shell wait for them.
    fn let_go(&mut self) -> Result<()> {
        // From the last, so that a failure leaves those that are still traced at the front.
        while let Some(child) = self.children.last() {
            match trace::detach(child.pid) {
                // Someone else has killed it: the shell gets its status when the tracer has had it.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => trace::kill(child.pid),
                done => done?,
            }
            self.children.pop();
        }
        trace::detach(self.shell.pid)?;
        Ok(())
    }

    fn outcome(&mut self) -> Result<Outcome> {
        match trace::wait(self.shell.pid) {
            Ok(_) => {}
            // The caller ignores SIGCHLD: its children go without a word, when they have ended.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {}
            Err(error) => return Err(error),
        }
        self.running = false;
        let stages = self.plan.commands.iter().enumerate();
        stages
            .map(|(stage, command)| self.stage_outcome(stage, &command.label))
            .collect::<Result<_>>()
            .map(|stages| Outcome { stages })
    }

    fn stage_outcome(&mut self, stage: usize, command: &str) -> Result<StageOutcome> {
        let (pid, status) =
            (self.plan.board.pid(stage).load(SeqCst), self.plan.board.status(stage).load(SeqCst));
        if status == board::NOT_YET {
            return Err(self.shell_ended());
        }
        let status = ExitStatus::from_raw(status);
        Ok(StageOutcome { command: command.into(), pid, code: status.code(), signal: status.signal() })
    }
}

impl<F> Drop for Tracer<'_, F> {
    /// Nothing is left of a launch that was given up.
    fn drop(&mut self) {
        for child in &self.children {
            trace::kill(child.pid);
        }
        if self.running {
            // Children that are no longer traced die with it.
            trace::kill(self.shell.pid);
        }
    }
}

/// The name that textbooks have for a system call, if they have it in a launch.
fn picture_call(number: i64) -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    match number {
        libc::SYS_pipe => return Some("pipe"),
        libc::SYS_dup2 => return Some("dup2"),
        _ => {}
    }
    match number {
        libc::SYS_pipe2 => Some("pipe"),
        libc::SYS_clone => Some("fork"),
        libc::SYS_dup3 => Some("dup2"),
        libc::SYS_close => Some("close"),
        libc::SYS_execve => Some("execve"),
        _ => None,
    }
}

/// What keeps names the same from step to step.
#[derive(Default)]
struct Memory {
    steps: usize,
    letters: usize,
    pipes: HashMap<ObjectId, usize>,
    /// The references of the last step.
    previous: HashMap<Reference, FileId>,
}

impl Memory {
    fn pipe_made(&mut self, read_end: Option<&Descriptor>) {
        let number = self.pipes.len() + 1;
        self.pipes.extend(read_end.map(|descriptor| (descriptor.object, number)));
    }

    /// Gives each open file the letter that it had, or a new one; and pipes their numbers.
    fn name(&mut self, files: &mut [OpenFile], touched: &[Reference]) {
        for file in files.iter_mut() {
            let untouched = file.references.iter().filter(|reference| !touched.contains(reference));
            file.id = untouched
                .filter_map(|reference| self.previous.get(reference))
                .next()
                .copied()
                .unwrap_or_else(|| {
                    self.letters += 1;
                    FileId(self.letters - 1)
                });
            if let Some(number) = self.pipes.get(&file.object_id) {
                let end = if file.access == Access::Read { "read" } else { "write" };
                file.object = format!("pipe {number} ({end} end)");
            }
        }
        files.sort_by_key(|file| file.id);
        self.previous.clear();
        self.previous.extend(files.iter().flat_map(|file| file.references.iter().map(|&one| (one, file.id))));
    }

    /// A process's table with the letters of its open files. A descriptor that has none has closed meanwhile.
    fn table(&self, process: Process, table: DescriptorTable) -> ProcessTable {
        let Process { pid, label } = process;
        let entry = |(fd, descriptor)| {
            let open_file = *self.previous.get(&Reference { pid, fd })?;
            Some((fd, Entry { open_file, descriptor }))
        };
        ProcessTable { pid, label, descriptors: table.descriptors.into_iter().filter_map(entry).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::Kind;

    fn file(references: &[(i32, i32)]) -> OpenFile {
        OpenFile {
            id: FileId(0),
            object: "pipe:[1]".into(),
            kind: Kind::Pipe,
            access: Access::Read,
            offset: 0,
            object_id: ObjectId { device: 1, inode: 1 },
            references: references.iter().map(|&(pid, fd)| Reference { pid, fd }).collect(),
            outside: false,
        }
    }

    /// In a textbook's launch the shell's reference, which no child touches, always comes first. Elsewhere it need not.
    #[test]
    fn touched_reference_does_not_carry_the_letter() {
        let mut memory = Memory::default();
        memory.name(&mut [file(&[(10, 1)]), file(&[(10, 4)])], &[]);
        let mut after_dup2 = [file(&[(10, 1), (10, 4)])];
        memory.name(&mut after_dup2, &[Reference { pid: 10, fd: 1 }]);
        assert_eq!(after_dup2[0].id, FileId(1));

        let mut after_reuse = [file(&[(10, 4)]), file(&[(10, 1)])];
        memory.name(&mut after_reuse, &[Reference { pid: 10, fd: 1 }]);
        assert_eq!(after_reuse.map(|file| file.id), [FileId(1), FileId(2)]);
    }
}
