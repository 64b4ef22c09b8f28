//! Nothing stays behind: a process beside this one that removes what we made for ourselves when we are gone.
//!
//! A `SIGKILL` runs no destructor, and a System V queue outlives everybody. So a verb that makes objects for its own use
//! starts a guardian first: a second `ginnel`, in a process group of its own, that reads the names of those objects
//! from a pipe and removes what is still registered when the pipe closes, which it does however we end. It keeps the
//! terminal's settings too, and puts them back.
//!
//! # Protocol
//! One line each, no answers: `+ENDPOINT` made (told *before* it is made, so that no kill falls between), `-ENDPOINT`
//! removed by ourselves, `/PATH` a directory to remove with all it holds. `!PID` a process group that is to end with us,
//! `~PID` one that has ended. `&JSON` a chat's seat ([`Seat`]), which is left when we are gone. `.` we have closed
//! everything ourselves and wait for the guardian's end: it need not wait for ours.

use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use ginnel::notify::{PidFd, Signal, Target};
use ginnel::{Deadline, Endpoint};

use crate::failure::{Context, Failure, Result};
use crate::objects;
use crate::talk::Seat;

/// The verb that turns this program into a guardian.
pub(crate) const VERB: &str = "__guardian";

/// How long it waits for the end of others: the process that it guards, and what that one has started.
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
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the guardian process")?;
        let pipe = child.stdin.take();
        Ok(Guardian { child, pipe })
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

    /// A process group that is to end when this process ends: asked by `SIGTERM` first.
    pub(crate) fn adopt_group(&mut self, leader: i32) -> Result<()> {
        self.tell(format_args!("!{leader}"))
    }

    /// The process group has ended.
    pub(crate) fn release_group(&mut self, leader: i32) -> Result<()> {
        self.tell(format_args!("~{leader}"))
    }

    /// A seat in a chat, to be left when this process ends.
    pub(crate) fn adopt_seat(&mut self, seat: &Seat) -> Result<()> {
        let seat = serde_json::to_string(seat).map_err(Failure::failed)?;
        self.tell(format_args!("&{seat}"))
    }

    fn tell(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
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
    // From the background it may set the terminal only if it ignores the signal that this brings.
    Signal::TTOU.ignore()?;
    let terminal = objects::terminal_settings();
    let guarded = PidFd::open(std::os::unix::process::parent_id() as i32);
    let mut charge = Charge::default();
    for line in io::stdin().lock().lines() {
        charge.take(&line.context("reading from the process that is guarded")?)?;
    }
    // The pipe closes a little before the rest of what a dying process has open: locks, the ends of FIFOs.
    if let (false, Ok(guarded)) = (charge.orderly, guarded) {
        let _ = guarded.wait_deadline(PATIENCE);
    }
    objects::restore_terminal(terminal);
    charge.clean_up();
    Ok(ExitCode::SUCCESS)
}

/// What is to be removed.
#[derive(Default)]
struct Charge {
    endpoints: Vec<Endpoint>,
    directories: Vec<String>,
    groups: Vec<i32>,
    seat: Option<Seat>,
    orderly: bool,
}

impl Charge {
    fn take(&mut self, line: &str) -> Result<()> {
        match line.split_at_checked(1) {
            Some(("+", name)) => self.endpoints.push(name.parse()?),
            Some(("-", name)) => {
                let released: Endpoint = name.parse()?;
                self.endpoints.retain(|endpoint| *endpoint != released);
            }
            Some(("/", path)) => self.directories.push(path.to_string()),
            Some(("!", leader)) => self.groups.extend(leader.parse::<i32>().ok()),
            Some(("~", leader)) => self.groups.retain(|group| leader.parse() != Ok(*group)),
            Some(("&", seat)) => self.seat = serde_json::from_str(seat).ok(),
            Some((".", "")) => self.orderly = true,
            _ => {}
        }
        Ok(())
    }

    /// What is gone already was removed by its maker: every removal here may fail for that reason.
    fn clean_up(self) {
        for endpoint in &self.endpoints {
            let _ = objects::remove(endpoint);
        }
        for directory in &self.directories {
            let _ = fs::remove_dir_all(directory);
        }
        if let Some(seat) = &self.seat {
            let _ = seat.leave();
        }
        end_groups(&self.groups);
    }
}

/// Asks the process groups to end, and ends those that do not.
fn end_groups(groups: &[i32]) {
    for group in groups {
        let _ = Target::Group(*group).send(Signal::TERM);
    }
    let deadline = Deadline::from(PATIENCE);
    let lives = |group: &i32| matches!(Target::Group(*group).exists(), Ok(true));
    while groups.iter().any(lives) && !deadline.has_passed() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for group in groups {
        let _ = Target::Group(*group).send(Signal::KILL);
    }
}
