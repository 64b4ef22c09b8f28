//! POSIX semaphores, named and unnamed: `sem_overview(7)`, `sem_open(3)`, `sem_init(3)`, `sem_wait(3)`, `sem_post(3)`.
//!
//! # What a user sees
//! A counter in shared memory, worked on without a system call unless somebody has to wait or to be woken. A named one
//! ([`PosixSemaphore`]) is a file, `sem.NAME` in `/dev/shm`, and outlives its processes until it is
//! [removed](PosixSemaphore::remove); an unnamed one ([`UnnamedSemaphore`]) lives in memory that the processes share.
//! Both give the calls of [`Semaphore`]. In a user-space home a named one is a file of its directory, and its killed waiters
//! keep no unit from the others.
//!
//! Nobody knows who holds a unit: a killed holder's units are lost. Where that matters, take
//! [`SysvSemaphores`](super::SysvSemaphores) with undo, or a lock.
//!
//! Differences from the bare calls: names without a leading slash, which glibc takes and POSIX leaves open, are refused;
//! a deadline is on the monotonic clock (`sem_clockwait`); an empty file under the name of a semaphore is an error
//! (`EUCLEAN`) and not a `SIGBUS` at the first use.
//!
//! # What it cannot keep out
//! Whoever may write to the semaphore may overwrite it, with any value, or shrink its file: the C library notices
//! neither, and a process that uses a file that was cut off under it gets `SIGBUS`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use ginnel_engine::namespace::Kind;
use ginnel_engine::sync::posix_semaphore as engine;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Error, Label, Result, last_errno};
use crate::interrupt::timespec;
use crate::memory::{Mapping, Witness};
use crate::wait::check;
use crate::{Deadline, Namespace};

const FAMILY: &str = "posix-sem";
/// Where glibc and musl keep named semaphores, as files `sem.NAME`.
const DIRECTORY: &str = "/dev/shm";
/// `SEM_VALUE_MAX`: the highest value.
pub const VALUE_MAX: u32 = i32::MAX as u32;

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    // glibc 2.30; the libc crate has it not.
    fn sem_clockwait(
        semaphore: *mut libc::sem_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

/// What one does with a POSIX semaphore, named or not: [`PosixSemaphore`] and [`UnnamedSemaphore`] deref to it.
///
/// ```
/// # ginnel_testkit::private();
/// use std::time::Duration;
/// use ginnel::sync::{Semaphore, UnnamedSemaphore};
///
/// fn use_a_slot(slots: &Semaphore) -> ginnel::Result<()> {
///     let _slot = slots.acquire_deadline(Duration::from_secs(1))?;
///     Ok(())
/// }
///
/// let slots = UnnamedSemaphore::anonymous(2)?;
/// use_a_slot(&slots)?;
/// assert_eq!(slots.value()?, 2);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct Semaphore {
    home: Home,
    object: Label,
}

#[derive(Debug)]
enum Home {
    Libc(Raw),
    User(engine::PosixSemaphore),
}

/// A semaphore of the C library.
#[derive(Debug)]
struct Raw {
    raw: NonNull<libc::sem_t>,
    /// Tells when the memory was truncated away, for one that is in a mapping.
    memory: Option<Witness>,
}

