//! Where System V and POSIX objects live: the kernel's own place, or a directory of a memory file system.
//! `sysvipc(7)`, `mq_overview(7)`, `sem_overview(7)`, `shm_overview(7)`, `ipc_namespaces(7)`.
//!
//! # What a user sees
//! The six kinds of named objects have two homes, and the types are the same in both. In the kernel's home
//! ([`Namespace::kernel`], which is meant where nothing is said) an object is shared with every program on the host, by the
//! kernel's calls and within the kernel's limits. In a user-space home it is a file of a directory, used through shared
//! memory and futexes: by programs that use this library, much faster, within limits of one's own choosing, with no
//! privilege, and gone with its directory.
//!
//! ```
//! # ginnel_testkit::private();
//! use ginnel::Namespace;
//! use ginnel::sync::SysvSemaphores;
//!
//! fn a_turn_each(home: &Namespace) -> ginnel::Result<()> {
//!     let turns = SysvSemaphores::options().namespace(home).create(true).count(1).open(0x2a)?;
//!     turns.post(0)?;
//!     turns.wait(0)?;
//!     turns.remove()
//! }
//! a_turn_each(&Namespace::kernel())?; // seen by `ipcs` and by every program
//! a_turn_each(&Namespace::create("jobs")?)?; // in /dev/shm/ginnel-<uid>/jobs
//! a_turn_each(&Namespace::private()?)?; // gone with its last user
//! # Ok::<(), ginnel::Error>(())
//! ```
//!
//! Each builder of such an object has `namespace(&home)`, and what needs no builder has a second form for another home, which
//! ends in `_in` and takes it first: `SysvQueue::create(key)` and `SysvQueue::create_in(&home, key)`, `PosixShm::remove(name)`
//! and `PosixShm::remove_in(&home, name)`, `SysvSemaphores::list()` and `SysvSemaphores::list_in(&home)`.
//!
//! What a user-space home does as the kernel's does: results, errnos, order, who waits for whom. What differs, on purpose:
//! - To use a queue or a semaphore is to read *and* to write its memory, so it needs both permissions; the kernel wants one
//!   of them for each call. With the permission to read alone, an object can be asked for its status.
//! - Ids are random, and the number of objects is limited by the memory only. Limits are the namespace's ([`Limits`]), and no
//!   privilege is asked for.
//! - The programs that share it run in one PID namespace.
//! - A signal handler ends a waiting System V call, whatever its `SA_RESTART` says, as in the kernel; but not one that runs on
//!   a stack of its own (`SA_ONSTACK`) or on a processor other than x86-64: there `SA_RESTART` lets the call go on. Nor does
//!   a stop and a continuation.
//! - Lists show what the caller may read; the kernel's show all.
//! - A queue's descriptor is polled and nothing else, and cannot be passed on as the queue.
//!
//! # How it works inside
//! `ginnel_engine::namespace` says how the directory is the registry, and what is refused of it and why.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ginnel_engine::namespace as engine;
use rustix::io::Errno;

use crate::error::{Error, Label, Result};

#[doc(inline)]
pub use ginnel_engine::namespace::{Doubt, Finding, Kind, Limits, Unseen, Unused, What};

/// A home of System V and POSIX objects: the kernel's, or a directory. A clone is the same one.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::Namespace;
/// use ginnel::memory::PosixShm;
///
/// let home = Namespace::private()?;
/// let pixels = PosixShm::options().namespace(&home).create(true).size(4096).open("/pixels")?;
/// pixels.map()?.write_bytes(0, b"red")?;
///
/// assert_eq!(PosixShm::list_in(&home)?, ["/pixels"]);
/// assert!(PosixShm::open("/pixels").unwrap_err().is_not_found(), "the kernel's home has none");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Namespace(Option<Arc<engine::Namespace>>);

/// How to open or make a [`Namespace`]: see [`Namespace::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::Namespace;
/// use ginnel::namespace::Limits;
///
/// let limits = Limits { msgmnb: 1 << 20, ..Limits::default() };
/// let made = Namespace::options().create(true).limits(limits).open("jobs")?;
/// assert_eq!(Namespace::open("jobs")?.limits().unwrap().msgmnb, 1 << 20);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NamespaceOptions(engine::Options);

