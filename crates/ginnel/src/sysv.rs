//! What the three System V mechanisms have in common: keys, ids, permissions (`sysvipc(7)`, `ftok(3)`).

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Label, Result};

/// The name by which unrelated processes agree on a System V object (`key_t`).
///
/// A number both sides know, or one made from a file both sides know with [`Key::from_path`].
///
/// ```
/// use ginnel::sysv::Key;
///
/// assert_eq!("0x2a".parse::<Key>()?, Key::new(42));
/// assert_eq!(Key::new(42).to_string(), "0x2a");
/// let derived: Key = "/etc/passwd#7".parse()?;
/// assert_eq!(derived, Key::from_path("/etc/passwd", 7)?);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(i32);

impl Key {
    /// `IPC_PRIVATE`: always a new object, reached by its id only.
    pub const PRIVATE: Key = Key(libc::IPC_PRIVATE);

    /// The key with this value.
    pub const fn new(key: i32) -> Key {
        Key(key)
    }

    /// The key that `ftok(3)` derives from an existing file and a project number: the same in every language.
    ///
    /// It holds 8 bits of the device, 16 of the inode and 8 of `project`, so two files can share one; a file that is
    /// deleted and made anew gets another key.
    ///
    /// # Errors
    /// As `stat(2)`: `ENOENT` when there is no such file, `EACCES`. `EINVAL` for project 0, which `ftok` leaves
    /// undefined.
    pub fn from_path(path: impl AsRef<Path>, project: u8) -> Result<Key> {
        let path = path.as_ref();
        let object = Label::new(format!("{}#{project}", path.display()));
        if project == 0 {
            return Err(Error::invalid("ftok", &object, "the project must be 1 to 255"));
        }
        let status = std::fs::metadata(path).map_err(|error| {
            Error::from_io("ftok", &error, &object)
                .with_hint("both sides need an existing file to derive the key from")
        })?;
        let bits = (u32::from(project) << 24)
            | ((status.dev() as u32 & 0xff) << 16)
            | (status.ino() as u32 & 0xffff);
        Ok(Key(bits as i32))
    }

    /// The key's value.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// Whether this is [`Key::PRIVATE`].
    pub const fn is_private(self) -> bool {
        self.0 == libc::IPC_PRIVATE
    }
}

impl From<i32> for Key {
    fn from(key: i32) -> Key {
        Key(key)
    }
}

impl fmt::Display for Key {
    /// In hex, as `ipcs(1)` prints it, without the padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for Key {
    type Err = Error;

    /// `0x2a`, `42`, `-1`, or `/path#project` for [`Key::from_path`] (a project is a number or one character).
    fn from_str(text: &str) -> Result<Key> {
        if let Some((path, project)) = text.rsplit_once('#') {
            let number = match (project.parse(), project.as_bytes()) {
                (Ok(number), _) => number,
                (Err(_), [byte]) => *byte,
                _ => {
                    return Err(bad_key(
                        text,
                        "a project is a number from 1 to 255 or one character: /path#7 or /path#q",
                    ));
                }
            };
            return Key::from_path(path, number);
        }
        let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16).map(|bits| bits as i32),
            None => text
                .parse::<i32>()
                .or_else(|error| text.parse::<u32>().map(|bits| bits as i32).map_err(|_| error)),
        };
        parsed.map(Key).map_err(|_| {
            bad_key(text, "a key is a 32-bit number (0x2a, 42) or a file and a project (/path#7)")
        })
    }
}

fn bad_key(text: &str, why: &'static str) -> Error {
    Error::invalid("key", &Label::new(text), why)
}

/// Who owns a System V object and who may use it (`struct ipc_perm`).
///
/// ```no_run
/// let queue = ginnel::message::SysvQueue::open(0x2a)?;
/// let permissions = queue.status()?.permissions;
/// println!("{:o}, made by user {}", permissions.mode, permissions.creator_uid);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The key it was made with; [`Key::PRIVATE`] too once a segment is marked for removal.
    pub key: Key,
    /// The owner, whom the mode's first digit is for.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Who made it; has the owner's rights too.
    pub creator_uid: u32,
    /// The maker's group.
    pub creator_gid: u32,
    /// The nine permission bits.
    pub mode: u32,
    /// The slot's sequence number, part of the id; 0 in a user-space home, whose ids are random.
    pub sequence: u16,
}

impl Permissions {
    pub(crate) fn from_raw(raw: &libc::ipc_perm) -> Permissions {
        Permissions {
            key: Key(raw.__key),
            uid: raw.uid,
            gid: raw.gid,
            creator_uid: raw.cuid,
            creator_gid: raw.cgid,
            mode: u32::from(raw.mode) & 0o777,
            sequence: raw.__seq,
        }
    }

    pub(crate) fn of_user(status: &ginnel_engine::namespace::Status) -> Permissions {
        Permissions {
            key: Key(status.key),
            uid: status.uid,
            gid: status.gid,
            creator_uid: status.cuid,
            creator_gid: status.cgid,
            mode: status.mode,
            sequence: 0,
        }
    }
}

/// A System V time stamp: whole seconds, and 0 for "never".
pub(crate) fn time(seconds: libc::time_t) -> Option<SystemTime> {
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// How a System V object's opener wants it: the flags of `msgget(2)`, `semget(2)` and `shmget(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetFlags {
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) mode: u32,
}

impl GetFlags {
    pub(crate) const DEFAULT: GetFlags = GetFlags { create: false, create_new: false, mode: 0o600 };

    pub(crate) fn raw(self, key: Key) -> i32 {
        // A private key makes a new object, whatever the flags, and gives it this mode.
        let makes = self.create || self.create_new || key.is_private();
        let create = if makes { libc::IPC_CREAT } else { 0 };
        let exclusive = if self.create_new { libc::IPC_EXCL } else { 0 };
        // With a mode an open of an existing object would be refused where that grants less; without, each call is
        // checked for the right that it needs itself.
        let mode = if create != 0 { self.mode as i32 & 0o777 } else { 0 };
        create | exclusive | mode
    }
}

/// The label of an object: by its key where it has one, else by its id.
pub(crate) fn label(family: &str, key: Key, id: i32) -> Label {
    if key.is_private() {
        Label::new(format!("{family}:id={id}"))
    } else {
        Label::new(format!("{family}:{key}"))
    }
}

/// Reads a number under `/proc/sys`, for a hint that names the limit that was hit.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok().map(|text| text.trim().replace('\t', " "))
}

/// "kernel.msgmni is 32000; raise it with ..." for a limit that was hit.
pub(crate) fn limit_hint(what: &str, name: &str) -> String {
    match sysctl(name) {
        Some(value) => {
            format!("{what}: {name} is {value}; raise it with `sysctl -w {name}=...` (needs root)")
        }
        None => format!("{what}: see the sysctl {name}"),
    }
}
