//! Directories that go away with their owner.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the name of every temporary directory begins with; [`kernel_objects`](crate::kernel_objects) leaves them out.
pub(crate) const PREFIX: &str = ".ginnel-testkit-";

/// A directory that is removed, with what is in it, when this is dropped.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    owner: u32,
}

/// A new directory of mode 0700 under `TMPDIR`: under [`isolated`](crate::isolated), the private `/dev/shm`.
pub fn temp_dir() -> TempDir {
    temp_dir_in(&std::env::temp_dir())
}

/// As [`temp_dir`], elsewhere. The name is unique among all processes, also those of other PID namespaces.
pub(crate) fn temp_dir_in(parent: &Path) -> TempDir {
    let template = parent.join(format!("{PREFIX}XXXXXX"));
    let template = CString::new(template.as_os_str().as_bytes()).expect("a path without NUL").into_raw();
    // SAFETY: `template` is a NUL-terminated buffer that we own; mkdtemp overwrites its last six characters in place.
    let made = unsafe { libc::mkdtemp(template) };
    let error = std::io::Error::last_os_error();
    // SAFETY: the pointer is from `into_raw` above, and its length has not changed.
    let path = unsafe { CString::from_raw(template) };
    assert!(!made.is_null(), "mkdtemp under {}: {error}", parent.display());
    TempDir { path: OsString::from_vec(path.into_bytes()).into(), owner: std::process::id() }
}

impl TempDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A forked child that unwinds must not take its parent's directory away.
        if self.owner == std::process::id() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
