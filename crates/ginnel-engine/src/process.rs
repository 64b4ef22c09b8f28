//! Whether a process is gone: `proc_pid_stat(5)`.
//!
//! The kernel tells the death of *threads* (see `primitive`). What a process holds outlives its threads, and `exec`, which
//! ends the threads' watch as their death does. So who hears of a thread's end asks here for the process's. A process is
//! known by its id and its start time, since ids are used again. One that is on its way out, and will run nothing of its
//! own any more, is gone.
//!
//! `/proc` says start times by the clock of the reader's time namespace (`time_namespaces(7)`): its offset is taken off, and
//! what is then rounded otherwise is the same. What is left: a process that has made a time namespace for its children, and
//! is not in it, does not know the offset of its own, which is taken for 0.

use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags};

use crate::Errno;
use crate::primitive::Thread;

/// The calling process's id, which is known without a system call. In the child of a `vfork(2)`, which borrows its parent's
/// memory, it is the parent's.
///
/// ```
/// assert_eq!(ginnel_engine::process::id(), std::process::id());
/// ```
pub fn id() -> u32 {
    Thread::current().process()
}

/// Changes with the process's user and groups, as far as they are told of.
static CREDENTIALS: AtomicU32 = AtomicU32::new(0);

/// Tells that this process's user or groups may be others than before (`setuid(2)` and the like, or a fork, after which
/// that is often done): what it may do with the objects that it has open is asked anew.
///
/// ```
/// ginnel_engine::process::credentials_may_have_changed();
/// ```
pub fn credentials_may_have_changed() {
    CREDENTIALS.fetch_add(1, Ordering::Relaxed);
}

#[inline]
pub(crate) fn credentials() -> u32 {
    CREDENTIALS.load(Ordering::Relaxed)
}

/// `PF_EXITING` of the kernel: from here on nothing of the program runs.
const EXITING: u64 = 0x4;

/// A process, not to be mistaken for a later one with its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    /// In clock ticks since the host was started, whatever the time namespace says.
    pub(crate) start: u64,
}

impl Process {
    /// The calling one.
    pub(crate) fn current() -> Process {
        static ID: AtomicU32 = AtomicU32::new(0);
        static START: AtomicU64 = AtomicU64::new(0);
        let id = Thread::current().process();
        if ID.load(Ordering::Acquire) != id {
            OFFSET.store(read_offset(), Ordering::Release);
            START.store(
                read_stat(format_args!("/proc/self/stat")).map_or(0, |stat| stat.start),
                Ordering::Release,
            );
            ID.store(id, Ordering::Release);
        }
        Process { id, start: START.load(Ordering::Acquire) }
    }

    /// Whether nothing of it will ever run again. What cannot be seen counts as alive.
    pub(crate) fn is_gone(self) -> bool {
        // Knows the offset from here on.
        let _ = Process::current();
        match read_stat(format_args!("/proc/{}/stat", self.id)) {
            Err(Errno::NOENT | Errno::SRCH) => !exists(self.id),
            Err(_) => false,
            // No id is used again within a tick.
            Ok(stat) => {
                stat.start.abs_diff(self.start) > 1
                    || stat.is_over()
                    || (stat.threads > 1 && self.is_ending())
            }
        }
    }

    /// Whether each of its threads is on its way out, or has been killed.
    fn is_ending(self) -> bool {
        let path = format!("/proc/{}/task", self.id);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(tasks) = rustix::fs::openat(CWD, path, flags, Mode::empty()).and_then(rustix::fs::Dir::new)
        else {
            return false;
        };
        tasks
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse::<u32>().ok())
            .all(|thread| self.thread_is_ending(thread))
    }

    fn thread_is_ending(self, thread: u32) -> bool {
        match read_stat(format_args!("/proc/{}/task/{thread}/stat", self.id)) {
            Ok(stat) if stat.flags & EXITING != 0 => true,
            Ok(_) => is_killed(self.id, thread),
            Err(errno) => matches!(errno, Errno::NOENT | Errno::SRCH),
        }
    }
}

