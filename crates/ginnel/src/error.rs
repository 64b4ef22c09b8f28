//! The one error type: what was called, on what, why it failed, and what to try.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

/// What every fallible call of this library returns.
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

    /// The errno's name: `"EAGAIN"`. `"E?"` for one that has no name here.
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

    /// The call would have had to wait and was told not to (`EAGAIN`, and `ENOMSG` of `msgrcv(2)`).
    pub fn is_would_block(&self) -> bool {
        matches!(self.errno, Errno::AGAIN | Errno::NOMSG)
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
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::ALREADY, "EALREADY"),
        (Errno::BADF, "EBADF"),
        (Errno::BADMSG, "EBADMSG"),
        (Errno::BUSY, "EBUSY"),
        (Errno::CANCELED, "ECANCELED"),
        (Errno::CHILD, "ECHILD"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::DEADLK, "EDEADLK"),
        (Errno::DESTADDRREQ, "EDESTADDRREQ"),
        (Errno::DOM, "EDOM"),
        (Errno::EXIST, "EEXIST"),
        (Errno::FAULT, "EFAULT"),
        (Errno::FBIG, "EFBIG"),
        (Errno::HOSTDOWN, "EHOSTDOWN"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::IDRM, "EIDRM"),
        (Errno::INPROGRESS, "EINPROGRESS"),
        (Errno::INTR, "EINTR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::IO, "EIO"),
        (Errno::ISCONN, "EISCONN"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::LOOP, "ELOOP"),
        (Errno::MFILE, "EMFILE"),
        (Errno::MSGSIZE, "EMSGSIZE"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NFILE, "ENFILE"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NODEV, "ENODEV"),
        (Errno::NOENT, "ENOENT"),
        (Errno::NOEXEC, "ENOEXEC"),
        (Errno::NOLCK, "ENOLCK"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::NOMSG, "ENOMSG"),
        (Errno::NOPROTOOPT, "ENOPROTOOPT"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::NOTSOCK, "ENOTSOCK"),
        (Errno::NOTTY, "ENOTTY"),
        (Errno::NXIO, "ENXIO"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::OVERFLOW, "EOVERFLOW"),
        (Errno::OWNERDEAD, "EOWNERDEAD"),
        (Errno::PERM, "EPERM"),
        (Errno::PIPE, "EPIPE"),
        (Errno::PROTO, "EPROTO"),
        (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
        (Errno::PROTOTYPE, "EPROTOTYPE"),
        (Errno::RANGE, "ERANGE"),
        (Errno::ROFS, "EROFS"),
        (Errno::SPIPE, "ESPIPE"),
        (Errno::SRCH, "ESRCH"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::TOOMANYREFS, "ETOOMANYREFS"),
        (Errno::TXTBSY, "ETXTBSY"),
        (Errno::UCLEAN, "EUCLEAN"),
        (Errno::XDEV, "EXDEV"),
    ];
    NAMES.iter().find(|(known, _)| *known == errno).map_or("E?", |(_, name)| name)
}
