//! Nothing stays behind: a process beside this one that removes what we made for ourselves when we are gone.
//!
//! A `SIGKILL` runs no destructor, and a System V queue outlives everybody. So a verb that makes objects for its own use
//! starts a guardian first: a second `ginnel`, in a process group of its own, that reads the names of those objects
//! from a pipe and removes what is still registered when the pipe closes, which it does however we end. It keeps the
//! terminal's settings too, and puts them back.
//!
//! # Protocol
//! One line each, no answers (but one, that it is there): `+ENDPOINT` made (told *before* it is made, so that no kill
//! falls between), `-ENDPOINT` not made after all, `/PATH` a directory to remove with all it holds, `~` to leave the
//! terminal as it is, `PID` a child of ours to kill with all its own (written by that child itself, before its `execve`),
//! `&JSON` a chat's seat ([`Seat`]) to be left when we are gone.
//!
//! `=PID` comes first and says who we are, and a `.` last, that we end by ourselves. Where that is missing the guardian
//! waits until we are gone: the kernel closes the pipe of a killed process before the sockets that it opened later, which
//! look alive until then.
//!
//! Processes that we start in the guardian's own process group end with it.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use ginnel::notify::{Group, PidFd, Signal, Target};
use ginnel::{Deadline, Endpoint};
use rustix::termios::Termios;

use crate::failure::{Context, Failure, Result};
use crate::home;
use crate::objects;
use crate::talk::Seat;

/// The verb that turns this program into a guardian.
pub(crate) const VERB: &str = "__guardian";

/// What the guardian says, once, to whoever waits for it.
const READY: &[u8] = b"ready\n";

/// How long what we started has to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(2);

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
            .env(home::VARIABLE, home::for_children())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
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

    /// No longer to be removed.
    pub(crate) fn release(&mut self, endpoint: &Endpoint) -> Result<()> {
        self.tell(format_args!("-{endpoint}"))
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

    /// Waits until it knows the terminal's settings: whoever changes them must wait for that.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let Some(answers) = &mut self.child.stdout else { return Ok(()) };
        match answers.read(&mut [0; READY.len()]).context("the guardian process")? {
            0 => Err(Failure::failed("the guardian process ended")),
            _ => Ok(()),
        }
    }

    /// The guardian's process group. A process that we start in there ends with us: it is asked to by `SIGTERM` first.
    pub(crate) fn group(&self) -> i32 {
        self.child.id() as i32
    }

    /// A seat in a chat, to be left when this process ends.
    pub(crate) fn adopt_seat(&mut self, seat: &Seat) -> Result<()> {
        let seat = serde_json::to_string(seat).map_err(Failure::failed)?;
        self.tell(format_args!("&{seat}"))
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
        // It may have been killed: then there is nobody to tell.
        let _ = self.tell(format_args!("."));
        self.pipe = None;
        let _ = self.child.wait();
    }
}

/// Is the guardian: reads names until the pipe closes, then removes what is left of them.
pub(crate) fn run() -> Result {
    home::inherit()?;
    let mut charge = Charge { terminal: objects::terminal_settings(), ..Charge::default() };
    // Most do not wait for it, and some are gone by now.
    let _ = io::stdout().write_all(READY);
    // What a process gets that sets the terminal from the background, as this one does.
    Signal::TTOU.ignore()?;
    for line in io::stdin().lock().lines() {
        charge.take(&line.context("reading from the process that is guarded")?)?;
    }
    if let Some(guarded) = &charge.guarded {
        let _ = guarded.wait();
    }
    charge.clean_up();
    Ok(ExitCode::SUCCESS)
}

/// What a guardian has been told.
#[derive(Default)]
struct Charge {
    /// Whom to wait for: nobody, if it ends by itself.
    guarded: Option<PidFd>,
    terminal: Option<Termios>,
    endpoints: Vec<Endpoint>,
    directories: Vec<String>,
    processes: Vec<PidFd>,
    seat: Option<Seat>,
}

impl Charge {
    fn take(&mut self, line: &str) -> Result<()> {
        match line.split_at_checked(1) {
            // If that is not our parent any more, it is gone.
            Some(("=", pid)) if pid == parent_id().to_string() => {
                self.guarded = PidFd::open(parent_id() as i32).ok();
            }
            Some(("=", _)) => {}
            Some((".", _)) => self.guarded = None,
            Some(("+", name)) => self.endpoints.push(name.parse()?),
            Some(("-", name)) => {
                let released: Endpoint = name.parse()?;
                self.endpoints.retain(|endpoint| *endpoint != released);
            }
            Some(("~", _)) => self.terminal = None,
            Some(("/", path)) => self.directories.push(path.to_string()),
            Some(("&", seat)) => self.seat = serde_json::from_str(seat).ok(),
            // One that has gone already needs no killing.
            _ => self.processes.extend(line.parse().ok().and_then(|pid| PidFd::open(pid).ok())),
        }
        Ok(())
    }

    /// What is gone already was removed by its maker: every removal here may fail for that reason.
    fn clean_up(self) {
        self.processes.iter().for_each(objects::kill_tree);
        for endpoint in &self.endpoints {
            let _ = objects::sweep(endpoint);
        }
        for directory in &self.directories {
            let _ = fs::remove_dir_all(directory);
        }
        objects::restore_terminal(self.terminal);
        if let Some(seat) = &self.seat {
            let _ = seat.leave();
        }
        end_group();
    }
}

/// Asks whoever else is in this process group to end, and ends those who do not.
fn end_group() {
    let own = std::process::id() as i32;
    let others = || Group::own().members().is_ok_and(|members| members.iter().any(|pid| *pid != own));
    if !others() {
        return;
    }
    // It would end the guardian too.
    let _ = Signal::TERM.ignore();
    let _ = Target::OwnGroup.send(Signal::TERM);
    let deadline = Deadline::from(PATIENCE);
    while others() && !deadline.has_passed() {
        std::thread::sleep(Duration::from_millis(5));
    }
    if others() {
        // This is the last thing that a guardian does.
        let _ = Target::OwnGroup.send(Signal::KILL);
    }
}
