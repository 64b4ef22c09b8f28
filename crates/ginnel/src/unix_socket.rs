//! What every Unix socket has in common, whatever its type: addresses, binding, stale socket files, and who is at the
//! other end (`unix(7)`).
//!
//! # What a user sees
//! [`UnixAddress`] and [`Credentials`]. A socket file is removed with the handle that made it; a file that a killed
//! process left behind can be replaced, and never one that somebody still uses.
//!
//! # How it works inside
//! `bind(2)` makes the socket file with the mode of the socket's own inode, cut by the umask: `fchmod(2)` before `bind`
//! gives the file its mode with no moment in which it has another.
//!
//! A file is *stale* when no socket is bound to it. The kernel tells by an attempt to connect a datagram socket:
//! `ECONNREFUSED` is nobody, `EPROTOTYPE` is a socket of another type, success is a datagram socket. This leaves nothing
//! in the other's queue of connections, and finds a server between its `bind` and its `listen`, which connecting with
//! its own type does not.
//!
//! Two processes that replace the same stale file at once would each remove what the other has just bound; a `flock` on
//! the directory, held from the probe to the bind, keeps them apart.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Error, Label, Result};
use crate::sysv;
use crate::wait::check;

/// The longest path that `bind(2)` takes: `sun_path` of `sockaddr_un`, without the NUL.
const PATH_BYTES_MAX: usize = 107;

/// Where a Unix socket is: a path, an abstract name (which has no file and goes with its socket), or nowhere.
///
/// From text, `@name` is abstract and anything else a path; `./@name` is a path that begins with an `@`.
///
/// ```
/// use ginnel::UnixAddress;
///
/// assert_eq!(UnixAddress::from("/run/jobs"), UnixAddress::Path("/run/jobs".into()));
/// assert_eq!(UnixAddress::from("@jobs"), UnixAddress::Abstract(b"jobs".to_vec()));
/// assert_eq!(UnixAddress::from("@jobs").to_string(), "@jobs");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixAddress {
    /// A file, which outlives its socket unless somebody removes it.
    Path(PathBuf),
    /// A name of the network namespace, without file and without permissions: whoever shares the namespace may connect.
    Abstract(Vec<u8>),
    /// A socket that was never bound: `socketpair(2)`, or a client.
    Unnamed,
}

impl UnixAddress {
    /// `@name` for an abstract name, anything else for a path.
    ///
    /// # Errors
    /// `EINVAL`: empty, or with a NUL in a path. `ENAMETOOLONG`: more than 107 bytes.
    pub fn parse(text: &str) -> Result<UnixAddress> {
        let address = UnixAddress::from(text);
        address.to_raw("bind", &Label::new(text))?;
        Ok(address)
    }

    /// The socket at this path, even one that begins with `@`.
    pub fn from_path(path: impl Into<PathBuf>) -> UnixAddress {
        UnixAddress::Path(path.into())
    }

    /// The abstract socket of this name, which may be any bytes.
    pub fn abstract_name(name: impl Into<Vec<u8>>) -> UnixAddress {
        UnixAddress::Abstract(name.into())
    }

