//! The notation that names an endpoint in one word: `sysv-msg:0x2a`, `fifo:/tmp/a`, `tcp:localhost:7000`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Label, Result};
use crate::sysv::Key;

/// One end of a mechanism, named as the command `ginnel` and every [`Error`] name it.
///
/// | notation | mechanism |
/// | --- | --- |
/// | `fifo:/tmp/a` | FIFO |
/// | `pty:/dev/pts/3` | pseudo-terminal (or any terminal device) |
/// | `unix:/tmp/s`, `unix:@name` | Unix stream socket, by path or abstract |
/// | `tcp:host:port`, `tcp:[::1]:port` | TCP |
/// | `sysv-msg:KEY` | System V message queue |
/// | `posix-mq:/jobs` | POSIX message queue |
/// | `unix-dgram:/tmp/d`, `unix-dgram:@name` | Unix datagram socket |
/// | `unix-seqpacket:/tmp/q`, `unix-seqpacket:@name` | Unix seqpacket socket |
/// | `udp:host:port` | UDP |
/// | `icmp:host` | ICMP echo through a raw socket |
/// | `sysv-shm:KEY` | System V shared memory segment |
/// | `posix-shm:/x` | POSIX shared memory |
/// | `file:/data`, `file:/data#4096+512` | mapped file, whole or 512 bytes from offset 4096 |
/// | `sysv-sem:KEY`, `sysv-sem:KEY[2]` | System V semaphore set, or one semaphore in it |
/// | `posix-sem:/x` | POSIX named semaphore |
/// | `lock:/data`, `lock:/data#0+100` | record lock on a file, whole or a range |
/// | `flock:/data` | `flock` on a file |
/// | `signal:PID`, `signal:-PGID` | a process, or a process group, to signal |
///
/// A System V `KEY` is `0x2a`, `42`, `/path#project` (`ftok`) or `id=3`, the kernel's id as `ipcs` shows it.
///
/// ```
/// use ginnel::Endpoint;
///
/// let endpoint: Endpoint = "unix-seqpacket:@jobs".parse()?;
/// assert_eq!(endpoint, Endpoint::UnixSeqpacket("@jobs".into()));
/// assert_eq!(endpoint.to_string(), "unix-seqpacket:@jobs");
///
/// let error = "sysv-mgs:0x2a".parse::<Endpoint>().unwrap_err();
/// assert!(error.to_string().contains("did you mean sysv-msg"));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// `fifo:PATH`
    Fifo(PathBuf),
    /// `pty:PATH`
    Pty(PathBuf),
    /// `unix:PATH` or `unix:@NAME`
    UnixStream(String),
    /// `tcp:HOST:PORT`
    Tcp(String),
    /// `sysv-msg:KEY`
    SysvQueue(SysvName),
    /// `posix-mq:/NAME`
    PosixQueue(String),
    /// `unix-dgram:PATH` or `unix-dgram:@NAME`
    UnixDatagram(String),
    /// `unix-seqpacket:PATH` or `unix-seqpacket:@NAME`
    UnixSeqpacket(String),
    /// `udp:HOST:PORT`
    Udp(String),
    /// `icmp:HOST`
    Icmp(String),
    /// `sysv-shm:KEY`
    SysvSegment(SysvName),
    /// `posix-shm:/NAME`
    PosixShm(String),
    /// `file:PATH[#OFFSET+LENGTH]`
    File(PathBuf, Option<Range>),
    /// `sysv-sem:KEY[INDEX]`
    SysvSemaphore(SysvName, Option<u16>),
    /// `posix-sem:/NAME`
    PosixSemaphore(String),
    /// `lock:PATH[#OFFSET+LENGTH]`
    RecordLock(PathBuf, Option<Range>),
    /// `flock:PATH`
    Flock(PathBuf),
    /// `signal:PID` or `signal:-PGID`
    Signal(i32),
}

/// How an [`Endpoint`] names a System V object: by key or by the kernel's id.
///
/// ```
/// use ginnel::Endpoint;
/// use ginnel::endpoint::SysvName;
///
/// assert_eq!("sysv-msg:0x2a".parse::<Endpoint>()?, Endpoint::SysvQueue(SysvName::Key(42.into())));
/// assert_eq!("sysv-msg:id=3".parse::<Endpoint>()?, Endpoint::SysvQueue(SysvName::Id(3)));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysvName {
    /// A key, as `msgget(2)` takes it.
    Key(Key),
    /// The kernel's id, as `ipcs(1)` shows it.
    Id(i32),
}

/// A part of a file: `#OFFSET+LENGTH` in the notation; length 0 is to the end of the file.
///
/// ```
/// use ginnel::Endpoint;
/// use ginnel::endpoint::Range;
///
/// let part = Range { offset: 4096, len: 512 };
/// assert_eq!("file:/data#4096+512".parse::<Endpoint>()?, Endpoint::File("/data".into(), Some(part)));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Number of bytes; 0 to the end.
    pub len: u64,
}

