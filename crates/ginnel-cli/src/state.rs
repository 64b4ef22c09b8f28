//! What an object is like at the moment: what `ls` lists, `rm` removes and `peek` shows of what cannot be peeked.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ginnel::endpoint::SysvName;
use ginnel::message::{PosixQueue, UnixDatagram, sysv_queue};
use ginnel::sync::{PosixSemaphore, SysvSemaphores, sysv_semaphore_status};
use ginnel::{Endpoint, memory};
use ginnel_inspect::descriptors::{Descriptor, DescriptorTable};
use serde::Serialize;

use crate::failure::{Context, Failure, Result};
use crate::home;
use crate::objects::{self, explain_missing};
use crate::units;

/// One object, its owner and what it holds.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    pub(crate) endpoint: String,
    /// Of a System V object.
    pub(crate) id: Option<i32>,
    /// The owner's user id; not known for what has no file and no owner.
    pub(crate) uid: Option<u32>,
    /// The permission bits; in JSON as text, since JSON has no octal numbers.
    #[serde(serialize_with = "octal")]
    pub(crate) mode: Option<u32>,
    #[serde(flatten)]
    pub(crate) holds: Holds,
}

/// What an object holds, by its kind.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Holds {
    SysvMsg {
        messages: u64,
        bytes: u64,
        bytes_max: u64,
        last_send_pid: i32,
        last_recv_pid: i32,
    },
    SysvShm {
        size_bytes: u64,
        attached: u64,
        creator_pid: i32,
        removed: bool,
    },
    SysvSem {
        semaphores: u32,
        values: Option<Vec<u16>>,
    },
    PosixMq {
        messages: Option<u64>,
        messages_max: Option<u64>,
        message_bytes_max: Option<u64>,
        bytes: Option<u64>,
    },
    PosixShm {
        size_bytes: u64,
        used_by: Vec<i32>,
    },
    PosixSem {
        value: Option<u32>,
        used_by: Vec<i32>,
    },
    Fifo {
        used_by: Vec<i32>,
    },
    File {
        size_bytes: u64,
        used_by: Vec<i32>,
    },
    Unix {
        live: bool,
    },
    UnixDgram {
        live: bool,
    },
    UnixSeqpacket {
        live: bool,
    },
}

/// What `/proc/net/unix` calls 1, 2 and 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketType {
    Stream,
    Datagram,
    Seqpacket,
}

impl State {
    /// The state of what the endpoint names.
    pub(crate) fn of(endpoint: &Endpoint, users: &Users) -> Result<State> {
        let explained = |error| explain_missing(endpoint, error);
        match endpoint {
            Endpoint::SysvQueue(name) => {
                let queue = objects::sysv_queue(*name).map_err(explained)?;
                let status = queue.status().map_err(explained)?;
                Ok(State::of_sysv_queue(*name, queue.id(), &status))
            }
            Endpoint::SysvSegment(name) => {
                let segment = objects::sysv_segment(*name).map_err(explained)?;
                Ok(State::of_sysv_segment(*name, &segment.status().map_err(explained)?))
            }
            Endpoint::SysvSemaphore(name, _) => {
                let set = objects::sysv_semaphores(*name).map_err(explained)?;
                Ok(State::of_sysv_semaphores(*name, set.id(), &set.status().map_err(explained)?))
            }
            Endpoint::PosixQueue(name) => State::of_posix_queue(endpoint, name),
            Endpoint::PosixShm(name) => {
                let file = match home::current().path() {
                    Some(home) => format!("{}/pshm{name}", home.display()),
                    None => {
                        objects::check_not_semaphore(endpoint, name)?;
                        format!("/dev/shm{name}")
                    }
                };
                State::of_file(endpoint, Path::new(&file), users, |metadata, used_by| Holds::PosixShm {
                    size_bytes: metadata.len(),
                    used_by,
                })
            }
            Endpoint::PosixSemaphore(name) => {
                let directory = home::current().path().map_or("/dev/shm".into(), |home| home.join("psem"));
                let file = directory.join(format!("sem.{}", name.trim_start_matches('/')));
                let value = PosixSemaphore::open_in(home::current(), name)
                    .and_then(|semaphore| semaphore.value())
                    .ok();
                State::of_file(endpoint, &file, users, |_, used_by| Holds::PosixSem { value, used_by })
            }
            Endpoint::Fifo(path) => {
                ginnel::stream::Fifo::open(path).map_err(explained)?;
                State::of_file(endpoint, path, users, |_, used_by| Holds::Fifo { used_by })
            }
            Endpoint::File(path, _) => {
                objects::check_kind(endpoint, path)?;
                State::of_file(endpoint, path, users, |metadata, used_by| Holds::File {
                    size_bytes: metadata.len(),
                    used_by,
                })
            }
            Endpoint::UnixStream(name) => {
                State::of_socket(endpoint, name, Holds::Unix { live: is_bound(name)? })
            }
            Endpoint::UnixDatagram(name) => {
                State::of_socket(endpoint, name, Holds::UnixDgram { live: is_bound(name)? })
            }
            Endpoint::UnixSeqpacket(name) => {
                State::of_socket(endpoint, name, Holds::UnixSeqpacket { live: is_bound(name)? })
            }
            other => Err(Failure::usage(objects::not_by_itself(other))),
        }
    }

