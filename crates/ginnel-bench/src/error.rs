//! Why a row has no figures.

use std::fmt;

/// Why something could not be measured.
#[derive(Debug)]
pub(crate) enum Error {
    /// A call failed, or something arrived wrong.
    Failed(String),
    /// This host, or this user, may not have it.
    Unavailable(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn failed(why: impl fmt::Display) -> Error {
        Error::Failed(why.to_string())
    }

    /// What the system call named `call` failed with, just now.
    #[cold]
    pub(crate) fn last(call: &str) -> Error {
        Error::Failed(format!("{call}: {}", std::io::Error::last_os_error()))
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Error::Failed(text) | Error::Unavailable(text) => text,
        }
    }
}

/// Names the call that failed.
pub(crate) trait Named<T> {
    fn named(self, call: &str) -> Result<T>;
}

impl<T> Named<T> for std::result::Result<T, rustix::io::Errno> {
    #[inline]
    fn named(self, call: &str) -> Result<T> {
        self.map_err(|errno| named(call, errno))
    }
}

#[cold]
fn named(call: &str, errno: rustix::io::Errno) -> Error {
    Error::Failed(format!("{call}: {}", std::io::Error::from(errno)))
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::failed(error)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Error {
        Error::failed(std::io::Error::from(errno))
    }
}

impl From<ginnel::Error> for Error {
    fn from(error: ginnel::Error) -> Error {
        Error::failed(error)
    }
}

/// `Failed` unless `condition` holds.
#[inline]
pub(crate) fn ensure(condition: bool, otherwise: &'static str) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::failed(otherwise)) }
}