/// The word before the colon, what follows it, and an example: what errors and the help text are made of.
const SCHEMES: &[(&str, &str, &str)] = &[
    ("fifo", "PATH", "fifo:/tmp/a"),
    ("pty", "PATH", "pty:/dev/pts/3"),
    ("unix", "PATH or @NAME", "unix:/tmp/s"),
    ("tcp", "HOST:PORT", "tcp:localhost:7000"),
    ("sysv-msg", "KEY, PATH#PROJECT or id=ID", "sysv-msg:0x2a"),
    ("posix-mq", "/NAME", "posix-mq:/jobs"),
    ("unix-dgram", "PATH or @NAME", "unix-dgram:@name"),
    ("unix-seqpacket", "PATH or @NAME", "unix-seqpacket:/tmp/q"),
    ("udp", "HOST:PORT", "udp:localhost:7000"),
    ("icmp", "HOST", "icmp:localhost"),
    ("sysv-shm", "KEY, PATH#PROJECT or id=ID", "sysv-shm:0x2a"),
    ("posix-shm", "/NAME", "posix-shm:/x"),
    ("file", "PATH, with #OFFSET+LENGTH for a part (#0+0 for all of a PATH with a # in it)", "file:/data"),
    ("sysv-sem", "KEY, PATH#PROJECT or id=ID, with [INDEX] for one semaphore", "sysv-sem:0x2a"),
    ("posix-sem", "/NAME", "posix-sem:/x"),
    (
        "lock",
        "PATH, with #OFFSET+LENGTH for a part (#0+0 for all of a PATH with a # in it)",
        "lock:/data#0+100",
    ),
    ("flock", "PATH", "flock:/data"),
    ("signal", "PID, or -PGID for a process group", "signal:4711"),
];

impl Endpoint {
    /// Every scheme of the notation: its word, what follows the colon, and an example.
    pub fn schemes() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        SCHEMES.iter().copied()
    }

    /// The word before the colon.
    pub fn scheme(&self) -> &'static str {
        match self {
            Endpoint::Fifo(_) => "fifo",
            Endpoint::Pty(_) => "pty",
            Endpoint::UnixStream(_) => "unix",
            Endpoint::Tcp(_) => "tcp",
            Endpoint::SysvQueue(_) => "sysv-msg",
            Endpoint::PosixQueue(_) => "posix-mq",
            Endpoint::UnixDatagram(_) => "unix-dgram",
            Endpoint::UnixSeqpacket(_) => "unix-seqpacket",
            Endpoint::Udp(_) => "udp",
            Endpoint::Icmp(_) => "icmp",
            Endpoint::SysvSegment(_) => "sysv-shm",
            Endpoint::PosixShm(_) => "posix-shm",
            Endpoint::File(..) => "file",
            Endpoint::SysvSemaphore(..) => "sysv-sem",
            Endpoint::PosixSemaphore(_) => "posix-sem",
            Endpoint::RecordLock(..) => "lock",
            Endpoint::Flock(_) => "flock",
            Endpoint::Signal(_) => "signal",
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(bad(text, format!("an endpoint is KIND:NAME, such as {}", examples())));
        };
        let Some((scheme, shape, example)) = SCHEMES.iter().find(|(known, ..)| *known == scheme) else {
            return Err(bad(text, unknown_scheme(scheme)));
        };
        let wrong = || bad(text, format!("{scheme}: takes {shape}, such as {example}"));
        if rest.is_empty() || rest.contains('\0') {
            return Err(wrong());
        }
        let name = || rest.to_string();
        let path = || PathBuf::from(rest);
        Ok(match *scheme {
            "fifo" => Endpoint::Fifo(path()),
            "pty" => Endpoint::Pty(path()),
            "unix" => Endpoint::UnixStream(name()),
            "tcp" => Endpoint::Tcp(host_port(rest).ok_or_else(wrong)?),
            "sysv-msg" => Endpoint::SysvQueue(sysv_name(rest)?),
            "posix-mq" => Endpoint::PosixQueue(slash_name(rest).ok_or_else(wrong)?),
            "unix-dgram" => Endpoint::UnixDatagram(name()),
            "unix-seqpacket" => Endpoint::UnixSeqpacket(name()),
            "udp" => Endpoint::Udp(host_port(rest).ok_or_else(wrong)?),
            "icmp" => Endpoint::Icmp(name()),
            "sysv-shm" => Endpoint::SysvSegment(sysv_name(rest)?),
            "posix-shm" => Endpoint::PosixShm(slash_name(rest).ok_or_else(wrong)?),
            "file" => with_range(rest).map(|(path, range)| Endpoint::File(path, range)).ok_or_else(wrong)?,
            "sysv-sem" => match rest.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
                Some((key, index)) => {
                    Endpoint::SysvSemaphore(sysv_name(key)?, Some(index.parse().map_err(|_| wrong())?))
                }
                None => Endpoint::SysvSemaphore(sysv_name(rest)?, None),
            },
            "posix-sem" => Endpoint::PosixSemaphore(slash_name(rest).ok_or_else(wrong)?),
            "lock" => {
                with_range(rest).map(|(path, range)| Endpoint::RecordLock(path, range)).ok_or_else(wrong)?
            }
            "flock" => Endpoint::Flock(path()),
            "signal" => match rest.parse() {
                Ok(pid) if pid != 0 && pid != -1 => Endpoint::Signal(pid),
                _ => return Err(wrong()),
            },
            _ => unreachable!("every scheme of the table has its arm"),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme())?;
        match self {
            Endpoint::Fifo(path) | Endpoint::Pty(path) | Endpoint::Flock(path) => {
                write!(f, "{}", path.display())
            }
            Endpoint::UnixStream(name)
            | Endpoint::Tcp(name)
            | Endpoint::PosixQueue(name)
            | Endpoint::UnixDatagram(name)
            | Endpoint::UnixSeqpacket(name)
            | Endpoint::Udp(name)
            | Endpoint::Icmp(name)
            | Endpoint::PosixShm(name)
            | Endpoint::PosixSemaphore(name) => f.write_str(name),
            Endpoint::SysvQueue(name) | Endpoint::SysvSegment(name) | Endpoint::SysvSemaphore(name, None) => {
                write!(f, "{name}")
            }
            Endpoint::SysvSemaphore(name, Some(index)) => write!(f, "{name}[{index}]"),
            Endpoint::File(path, range) | Endpoint::RecordLock(path, range) => {
                write!(f, "{}", path.display())?;
                // Without a range, what follows a # in the path would be read as one.
                let whole = path.to_string_lossy().contains('#').then_some(Range { offset: 0, len: 0 });
                range.or(whole).map_or(Ok(()), |range| write!(f, "#{}+{}", range.offset, range.len))
            }
            Endpoint::Signal(pid) => write!(f, "{pid}"),
        }
    }
}

