//! The one error type: what was called, on what, why it failed, and what to try.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

/// What every fallible call of this library returns.
///
/// ```
/// # ginnel_testkit::private();
/// use std::time::Duration;
/// use ginnel::message::{Select, SysvQueue};
///
/// fn next_job(queue: &SysvQueue) -> ginnel::Result<Vec<u8>> {
///     Ok(queue.recv_vec_deadline(Select::Any, Duration::from_millis(2))?.payload)
/// }
/// let queue = SysvQueue::private()?;
/// queue.send(1, b"sweep the yard")?;
/// assert_eq!(next_job(&queue)?, b"sweep the yard");
/// assert!(next_job(&queue).unwrap_err().is_timed_out());
/// # Ok::<(), ginnel::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call: which one, on which object, the kernel's errno, and what to try.
///
/// Programs ask the predicates ([`is_would_block`](Error::is_would_block) and its sisters) or
/// [`errno`](Error::errno); people read the `Display`, which names the object in the notation of
/// [`Endpoint`](crate::Endpoint).
///
/// ```
/// use ginnel::message::SysvQueue;
///
/// let error = SysvQueue::open(0x7fff_0001_i32).unwrap_err();
/// assert!(error.is_not_found());
/// assert_eq!(error.operation(), "msgget");
/// assert_eq!(error.errno_name(), "ENOENT");
/// assert!(error.to_string().starts_with("sysv-msg:0x7fff0001: msgget: No such file or directory (ENOENT)"));
/// ```
#[derive(Clone)]
pub struct Error {
    operation: &'static str,
    errno: Errno,
    object: Label,
    hint: Option<Arc<str>>,
    removed: bool,
}

impl Error {
    pub(crate) fn new(operation: &'static str, errno: Errno, object: &Label) -> Error {
        Error { operation, errno, object: object.clone(), hint: None, removed: errno == Errno::IDRM }
    }

    /// `EINVAL` for an argument that this library refuses before the kernel sees it.
    pub(crate) fn invalid(operation: &'static str, object: &Label, why: impl Into<Arc<str>>) -> Error {
        Error::new(operation, Errno::INVAL, object).with_hint(why)
    }

    /// Wraps an error of `std`, whose errno may be missing (a resolver's failure, for one).
    pub(crate) fn from_io(operation: &'static str, error: &io::Error, object: &Label) -> Error {
        match Errno::from_io_error(error) {
            Some(errno) => Error::new(operation, errno, object),
            None => Error::new(operation, Errno::IO, object).with_hint(error.to_string()),
        }
    }

    /// Adds what to try. A second hint replaces the first.
    pub(crate) fn with_hint(mut self, hint: impl Into<Arc<str>>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Marks an object as gone where the errno alone does not say so: a System V id that was removed before the call
    /// is `EINVAL`.
    pub(crate) fn gone(mut self) -> Error {
        self.removed = true;
        self.with_hint("it was removed; open it again by its key")
    }

    /// The system call that failed, as its man page spells it: `"msgsnd"`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The errno, exactly as the kernel gave it.
    pub fn errno(&self) -> i32 {
        self.errno.raw_os_error()
    }

    /// The errno's name: `"EAGAIN"`. `"E?"` for one that Linux does not have.
    pub fn errno_name(&self) -> &'static str {
        errno_name(self.errno)
    }

    /// The object, in the notation of [`Endpoint`](crate::Endpoint); a plain noun (`"pipe"`) for one without a name.
    pub fn object(&self) -> &str {
        self.object.as_str()
    }

    /// What to try, where there is something to try.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The call would have had to wait and was told not to (`EAGAIN`, `ENOMSG` of `msgrcv(2)`, and `EBUSY` of a mutex
    /// or a read-write lock).
    pub fn is_would_block(&self) -> bool {
        let is_lock = self.operation.starts_with("pthread_");
        matches!(self.errno, Errno::AGAIN | Errno::NOMSG) || (is_lock && self.errno == Errno::BUSY)
    }

    /// The deadline passed (`ETIMEDOUT`).
    pub fn is_timed_out(&self) -> bool {
        self.errno == Errno::TIMEDOUT
    }

    /// The object was removed while the call used it (`EIDRM`) or before it (a System V id gives `EINVAL` then).
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// A signal handler ran and the call gave up (`EINTR`); nothing was sent, received or taken.
    pub fn is_interrupted(&self) -> bool {
        self.errno == Errno::INTR
    }

