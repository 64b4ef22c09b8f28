//! What the other files share: reading a process's output until it ends, and telling where a process hangs.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags};

/// How long any one process, and any one condition, may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The reading end of a pipe that we made, and what has come out of it.
pub(crate) struct Output {
    pipe: Option<fs::File>,
    pub(crate) bytes: Vec<u8>,
}

impl Output {
    pub(crate) fn new(pipe: impl Into<OwnedFd>) -> Output {
        let pipe = pipe.into();
        // The reading end's description is ours alone, so nobody else sees it change.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).expect("O_NONBLOCK on a pipe");
        Output { pipe: Some(pipe.into()), bytes: Vec::new() }
    }

    /// Of a stream that is not ours to read.
    pub(crate) fn none() -> Output {
        Output { pipe: None, bytes: Vec::new() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Takes all that is there now.
    pub(crate) fn drain(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read_to_end(&mut self.bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => self.pipe = None,
        }
    }
}

/// A pidfd of a child that has not been reaped.
pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    rustix::process::pidfd_open(Pid::from_raw(pid).expect("a pid"), PidfdFlags::empty())
        .unwrap_or_else(|error| panic!("pidfd_open({pid}): {error}"))
}

/// Collects `outputs` until the process ends (true) or the deadline passes (false).
///
/// It is the process's end that counts and not the end of its output: a descendant may hold the pipe for ever.
pub(crate) fn collect(pidfd: BorrowedFd<'_>, outputs: &mut [Output], deadline: Instant) -> bool {
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        fds.extend(outputs.iter().filter_map(|o| o.pipe.as_ref()).map(|p| PollFd::new(p, PollFlags::IN)));
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        let ended = !fds[0].revents().is_empty();
        outputs.iter_mut().for_each(Output::drain);
        if ended {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Whether the process behind the pidfd has ended (reaped or not).
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    collect(pidfd.as_fd(), &mut [], Instant::now())
}

/// One line for every thread of a process: its name, where it sleeps, the system call it is in.
pub(crate) fn describe(pid: i32) -> String {
    let read = |path: String| match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => "-".to_owned(),
        Ok(text) => text.trim().to_owned(),
        Err(_) => "?".to_owned(),
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lines: Vec<String> = threads
        .map(|thread| {
            let dir = thread.path().display().to_string();
            let (comm, wchan) = (read(format!("{dir}/comm")), read(format!("{dir}/wchan")));
            let syscall = read(format!("{dir}/syscall"));
            format!(
                "pid {pid} thread {} ({comm}): wchan {wchan}, syscall {syscall}",
                dir.rsplit('/').next().unwrap()
            )
        })
        .collect();
    if lines.is_empty() { format!("pid {pid}: gone") } else { lines.join("\n") }
}

/// Every process that /proc shows.
pub(crate) fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// "60 s", "300 ms".
pub(crate) fn duration(limit: Duration) -> String {
    if limit.subsec_nanos() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}