    pub(crate) fn of_sysv_queue(name: SysvName, id: i32, status: &sysv_queue::Status) -> State {
        State {
            endpoint: Endpoint::SysvQueue(by_key(name, id, status.permissions.key)).to_string(),
            id: Some(id),
            uid: Some(status.permissions.uid),
            mode: Some(status.permissions.mode),
            holds: Holds::SysvMsg {
                messages: status.messages,
                bytes: status.bytes,
                bytes_max: status.bytes_max,
                last_send_pid: status.last_send_pid,
                last_recv_pid: status.last_recv_pid,
            },
        }
    }

    pub(crate) fn of_sysv_segment(name: SysvName, status: &memory::sysv_segment::Status) -> State {
        State {
            endpoint: Endpoint::SysvSegment(by_key(name, status.id, status.permissions.key)).to_string(),
            id: Some(status.id),
            uid: Some(status.permissions.uid),
            mode: Some(status.permissions.mode),
            holds: Holds::SysvShm {
                size_bytes: status.size_bytes,
                attached: status.attached,
                creator_pid: status.creator_pid,
                removed: status.is_removed,
            },
        }
    }

    pub(crate) fn of_sysv_semaphores(
        name: SysvName,
        id: i32,
        status: &sysv_semaphore_status::Status,
    ) -> State {
        State {
            endpoint: Endpoint::SysvSemaphore(by_key(name, id, status.permissions.key), None).to_string(),
            id: Some(id),
            uid: Some(status.permissions.uid),
            mode: Some(status.permissions.mode),
            holds: Holds::SysvSem {
                semaphores: status.count,
                values: SysvSemaphores::from_id_in(home::current(), id).values().ok(),
            },
        }
    }

    /// Without the right to read it, only that it is there can be told.
    fn of_posix_queue(endpoint: &Endpoint, name: &str) -> Result<State> {
        let unknown =
            Holds::PosixMq { messages: None, messages_max: None, message_bytes_max: None, bytes: None };
        let endpoint_name = endpoint.to_string();
        let queue = match PosixQueue::options().namespace(home::current()).write(false).open(name) {
            Ok(queue) => queue,
            Err(error) if error.is_permission_denied() => {
                return Ok(State {
                    endpoint: endpoint_name,
                    id: None,
                    uid: None,
                    mode: None,
                    holds: unknown,
                });
            }
            Err(error) => return Err(explain_missing(endpoint, error)),
        };
        let status = queue.status().map_err(|error| explain_missing(endpoint, error))?;
        let file = match home::current().path() {
            Some(home) => rustix::fs::lstat(home.join(format!("mq{name}"))).ok(),
            None => rustix::fs::fstat(&queue).ok(),
        };
        Ok(State {
            endpoint: endpoint_name,
            id: None,
            uid: file.as_ref().map(|file| file.st_uid),
            mode: file.as_ref().map(|file| file.st_mode & 0o777),
            holds: Holds::PosixMq {
                messages: Some(status.messages),
                messages_max: Some(status.messages_max),
                message_bytes_max: Some(status.message_bytes_max),
                bytes: status.bytes,
            },
        })
    }

    fn of_file(
        endpoint: &Endpoint,
        path: &Path,
        users: &Users,
        holds: impl FnOnce(&fs::Metadata, Vec<i32>) -> Holds,
    ) -> Result<State> {
        let metadata = fs::symlink_metadata(path).context(endpoint)?;
        let used_by = users.of(&metadata);
        Ok(State {
            endpoint: endpoint.to_string(),
            id: None,
            uid: Some(metadata.uid()),
            mode: Some(metadata.mode() & 0o777),
            holds: holds(&metadata, used_by),
        })
    }