// SAFETY: a sem_t is made to be used by many threads (and processes) at once; the calls on it are atomic, and whoever
// holds the Semaphore keeps its memory mapped.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Semaphore {
    fn of_libc(raw: NonNull<libc::sem_t>, object: Label) -> Semaphore {
        Semaphore { home: Home::Libc(Raw { raw, memory: None }), object }
    }

    /// Takes a unit; waits until there is one.
    ///
    /// # Errors
    /// `EINTR`: a signal handler ran (one with `SA_RESTART` lets it go on). `EFAULT`: it is in a [`Mapping`] whose file
    /// was truncated.
    ///
    /// # Blocking
    /// Until the value is above 0. Who waits longest is not served first for certain. `sem_wait(3)`.
    pub fn wait(&self) -> Result<()> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// Takes a unit if there is one now.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. `EFAULT` as [`Semaphore::wait`].
    pub fn try_wait(&self) -> Result<()> {
        self.wait_deadline(Deadline::NOW)
    }

    /// Takes a unit; waits until the deadline for one.
    ///
    /// # Errors
    /// `ETIMEDOUT`: the deadline passed. Else as [`Semaphore::wait`].
    pub fn wait_deadline(&self, deadline: impl Into<Deadline>) -> Result<()> {
        let deadline = deadline.into();
        let operation = match deadline {
            Deadline::NEVER => "sem_wait",
            Deadline::NOW => "sem_trywait",
            _ => "sem_clockwait",
        };
        let outcome = match &self.home {
            Home::Libc(libc) => libc.wait(deadline),
            Home::User(user) => user.semaphore().wait(deadline.patience()),
        };
        self.finish(operation, outcome)
    }

    /// Adds a unit, and so lets a waiter go on. Async-signal-safe.
    ///
    /// # Errors
    /// `EOVERFLOW`: the value is [`VALUE_MAX`]. `EFAULT` as [`Semaphore::wait`].
    pub fn post(&self) -> Result<()> {
        let outcome = match &self.home {
            // SAFETY: the semaphore is initialised and mapped for as long as `self` lives.
            Home::Libc(libc) => check(unsafe { libc::sem_post(libc.raw.as_ptr()) }).map(drop),
            Home::User(user) => user.semaphore().post(),
        };
        self.finish("sem_post", outcome)
    }

    /// The units there are now: old news by the time it is read.
    ///
    /// # Errors
    /// `EFAULT` as [`Semaphore::wait`].
    pub fn value(&self) -> Result<u32> {
        let value = match &self.home {
            Home::Libc(libc) => libc.value(),
            Home::User(user) => user.semaphore().value(),
        };
        self.finish("sem_getvalue", Ok(value))
    }

    /// Takes a unit until the guard is dropped; waits until there is one.
    ///
    /// # Errors
    /// As [`Semaphore::wait`].
    pub fn acquire(&self) -> Result<Unit<'_>> {
        self.acquire_deadline(Deadline::NEVER)
    }

    /// Takes a unit until the guard is dropped, if there is one now.
    ///
    /// # Errors
    /// As [`Semaphore::try_wait`].
    pub fn try_acquire(&self) -> Result<Unit<'_>> {
        self.acquire_deadline(Deadline::NOW)
    }

    /// Takes a unit until the guard is dropped; waits until the deadline for one.
    ///
    /// # Errors
    /// As [`Semaphore::wait_deadline`].
    pub fn acquire_deadline(&self, deadline: impl Into<Deadline>) -> Result<Unit<'_>> {
        self.wait_deadline(deadline)?;
        Ok(Unit { semaphore: self, taker: std::process::id() })
    }

    /// What a call has come to, unless the memory that it worked on is gone.
    fn finish<T>(&self, operation: &'static str, outcome: Result<T, Errno>) -> Result<T> {
        if let Home::Libc(Raw { memory: Some(memory), .. }) = &self.home {
            memory.check(operation, &self.object)?;
        }
        outcome.map_err(|errno| {
            let error = Error::new(operation, errno, &self.object);
            match errno {
                Errno::OVERFLOW => {
                    error.with_hint(format!("its value is {VALUE_MAX} (SEM_VALUE_MAX) already"))
                }
                _ => error,
            }
        })
    }
}

impl Raw {
    fn wait(&self, deadline: Deadline) -> Result<(), Errno> {
        let semaphore = self.raw.as_ptr();
        if let Some(memory) = &self.memory {
            // Nobody posts to memory that is gone. This looks there.
            self.value();
            if memory.is_lost() {
                return Err(Errno::FAULT);
            }
        }
        let outcome = match deadline.remaining() {
            // SAFETY: the semaphore is initialised, and mapped for as long as `self` lives.
            None => unsafe { libc::sem_wait(semaphore) },
            // SAFETY: as above.
            Some(_) if deadline.is_now() => unsafe { libc::sem_trywait(semaphore) },
            // SAFETY: as above.
            Some(left) => unsafe { wait_for(semaphore, left) },
        };
        check(outcome).map(drop)
    }

    fn value(&self) -> u32 {
        let mut value = 0;
        // SAFETY: as in `wait`; `value` is valid for the call, which has no errors.
        unsafe { libc::sem_getvalue(self.raw.as_ptr(), &raw mut value) };
        // POSIX allows a negative number of waiters here; Linux gives 0.
        value.try_into().unwrap_or(0)
    }
}

