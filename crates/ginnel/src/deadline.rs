//! How long a call may wait: not at all, until a moment, or for ever.

use std::time::{Duration, Instant, SystemTime};

use ginnel_engine::wait::Patience;
use rustix::io::Errno;
use rustix::time::Timespec;

/// The moment at which a waiting call gives up with `ETIMEDOUT`.
///
/// Every `*_deadline` form takes `impl Into<Deadline>`: a [`Duration`] counts from now, an [`Instant`] is absolute,
/// a [`SystemTime`] is absolute on the wall clock, `Option<Duration>` means for ever when it is `None`.
///
/// All of them are kept on the monotonic clock: a wall clock that is set afterwards neither shortens nor
/// lengthens a wait. A `SystemTime` is turned into the monotonic clock's moment when the `Deadline` is made.
///
/// ```
/// use std::time::{Duration, Instant};
/// use ginnel::Deadline;
///
/// let soon = Deadline::from(Duration::from_millis(5));
/// assert!(!soon.has_passed());
/// assert!(Deadline::from(Instant::now() - Duration::from_secs(1)).has_passed());
/// assert_eq!(Deadline::NEVER.remaining(), None);
/// assert_eq!(Deadline::NOW.remaining(), Some(Duration::ZERO));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(When);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Now,
    At(Instant),
    Never,
}

impl Deadline {
    /// Do not wait: the call gives the man page's errno for "would block" instead.
    pub const NOW: Deadline = Deadline(When::Now);
    /// Wait for ever.
    pub const NEVER: Deadline = Deadline(When::Never);

    /// How long is left: `None` for ever, zero when it has passed.
    pub fn remaining(self) -> Option<Duration> {
        match self.0 {
            When::Now => Some(Duration::ZERO),
            When::At(moment) => Some(moment.saturating_duration_since(Instant::now())),
            When::Never => None,
        }
    }

    /// Whether nothing is left to wait.
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    pub(crate) fn is_now(self) -> bool {
        self.0 == When::Now
    }

    pub(crate) fn is_never(self) -> bool {
        self.0 == When::Never
    }

    /// The same for the user-space home.
    pub(crate) fn patience(self) -> Patience {
        match self.0 {
            When::Now => Patience::None,
            When::At(moment) => Patience::Until(moment),
            When::Never => Patience::Endless,
        }
    }

    /// What is left, for a system call; `None` for ever.
    pub(crate) fn remaining_timespec(self) -> Option<Timespec> {
        self.remaining().map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    /// The errno of a wait that ends without its event: `EAGAIN` if it was not to wait, `ETIMEDOUT` if it waited.
    pub(crate) fn errno(self) -> Errno {
        if self.is_now() { Errno::AGAIN } else { Errno::TIMEDOUT }
    }
}

impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Deadline {
        Instant::now().checked_add(duration).map_or(Deadline::NEVER, Deadline::from)
    }
}

impl From<Instant> for Deadline {
    fn from(moment: Instant) -> Deadline {
        Deadline(When::At(moment))
    }
}

impl From<SystemTime> for Deadline {
    fn from(moment: SystemTime) -> Deadline {
        Deadline::from(moment.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
    }
}

impl From<Option<Duration>> for Deadline {
    fn from(duration: Option<Duration>) -> Deadline {
        duration.map_or(Deadline::NEVER, Deadline::from)
    }
}
