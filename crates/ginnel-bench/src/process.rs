//! The processes of a measurement, and the page on which they meet.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ginnel::process::{ForkedChild, fork};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Pid, Signal};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};

/// The monotonic clock, which all processes have in common. About 22 ns.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Another process of a measurement. Dropping it kills it.
pub(crate) struct Worker {
    child: ForkedChild,
    ended: bool,
}

impl Worker {
    /// Forks this process, which has one thread. What fails in the child is printed on standard error, and ends both.
    pub(crate) fn start(body: impl FnOnce() -> Result<()>) -> Result<Worker> {
        let parent = std::process::id();
        let delays = delays()?;
        let child = fork(|| match end_with(parent).and_then(|()| body()) {
            Ok(()) => {
                delays.word(0).fetch_add(own_delay_ns(), Ordering::AcqRel);
                0
            }
            Err(error) => {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "a process of the measurement: {}", error.text());
                // It would wait for ever for what this process was to send. Its guardian cleans up after it.
                if std::os::unix::process::parent_id() == parent
                    && let Some(parent) = Pid::from_raw(parent as i32)
                {
                    let _ = rustix::process::kill_process(parent, Signal::KILL);
                }
                1
            }
        })?;
        Ok(Worker { child, ended: false })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait()?;
        self.ended = true;
        match status.success() {
            true => Ok(()),
            false => Err(Error::failed(format!("a process of the measurement ended with {status}"))),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Has this process killed when its parent ends, however that ends; an error if it has ended already.
pub(crate) fn end_with(parent: u32) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    match std::os::unix::process::parent_id() == parent {
        true => Ok(()),
        false => Err(Error::failed("the parent process has ended")),
    }
}

/// For how long this process, and those of its workers that have ended, stood ready to run and did not.
pub(crate) fn delay_ns() -> Result<u64> {
    Ok(own_delay_ns() + delays()?.word(0).load(Ordering::Acquire))
}

fn own_delay_ns() -> u64 {
    let account = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    account.split(' ').nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Where workers add theirs before they end.
fn delays() -> Result<&'static Board> {
    static DELAYS: OnceLock<Board> = OnceLock::new();
    match DELAYS.get() {
        Some(board) => Ok(board),
        None => {
            let board = Board::new()?;
            Ok(DELAYS.get_or_init(|| board))
        }
    }
}

/// How many words a board has, each in a cache line of its own.
const WORDS: usize = 64;
const LINE_BYTES: usize = 64;

/// A page that this process and those it forks have in common.
pub(crate) struct Board {
    start: NonNull<u8>,
}

// SAFETY: the mapping stays where it is until the board is dropped, and all access to it is by atomics.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    pub(crate) fn new() -> Result<Board> {
        // SAFETY: a new mapping, where the kernel wants it.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                WORDS * LINE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or_else(|| Error::failed("mmap gave no memory"))?;
        Ok(Board { start })
    }

    /// Word number `index`, which begins as 0.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        // SAFETY: in the mapping, aligned, and only ever used as an atomic.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(index * LINE_BYTES).cast()) }
    }

    /// Waits, mostly asleep, until a word is at least `value`.
    pub(crate) fn wait_for(&self, index: usize, value: u64) {
        while self.word(index).load(Ordering::Acquire) < value {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping is this board's, and nothing borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), WORDS * LINE_BYTES) };
    }
}
