//! Opening, making and removing whatever an endpoint names, and the terminal's settings.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use ginnel::endpoint::SysvName;
use ginnel::memory::{FileMapping, PosixShm, SysvSegment};
use ginnel::message::{PosixQueue, SysvQueue, UnixDatagram};
use ginnel::notify::{PidFd, Signal};
use ginnel::stream::Fifo;
use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use ginnel::{Deadline, Endpoint};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::failure::{Context, Failure, Result};
use crate::guardian::Guardian;
use crate::home;

/// What a new object is to be like; what is left out is the kind's own default.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// An object that is there already is fine as it is.
    pub(crate) exist_ok: bool,
    pub(crate) mode: u32,
    /// Bytes of memory or of a file.
    pub(crate) size: u64,
    /// One for each semaphore.
    pub(crate) values: Vec<u32>,
    /// How many messages a POSIX queue holds.
    pub(crate) messages: Option<usize>,
    /// The longest message of a POSIX queue.
    pub(crate) message_bytes: Option<usize>,
    /// How many bytes of messages a System V queue holds.
    pub(crate) queue_bytes: Option<u64>,
}

impl Plan {
    /// What `--create` of the verbs that use an object makes, if nothing is there.
    pub(crate) const BESIDES: Plan = Plan {
        exist_ok: true,
        mode: 0o600,
        size: 0,
        values: Vec::new(),
        messages: None,
        message_bytes: None,
        queue_bytes: None,
    };
}

/// What [`create`] has made, or found.
pub(crate) struct Made {
    pub(crate) endpoint: Endpoint,
    /// Of a System V object.
    pub(crate) id: Option<i32>,
    pub(crate) existed: bool,
}

/// Makes the object that an endpoint names.
pub(crate) fn create(endpoint: &Endpoint, plan: &Plan) -> Result<Made> {
    check_can_be_made(endpoint)?;
    let (created, existed) = match make(endpoint, plan, true) {
        Err(error) if plan.exist_ok && error.is_already_exists() => (make(endpoint, plan, false), true),
        created => (created, false),
    };
    let id = created.map_err(|error| match error.is_already_exists() {
        true => {
            let what = without_hint(&error);
            Failure::failed(format!("{what}: it is there already; --exist-ok takes it as it is"))
        }
        false => explain(endpoint, error),
    })?;
    // A private object is reached by its id only.
    let endpoint = match (endpoint, id) {
        (Endpoint::SysvQueue(SysvName::Key(key)), Some(id)) if key.is_private() => {
            Endpoint::SysvQueue(SysvName::Id(id))
        }
        (Endpoint::SysvSegment(SysvName::Key(key)), Some(id)) if key.is_private() => {
            Endpoint::SysvSegment(SysvName::Id(id))
        }
        (Endpoint::SysvSemaphore(SysvName::Key(key), _), Some(id)) if key.is_private() => {
            Endpoint::SysvSemaphore(SysvName::Id(id), None)
        }
        (Endpoint::SysvSemaphore(name, _), _) => Endpoint::SysvSemaphore(*name, None),
        (endpoint, _) => endpoint.clone(),
    };
    Ok(Made { endpoint, id, existed })
}

pub(crate) fn check_can_be_made(endpoint: &Endpoint) -> Result<()> {
    match endpoint {
        Endpoint::SysvQueue(SysvName::Id(_))
        | Endpoint::SysvSegment(SysvName::Id(_))
        | Endpoint::SysvSemaphore(SysvName::Id(_), _) => {
            let scheme = endpoint.scheme();
            Err(Failure::usage(format!(
                "{endpoint}: the kernel chooses ids; make it by a key, {scheme}:0x2a"
            )))
        }
        Endpoint::Fifo(_)
        | Endpoint::SysvQueue(_)
        | Endpoint::PosixQueue(_)
        | Endpoint::SysvSegment(_)
        | Endpoint::PosixShm(_)
        | Endpoint::File(_, None)
        | Endpoint::SysvSemaphore(..)
        | Endpoint::PosixSemaphore(_) => Ok(()),
        Endpoint::File(path, Some(_)) => {
            let path = path.display();
            Err(Failure::usage(format!("{endpoint}: a part of a file is made with the file: file:{path}")))
        }
        other => Err(Failure::usage(not_by_itself(other))),
    }
}

