//! Which kernel objects there are: System V queues, semaphore sets and segments, POSIX queues, names in `/dev/shm`.

use std::fs;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::isolate::is_isolated;
use crate::temp::PREFIX;

/// The kernel objects that there were at one moment, to be compared with those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects {
    before: String,
}

impl Objects {
    /// Notes which objects there are now.
    pub fn snapshot() -> Objects {
        Objects { before: kernel_objects() }
    }

    /// Panics, with both lists, unless the same objects are there as at the snapshot.
    #[track_caller]
    pub fn assert_same(&self) {
        let after = kernel_objects();
        assert!(self.before == after, "kernel objects differ\nbefore:\n{}after:\n{after}", self.before);
    }
}

/// The kernel objects of this isolated test, a sorted line each; empty when there are none.
///
/// A line says what an object *is* (kind, key or name, id, permissions) and not what it holds, so that traffic alone
/// changes nothing: `sysv-msg key 0x2a id 0 mode 660`, `posix-mq /jobs mode 600`, `dev-shm sem.lock mode 600`.
/// Directories of [`temp_dir`](crate::temp_dir) are left out. Panics outside [`isolated`](crate::isolated), where other
/// programs' objects would be in the list.
pub fn kernel_objects() -> String {
    assert!(is_isolated(), "kernel_objects works only under ginnel_testkit::isolated");
    let mut lines: Vec<String> = Vec::new();
    for kind in ["msg", "sem", "shm"] {
        lines.extend(sysv(kind));
    }
    lines.extend(posix_queues());
    lines.extend(dev_shm());
    lines.sort();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The first three columns are the same in all three files: key, id, permissions.
fn sysv(kind: &str) -> Vec<String> {
    let path = format!("/proc/sysvipc/{kind}");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut field = || fields.next().expect("a column of /proc/sysvipc");
        let (key, id, mode) = (field().parse::<i32>().expect("a key"), field(), field());
        format!("sysv-{kind} key {key:#x} id {id} mode {mode}")
    };
    text.lines().skip(1).map(line).collect()
}

/// Reads the mqueue file system of this IPC namespace through a mount that is attached nowhere.
fn posix_queues() -> Vec<String> {
    let directory = || {
        let context = rustix::mount::fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let directory = directory().unwrap_or_else(|error| panic!("mount of mqueue: {error}"));
    let entries = rustix::fs::Dir::read_from(&directory).expect("readdir of mqueue");
    let mut lines = Vec::new();
    for entry in entries {
        let entry = entry.expect("readdir of mqueue");
        let name = entry.file_name().to_string_lossy();
        if name == "." || name == ".." {
            continue;
        }
        let stat = rustix::fs::statat(&directory, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        let mode = stat.map_or("?".to_owned(), |stat| format!("{:o}", stat.st_mode & 0o7777));
        lines.push(format!("posix-mq /{name} mode {mode}"));
    }
    lines
}

fn dev_shm() -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir("/dev/shm").expect("readdir of /dev/shm").flatten();
    let named = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata()));
    let objects = named.filter(|(name, _)| !name.starts_with(PREFIX));
    let mode = |stat: std::io::Result<fs::Metadata>| {
        stat.map_or("?".to_owned(), |s| format!("{:o}", s.mode() & 0o7777))
    };
    objects.map(|(name, stat)| format!("dev-shm {name} mode {}", mode(stat))).collect()
}