/// # Safety
/// As `sem_wait(3)`: an initialised, mapped semaphore.
#[cfg(target_env = "gnu")]
unsafe fn wait_for(semaphore: *mut libc::sem_t, left: std::time::Duration) -> libc::c_int {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let until = timespec(std::time::Duration::try_from(now).unwrap_or_default().saturating_add(left));
    // SAFETY: the caller's semaphore; the time is valid for the call.
    unsafe { sem_clockwait(semaphore, libc::CLOCK_MONOTONIC, &raw const until) }
}

/// On the wall clock, for want of a better call: a clock that is set meanwhile shortens or lengthens the wait.
///
/// # Safety
/// As `sem_wait(3)`: an initialised, mapped semaphore.
#[cfg(not(target_env = "gnu"))]
unsafe fn wait_for(semaphore: *mut libc::sem_t, left: std::time::Duration) -> libc::c_int {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let until = timespec(std::time::Duration::try_from(now).unwrap_or_default().saturating_add(left));
    // SAFETY: the caller's semaphore; the time is valid for the call.
    unsafe { libc::sem_timedwait(semaphore, &raw const until) }
}

/// A unit of a [`Semaphore`], posted when this is dropped. A killed process's unit is lost.
///
/// A child made by `fork` does not hold its parent's unit: its copy of the guard posts nothing.
///
/// ```
/// use ginnel::sync::UnnamedSemaphore;
///
/// let slots = UnnamedSemaphore::anonymous(2)?;
/// let unit = slots.acquire()?;
/// slots.acquire()?.keep();
/// assert!(slots.try_acquire().unwrap_err().is_would_block());
/// drop(unit);
/// assert_eq!(slots.value()?, 1, "the one that was kept is still taken");
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the unit is given back when the guard is dropped"]
pub struct Unit<'a> {
    semaphore: &'a Semaphore,
    taker: u32,
}

impl Unit<'_> {
    /// Keeps the unit taken for good: somebody else posts.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        if self.taker == std::process::id() {
            // Only a value at its maximum refuses, and then the unit is no loss.
            let _ = self.semaphore.post();
        }
    }
}

/// A named POSIX semaphore. Closed when dropped; the name stays until [`PosixSemaphore::remove`].
///
/// The C library keeps one mapping for each semaphore in a process, and counts: opening a name twice gives the same
/// memory, and it is unmapped with the last handle.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::PosixSemaphore;
///
/// let slots = PosixSemaphore::options().create_new(true).mode(0o660).value(2).open("/slots")?;
/// slots.wait()?;
///
/// let elsewhere = PosixSemaphore::open("/slots")?;
/// assert_eq!(elsewhere.value()?, 1);
/// elsewhere.post()?;
///
/// PosixSemaphore::remove("/slots")?;
/// assert!(PosixSemaphore::open("/slots").unwrap_err().is_not_found());
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixSemaphore(Semaphore);

/// How to open or make a [`PosixSemaphore`]: see [`PosixSemaphore::options`].
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::PosixSemaphore;
///
/// let made = PosixSemaphore::options().create(true).value(3).open("/made")?;
/// assert_eq!(made.value()?, 3);
/// # PosixSemaphore::remove("/made")?;
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PosixSemaphoreOptions {
    namespace: Namespace,
    create: bool,
    create_new: bool,
    mode: u32,
    value: u32,
}