    /// The path, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            UnixAddress::Path(path) => Some(path),
            _ => None,
        }
    }

    /// The label of an object at this address: `unix:@name`.
    pub(crate) fn label(&self, scheme: &str) -> Label {
        Label::new(format!("{scheme}:{self}"))
    }

    /// As the kernel takes it, or why it does not.
    ///
    /// # Errors
    /// `EINVAL`, `ENAMETOOLONG`, in our words.
    pub(crate) fn to_raw(&self, operation: &'static str, object: &Label) -> Result<SocketAddrUnix> {
        let invalid = |why: &'static str| Err(Error::invalid(operation, object, why));
        let too_long = |has: usize| {
            Error::new(operation, Errno::NAMETOOLONG, object).with_hint(format!(
                "a Unix socket's name has at most {PATH_BYTES_MAX} bytes, this one has {has}; use a shorter \
                 directory, or an abstract name (@name)"
            ))
        };
        match self {
            UnixAddress::Path(path) => match path.as_os_str().as_bytes() {
                [] => invalid("a socket needs a path, or an abstract name (@name)"),
                bytes if bytes.contains(&0) => invalid("a path has no NUL byte"),
                bytes if bytes.len() > PATH_BYTES_MAX => Err(too_long(bytes.len())),
                _ => {
                    SocketAddrUnix::new(path.as_path()).map_err(|errno| Error::new(operation, errno, object))
                }
            },
            // The kernel would take it for a request to invent a name.
            UnixAddress::Abstract(name) if name.is_empty() => invalid("an abstract name is not empty: @name"),
            UnixAddress::Abstract(name) => {
                SocketAddrUnix::new_abstract_name(name).map_err(|_| too_long(name.len()))
            }
            UnixAddress::Unnamed => invalid("an unnamed socket cannot be reached by its address"),
        }
    }

    /// What the kernel said of a socket's own or a sender's address.
    ///
    /// rustix's own conversion panics on a path of 108 bytes, to which another process may have bound its socket, and
    /// mixes unnamed up with an empty abstract name.
    pub(crate) fn from_raw(raw: Option<&SocketAddrAny>) -> UnixAddress {
        let Some(raw) = raw.filter(|raw| raw.address_family() == AddressFamily::UNIX) else {
            return UnixAddress::Unnamed;
        };
        // SAFETY: a SocketAddrAny holds addr_len() initialised bytes at as_ptr(), and lives as long as this borrow.
        let bytes = unsafe { std::slice::from_raw_parts(raw.as_ptr().cast::<u8>(), raw.addr_len() as usize) };
        match bytes.get(size_of::<libc::sa_family_t>()..).unwrap_or_default() {
            [] => UnixAddress::Unnamed,
            [0, name @ ..] => UnixAddress::Abstract(name.to_vec()),
            path => {
                let len = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                UnixAddress::Path(OsStr::from_bytes(&path[..len]).into())
            }
        }
    }

    /// Where `socket` is bound.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Result<UnixAddress, Errno> {
        rustix::net::getsockname(socket).map(|raw| UnixAddress::from_raw(Some(&raw)))
    }

    /// To what `socket` is connected.
    pub(crate) fn of_peer(socket: BorrowedFd<'_>) -> Result<UnixAddress, Errno> {
        rustix::net::getpeername(socket).map(|raw| UnixAddress::from_raw(raw.as_ref()))
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddress::Path(path) => write!(f, "{}", path.display()),
            UnixAddress::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            UnixAddress::Unnamed => f.write_str("(unnamed)"),
        }
    }
}

impl From<&str> for UnixAddress {
    fn from(text: &str) -> UnixAddress {
        match text.strip_prefix('@') {
            Some(name) => UnixAddress::Abstract(name.into()),
            None => UnixAddress::Path(text.into()),
        }
    }
}

impl From<&String> for UnixAddress {
    fn from(text: &String) -> UnixAddress {
        text.as_str().into()
    }
}

impl From<String> for UnixAddress {
    fn from(text: String) -> UnixAddress {
        text.as_str().into()
    }
}

impl From<&Path> for UnixAddress {
    fn from(path: &Path) -> UnixAddress {
        UnixAddress::Path(path.into())
    }
}

impl From<&PathBuf> for UnixAddress {
    fn from(path: &PathBuf) -> UnixAddress {
        UnixAddress::Path(path.into())
    }
}

impl From<PathBuf> for UnixAddress {
    fn from(path: PathBuf) -> UnixAddress {
        UnixAddress::Path(path)
    }
}

impl From<&UnixAddress> for UnixAddress {
    fn from(address: &UnixAddress) -> UnixAddress {
        address.clone()
    }
}

/// A socket of `kind`, close-on-exec.
pub(crate) fn socket(kind: SocketType, object: &Label) -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::new("socket", errno, object))
}

/// Two connected sockets of `kind`, close-on-exec.
pub(crate) fn pair(kind: SocketType, object: &Label) -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::new("socketpair", errno, object))
}