/// Makes a new object, or opens the old one; gives the id of a System V object.
fn make(endpoint: &Endpoint, plan: &Plan, new: bool) -> ginnel::Result<Option<i32>> {
    let id = match endpoint {
        Endpoint::Fifo(path) => {
            Fifo::options().create_new(new).mode(plan.mode).open(path)?;
            None
        }
        Endpoint::SysvQueue(SysvName::Key(key)) => {
            let queue =
                SysvQueue::options().namespace(home::current()).create_new(new).mode(plan.mode).open(*key)?;
            if new && let Some(bytes) = plan.queue_bytes {
                let change =
                    ginnel::message::sysv_queue::Change { bytes_max: Some(bytes), ..Default::default() };
                // Nothing half-made stays.
                queue.set(change).inspect_err(|_| drop(queue.remove()))?;
            }
            Some(queue.id())
        }
        Endpoint::PosixQueue(name) => {
            let mut options =
                PosixQueue::options().namespace(home::current()).create_new(new).mode(plan.mode);
            if let Some(messages) = plan.messages {
                options = options.messages_max(messages);
            }
            if let Some(bytes) = plan.message_bytes {
                options = options.message_bytes_max(bytes);
            }
            options.open(name)?;
            None
        }
        Endpoint::SysvSegment(SysvName::Key(key)) => {
            // An old one of fewer bytes is an error that says so.
            let size = usize::try_from(plan.size).unwrap_or(usize::MAX);
            Some(
                SysvSegment::options()
                    .namespace(home::current())
                    .create_new(new)
                    .mode(plan.mode)
                    .size(size)
                    .open(*key)?
                    .id(),
            )
        }
        Endpoint::PosixShm(name) => {
            PosixShm::options()
                .namespace(home::current())
                .create_new(new)
                .mode(plan.mode)
                .size(plan.size)
                .open(name)?;
            None
        }
        Endpoint::File(path, _) => {
            let made = FileMapping::options().create_new(new).mode(plan.mode).size(plan.size).open(path);
            // Once it is open it is ours, and nothing half-made stays.
            made.inspect_err(|error| {
                if new && error.operation() != "open" {
                    let _ = fs::remove_file(path);
                }
            })?;
            None
        }
        Endpoint::SysvSemaphore(SysvName::Key(key), _) => Some(make_semaphores(*key, plan, new)?.id()),
        Endpoint::PosixSemaphore(name) => {
            let value = plan.values.first().copied().unwrap_or(0);
            PosixSemaphore::options()
                .namespace(home::current())
                .create_new(new)
                .mode(plan.mode)
                .value(value)
                .open(name)?;
            None
        }
        _ => unreachable!("check_can_be_made has refused it"),
    };
    Ok(id)
}

fn make_semaphores(key: ginnel::sysv::Key, plan: &Plan, new: bool) -> ginnel::Result<SysvSemaphores> {
    let values: Vec<u16> =
        plan.values.iter().map(|value| u16::try_from(*value).unwrap_or(u16::MAX)).collect();
    let options = SysvSemaphores::options().namespace(home::current()).create_new(new).mode(plan.mode);
    match new {
        true => options.open_with(key, &values, Deadline::NEVER),
        false => options.count(values.len() as u32).open(key),
    }
}

/// Why an endpoint cannot be made or removed.
pub(crate) fn not_by_itself(endpoint: &Endpoint) -> String {
    let why = match endpoint {
        Endpoint::UnixStream(_) | Endpoint::UnixDatagram(_) | Endpoint::UnixSeqpacket(_) => {
            "a socket lives and ends with the process that receives from it: ginnel recv --create"
        }
        Endpoint::Tcp(_) | Endpoint::Udp(_) => {
            "a port is taken by the process that receives from it: ginnel recv --create"
        }
        Endpoint::Icmp(_) => "a host is there or not: ginnel send",
        Endpoint::Pty(_) => "a terminal lives with the process that has its other side",
        Endpoint::RecordLock(..) | Endpoint::Flock(_) => {
            "a lock is held by a process while that runs: ginnel lock FILE -- COMMAND"
        }
        Endpoint::Signal(_) => "a process is started by its command, and ended by ginnel signal",
        _ => "it does not exist by itself",
    };
    format!("{endpoint}: {why}")
}