impl PosixSemaphoreOptions {
    /// In which home; the kernel's (that is, the C library's, in `/dev/shm`) unless said.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = namespace.clone();
        self
    }

    /// Make the semaphore if there is none of this name (`O_CREAT`).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Make the semaphore, and fail with `EEXIST` if there is one already (`O_CREAT | O_EXCL`).
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// The permission bits of a semaphore that is made; 0600 unless said. The umask applies. Who uses it needs read and
    /// write.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The value of a semaphore that is made; 0 unless said. An existing one keeps its own.
    pub fn value(mut self, value: u32) -> Self {
        self.value = value;
        self
    }

    /// Opens the semaphore of this name: a slash and up to 251 bytes without one. A new one is there with its value
    /// from the first moment on.
    ///
    /// # Errors
    /// `EINVAL`: no such name can be, or the value is above [`VALUE_MAX`]. `ENAMETOOLONG`. `ENOENT`: no such semaphore,
    /// and it was not to be made. `EEXIST`: it exists and was to be new. `EACCES`: no read and write permission.
    /// `EMFILE`, `ENFILE`, `ENOMEM`. `EUCLEAN`: the file of that name is too small to be one
    /// ([`Error::is_corrupted`]).
    pub fn open(self, name: impl AsRef<str>) -> Result<PosixSemaphore> {
        let (object, path) = label(name.as_ref(), "sem_open")?;
        let create = if self.create || self.create_new { libc::O_CREAT } else { 0 };
        let exclusive = if self.create_new { libc::O_EXCL } else { 0 };
        if let Some(home) = self.namespace.user() {
            let (name, mode) = (name.as_ref().as_bytes(), self.mode & 0o7777);
            return match engine::PosixSemaphore::open(home, name, create | exclusive, mode, self.value) {
                Ok(semaphore) => Ok(PosixSemaphore(Semaphore { home: Home::User(semaphore), object })),
                Err(errno) => Err(self.explain(Error::new("sem_open", errno, &object))),
            };
        }
        check_size(name.as_ref(), &object)?;
        // SAFETY: the path is NUL-terminated; with O_CREAT the two further arguments are there.
        let raw =
            unsafe { libc::sem_open(path.as_ptr(), create | exclusive, self.mode & 0o7777, self.value) };
        match NonNull::new(raw) {
            Some(raw) => Ok(PosixSemaphore(Semaphore::of_libc(raw, object))),
            None => Err(self.explain(Error::new("sem_open", last_errno(), &object))),
        }
    }

    fn explain(&self, error: Error) -> Error {
        match error.raw() {
            Errno::NOENT if self.create || self.create_new => error.with_hint("is /dev/shm mounted?"),
            Errno::NOENT => error.with_hint(format!(
                "no semaphore has this name{}; make it first, or open with `create`",
                self.namespace.inside()
            )),
            Errno::EXIST => {
                error.with_hint("a semaphore of this name exists; open it without `create_new`, or remove it")
            }
            Errno::ACCESS => error.with_hint(match self.namespace.path() {
                None => "it takes read and write permission on its file in /dev/shm".to_string(),
                Some(path) => {
                    format!("it takes read and write permission on its file in {}/psem", path.display())
                }
            }),
            Errno::INVAL if self.value > VALUE_MAX => {
                error.with_hint(format!("its value can be {VALUE_MAX} (SEM_VALUE_MAX) at the most"))
            }
            Errno::NAMETOOLONG => error.with_hint("251 bytes after the slash, at the most"),
            Errno::MFILE => error.with_hint("opening one takes a descriptor for a moment; raise `ulimit -n`"),
            _ => error,
        }
    }
}

impl PosixSemaphore {
    /// Opens a semaphore with every choice spelled out.
    pub fn options() -> PosixSemaphoreOptions {
        PosixSemaphoreOptions {
            namespace: Namespace::kernel(),
            create: false,
            create_new: false,
            mode: 0o600,
            value: 0,
        }
    }

    /// Opens the semaphore of this name, which must exist.
    ///
    /// # Errors
    /// See [`PosixSemaphoreOptions::open`].
    pub fn open(name: impl AsRef<str>) -> Result<PosixSemaphore> {
        PosixSemaphore::open_in(&Namespace::kernel(), name)
    }

    /// [`PosixSemaphore::open`] in another home.
    ///
    /// # Errors
    /// See [`PosixSemaphoreOptions::open`].
    pub fn open_in(namespace: &Namespace, name: impl AsRef<str>) -> Result<PosixSemaphore> {
        PosixSemaphore::options().namespace(namespace).open(name)
    }

    /// Opens the semaphore of this name, and makes it (mode 0600) with this value if there is none.
    ///
    /// # Errors
    /// See [`PosixSemaphoreOptions::open`].
    pub fn create(name: impl AsRef<str>, value: u32) -> Result<PosixSemaphore> {
        PosixSemaphore::create_in(&Namespace::kernel(), name, value)
    }