/// That `socket`, which came from outside, is a Unix socket of `kind`.
///
/// # Errors
/// `EPROTOTYPE`: it is of another type or family. `ENOTSOCK`: it is no socket.
pub(crate) fn check_type(socket: BorrowedFd<'_>, kind: SocketType, object: &Label) -> Result<()> {
    let found = rustix::net::sockopt::socket_domain(socket)
        .and_then(|domain| Ok((domain, rustix::net::sockopt::socket_type(socket)?)))
        .map_err(|errno| Error::new("getsockopt", errno, object))?;
    if found == (AddressFamily::UNIX, kind) {
        return Ok(());
    }
    Err(Error::new("getsockopt", Errno::PROTOTYPE, object)
        .with_hint("the descriptor is a socket of another type or family"))
}

/// How [`bind`] makes the socket file; neither counts for an abstract name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BindOptions {
    /// The file's permission bits, of which the umask takes away: connecting and sending need write permission.
    pub(crate) mode: u32,
    /// Replace a socket file to which no socket is bound.
    pub(crate) replace_stale: bool,
    /// Remove the socket file with the handle.
    pub(crate) remove_on_drop: bool,
}

impl BindOptions {
    pub(crate) const DEFAULT: BindOptions =
        BindOptions { mode: 0o600, replace_stale: true, remove_on_drop: true };
}

/// A bound name. Dropping it removes the socket file, in the process that made it and while it is the same file.
///
/// It goes before its socket does: a name whose socket is closed is stale, and another process may just be replacing it.
#[derive(Debug)]
pub(crate) struct BoundPath(Option<SocketFile>);

#[derive(Debug)]
struct SocketFile {
    /// Absolute: the process may change its directory before the drop.
    path: PathBuf,
    identity: Identity,
    owner: u32,
}

/// Device, inode and time of birth: some file systems give the next file the inode of the last one removed.
pub(crate) type Identity = (u64, u64, Option<SystemTime>);

/// Which file a name stands for.
pub(crate) fn identity(status: &std::fs::Metadata) -> Identity {
    (status.dev(), status.ino(), status.created().ok())
}

impl BoundPath {
    /// Nothing to remove: an abstract or unnamed socket.
    pub(crate) const NONE: BoundPath = BoundPath(None);

    /// Lets the socket file stay when this is dropped.
    pub(crate) fn keep(&mut self) {
        self.0 = None;
    }