impl NamespaceOptions {
    /// Make it if there is none.
    pub fn create(self, create: bool) -> Self {
        NamespaceOptions(self.0.create(create))
    }

    /// The permission bits of a directory that is made; 0700 unless said. 01777 makes one that everybody shares: bits for
    /// writing that are not the owner's need the sticky bit.
    pub fn mode(self, mode: u32) -> Self {
        NamespaceOptions(self.0.mode(mode))
    }

    /// The limits of one that is made. One that is there keeps its own.
    pub fn limits(self, limits: Limits) -> Self {
        NamespaceOptions(self.0.limits(limits))
    }

    /// Trust a directory of this user too, as one's own and root's are trusted: its owner can remove and replace each
    /// object in it.
    pub fn owned_by(self, uid: u32) -> Self {
        NamespaceOptions(self.0.owned_by(uid))
    }

    /// Opens the one of this name among the caller's own: `/dev/shm/ginnel-<uid>/<name>`.
    ///
    /// # Errors
    /// `ENOENT`: there is none, and it was not to be made. `EINVAL`: no such name can be, or limits that cannot. `ELOOP`:
    /// a symbolic link stands there. `ENOTDIR`. `EOPNOTSUPP`: not in a tmpfs. `EPERM`: somebody could replace what is in
    /// it. `ENOTEMPTY`: it holds things that are no namespace's. `EUCLEAN`: what says that it is one does not hold what it
    /// must. `EPROTONOSUPPORT`: another version made it. `EXDEV`: made in another PID namespace. The hint says it in words.
    pub fn open(self, name: &str) -> Result<Namespace> {
        Namespace::found(self.0.open_named(name))
    }

    /// Opens the one that is this directory, which must be in a tmpfs.
    ///
    /// # Errors
    /// As [`NamespaceOptions::open`].
    pub fn at(self, path: impl AsRef<Path>) -> Result<Namespace> {
        Namespace::found(self.0.open(path))
    }

    /// Makes one with a random name, for the caller and whom it tells the path; it goes with its last user.
    ///
    /// # Errors
    /// As [`NamespaceOptions::open`].
    pub fn private(self) -> Result<Namespace> {
        Namespace::found(self.0.private())
    }
}

impl Namespace {
    /// The kernel's: what is meant where no namespace is said.
    pub const fn kernel() -> Namespace {
        Namespace(None)
    }

    /// Opens or makes one with every choice spelled out.
    pub fn options() -> NamespaceOptions {
        NamespaceOptions(engine::Namespace::options())
    }

    /// Opens the one of this name among the caller's own, which must exist.
    ///
    /// # Errors
    /// See [`NamespaceOptions::open`].
    pub fn open(name: &str) -> Result<Namespace> {
        Namespace::options().open(name)
    }

    /// Opens the one of this name among the caller's own, and makes it (for this user alone) if there is none.
    ///
    /// # Errors
    /// See [`NamespaceOptions::open`].
    pub fn create(name: &str) -> Result<Namespace> {
        Namespace::options().create(true).open(name)
    }

