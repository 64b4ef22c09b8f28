//! Nothing stays behind: a process beside this one that removes what we made for ourselves when we are gone.
//!
//! A `SIGKILL` runs no destructor, and a System V queue outlives everybody. So a verb that makes objects for its own use
//! starts a guardian first: a second `ginnel`, in a process group of its own, that reads the names of those objects
//! from a pipe and removes what is still registered when the pipe closes, which it does however we end. It keeps the
//! terminal's settings too, and puts them back.
//!
//! # Protocol
//! One line each, no answers: `+ENDPOINT` made (told *before* it is made, so that no kill falls between), `/PATH` a
//! directory to remove with all it holds, `~` to leave the terminal as it is, `PID` a child of ours to kill with all its
//! own (written by that child itself, before its `execve`).
//!
//! `=PID` comes first and says who we are, and a `.` last, that we end by ourselves. Where that is missing the guardian
//! waits until we are gone: the kernel closes the pipe of a killed process before the sockets that it opened later, which
//! look alive until then.

use std::fs;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use ginnel::Endpoint;
use ginnel::notify::{PidFd, Signal};

use crate::failure::{Context, Failure, Result};
use crate::objects;

/// The verb that turns this program into a guardian.
pub(crate) const VERB: &str = "__guardian";

/// The running guardian of this process.
pub(crate) struct Guardian {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts the guardian.
    pub(crate) fn start() -> Result<Guardian> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .arg(VERB)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the guardian process")?;
        let pipe = child.stdin.take();
        let mut guardian = Guardian { child, pipe };
        guardian.tell(format_args!("={}", std::process::id()))?;
        Ok(guardian)
    }

    /// To be removed when this process ends. Say so before making it.
    pub(crate) fn adopt(&mut self, endpoint: &Endpoint) -> Result<()> {
        self.tell(format_args!("+{endpoint}"))
    }

    /// A directory to be removed, with what it holds, when this process ends.
    pub(crate) fn adopt_directory(&mut self, path: &Path) -> Result<()> {
        self.tell(format_args!("/{}", path.display()))
    }

    /// The terminal's settings are others' to change, and are to stay as they are.
    pub(crate) fn leave_terminal(&mut self) -> Result<()> {
        self.tell(format_args!("~"))
    }

    /// A descriptor to which children of this process write their process ids, a line each: they are to be killed, with
    /// all that they start, when this process ends.
    pub(crate) fn process_ids(&self) -> Result<OwnedFd> {
        let pipe = self.pipe.as_ref().expect("it is there until this is dropped");
        pipe.as_fd().try_clone_to_owned().context("the guardian's pipe")
    }

    fn tell(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
        let line = line.to_string();
        // It would be two lines, and the second might name somebody else's directory to remove.
        if line.contains('\n') {
            return Err(Failure::failed(format!(
                "a name with a line feed in it cannot be guarded: {line:?}"
            )));
        }
        match &mut self.pipe {
            Some(pipe) => writeln!(pipe, "{line}").context("telling the guardian process"),
            None => Ok(()),
        }
    }
}

impl Drop for Guardian {
    /// Lets it clean up now, and waits until it has.
    fn drop(&mut self) {
        let _ = self.tell(format_args!("."));
        self.pipe = None;
        let _ = self.child.wait();
    }
}

/// Is the guardian: reads names until the pipe closes, then removes what is left of them.
pub(crate) fn run() -> Result {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut directories: Vec<String> = Vec::new();
    let mut processes: Vec<PidFd> = Vec::new();
    let mut guarded = None;
    let mut terminal = objects::terminal_settings();
    // What a process gets that sets the terminal from the background, as this one does.
    Signal::TTOU.ignore()?;
    for line in io::stdin().lock().lines() {
        let line = line.context("reading from the process that is guarded")?;
        match line.split_at_checked(1) {
            Some(("+", name)) => endpoints.push(name.parse()?),
            Some(("~", _)) => terminal = None,
            // If that is not our parent any more, it is gone.
            Some(("=", pid)) if pid == parent_id().to_string() => {
                guarded = PidFd::open(parent_id() as i32).ok()
            }
            Some((".", _)) => guarded = None,
            Some(("/", path)) => directories.push(path.to_string()),
            // One that has gone already needs no killing.
            _ => processes.extend(line.parse().ok().and_then(|pid| PidFd::open(pid).ok())),
        }
    }
    if let Some(guarded) = guarded {
        let _ = guarded.wait();
    }
    processes.iter().for_each(objects::kill_tree);
    // What is gone already was removed by its maker: every removal here may fail for that reason.
    for endpoint in &endpoints {
        let _ = objects::sweep(endpoint);
    }
    for directory in &directories {
        let _ = fs::remove_dir_all(directory);
    }
    objects::restore_terminal(terminal);
    Ok(ExitCode::SUCCESS)
}