    /// The object's memory does not hold what it must (`EUCLEAN`): somebody wrote over it.
    pub fn is_corrupted(&self) -> bool {
        self.errno == Errno::UCLEAN
    }

    /// The other end is gone (`EPIPE`, `ECONNRESET`, `ENOTCONN`, `EHOSTDOWN`).
    pub fn is_disconnected(&self) -> bool {
        matches!(self.errno, Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::HOSTDOWN)
    }

    /// There is no such object (`ENOENT`, and `ECONNREFUSED`: a name nobody listens on; `ENXIO`: a FIFO without a
    /// reader; `ESRCH`: no such process).
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno, Errno::NOENT | Errno::CONNREFUSED | Errno::NXIO | Errno::SRCH)
    }

    /// An object of that name exists already (`EEXIST`, `EADDRINUSE`).
    pub fn is_already_exists(&self) -> bool {
        matches!(self.errno, Errno::EXIST | Errno::ADDRINUSE)
    }

    /// The caller lacks the right (`EACCES`, `EPERM`).
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.errno, Errno::ACCESS | Errno::PERM)
    }

    /// Waiting would have closed a circle of waiters (`EDEADLK`).
    pub fn is_deadlock(&self) -> bool {
        self.errno == Errno::DEADLK
    }

    /// The memory behind a mapping is gone (`EFAULT`): the file was truncated, or had no page to give.
    pub fn is_truncated(&self) -> bool {
        self.errno == Errno::FAULT
    }

    pub(crate) fn raw(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from(self.errno).to_string();
        // std appends " (os error N)"; the errno's name says more.
        let text = text.split(" (os error").next().unwrap_or(&text);
        write!(f, "{}: {}: {} ({})", self.object, self.operation, text, self.errno_name())?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    /// Keeps the [`io::ErrorKind`] of the errno; the whole error is the source.
    fn from(error: Error) -> io::Error {
        io::Error::new(io::Error::from(error.errno).kind(), error)
    }
}