    pub(crate) fn of_socket(endpoint: &Endpoint, name: &str, holds: Holds) -> Result<State> {
        let metadata = if name.starts_with('@') {
            None
        } else {
            objects::check_kind(endpoint, Path::new(name))?;
            Some(fs::symlink_metadata(name).context(endpoint)?)
        };
        Ok(State {
            endpoint: endpoint.to_string(),
            id: None,
            uid: metadata.as_ref().map(MetadataExt::uid),
            mode: metadata.as_ref().map(|metadata| metadata.mode() & 0o777),
            holds,
        })
    }
}

fn octal<S: serde::Serializer>(mode: &Option<u32>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match mode {
        Some(mode) => serializer.collect_str(&format_args!("{mode:04o}")),
        None => serializer.serialize_none(),
    }
}

/// An object that was named by its id is shown by its key, which outlives it; one without a key by its id.
fn by_key(name: SysvName, id: i32, key: ginnel::sysv::Key) -> SysvName {
    match name {
        SysvName::Key(key) if !key.is_private() => SysvName::Key(key),
        _ if key.is_private() => SysvName::Id(id),
        _ => SysvName::Key(key),
    }
}

/// A line of `/proc/net/unix`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnixSocket {
    pub(crate) socket: SocketType,
    pub(crate) inode: u64,
    pub(crate) name: String,
}

/// The bound Unix sockets that take connections or datagrams, with their names as endpoints have them.
pub(crate) fn unix_sockets() -> Result<Vec<UnixSocket>> {
    Ok(unix_socket_table()?.lines().skip(1).filter_map(unix_socket).collect())
}

/// `/proc/net/unix`. Anybody may bind a name that is no UTF-8; nobody else's names suffer from that.
pub(crate) fn unix_socket_table() -> Result<String> {
    let table = fs::read("/proc/net/unix").context("/proc/net/unix")?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

/// Whether any socket is bound to the name. That of a file need not be the one that was bound: `s` and `/tmp/s`.
fn is_bound(name: &str) -> Result<bool> {
    let probed = if name.starts_with('@') { None } else { Some(UnixDatagram::connect(name)) };
    match probed {
        Some(Ok(_)) => Ok(true),
        Some(Err(error)) if error.errno_name() == "EPROTOTYPE" => Ok(true),
        Some(Err(error)) if error.errno_name() == "ECONNREFUSED" => Ok(false),
        _ => Ok(unix_sockets()?.iter().any(|bound| bound.name == name)),
    }
}

/// `0000000000000000: 00000002 00000000 00010000 0001 01 12345 /tmp/s`: the flag says that it listens.
fn unix_socket(line: &str) -> Option<UnixSocket> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(word)
    };
    let (_slot, _references, _protocol) = (word()?, word()?, word()?);
    let listens = u32::from_str_radix(word()?, 16).ok()? & 0x1_0000 != 0;
    let socket = match u32::from_str_radix(word()?, 16).ok()? {
        1 if listens => SocketType::Stream,
        2 => SocketType::Datagram,
        5 if listens => SocketType::Seqpacket,
        _ => return None,
    };
    let _state = word()?;
    // A name may have blanks; the inode before it is padded.
    let (inode, name) = rest.trim_start().split_once(' ')?;
    let inode = inode.parse().ok()?;
    (!name.is_empty()).then(|| UnixSocket { socket, inode, name: name.to_string() })
}

/// Which processes have which file open or mapped, looked up once, when it is first asked.
///
/// This process is left out, and so are those of other users unless root asks.
#[derive(Debug, Default)]
pub(crate) struct Users(OnceCell<HashMap<File, BTreeSet<i32>>>);

/// Device and inode.
type File = (u64, u64);

impl Users {
    /// The processes that use this file, ascending.
    pub(crate) fn of(&self, file: &fs::Metadata) -> Vec<i32> {
        let users = self.0.get_or_init(all_users).get(&(file.dev(), file.ino()));
        users.map_or_else(Vec::new, |pids| pids.iter().copied().collect())
    }
}

fn all_users() -> HashMap<File, BTreeSet<i32>> {
    let mut users: HashMap<File, BTreeSet<i32>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter(|pid| *pid != std::process::id() as i32) {
        // One that has ended since, or that we may not look at, uses nothing that can be told.
        if let Ok(table) = DescriptorTable::read(pid) {
            for Descriptor { object, .. } in table.descriptors.values() {
                users.entry((object.device, object.inode)).or_default().insert(pid);
            }
        }
        let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        for file in String::from_utf8_lossy(&maps).lines().filter_map(mapped_file) {
            users.entry(file).or_default().insert(pid);
        }
    }
    users
}