pub(crate) fn check_can_be_removed(endpoint: &Endpoint) -> Result<()> {
    match endpoint {
        Endpoint::SysvSemaphore(name, Some(_)) => Err(Failure::usage(format!(
            "{endpoint}: a semaphore cannot leave its set; the whole set is sysv-sem:{name}"
        ))),
        Endpoint::File(path, Some(_)) => {
            let path = path.display();
            Err(Failure::usage(format!(
                "{endpoint}: a part of a file cannot be removed; the file is file:{path}"
            )))
        }
        Endpoint::UnixStream(name) | Endpoint::UnixDatagram(name) | Endpoint::UnixSeqpacket(name)
            if name.starts_with('@') =>
        {
            Err(Failure::usage(format!("{endpoint}: an abstract name goes with its socket")))
        }
        Endpoint::Fifo(_)
        | Endpoint::SysvQueue(_)
        | Endpoint::PosixQueue(_)
        | Endpoint::SysvSegment(_)
        | Endpoint::PosixShm(_)
        | Endpoint::File(..)
        | Endpoint::SysvSemaphore(..)
        | Endpoint::PosixSemaphore(_)
        | Endpoint::UnixStream(_)
        | Endpoint::UnixDatagram(_)
        | Endpoint::UnixSeqpacket(_) => Ok(()),
        other => Err(Failure::usage(not_by_itself(other))),
    }
}

/// Removes the object that an endpoint names.
///
/// A name in the file system is removed only if the file is of the kind that the endpoint says.
pub(crate) fn remove(endpoint: &Endpoint) -> Result<()> {
    check_can_be_removed(endpoint)?;
    let removed = match endpoint {
        Endpoint::SysvQueue(name) => sysv_queue(*name).and_then(|queue| queue.remove()),
        Endpoint::SysvSegment(name) => sysv_segment(*name).and_then(|segment| segment.remove()),
        Endpoint::SysvSemaphore(name, _) => sysv_semaphores(*name).and_then(|set| set.remove()),
        Endpoint::PosixQueue(name) => PosixQueue::remove_in(home::current(), name),
        Endpoint::PosixShm(name) => {
            if home::current().is_kernel() {
                check_not_semaphore(endpoint, name)?;
            }
            PosixShm::remove_in(home::current(), name)
        }
        Endpoint::PosixSemaphore(name) => PosixSemaphore::remove_in(home::current(), name),
        Endpoint::Fifo(path) => Fifo::open(path).and_then(|fifo| fifo.remove()),
        Endpoint::File(path, _) => return remove_file(endpoint, path),
        Endpoint::UnixStream(name) | Endpoint::UnixDatagram(name) | Endpoint::UnixSeqpacket(name) => {
            return remove_file(endpoint, Path::new(name));
        }
        _ => unreachable!("check_can_be_removed has refused it"),
    };
    removed.map_err(|error| explain_missing(endpoint, error))
}

/// Glibc keeps semaphores beside shared memory, where one name could take away the other kind.
pub(crate) fn check_not_semaphore(endpoint: &Endpoint, name: &str) -> Result<()> {
    match name.strip_prefix("/sem.") {
        Some(semaphore) => {
            Err(Failure::failed(format!("{endpoint}: this is the semaphore posix-sem:/{semaphore}")))
        }
        None => Ok(()),
    }
}

fn remove_file(endpoint: &Endpoint, path: &Path) -> Result<()> {
    check_kind(endpoint, path)?;
    fs::remove_file(path).context(endpoint)
}

/// That the file is what the endpoint says: a socket, or a regular file.
pub(crate) fn check_kind(endpoint: &Endpoint, path: &Path) -> Result<()> {
    // Not followed: it is the link that would be removed.
    let found = fs::symlink_metadata(path).context(endpoint)?.file_type();
    let (is_right, right) = match endpoint {
        Endpoint::File(..) => (found.is_file(), "a regular file"),
        _ => (found.is_socket(), "a socket"),
    };
    match is_right {
        true => Ok(()),
        false => Err(Failure::failed(format!("{endpoint}: it is {}, not {right}", kind_of(found)))),
    }
}

fn kind_of(kind: fs::FileType) -> &'static str {
    match () {
        () if kind.is_file() => "a regular file",
        () if kind.is_dir() => "a directory",
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_socket() => "a socket",
        () if kind.is_fifo() => "a FIFO",
        () => "a device",
    }
}

/// Removes what a killed process had made for itself: a socket file only if no socket is bound to it, since the name may
/// be another process's by now.
pub(crate) fn sweep(endpoint: &Endpoint) -> Result<()> {
    match endpoint {
        Endpoint::UnixStream(name) | Endpoint::UnixDatagram(name) | Endpoint::UnixSeqpacket(name) => {
            if Path::new(name).exists() {
                // Replaces a file that nobody is bound to, whatever the type of its socket was, and removes its own.
                drop(UnixDatagram::bind(name)?);
            }
            Ok(())
        }
        other => remove(other),
    }
}

/// Whether the endpoint is a Unix socket with a file.
pub(crate) fn has_socket_file(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::UnixStream(name) | Endpoint::UnixDatagram(name) | Endpoint::UnixSeqpacket(name) => {
            !name.starts_with('@')
        }
        _ => false,
    }
}