impl fmt::Display for SysvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SysvName::Key(key) => write!(f, "{key}"),
            SysvName::Id(id) => write!(f, "id={id}"),
        }
    }
}

fn sysv_name(text: &str) -> Result<SysvName> {
    match text.strip_prefix("id=") {
        Some(id) => id
            .parse()
            .map(SysvName::Id)
            .map_err(|_| bad(text, "an id is the number that ipcs shows: id=3".into())),
        None => text.parse().map(SysvName::Key),
    }
}

/// A name as `mq_overview(7)`, `shm_overview(7)` and `sem_overview(7)` want it: `/`, then no further slash.
fn slash_name(text: &str) -> Option<String> {
    let rest = text.strip_prefix('/')?;
    (!rest.is_empty() && !rest.contains('/') && rest.len() <= 255).then(|| text.to_string())
}

fn host_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| text.to_string())
}

fn with_range(text: &str) -> Option<(PathBuf, Option<Range>)> {
    let Some((path, range)) = text.rsplit_once('#') else { return Some((text.into(), None)) };
    let (offset, len) = range.split_once('+')?;
    Some((path.into(), Some(Range { offset: offset.parse().ok()?, len: len.parse().ok()? })))
}

fn bad(text: &str, why: String) -> Error {
    Error::invalid("endpoint", &Label::new(text), why)
}

fn examples() -> String {
    SCHEMES.iter().map(|(_, _, example)| *example).take(5).collect::<Vec<_>>().join(", ")
}

fn unknown_scheme(scheme: &str) -> String {
    let nearest = SCHEMES.iter().map(|(known, ..)| (distance(scheme, known), *known)).min();
    let known = SCHEMES.iter().map(|(known, ..)| *known).collect::<Vec<_>>().join(", ");
    match nearest {
        Some((distance, nearest)) if distance <= 3 => {
            format!("{scheme:?} is no kind of endpoint; did you mean {nearest}? There are: {known}")
        }
        _ => format!("{scheme:?} is no kind of endpoint; there are: {known}"),
    }
}

/// Levenshtein's distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_parses_to_the_same() {
        for (scheme, _, example) in Endpoint::schemes() {
            let endpoint: Endpoint = example.parse().unwrap();
            assert_eq!(endpoint.scheme(), scheme);
            assert_eq!(endpoint.to_string(), example);
        }
        for text in ["sysv-sem:0x2a[3]", "sysv-msg:id=7", "file:/a#4096+512", "signal:-9", "tcp:[::1]:80"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        // Not bytes 1 and 2 of /a.
        let odd = Endpoint::File("/a#1+2".into(), None).to_string();
        let whole = Some(Range { offset: 0, len: 0 });
        assert_eq!(odd.parse::<Endpoint>().unwrap(), Endpoint::File("/a#1+2".into(), whole));
    }

    #[test]
    fn nonsense_is_refused_with_the_shape() {
        for text in [
            "",
            "fifo",
            "fifo:",
            "posix-mq:jobs",
            "posix-mq:/a/b",
            "tcp:host",
            "tcp::80",
            "signal:0",
            "signal:-1",
            "sysv-msg:zz",
            "sysv-msg:id=x",
            "sysv-sem:1[x]",
            "file:/a#b",
            "sysv-msg:/etc/passwd#0",
            "udp:h:99999",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.errno_name(), "EINVAL", "{text}");
            assert!(error.hint().is_some(), "{text}");
        }
    }
}
