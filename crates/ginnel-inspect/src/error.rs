//! What went wrong: the call, the thing it was about, and the operating system's reason.

use std::{fmt, io};

/// The result of looking at processes.
///
/// ```
/// use ginnel_inspect::{Result, descriptors::DescriptorTable};
///
/// fn count(pid: i32) -> Result<usize> {
///     Ok(DescriptorTable::read(pid)?.descriptors.len())
/// }
/// assert!(count(std::process::id() as i32)? > 0);
/// assert_eq!(count(i32::MAX).unwrap_err().operation(), "readdir");
/// # Ok::<(), ginnel_inspect::Error>(())
/// ```
pub type Result<T> = std::result::Result<T, Error>;

/// A call that failed while processes were being looked at.
///
/// ```
/// use ginnel_inspect::descriptors::DescriptorTable;
///
/// let error = DescriptorTable::read(i32::MAX).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert_eq!(error.object(), "/proc/2147483647/fd");
/// ```
#[derive(Debug)]
pub struct Error {
    operation: &'static str,
    object: String,
    hint: Option<&'static str>,
    source: io::Error,
}

impl Error {
    pub(crate) fn new(
        operation: &'static str,
        object: impl fmt::Display,
        source: impl Into<io::Error>,
    ) -> Self {
        Self { operation, object: object.to_string(), hint: None, source: source.into() }
    }

    /// The error that `errno` holds after a libc call.
    pub(crate) fn last(operation: &'static str, object: impl fmt::Display) -> Self {
        Self::new(operation, object, io::Error::last_os_error())
    }

    pub(crate) fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The call that failed, such as `"kcmp"`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// What the call was about, such as `/proc/1/fd`.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The kind of the reason; `BrokenPipe` is what a closed reader of the output gives.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The `errno`, where the reason has one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.operation, self.object, self.source)?;
        self.hint.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