    /// Opens the one that is this directory, which must exist.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::Namespace;
    ///
    /// let ours = Namespace::private()?;
    /// let theirs = Namespace::at(ours.path().unwrap())?; // in another process, as a rule
    /// assert!(theirs.is_private());
    ///
    /// let error = Namespace::at("/etc").unwrap_err();
    /// assert_eq!(error.errno_name(), "EOPNOTSUPP");
    /// assert_eq!(error.hint(), Some("it is not in a memory file system: use a directory under /dev/shm"));
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`NamespaceOptions::open`].
    pub fn at(path: impl AsRef<Path>) -> Result<Namespace> {
        Namespace::options().at(path)
    }

    /// Makes one that goes with its last user, who may be killed: the next `private()` of this user removes what is left.
    ///
    /// Others join by [`Namespace::at`] and its [`path`](Namespace::path). A forked child is a user too; a program that is
    /// executed must open it for itself.
    ///
    /// # Errors
    /// See [`NamespaceOptions::open`].
    pub fn private() -> Result<Namespace> {
        Namespace::options().private()
    }

    /// The names of the caller's own, sorted; the private ones too.
    ///
    /// # Errors
    /// As `readdir(3)`.
    pub fn list() -> Result<Vec<String>> {
        let base = format!("/dev/shm/ginnel-{}", rustix::process::geteuid().as_raw());
        let failed = |error| Error::from_io("readdir", &error, &Label::new(base.as_str()));
        let mut names = Vec::new();
        match std::fs::read_dir(&base) {
            Ok(entries) => {
                for entry in entries {
                    names.extend(entry.map_err(failed)?.file_name().to_str().map(str::to_owned));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        names.sort();
        Ok(names)
    }

    /// Removes what killed users have left of the caller's private ones: which directories. Every opening of a namespace by
    /// its name, and every [`Namespace::private`], does it too.
    pub fn sweep() -> Vec<std::path::PathBuf> {
        engine::Namespace::sweep(false)
    }

    /// Whether it is the kernel's.
    pub fn is_kernel(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it goes with its last user.
    pub fn is_private(&self) -> bool {
        self.0.as_ref().is_some_and(|home| home.is_private())
    }

    /// Its directory; `None` for the kernel's.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|home| home.path())
    }

    /// What its objects may hold; `None` for the kernel's, which has limits by the mechanism
    /// ([`SysvQueue::limits`](crate::message::SysvQueue::limits) and its sisters).
    pub fn limits(&self) -> Option<&Limits> {
        self.0.as_ref().map(|home| home.limits())
    }

    /// What the dead have left in it: files that are no objects in use. Nothing is touched;
    /// [`removed`](Finding::removed) says what [`collect`](Namespace::collect) would remove.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::Namespace;
    /// use ginnel::namespace::What;
    ///
    /// let home = Namespace::private()?;
    /// std::fs::write(home.path().unwrap().join("mq/jobs"), "no queue").unwrap();
    /// let found = home.leftovers()?;
    /// assert_eq!((found[0].name.as_str(), found[0].what), ("jobs", What::Foreign));
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the kernel's, which does not know who uses an object. `EACCES`, `EMFILE`.
    pub fn leftovers(&self) -> Result<Vec<Finding>> {
        self.collect_unless(true)
    }

    /// Removes what the dead have left in it, and tells what there was. It believes nothing that it reads.
    ///
    /// # Errors
    /// As [`Namespace::leftovers`].
    pub fn collect(&self) -> Result<Vec<Finding>> {
        self.collect_unless(false)
    }

    /// Its objects whose users have all ended: no process has one open or attached. They may hold messages, values or
    /// memory for somebody who is still to come: only their owner knows. Nothing is touched; [`removed`](Finding::removed)
    /// says what [`collect_unused`](Namespace::collect_unused) would remove.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::Namespace;
    /// use ginnel::message::PosixQueue;
    /// use ginnel::namespace::Doubt;
    ///
    /// let home = Namespace::private()?;
    /// let queue = PosixQueue::options().namespace(&home).create(true).open("/jobs")?;
    /// assert!(home.unused(Doubt::Ignore)?.findings.is_empty());
    /// drop(queue);
    /// assert_eq!(home.unused(Doubt::Ignore)?.findings[0].name, "jobs");
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Namespace::leftovers`].
    pub fn unused(&self, doubt: Doubt) -> Result<Unused> {
        self.collect_unused_unless(true, doubt)
    }

    /// Removes its objects that no process has open or attached. `doubt` says what is done with those that a process may
    /// have which this user may not look at.
    ///
    /// # Errors
    /// As [`Namespace::leftovers`].
    pub fn collect_unused(&self, doubt: Doubt) -> Result<Unused> {
        self.collect_unused_unless(false, doubt)
    }

    fn collect_unused_unless(&self, dry_run: bool, doubt: Doubt) -> Result<Unused> {
        let outcome = self.collectable()?.collect_unused(dry_run, doubt);
        outcome.map_err(|errno| Error::new("readdir", errno, &self.label()))
    }

    fn collect_unless(&self, dry_run: bool) -> Result<Vec<Finding>> {
        let outcome = self.collectable()?.collect(dry_run);
        outcome.map_err(|errno| Error::new("readdir", errno, &self.label()))
    }

    fn collectable(&self) -> Result<&engine::Namespace> {
        self.0.as_deref().ok_or_else(|| {
            Error::new("collect", Errno::OPNOTSUPP, &self.label()).with_hint(
                "the kernel does not know who uses its objects: see what there is, and remove it by name",
            )
        })
    }

    fn found(outcome: Result<engine::Namespace, engine::OpenError>) -> Result<Namespace> {
        outcome.map(|home| Namespace(Some(Arc::new(home)))).map_err(|error| {
            let call = match error.why {
                engine::Refusal::System { call, .. } => call,
                _ => "namespace",
            };
            let failed =
                Error::new(call, error.errno(), &Label::new(error.path.to_string_lossy().into_owned()));
            match &error.why {
                engine::Refusal::Missing => {
                    failed.with_hint("there is no such namespace; open it with `create`")
                }
                engine::Refusal::System { .. } => failed,
                why => failed.with_hint(why.to_string()),
            }
        })
    }

    /// The directory's home, if it is not the kernel's.
    pub(crate) fn user(&self) -> Option<&Arc<engine::Namespace>> {
        self.0.as_ref()
    }

    /// The POSIX objects of a kind in a user-space home, with the slash.
    pub(crate) fn names(&self, kind: Kind) -> Result<Vec<String>> {
        let names = self.0.as_ref().map_or(Ok(Vec::new()), |home| home.list_named(kind));
        let names = names.map_err(|errno| Error::new("readdir", errno, &self.label()))?;
        Ok(names.iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect())
    }

    fn label(&self) -> Label {
        Label::new(self.to_string())
    }

    /// ", in /dev/shm/ginnel-0/jobs": for hints that say where something was looked for.
    pub(crate) fn inside(&self) -> String {
        self.path().map_or_else(String::new, |path| format!(" in {}", path.display()))
    }
}

impl fmt::Display for Namespace {
    /// `kernel`, or the directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => write!(f, "{}", path.display()),
            None => f.write_str("kernel"),
        }
    }
}

/// "msgmax of /dev/shm/ginnel-0/jobs is 8192": for a limit that was hit. Limits are set when a namespace is made.
pub(crate) fn limit_hint(home: &engine::Namespace, what: &str, name: &str, value: u64) -> String {
    format!(
        "{what}: {name} of {} is {value}; it is set when the namespace is made (`Namespace::options().limits`)",
        home.path().display()
    )
}

/// A System V object of a user-space home: an id, and what it names once a call has needed it.
#[derive(Debug)]
pub(crate) struct Opened<T> {
    pub(crate) home: Arc<engine::Namespace>,
    pub(crate) id: i32,
    object: OnceLock<T>,
}

impl<T> Opened<T> {
    pub(crate) fn new(home: &Arc<engine::Namespace>, id: i32) -> Opened<T> {
        Opened { home: home.clone(), id, object: OnceLock::new() }
    }

    #[inline]
    pub(crate) fn get(
        &self,
        open: impl FnOnce(&engine::Namespace, i32) -> Result<T, Errno>,
    ) -> Result<&T, Errno> {
        match self.object.get() {
            Some(object) => Ok(object),
            None => {
                let object = open(&self.home, self.id)?;
                Ok(self.object.get_or_init(|| object))
            }
        }
    }
}

/// Owner, group and mode for `IPC_SET`, which sets all three: what is not to change as it is now. Reading takes no
/// permission to read, which an owner may have taken from himself.
pub(crate) fn change(
    home: &engine::Namespace,
    kind: Kind,
    id: i32,
    (uid, gid, mode): (Option<u32>, Option<u32>, Option<u32>),
) -> Result<engine::Change, Errno> {
    let now = match home.stat(kind, id) {
        Ok(now) => (now.uid, now.gid, now.mode),
        Err(Errno::ACCESS) => {
            let all = home.list(kind)?;
            let now = all.iter().find(|listed| listed.id == id).ok_or(Errno::INVAL)?;
            (now.uid, now.gid, now.mode)
        }
        Err(errno) => return Err(errno),
    };
    Ok(engine::Change { uid: uid.unwrap_or(now.0), gid: gid.unwrap_or(now.1), mode: mode.unwrap_or(now.2) })
}