    /// As it is from the moment that nothing can fail any more.
    pub(crate) fn settled(mut self, options: BindOptions) -> BoundPath {
        if !options.remove_on_drop {
            self.keep();
        }
        self
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        let Some(file) = self.0.take().filter(|file| file.owner == std::process::id()) else { return };
        if std::fs::symlink_metadata(&file.path).is_ok_and(|found| identity(&found) == file.identity) {
            // Gone already is what was wanted.
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

/// Binds `socket`, which must be of the Unix family and unbound, to `address`.
///
/// # Errors
/// `EADDRINUSE`: the name is taken (with `replace_stale`: by a socket that lives, or by something that is no socket).
/// `ENOENT`: no such directory. `EACCES`, `EROFS`: no right to make a file there. `ENAMETOOLONG`, `EINVAL`: see
/// [`UnixAddress::parse`]; `EINVAL` too for a socket that is bound already.
pub(crate) fn bind(
    socket: BorrowedFd<'_>,
    address: &UnixAddress,
    options: BindOptions,
    object: &Label,
) -> Result<BoundPath> {
    let raw = address.to_raw("bind", object)?;
    let fail = |errno| explain_bind(Error::new("bind", errno, object), address);
    let UnixAddress::Path(path) = address else {
        return rustix::net::bind(socket, &raw).map(|()| BoundPath::NONE).map_err(fail);
    };
    // A socket's own inode has no owner to ask for the right: this cannot fail for lack of one.
    rustix::fs::fchmod(socket, Mode::from_raw_mode(options.mode & 0o777)).map_err(fail)?;
    match rustix::net::bind(socket, &raw) {
        Err(Errno::ADDRINUSE) if options.replace_stale => replace_stale(socket, path, &raw, object)?,
        other => other.map_err(fail)?,
    }
    let file = std::path::absolute(path)
        .and_then(|path| std::fs::symlink_metadata(&path).map(|status| (path, status)))
        .ok()
        .filter(|(_, status)| status.file_type().is_socket());
    Ok(BoundPath(file.map(|(path, status)| SocketFile {
        path,
        identity: identity(&status),
        owner: std::process::id(),
    })))
}

/// Removes the socket file at `path` if nobody is bound to it, and binds `socket` there.
fn replace_stale(socket: BorrowedFd<'_>, path: &Path, raw: &SocketAddrUnix, object: &Label) -> Result<()> {
    let fail = |operation, errno| Error::new(operation, errno, object);
    let in_use = |hint: &'static str| Err(fail("bind", Errno::ADDRINUSE).with_hint(hint));
    let _lock = lock_directory(path, object)?;
    match std::fs::symlink_metadata(path) {
        Ok(status) if !status.file_type().is_socket() => {
            return in_use("what is there is not a socket; it was left alone");
        }
        Ok(_) => {
            if is_bound(raw).map_err(|errno| fail("connect", errno))? {
                return in_use("a socket that is alive has this name");
            }
            match rustix::fs::unlink(path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail("unlink", errno)),
            }
        }
        // Removed meanwhile.
        Err(_) => {}
    }
    rustix::net::bind(socket, raw).map_err(|errno| fail("bind", errno))
}

/// Whether any socket, of whatever type, is bound to the file.
fn is_bound(raw: &SocketAddrUnix) -> Result<bool, Errno> {
    let probe = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    match rustix::net::connect(&probe, raw) {
        Ok(()) | Err(Errno::PROTOTYPE | Errno::PERM) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Keeps other replacers out of the directory of `path` until the descriptor is closed.
///
/// Whoever may read the directory may lock it too, so this does not wait for ever.
fn lock_directory(path: &Path, object: &Label) -> Result<OwnedFd> {
    const ATTEMPTS: u32 = 200;
    const PAUSE: Duration = Duration::from_millis(5);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory =
        rustix::fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::new("open", errno, object))?;
    for _ in 0..ATTEMPTS {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => std::thread::sleep(PAUSE),
            outcome => {
                return outcome.map(|()| directory).map_err(|errno| Error::new("flock", errno, object));
            }
        }
    }
    Err(Error::new("flock", Errno::AGAIN, object)
        .with_hint(format!("somebody holds a lock on the directory {}", parent.display())))
}

fn explain_bind(error: Error, address: &UnixAddress) -> Error {
    match (error.raw(), address) {
        (Errno::ADDRINUSE, UnixAddress::Path(_)) => error.with_hint(
            "the file exists; if its server was killed, bind with `replace_stale`, which leaves a living one alone",
        ),
        (Errno::ADDRINUSE, _) => error.with_hint("a socket in this network namespace has this name"),
        (Errno::NOENT, _) => error.with_hint("the directory does not exist"),
        (Errno::ACCESS, _) => error.with_hint("no right to make a file in that directory"),
        _ => error,
    }
}

/// Adds to the error of a `connect` to a listener what it means for a Unix socket.
pub(crate) fn explain_connect(error: Error, address: &UnixAddress) -> Error {
    match error.raw() {
        Errno::AGAIN => error.with_hint(sysv::limit_hint(
            "the server has not accepted earlier connections and its queue is full (its backlog)",
            "net.core.somaxconn",
        )),
        Errno::TIMEDOUT => error.with_hint("the server does not accept, and its queue is full"),
        _ => explain_reach(error, address),
    }
}

/// Adds to the error of a `connect` or `sendto` what it means for a Unix socket.
pub(crate) fn explain_reach(error: Error, address: &UnixAddress) -> Error {
    match (error.raw(), address) {
        (Errno::CONNREFUSED, UnixAddress::Path(_)) => {
            error.with_hint("the socket file is there, but nobody listens: its server is gone")
        }
        (Errno::CONNREFUSED, _) => error.with_hint("nobody has this name in this network namespace"),
        (Errno::NOENT, _) => error.with_hint("no such file: the server was not started yet"),
        (Errno::ACCESS, _) => error.with_hint("connecting needs write permission on the socket file"),
        (Errno::PERM, _) => error.with_hint("that socket is connected, and receives from its peer only"),
        (Errno::PROTOTYPE, _) => {
            error.with_hint("the socket there is of another type (stream, datagram, seqpacket)")
        }
        _ => error,
    }
}

/// Who a process is, as the kernel vouches for it: `SO_PEERCRED` and `SCM_CREDENTIALS` of `unix(7)`.
///
/// ```
/// let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
/// let peer = ginnel::Credentials::of_peer(&a)?;
/// assert_eq!(peer.pid, std::process::id() as i32);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process; 0 when it is not visible from this PID namespace.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Credentials {
    /// Who connected to, listened on or paired the connected Unix socket (`SO_PEERCRED`): as it was at that moment. Whoever
    /// inherited or was passed the socket since is not seen.
    ///
    /// # Errors
    /// `ENOTCONN`: the socket has no peer, or is an unpaired datagram socket. `ENOTSOCK`, `EBADF`.
    pub fn of_peer(socket: impl AsFd) -> Result<Credentials> {
        peer_credentials(socket.as_fd(), &"unix socket".into())
    }

    pub(crate) fn from_raw(raw: libc::ucred) -> Credentials {
        Credentials { pid: raw.pid, uid: raw.uid, gid: raw.gid }
    }
}

/// See [`Credentials::of_peer`].
///
/// Not rustix's: its process id cannot be 0, which the kernel gives for a peer of another PID namespace.
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>, object: &Label) -> Result<Credentials> {
    let mut raw = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `raw`, which is numbers only.
    let outcome = check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            raw.as_mut_ptr().cast(),
            &raw mut len,
        )
    });
    outcome.map_err(|errno| Error::new("getsockopt", errno, object))?;
    // SAFETY: zeroed above; any bytes are a valid ucred.
    let credentials = Credentials::from_raw(unsafe { raw.assume_init() });
    // A socket without a peer has the kernel's "nobody": user and group -1.
    if credentials.uid == u32::MAX {
        return Err(Error::new("getsockopt", Errno::NOTCONN, object)
            .with_hint("only a connected stream or seqpacket socket, or a pair, knows its peer"));
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_addresses() {
        for text in ["/tmp/a", "relative", "@name"] {
            assert_eq!(UnixAddress::parse(text).unwrap().to_string(), text);
        }
        for (text, errno) in [("", "EINVAL"), ("@", "EINVAL"), ("a\0b", "EINVAL")] {
            assert_eq!(UnixAddress::parse(text).unwrap_err().errno_name(), errno, "{text:?}");
        }
        let fits = format!("/{}", "x".repeat(106));
        assert!(UnixAddress::parse(&fits).is_ok());
        assert_eq!(UnixAddress::parse(&format!("{fits}x")).unwrap_err().errno_name(), "ENAMETOOLONG");
        assert_eq!(UnixAddress::abstract_name(b"a\0b".to_vec()).to_string(), r"@a\x00b");
    }

    #[test]
    fn a_socket_file_goes_with_its_handle_only_while_it_is_the_same() {
        let directory = std::env::temp_dir().join(format!("ginnel-unix-socket-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("s");
        let address = UnixAddress::from(&path);
        let object = address.label("unix");
        let make = |options| {
            let socket = socket(SocketType::STREAM, &object).unwrap();
            bind(socket.as_fd(), &address, options, &object).map(|bound| (socket, bound))
        };
        let stale_ok = BindOptions::DEFAULT;

        let (first, bound) = make(BindOptions::DEFAULT).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(UnixAddress::of(first.as_fd()).unwrap(), address);
        assert!(make(stale_ok).unwrap_err().is_already_exists(), "bound and not yet listening is in use");

        drop(first);
        let (second, replaced) = make(stale_ok).unwrap();
        drop(bound);
        assert!(path.exists(), "the first handle does not remove the second's file");
        drop(replaced);
        assert!(!path.exists());
        drop(second);

        std::fs::write(&path, "precious").unwrap();
        assert!(make(stale_ok).unwrap_err().is_already_exists());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
