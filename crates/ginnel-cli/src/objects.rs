//! Making and removing whatever an endpoint names, and the terminal's settings.

use std::fs;
use std::path::Path;

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::memory::{PosixShm, SysvSegment};
use ginnel::message::{PosixQueue, SysvQueue, UnixDatagram};
use ginnel::notify::{PidFd, Signal};
use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::failure::{Failure, Result};

/// Removes the object that an endpoint names.
pub(crate) fn remove(endpoint: &Endpoint) -> Result<()> {
    match endpoint {
        Endpoint::SysvQueue(SysvName::Key(key)) => SysvQueue::open(*key)?.remove()?,
        Endpoint::SysvQueue(SysvName::Id(id)) => SysvQueue::from_id(*id).remove()?,
        Endpoint::SysvSegment(SysvName::Key(key)) => SysvSegment::open(*key)?.remove()?,
        Endpoint::SysvSegment(SysvName::Id(id)) => SysvSegment::from_id(*id).remove()?,
        Endpoint::SysvSemaphore(SysvName::Key(key), _) => SysvSemaphores::open(*key)?.remove()?,
        Endpoint::SysvSemaphore(SysvName::Id(id), _) => SysvSemaphores::from_id(*id).remove()?,
        Endpoint::PosixShm(name) => PosixShm::remove(name)?,
        Endpoint::PosixSemaphore(name) => PosixSemaphore::remove(name)?,
        Endpoint::PosixQueue(name) => PosixQueue::remove(name)?,
        other => return Err(Failure::usage(format!("{other} is nothing that can be removed"))),
    }
    Ok(())
}

/// Kills a process and all that it has started, and what that has started.
///
/// Each is stopped before its children are listed, so that it starts no more.
pub(crate) fn kill_tree(process: &PidFd) {
    if !process.is_alive() {
        return;
    }
    // Whatever ends by itself meanwhile is what is wanted too.
    let _ = process.send(Signal::STOP);
    for child in children(process.pid()) {
        kill_tree(&child);
    }
    let _ = process.send(Signal::KILL);
}

/// Sends a signal to a process and to all that it has started: as the terminal does, which has a group for that.
pub(crate) fn signal_tree(process: &PidFd, signal: Signal) {
    if !process.is_alive() {
        return;
    }
    // Listed first: the children of one that ends are no longer its own.
    let children = children(process.pid());
    // Whatever ends by itself meanwhile needs no signal.
    let _ = process.send(signal);
    children.iter().for_each(|child| signal_tree(child, signal));
}

/// The children of a process, of all its threads.
fn children(pid: i32) -> Vec<PidFd> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.into_iter().filter_map(|pid| PidFd::open(pid).ok()).collect()
}

/// Removes what a process that is gone has made: a socket file only if nobody has it any more.
pub(crate) fn sweep(endpoint: &Endpoint) -> Result<()> {
    match endpoint {
        Endpoint::UnixStream(name) | Endpoint::UnixDatagram(name) | Endpoint::UnixSeqpacket(name) => {
            if Path::new(name).exists() {
                // Replaces a file that nobody is bound to, whatever the type of its socket was, and removes its own.
                drop(UnixDatagram::options().replace_stale(true).bind(name)?);
            }
            Ok(())
        }
        other => remove(other),
    }
}

/// The settings of the terminal that this process belongs to, if it has one.
pub(crate) fn terminal_settings() -> Option<Termios> {
    let terminal = open_terminal()?;
    termios::tcgetattr(terminal).ok()
}

/// Puts the terminal's settings back if a line editor of ours has left it raw: signals are off, as no shell's own editor
/// leaves them. Anything else is somebody else's doing by now, such as the shell's.
pub(crate) fn restore_terminal(settings: Option<Termios>) {
    if let (Some(settings), Some(terminal)) = (settings, open_terminal()) {
        let has_signals = |settings: &Termios| settings.local_modes.contains(LocalModes::ISIG);
        if !has_signals(&settings) || termios::tcgetattr(&terminal).is_ok_and(|now| has_signals(&now)) {
            return;
        }
        // There is nobody left to tell.
        let _ = termios::tcsetattr(terminal, OptionalActions::Now, &settings);
    }
}

fn open_terminal() -> Option<std::os::fd::OwnedFd> {
    rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok()
}