/// A guardian that removes the socket file of this endpoint when we are gone, if it has one.
pub(crate) fn guard_socket(endpoint: &Endpoint) -> Result<Option<Guardian>> {
    if !has_socket_file(endpoint) {
        return Ok(None);
    }
    let mut guardian = Guardian::start()?;
    guardian.adopt(endpoint)?;
    Ok(Some(guardian))
}

pub(crate) fn sysv_queue(name: SysvName) -> ginnel::Result<SysvQueue> {
    match name {
        SysvName::Key(key) => SysvQueue::open_in(home::current(), key),
        SysvName::Id(id) => Ok(SysvQueue::from_id_in(home::current(), id)),
    }
}

pub(crate) fn sysv_segment(name: SysvName) -> ginnel::Result<SysvSegment> {
    match name {
        SysvName::Key(key) => SysvSegment::open_in(home::current(), key),
        SysvName::Id(id) => Ok(SysvSegment::from_id_in(home::current(), id)),
    }
}

pub(crate) fn sysv_semaphores(name: SysvName) -> ginnel::Result<SysvSemaphores> {
    match name {
        SysvName::Key(key) => SysvSemaphores::open_in(home::current(), key),
        SysvName::Id(id) => Ok(SysvSemaphores::from_id_in(home::current(), id)),
    }
}

/// How many units of a System V semaphore `--count` says.
pub(crate) fn sysv_units(count: u32) -> Result<u16> {
    match u16::try_from(count) {
        Ok(units) if units <= 32767 => Ok(units),
        _ => Err(Failure::usage("--count: a System V semaphore's value is 32767 at the most")),
    }
}

/// As [`explain`], for who looks for an object and would not make it.
pub(crate) fn explain_missing(endpoint: &Endpoint, error: ginnel::Error) -> Failure {
    match error.errno_name() {
        "ENOENT" => Failure::failed(format!("{}: there is none", without_hint(&error))),
        _ => explain(endpoint, error),
    }
}

/// Says what to type where the library says what to call.
pub(crate) fn explain(endpoint: &Endpoint, error: ginnel::Error) -> Failure {
    let what = without_hint(&error);
    let can_be_made = matches!(
        endpoint,
        Endpoint::Fifo(_)
            | Endpoint::SysvQueue(SysvName::Key(_))
            | Endpoint::SysvSegment(SysvName::Key(_))
            | Endpoint::SysvSemaphore(SysvName::Key(_), _)
            | Endpoint::PosixQueue(_)
            | Endpoint::PosixShm(_)
            | Endpoint::PosixSemaphore(_)
            | Endpoint::File(..)
    );
    let is_socket =
        matches!(endpoint, Endpoint::UnixStream(_) | Endpoint::UnixDatagram(_) | Endpoint::UnixSeqpacket(_));
    match error.errno_name() {
        "ENOENT" if can_be_made => {
            Failure::failed(format!("{what}: there is none; make it with `ginnel create {endpoint}`"))
        }
        "ENOENT" if is_socket => Failure::failed(format!(
            "{what}: no such socket; `ginnel recv --create {endpoint}` makes it and receives"
        )),
        "ECONNREFUSED" => {
            Failure::failed(format!("{what}: nobody listens there; `ginnel recv --create {endpoint}` does"))
        }
        "ETIMEDOUT" => Failure::failed(format!("{what}: the --timeout passed")),
        "EAGAIN" | "ENOMSG" => Failure::failed(format!("{what}: it would have to wait, and --timeout is 0")),
        "EPIPE" | "ECONNRESET" => Failure::failed(format!("{what}: the other end has gone")),
        _ if error.is_removed() => Failure::failed(format!("{what}: it was removed")),
        _ => Failure::failed(error),
    }
}

/// The error's words without what the library tells programmers to try.
pub(crate) fn without_hint(error: &ginnel::Error) -> String {
    let text = error.to_string();
    match error.hint().and_then(|hint| text.strip_suffix(hint)?.strip_suffix(": ")) {
        Some(rest) => rest.to_string(),
        None => text,
    }
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
    let known = children(process.pid());
    // Whatever ends by itself meanwhile needs no signal.
    let _ = process.send(signal);
    known.iter().for_each(|child| signal_tree(child, signal));
    // Started between the look and the signal: a shell that now waits for one of these would wait on.
    let is_new = |child: &PidFd| known.iter().all(|known| known.pid() != child.pid());
    children(process.pid()).iter().filter(|child| is_new(child)).for_each(|child| signal_tree(child, signal));
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