/// The name of an object for its errors: cheap to clone, and static where there is nothing to tell.
#[derive(Clone, Debug)]
pub(crate) enum Label {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Label {
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Label {
        Label::Shared(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Label::Static(name) => name,
            Label::Shared(name) => name,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&'static str> for Label {
    fn from(name: &'static str) -> Label {
        Label::Static(name)
    }
}

impl From<Cow<'static, str>> for Label {
    fn from(name: Cow<'static, str>) -> Label {
        match name {
            Cow::Borrowed(name) => Label::Static(name),
            Cow::Owned(name) => Label::new(name),
        }
    }
}

/// The calling thread's errno, after a libc call has returned -1.
pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The name of an errno, as `errno(3)` has it.
pub(crate) fn errno_name(errno: Errno) -> &'static str {
    const NAMES: &[(Errno, &str)] = &[
        (Errno::TOOBIG, "E2BIG"),
        (Errno::ACCESS, "EACCES"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::ADV, "EADV"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::ALREADY, "EALREADY"),
        (Errno::BADE, "EBADE"),
        (Errno::BADF, "EBADF"),
        (Errno::BADFD, "EBADFD"),
        (Errno::BADMSG, "EBADMSG"),
        (Errno::BADR, "EBADR"),
        (Errno::BADRQC, "EBADRQC"),
        (Errno::BADSLT, "EBADSLT"),
        (Errno::BFONT, "EBFONT"),
        (Errno::BUSY, "EBUSY"),
        (Errno::CANCELED, "ECANCELED"),
        (Errno::CHILD, "ECHILD"),
        (Errno::CHRNG, "ECHRNG"),
        (Errno::COMM, "ECOMM"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::DEADLK, "EDEADLK"),
        (Errno::DESTADDRREQ, "EDESTADDRREQ"),
        (Errno::DOM, "EDOM"),
        (Errno::DOTDOT, "EDOTDOT"),
        (Errno::DQUOT, "EDQUOT"),
        (Errno::EXIST, "EEXIST"),
        (Errno::FAULT, "EFAULT"),
        (Errno::FBIG, "EFBIG"),
        (Errno::HOSTDOWN, "EHOSTDOWN"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::HWPOISON, "EHWPOISON"),
        (Errno::IDRM, "EIDRM"),
        (Errno::ILSEQ, "EILSEQ"),
        (Errno::INPROGRESS, "EINPROGRESS"),
        (Errno::INTR, "EINTR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::IO, "EIO"),
        (Errno::ISCONN, "EISCONN"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::ISNAM, "EISNAM"),
        (Errno::KEYEXPIRED, "EKEYEXPIRED"),
        (Errno::KEYREJECTED, "EKEYREJECTED"),
        (Errno::KEYREVOKED, "EKEYREVOKED"),
        (Errno::L2HLT, "EL2HLT"),
        (Errno::L2NSYNC, "EL2NSYNC"),
        (Errno::L3HLT, "EL3HLT"),
        (Errno::L3RST, "EL3RST"),
        (Errno::LIBACC, "ELIBACC"),
        (Errno::LIBBAD, "ELIBBAD"),
        (Errno::LIBEXEC, "ELIBEXEC"),
        (Errno::LIBMAX, "ELIBMAX"),
        (Errno::LIBSCN, "ELIBSCN"),
        (Errno::LNRNG, "ELNRNG"),
        (Errno::LOOP, "ELOOP"),
        (Errno::MEDIUMTYPE, "EMEDIUMTYPE"),
        (Errno::MFILE, "EMFILE"),
        (Errno::MLINK, "EMLINK"),
        (Errno::MSGSIZE, "EMSGSIZE"),
        (Errno::MULTIHOP, "EMULTIHOP"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::NAVAIL, "ENAVAIL"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::NETRESET, "ENETRESET"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NFILE, "ENFILE"),
        (Errno::NOANO, "ENOANO"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NOCSI, "ENOCSI"),
        (Errno::NODATA, "ENODATA"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NOENT, "ENOENT"),
        (Errno::NOEXEC, "ENOEXEC"),
        (Errno::NOKEY, "ENOKEY"),
        (Errno::NOLCK, "ENOLCK"),
        (Errno::NOLINK, "ENOLINK"),
        (Errno::NOMEDIUM, "ENOMEDIUM"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::NOMSG, "ENOMSG"),
        (Errno::NONET, "ENONET"),
        (Errno::NOPKG, "ENOPKG"),
        (Errno::NOPROTOOPT, "ENOPROTOOPT"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::NOSR, "ENOSR"),
        (Errno::NOSTR, "ENOSTR"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::NOTBLK, "ENOTBLK"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::NOTNAM, "ENOTNAM"),
        (Errno::NOTRECOVERABLE, "ENOTRECOVERABLE"),
        (Errno::NOTSOCK, "ENOTSOCK"),
        (Errno::NOTTY, "ENOTTY"),
        (Errno::NOTUNIQ, "ENOTUNIQ"),
        (Errno::NXIO, "ENXIO"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::OVERFLOW, "EOVERFLOW"),
        (Errno::OWNERDEAD, "EOWNERDEAD"),
        (Errno::PERM, "EPERM"),
        (Errno::PFNOSUPPORT, "EPFNOSUPPORT"),
        (Errno::PIPE, "EPIPE"),
        (Errno::PROTO, "EPROTO"),
        (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
        (Errno::PROTOTYPE, "EPROTOTYPE"),
        (Errno::RANGE, "ERANGE"),
        (Errno::REMCHG, "EREMCHG"),
        (Errno::REMOTE, "EREMOTE"),
        (Errno::REMOTEIO, "EREMOTEIO"),
        (Errno::RESTART, "ERESTART"),
        (Errno::RFKILL, "ERFKILL"),
        (Errno::ROFS, "EROFS"),
        (Errno::SHUTDOWN, "ESHUTDOWN"),
        (Errno::SOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (Errno::SPIPE, "ESPIPE"),
        (Errno::SRCH, "ESRCH"),
        (Errno::SRMNT, "ESRMNT"),
        (Errno::STALE, "ESTALE"),
        (Errno::STRPIPE, "ESTRPIPE"),
        (Errno::TIME, "ETIME"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::TOOMANYREFS, "ETOOMANYREFS"),
        (Errno::TXTBSY, "ETXTBSY"),
        (Errno::UCLEAN, "EUCLEAN"),
        (Errno::UNATCH, "EUNATCH"),
        (Errno::USERS, "EUSERS"),
        (Errno::XDEV, "EXDEV"),
        (Errno::XFULL, "EXFULL"),
    ];
    NAMES.iter().find(|(known, _)| *known == errno).map_or("E?", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_linux_has_its_name() {
        // 41 and 58 are not used.
        for number in (1..=133).filter(|number| ![41, 58].contains(number)) {
            assert_ne!(errno_name(Errno::from_raw_os_error(number)), "E?", "{number}");
        }
        assert_eq!(errno_name(Errno::from_raw_os_error(libc::EDQUOT)), "EDQUOT");
        assert_eq!(errno_name(Errno::from_raw_os_error(4000)), "E?");
    }
}