    /// [`PosixSemaphore::create`] in another home.
    ///
    /// # Errors
    /// See [`PosixSemaphoreOptions::open`].
    pub fn create_in(namespace: &Namespace, name: impl AsRef<str>, value: u32) -> Result<PosixSemaphore> {
        PosixSemaphore::options().namespace(namespace).create(true).value(value).open(name)
    }

    /// Takes the name away (`sem_unlink(3)`). Whoever has the semaphore open goes on with it.
    ///
    /// # Errors
    /// `ENOENT`: there is none. `EACCES`: not this user's to remove. `EINVAL`, `ENAMETOOLONG`: no such name can be.
    pub fn remove(name: impl AsRef<str>) -> Result<()> {
        PosixSemaphore::remove_in(&Namespace::kernel(), name)
    }

    /// [`PosixSemaphore::remove`] in another home.
    ///
    /// # Errors
    /// As [`PosixSemaphore::remove`].
    pub fn remove_in(namespace: &Namespace, name: impl AsRef<str>) -> Result<()> {
        let (object, path) = label(name.as_ref(), "sem_unlink")?;
        let outcome = match namespace.user() {
            // SAFETY: the path is NUL-terminated.
            None => check(unsafe { libc::sem_unlink(path.as_ptr()) }).map(drop),
            Some(home) => engine::PosixSemaphore::unlink(home, name.as_ref().as_bytes()),
        };
        outcome.map_err(|errno| Error::new("sem_unlink", errno, &object))
    }

    /// The names of all semaphores in `/dev/shm`, sorted.
    ///
    /// # Errors
    /// As `readdir(3)`: `ENOENT` where there is no `/dev/shm`.
    pub fn list() -> Result<Vec<String>> {
        let failed = |error| Error::from_io("readdir", &error, &Label::from(DIRECTORY));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(DIRECTORY).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_prefix("sem.")) {
                names.push(format!("/{name}"));
            }
        }
        names.sort();
        Ok(names)
    }

    /// [`PosixSemaphore::list`] of another home.
    ///
    /// # Errors
    /// As [`PosixSemaphore::list`].
    pub fn list_in(namespace: &Namespace) -> Result<Vec<String>> {
        match namespace.user() {
            None => PosixSemaphore::list(),
            Some(_) => namespace.names(Kind::PosixSemaphore),
        }
    }

    /// The name's file.
    fn file(name: &str) -> PathBuf {
        Path::new(DIRECTORY).join(format!("sem.{}", name.trim_start_matches('/')))
    }
}

impl Deref for PosixSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
}

impl Drop for PosixSemaphore {
    fn drop(&mut self) {
        if let Home::Libc(libc) = &self.0.home {
            // SAFETY: from sem_open, closed once: the C library unmaps it when nobody in the process has it open.
            unsafe { libc::sem_close(libc.raw.as_ptr()) };
        }
    }
}

/// An unnamed POSIX semaphore in shared memory. The memory is released when this is dropped, and the semaphore is not
/// destroyed: other processes may use it still, and no C library here keeps anything outside of it.
///
/// ```
/// # ginnel_testkit::private();
/// use ginnel::sync::UnnamedSemaphore;
///
/// let go = UnnamedSemaphore::anonymous(0)?;
/// # let run = || -> ginnel::Result<()> {
/// let child = ginnel::process::fork(|| match go.wait() {
///     Ok(()) => 0,
///     Err(_) => 1,
/// })?;
/// go.post()?;
/// assert!(child.wait()?.success());
/// # Ok(()) };
/// # // A doctest runs in a process with threads, which must not fork.
/// # match run() { Err(error) if error.errno_name() == "EBUSY" => {} other => other? }
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Debug)]
pub struct UnnamedSemaphore<'a> {
    semaphore: Semaphore,
    /// Whether the memory is a mapping of our own.
    mapped: bool,
    memory: PhantomData<&'a Mapping>,
}

const NOUN: &str = "unnamed semaphore";