/// `7f..-7f.. rw-s 00000000 00:1a 42   /dev/shm/x`
fn mapped_file(line: &str) -> Option<File> {
    let mut words = line.split_whitespace().skip(3);
    let (major, minor) = words.next()?.split_once(':')?;
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    let inode: u64 = words.next()?.parse().ok()?;
    (inode != 0).then_some((rustix::fs::makedev(number(major)?, number(minor)?), inode))
}

impl Holds {
    /// How large it is, for the column of that name.
    pub(crate) fn size(&self) -> String {
        let bytes = |bytes: u64| units::bytes(bytes as f64);
        match self {
            Holds::SysvMsg { bytes_max, .. } => bytes(*bytes_max),
            Holds::SysvShm { size_bytes, .. }
            | Holds::PosixShm { size_bytes, .. }
            | Holds::File { size_bytes, .. } => bytes(*size_bytes),
            Holds::SysvSem { semaphores, .. } => semaphores.to_string(),
            Holds::PosixMq { messages_max: Some(messages), message_bytes_max: Some(size), .. } => {
                format!("{messages} x {}", bytes(*size))
            }
            _ => String::new(),
        }
    }
}

impl fmt::Display for Holds {
    /// What removing it would take from whom.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holds::SysvMsg { messages, bytes, .. } => held(f, *messages, Some(*bytes)),
            Holds::SysvShm { attached, removed, .. } => {
                write!(f, "{} attached", plural(*attached, "process"))?;
                if *removed { f.write_str(", goes with the last") } else { Ok(()) }
            }
            Holds::SysvSem { values: Some(values), .. } if values.len() <= 8 => {
                let values: Vec<String> = values.iter().map(u16::to_string).collect();
                write!(f, "values {}", values.join(","))
            }
            Holds::SysvSem { semaphores, .. } => f.write_str(&plural((*semaphores).into(), "semaphore")),
            Holds::PosixMq { messages: Some(messages), bytes, .. } => held(f, *messages, *bytes),
            Holds::PosixMq { .. } => f.write_str("not to be read by this user"),
            Holds::PosixShm { used_by, .. } | Holds::Fifo { used_by } | Holds::File { used_by, .. } => {
                used(f, used_by)
            }
            Holds::PosixSem { value, used_by } => {
                match value {
                    Some(value) => write!(f, "value {value}, ")?,
                    None => f.write_str("not to be read by this user, ")?,
                }
                used(f, used_by)
            }
            Holds::UnixDgram { live: true } => f.write_str("receives"),
            Holds::Unix { live: true } | Holds::UnixSeqpacket { live: true } => f.write_str("listens"),
            Holds::Unix { live: false }
            | Holds::UnixDgram { live: false }
            | Holds::UnixSeqpacket { live: false } => f.write_str("stale: nobody is bound to it"),
        }
    }
}

fn held(f: &mut fmt::Formatter<'_>, messages: u64, bytes: Option<u64>) -> fmt::Result {
    match bytes {
        _ if messages == 0 => f.write_str("empty"),
        Some(bytes) => write!(f, "{}, {}", plural(messages, "message"), units::bytes(bytes as f64)),
        None => f.write_str(&plural(messages, "message")),
    }
}

fn used(f: &mut fmt::Formatter<'_>, pids: &[i32]) -> fmt::Result {
    if pids.is_empty() {
        // What other users' processes have open only root can see.
        let sees_all = rustix::process::geteuid().is_root();
        return f.write_str(if sees_all { "not in use" } else { "not in use as far as this user can see" });
    }
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    write!(f, "used by {}", pids.join(", "))
}

/// `1 message`, `2 processes`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ if noun.ends_with('s') => format!("{count} {noun}es"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_table_of_unix_sockets() {
        let line = "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /tmp/a b";
        let socket = |socket, inode, name: &str| Some(UnixSocket { socket, inode, name: name.into() });
        assert_eq!(unix_socket(line), socket(SocketType::Stream, 12345, "/tmp/a b"));
        let line = "0000000000000000: 00000002 00000000 00000000 0002 01   345 @name";
        assert_eq!(unix_socket(line), socket(SocketType::Datagram, 345, "@name"));
        let connected = "0000000000000000: 00000003 00000000 00000000 0001 03 12346 /tmp/s";
        assert_eq!(unix_socket(connected), None);
        assert_eq!(unix_socket("0000000000000000: 00000003 00000000 00010000 0001 01 12346"), None);
    }
}