/// Whether a thread will not go on by itself: it is stopped (`SIGSTOP`, a debugger), or it is gone.
pub(crate) fn is_stopped(thread: u32) -> bool {
    match read_stat(format_args!("/proc/{thread}/stat")) {
        Ok(stat) => matches!(stat.state, b'T' | b't' | b'Z' | b'X'),
        Err(errno) => matches!(errno, Errno::NOENT | Errno::SRCH),
    }
}

fn exists(id: u32) -> bool {
    let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}

/// Whether `SIGKILL` waits for a thread.
fn is_killed(process: u32, thread: u32) -> bool {
    let mut buffer = [0; 4096];
    let Ok(status) = read(format_args!("/proc/{process}/task/{thread}/status"), &mut buffer) else {
        return false;
    };
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let pending = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    pending.is_some_and(|mask| mask & 1 << (libc::SIGKILL - 1) != 0)
}

struct Stat {
    state: u8,
    flags: u64,
    threads: u64,
    start: u64,
}

impl Stat {
    fn is_over(&self) -> bool {
        self.threads <= 1 && (self.flags & EXITING != 0 || matches!(self.state, b'Z' | b'X'))
    }
}

fn read_stat(path: std::fmt::Arguments<'_>) -> Result<Stat, Errno> {
    let mut buffer = [0; 2048];
    let text = read(path, &mut buffer)?;
    // The name, in parentheses, may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3);
    let number = |index: usize| field(index).and_then(|field| field.parse::<u64>().ok()).ok_or(Errno::INVAL);
    let state = field(3).and_then(|state| state.bytes().next()).ok_or(Errno::INVAL)?;
    let start = number(22)?.wrapping_add_signed(OFFSET.load(Ordering::Acquire));
    Ok(Stat { state, flags: number(9)?, threads: number(20)?, start })
}

/// What is to be added to a start time as this process reads it, in ticks.
static OFFSET: AtomicI64 = AtomicI64::new(0);

fn read_offset() -> i64 {
    let namespace = |name| rustix::fs::stat(name).map(|status| status.st_ino).ok();
    if namespace("/proc/self/ns/time") != namespace("/proc/self/ns/time_for_children") {
        return 0;
    }
    let mut buffer = [0; 256];
    let Ok(text) = read(format_args!("/proc/self/timens_offsets"), &mut buffer) else { return 0 };
    let offset = text.lines().find_map(|line| {
        let mut words = line.strip_prefix("boottime")?.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<i64>().ok();
        Some((number()?, number()?))
    });
    let (seconds, nanoseconds) = offset.unwrap_or((0, 0));
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1);
    -(seconds.saturating_mul(ticks).saturating_add(nanoseconds / (1_000_000_000 / ticks)))
}

fn read<'b>(path: std::fmt::Arguments<'_>, buffer: &'b mut [u8]) -> Result<&'b str, Errno> {
    let mut name = Cursor::new([0; 64]);
    name.write_fmt(path).map_err(|_| Errno::NAMETOOLONG)?;
    let len = name.position() as usize;
    let name = name.into_inner();
    let file = rustix::fs::openat(CWD, &name[..len], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let len = rustix::io::read(&file, &mut *buffer)?;
    Ok(str::from_utf8(&buffer[..len]).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::{Process, read_stat};

    #[test]
    fn this_one_is_not_gone_and_another_that_had_its_id_is() {
        let this = Process::current();
        assert!(this.start > 0 && !this.is_gone());
        assert!(Process { start: this.start - 2, ..this }.is_gone());
    }

    #[test]
    fn one_that_waits_to_be_reaped_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let start =
            read_stat(format_args!("/proc/{}/stat", child.id())).unwrap_or_else(|_| panic!("no stat")).start;
        let process = Process { id: child.id(), start };
        assert!(!process.is_gone());
        child.kill().unwrap();
        while !process.is_gone() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(process.is_gone());
    }
}
