//! Who removes a private namespace when the last process that uses it has ended, however it ended.
//!
//! The program that is run inherits a descriptor of the namespace's directory that is locked in the shared way, and so do
//! all that it starts, whether they make an IPC call or not. The warden, a process apart from them, waits for the lock in the
//! exclusive way: the kernel gives it when the last of them is gone.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use ginnel::Namespace;
use rustix::fs::FlockOperation;
use rustix::io::FdFlags;

use crate::failure::{Context, Failure, Result};

/// The verb that turns this program into a warden.
pub(crate) const VERB: &str = "__warden";

/// The directory of the namespace.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    path: PathBuf,
    /// Already apart from who has started it.
    #[arg(long)]
    apart: bool,
}

/// Where the inherited descriptor is put: out of the way of programs that count theirs.
const DESCRIPTOR_LEAST: i32 = 500;

/// Names the inherited descriptors to the library, which has the program not close them.
pub(crate) const HELD_VARIABLE: &str = "GINNEL_HELD";

/// Has the namespace removed when this process, and all that it starts from here on, are gone. What [`HELD_VARIABLE`] is to
/// be.
pub(crate) fn watch(namespace: &Namespace) -> Result<String> {
    let path = namespace.path().unwrap_or(std::path::Path::new("/"));
    let directory = File::open(path).context(path.display())?;
    let failed = |errno| Failure::failed(format!("{}: {errno}", path.display()));
    rustix::fs::flock(&directory, FlockOperation::LockShared).map_err(failed)?;
    let kept = rustix::io::fcntl_dupfd_cloexec(&directory, DESCRIPTOR_LEAST)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&directory, 3))
        .map_err(failed)?;
    let program = std::env::current_exe().context("finding this program")?;
    let status = Command::new(program)
        .arg(VERB)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .status()
        .context("starting the warden")?;
    if !status.success() {
        return Err(Failure::failed(format!("the warden of {} did not start: {status}", path.display())));
    }
    rustix::io::fcntl_setfd(&kept, FdFlags::empty()).map_err(failed)?;
    let status = rustix::fs::fstat(&kept).map_err(failed)?;
    let held = format!("{}:{}:{}", kept.as_raw_fd(), status.st_dev, status.st_ino);
    // Open for as long as this process, whatever program it becomes.
    std::mem::forget(kept);
    // Of the private ones that this one is made within.
    let outer = std::env::var(HELD_VARIABLE).ok().filter(|outer| !outer.is_empty());
    Ok(outer.into_iter().fold(held, |held, outer| format!("{held},{outer}")))
}

/// Be the warden.
pub(crate) fn run(args: Args) -> Result {
    if !args.apart {
        // Its parent is to be nobody who waits for children.
        let program = std::env::current_exe().context("finding this program")?;
        Command::new(program)
            .arg(VERB)
            .arg(&args.path)
            .arg("--apart")
            .spawn()
            .context("starting the warden")?;
        return Ok(ExitCode::SUCCESS);
    }
    let _ = rustix::process::setsid();
    let Ok(directory) = File::open(&args.path) else { return Ok(ExitCode::SUCCESS) };
    while let Err(errno) = rustix::fs::flock(&directory, FlockOperation::LockExclusive) {
        if errno != rustix::io::Errno::INTR {
            return Err(Failure::failed(format!("flock {}: {errno}", args.path.display())));
        }
    }
    drop(directory);
    Namespace::sweep();
    Ok(ExitCode::SUCCESS)
}