impl UnnamedSemaphore<'static> {
    /// A new semaphore in a mapping of its own, shared with the children that this process forks.
    ///
    /// # Errors
    /// `EINVAL`: a value above [`VALUE_MAX`]. `ENOMEM`.
    pub fn anonymous(value: u32) -> Result<UnnamedSemaphore<'static>> {
        let object = Label::from(NOUN);
        // SAFETY: a new mapping, where the kernel chooses.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                size_of::<libc::sem_t>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        };
        let raw = mapped.map_err(|errno| Error::new("mmap", errno, &object))?.cast::<libc::sem_t>();
        let raw = NonNull::new(raw).ok_or_else(|| Error::new("mmap", Errno::NOMEM, &object))?;
        let made = UnnamedSemaphore {
            semaphore: Semaphore::of_libc(raw, object),
            mapped: true,
            memory: PhantomData,
        };
        // SAFETY: the mapping is large enough, aligned to a page, and nobody else's yet.
        unsafe { initialise(raw, value, &made.semaphore.object)? };
        Ok(made)
    }
}

impl<'a> UnnamedSemaphore<'a> {
    /// Makes a semaphore in shared memory, at an offset that is a multiple of [`UnnamedSemaphore::ALIGN`], of
    /// [`UnnamedSemaphore::BYTES`] bytes. For the process that makes the memory, before the others use it.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use ginnel::memory::PosixShm;
    /// use ginnel::sync::UnnamedSemaphore;
    ///
    /// let ours = PosixShm::create("/ring", 4096)?.map()?;
    /// let full = UnnamedSemaphore::in_mapping(&ours, 64, 0)?;
    ///
    /// let theirs = PosixShm::open("/ring")?.map()?; // in another process, as a rule
    /// UnnamedSemaphore::open_in_mapping(&theirs, 64)?.post()?;
    /// full.wait()?;
    /// # PosixShm::remove("/ring")?;
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EINVAL`: a value above [`VALUE_MAX`], an offset that is not aligned or not within the mapping, or the mapping is
    /// private. `EFAULT`: the memory is gone.
    pub fn in_mapping(mapping: &'a Mapping, offset: usize, value: u32) -> Result<UnnamedSemaphore<'a>> {
        let memory = place(mapping, offset)?;
        // SAFETY: aligned, within the mapping, writable, and mapped for as long as the semaphore borrows it. Whatever
        // others write there meanwhile, the calls on it access it by atomics only.
        let made = unsafe { UnnamedSemaphore::init(memory, value) }?;
        made.with_witness(mapping, offset)
    }

    /// The semaphore that another process has made in shared memory.
    ///
    /// # Errors
    /// `EUCLEAN`: there is none ([`Error::is_corrupted`]; glibc only). Else as [`UnnamedSemaphore::in_mapping`].
    pub fn open_in_mapping(mapping: &'a Mapping, offset: usize) -> Result<UnnamedSemaphore<'a>> {
        let memory = place(mapping, offset)?;
        // glibc keeps the kind of futex in there. Zeros would be a semaphore of one process: waking others, and being
        // woken by them, would not work.
        #[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
        if mapping.load_u32(offset + 8)? != 128 {
            return Err(Error::new("sem_init", Errno::UCLEAN, &Label::from(NOUN))
                .with_hint(format!("at offset {offset}, nobody has made a semaphore that processes share")));
        }
        // SAFETY: as in `in_mapping`; on other C libraries all bit patterns are semaphores, of some value.
        let found = unsafe { UnnamedSemaphore::from_raw(memory) };
        found.with_witness(mapping, offset)
    }

    fn with_witness(mut self, mapping: &'a Mapping, offset: usize) -> Result<UnnamedSemaphore<'a>> {
        let memory = mapping.witness(offset..offset + size_of::<libc::sem_t>());
        if let Home::Libc(libc) = &mut self.semaphore.home {
            libc.memory = memory;
        }
        self.value()?;
        Ok(self)
    }

    /// The bytes that a semaphore takes.
    pub const BYTES: usize = size_of::<libc::sem_t>();
    /// What its offset is a multiple of.
    pub const ALIGN: usize = 8;

    /// Makes a semaphore in shared memory (`sem_init(3)` with `pshared`).
    ///
    /// # Errors
    /// `EINVAL`: a value above [`VALUE_MAX`].
    ///
    /// # Safety
    /// `memory` has room for a `sem_t`, is aligned for one, shared, readable and writable, and stays so until the
    /// semaphore is dropped. Nobody uses a semaphore that is there already.
    pub unsafe fn init(memory: NonNull<libc::sem_t>, value: u32) -> Result<UnnamedSemaphore<'a>> {
        let object = Label::from(NOUN);
        // SAFETY: the caller promises what sem_init needs.
        unsafe { initialise(memory, value, &object)? };
        // SAFETY: initialised just now.
        Ok(unsafe { UnnamedSemaphore::from_raw(memory) })
    }

    /// The semaphore that another process has made in shared memory.
    ///
    /// # Safety
    /// `memory` points to an initialised `sem_t` of this C library, and stays mapped, readable and writable until the
    /// semaphore is dropped.
    pub unsafe fn from_raw(memory: NonNull<libc::sem_t>) -> UnnamedSemaphore<'a> {
        let semaphore = Semaphore::of_libc(memory, Label::from(NOUN));
        UnnamedSemaphore { semaphore, mapped: false, memory: PhantomData }
    }
}

/// Where a semaphore in a mapping is, if there is room for one.
fn place(mapping: &Mapping, offset: usize) -> Result<NonNull<libc::sem_t>> {
    // The mapping says what is wrong with the range.
    mapping.read_bytes(offset, &mut [0; size_of::<libc::sem_t>()])?;
    let memory = mapping.as_ptr().wrapping_add(offset).cast::<libc::sem_t>();
    let refuse = |why: String| Error::invalid("sem_init", &Label::from(NOUN), why);
    if mapping.is_private() {
        return Err(refuse("the mapping is private: no other process would see the semaphore".into()));
    }
    match NonNull::new(memory) {
        Some(memory) if memory.addr().get().is_multiple_of(UnnamedSemaphore::ALIGN) => Ok(memory),
        _ => Err(refuse(format!("offset {offset} is no multiple of {}", UnnamedSemaphore::ALIGN))),
    }
}

/// # Safety
/// As [`UnnamedSemaphore::init`].
unsafe fn initialise(memory: NonNull<libc::sem_t>, value: u32, object: &Label) -> Result<()> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::sem_init(memory.as_ptr(), 1, value) }).map(drop).map_err(|errno| {
        Error::new("sem_init", errno, object)
            .with_hint(format!("its value can be {VALUE_MAX} (SEM_VALUE_MAX) at the most"))
    })
}

impl Deref for UnnamedSemaphore<'_> {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.semaphore
    }
}

impl Drop for UnnamedSemaphore<'_> {
    fn drop(&mut self) {
        let Home::Libc(libc) = &self.semaphore.home else { return };
        if self.mapped {
            let memory = libc.raw.as_ptr().cast();
            // SAFETY: mapped by `anonymous` with this size; every user of it borrows `self`.
            let _ = unsafe { rustix::mm::munmap(memory, size_of::<libc::sem_t>()) };
        }
    }
}

/// Refuses the names that `sem_open(3)` does not have, and says what they look like.
fn label(name: &str, operation: &'static str) -> Result<(Label, CString)> {
    let object = Label::new(format!("{FAMILY}:{name}"));
    let refuse = |why: &'static str| Err(Error::invalid(operation, &object, why));
    match name.strip_prefix('/') {
        None => refuse("a name begins with a slash: /slots"),
        Some("") => refuse("a name has at least one character after the slash: /slots"),
        Some(rest) if rest.contains('/') => refuse("a name has no slash but the first: /slots"),
        Some(_) => match CString::new(name) {
            Ok(path) => Ok((object, path)),
            Err(_) => refuse("a name has no zero byte"),
        },
    }
}

/// The C library maps whatever file has the name; beyond the end of a file that is too small, every use is a `SIGBUS`.
fn check_size(name: &str, object: &Label) -> Result<()> {
    match std::fs::metadata(PosixSemaphore::file(name)) {
        Ok(file) if (file.size() as usize) < size_of::<libc::sem_t>() => {
            Err(Error::new("sem_open", Errno::UCLEAN, object).with_hint(format!(
                "{} is too small to be a semaphore; remove it",
                PosixSemaphore::file(name).display()
            )))
        }
        // Whatever else is wrong is for sem_open to say.
        _ => Ok(()),
    }
}
