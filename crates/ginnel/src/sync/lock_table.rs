//! Who holds which file lock: `/proc/locks` and the `lock:` lines of `/proc/PID/fdinfo/FD` (`proc_locks(5)`).
//!
//! The kernel's table names a file by its superblock's device and its inode, and a lock's owner by the process that
//! took it: not at all (`-1`) where an open file description owns it. Which processes have such a description open is
//! told by their descriptors, as far as this process may look at them.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

use super::record_lock::Range;

/// A lock shuts out all others, or only the exclusive ones.
///
/// ```
/// use ginnel::sync::{Flock, LockKind};
///
/// # let directory = ginnel_testkit::temp_dir();
/// # let path = directory.path();
/// let (one, two, three) = (Flock::open(path)?, Flock::open(path)?, Flock::open(path)?);
/// let _first = one.lock(LockKind::Shared)?;
/// let _second = two.try_lock(LockKind::Shared)?;
/// assert!(three.try_lock(LockKind::Exclusive).unwrap_err().is_would_block());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LockKind {
    /// A read lock (`F_RDLCK`, `LOCK_SH`): any number of them at a time.
    Shared,
    /// A write lock (`F_WRLCK`, `LOCK_EX`): one, and no shared one beside it.
    Exclusive,
}

/// Which of the three kinds of locks, none of which knows the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mechanism {
    /// `F_SETLK`.
    Process,
    /// `F_OFD_SETLK`.
    OpenFile,
    /// `flock(2)`.
    Flock,
}

impl Mechanism {
    fn word(self) -> &'static str {
        match self {
            Mechanism::Process => "POSIX",
            Mechanism::OpenFile => "OFDLCK",
            Mechanism::Flock => "FLOCK",
        }
    }
}

/// One line of the kernel's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// -1 where the owner is an open file description.
    pub(super) pid: i32,
    pub(super) kind: LockKind,
    pub(super) range: Range,
}

/// The kernel's name of an open file in its lock table: `fe:00:5341653`.
pub(super) fn file_key(fd: impl AsFd) -> Option<String> {
    let fd = fd.as_fd();
    let status = rustix::fs::fstat(fd).ok()?;
    // On btrfs and overlayfs, fstat's device is not the superblock's, which is in the table.
    let (major, minor) = superblock(fd.as_raw_fd())
        .unwrap_or((rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev)));
    Some(format!("{major:02x}:{minor:02x}:{}", status.st_ino))
}

fn superblock(fd: i32) -> Option<(u32, u32)> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(mount))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The locks of that mechanism on that file which somebody holds.
///
/// The kernel gives its table a page at a time and goes on by counting lines, so a lock that comes or goes anywhere on
/// the host in between makes it say a line twice or not at all. What two looks in a row agree on is taken.
pub(super) fn held(mechanism: Mechanism, file: &str) -> Vec<Entry> {
    let look = || -> Vec<Entry> {
        let table = table().unwrap_or_default();
        table.lines().filter_map(|line| parse(line, mechanism, file)).collect()
    };
    let mut found = look();
    for _ in 0..LOOKS_MAX {
        let again = look();
        if again == found {
            break;
        }
        found = again;
    }
    found
}

const LOOKS_MAX: usize = 16;

/// All of `/proc/locks`, in as few reads as the kernel allows: std's are small at first.
fn table() -> io::Result<String> {
    let mut file = fs::File::open("/proc/locks")?;
    let mut text = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            len => text.extend_from_slice(&buffer[..len]),
        }
    }
}

/// Those which one open file description holds, or for [`Mechanism::Process`] the process that has it as `fd`.
pub(super) fn held_by(pid: i32, fd: i32, mechanism: Mechanism, file: &str) -> Vec<Entry> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
    let lines = info.lines().filter_map(|line| line.strip_prefix("lock:"));
    lines.filter_map(|line| parse(line.trim_start(), mechanism, file)).collect()
}

/// The processes that have the open file description open which holds this lock, ascending; those that this process
/// may not look at are left out.
pub(super) fn processes(mechanism: Mechanism, file: &str, lock: &Entry) -> Vec<i32> {
    let inode = file.rsplit(':').next().unwrap_or_default();
    let inode = format!("ino:\t{inode}");
    let mut found: Vec<i32> = numbers("/proc")
        .filter(|pid| {
            numbers(&format!("/proc/{pid}/fdinfo")).any(|fd| {
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
                // Kernels before 5.14 have no such line.
                let same =
                    info.lines().find(|line| line.starts_with("ino:")).is_none_or(|line| line == inode);
                same && held_by(*pid, fd, mechanism, file)
                    .iter()
                    .any(|held| held.range == lock.range && held.kind == lock.kind)
            })
        })
        .collect();
    found.sort_unstable();
    found
}

fn numbers(directory: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `1: POSIX  ADVISORY  WRITE 4711 fe:00:5341653 0 99`; one who waits has `->` after the number.
fn parse(line: &str, mechanism: Mechanism, file: &str) -> Option<Entry> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != mechanism.word() {
        return None;
    }
    let _advisory = words.next()?;
    let kind = match words.next()? {
        "READ" => LockKind::Shared,
        "WRITE" => LockKind::Exclusive,
        _ => return None,
    };
    let pid = words.next()?.parse().ok()?;
    if words.next()? != file {
        return None;
    }
    let start = words.next()?.parse().ok()?;
    let last: Option<u64> = match words.next()? {
        "EOF" => None,
        last => Some(last.parse().ok()?),
    };
    Some(Entry { pid, kind, range: Range { start, end: last.map(|last| last + 1) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let file = "fe:00:5341653";
        let line = "1: POSIX  ADVISORY  WRITE 4711 fe:00:5341653 0 99";
        let entry = Entry { pid: 4711, kind: LockKind::Exclusive, range: Range { start: 0, end: Some(100) } };
        assert_eq!(parse(line, Mechanism::Process, file), Some(entry));
        assert_eq!(parse(line, Mechanism::OpenFile, file), None);
        assert_eq!(parse(line, Mechanism::Process, "fe:00:1"), None);

        let waits = "1: -> POSIX  ADVISORY  WRITE 4711 fe:00:5341653 0 99";
        assert_eq!(parse(waits, Mechanism::Process, file), None);

        let open_file = "2: OFDLCK ADVISORY  READ -1 fe:00:5341653 10 EOF";
        let entry = Entry { pid: -1, kind: LockKind::Shared, range: Range { start: 10, end: None } };
        assert_eq!(parse(open_file, Mechanism::OpenFile, file), Some(entry));
    }
}
