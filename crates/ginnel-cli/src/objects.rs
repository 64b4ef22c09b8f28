//! Making and removing whatever an endpoint names, and the terminal's settings.

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::message::{PosixQueue, SysvQueue, UnixDatagram, UnixSeqpacketListener};
use ginnel::stream::UnixListener;
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::failure::{Failure, Result};

/// Removes the object that an endpoint names.
pub(crate) fn remove(endpoint: &Endpoint) -> Result<()> {
    match endpoint {
        Endpoint::SysvQueue(SysvName::Key(key)) => SysvQueue::open(*key)?.remove()?,
        Endpoint::SysvQueue(SysvName::Id(id)) => SysvQueue::from_id(*id).remove()?,
        Endpoint::PosixQueue(name) => PosixQueue::remove(name)?,
        // Only a file that nobody listens on any more is ours to remove: binding to it replaces such a file, and no other.
        Endpoint::UnixStream(name) => drop(UnixListener::options().replace_stale(true).bind(name)?),
        Endpoint::UnixSeqpacket(name) => {
            drop(UnixSeqpacketListener::options().replace_stale(true).bind(name)?);
        }
        Endpoint::UnixDatagram(name) => drop(UnixDatagram::options().replace_stale(true).bind(name)?),
        other => return Err(Failure::usage(format!("{other} is nothing that can be removed"))),
    }
    Ok(())
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
