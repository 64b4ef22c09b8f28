//! Which namespace this process's objects are in: `GINNEL_NAMESPACE`, opened when the first call needs it.
//!
//! The variable is read when the library is loaded: what the program does to its environment afterwards has no say. Without
//! it, every call is the C library's own. If it names a namespace that cannot be opened, the reason is written to standard
//! error once, and the calls fail: to go to the kernel instead would split what belongs together.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, OsStr};
use std::fmt::Arguments;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use ginnel_engine::descriptor;
use ginnel_engine::namespace::Namespace;
use ginnel_engine::{Errno, Result};

use crate::{fork, held, open};

/// Where the objects are.
pub(crate) enum Home {
    /// The kernel has them: the calls are passed on.
    Kernel,
    User(Namespace),
    /// There is one, and it cannot be opened.
    Refused(Errno),
}

const VARIABLE: &CStr = c"GINNEL_NAMESPACE";
/// The namespace that is none.
const KERNEL: &[u8] = b"kernel";

static CHOSEN: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
static HOME: OnceLock<Home> = OnceLock::new();

/// What the variable says: copied here, as the first use of the allocator takes system calls.
struct Copy(UnsafeCell<[libc::c_char; COPY_BYTES]>);

const COPY_BYTES: usize = libc::PATH_MAX as usize;

// SAFETY: written when the library is loaded, and only read afterwards.
unsafe impl Sync for Copy {}

static COPY: Copy = Copy(UnsafeCell::new([0; COPY_BYTES]));

/// Runs when the library is loaded: copies of the variables, and nothing more.
extern "C" fn load() {
    // SAFETY: the loader runs this before the program's own threads; the copy fits, and ends with a zero byte.
    unsafe {
        let value = libc::getenv(VARIABLE.as_ptr());
        if value.is_null() || *value == 0 {
            return;
        }
        let copy = match libc::strlen(value) {
            len if len < COPY_BYTES => {
                let copy = COPY.0.get().cast::<libc::c_char>();
                std::ptr::copy_nonoverlapping(value, copy, len + 1);
                copy
            }
            _ => libc::strdup(value),
        };
        CHOSEN.store(copy, Ordering::Release);
    }
    held::load();
    fork::load();
    open::load();
}

// SAFETY: the section of functions that the loader calls, without arguments that matter here.
#[unsafe(link_section = ".init_array")]
#[used]
static LOAD: extern "C" fn() = load;

/// This process's home.
#[inline]
pub(crate) fn home() -> &'static Home {
    HOME.get().unwrap_or_else(|| open_first())
}

/// Whether a namespace was named: it may not be opened yet.
#[inline]
pub(crate) fn is_chosen() -> bool {
    !CHOSEN.load(Ordering::Acquire).is_null()
}

/// What a process lacks now it may have later: the next call tries again.
static LACKING: [Home; 3] =
    [Home::Refused(Errno::MFILE), Home::Refused(Errno::NFILE), Home::Refused(Errno::NOMEM)];

#[cold]
fn open_first() -> &'static Home {
    let home = open_home();
    if let Home::Refused(errno) = home
        && let Some(lacking) =
            LACKING.iter().find(|lacking| matches!(lacking, Home::Refused(one) if *one == errno))
    {
        return lacking;
    }
    let _changing = fork::changing();
    HOME.get_or_init(|| home)
}

/// Where the engine's descriptors are put: out of the way of programs that count theirs, and below what `select(2)` can
/// have.
fn least_descriptor() -> i32 {
    const AT_MOST: u64 = 4096;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(AT_MOST * 2);
    (limit / 4 * 3).min(AT_MOST) as i32
}

fn open_home() -> Home {
    let chosen = CHOSEN.load(Ordering::Acquire);
    if chosen.is_null() {
        return Home::Kernel;
    }
    // SAFETY: a copy that ends with a zero byte and is never changed.
    let name = unsafe { CStr::from_ptr(chosen) }.to_bytes();
    if name == KERNEL {
        return Home::Kernel;
    }
    // In a set-user-id program the loader drops the library, unless it is installed for that: then whoever starts the
    // program has no say in where its objects are.
    // SAFETY: no pointers.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        complain(format_args!("a set-user-id program is not served: its objects are the kernel's"));
        return Home::Kernel;
    }
    descriptor::keep_from(least_descriptor());
    let options = Namespace::options();
    let opened = match std::str::from_utf8(name) {
        Ok(name) if !name.contains('/') => options.open_named(name),
        _ => options.open(Path::new(OsStr::from_bytes(name))),
    };
    match opened {
        Ok(namespace) => Home::User(namespace),
        Err(error) => {
            let errno = error.errno();
            if !matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM) {
                complain(format_args!("{error}; System V and POSIX IPC will fail in this process"));
            }
            Home::Refused(errno)
        }
    }
}

/// A line on standard error.
pub(crate) fn complain(what: Arguments<'_>) {
    let line = format!("ginnel: process {}: {what}\n", std::process::id());
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// The namespace, or `None` for the kernel's home.
///
/// # Errors
/// Why it could not be opened.
#[inline]
pub(crate) fn namespace() -> Result<Option<&'static Namespace>> {
    match home() {
        Home::User(namespace) => Ok(Some(namespace)),
        Home::Kernel => Ok(None),
        Home::Refused(errno) => Err(*errno),
    }
}

/// A call in the namespace, or the C library's own.
macro_rules! serve {
    (|$namespace:ident| $work:expr, else $next:expr) => {
        match $crate::home::namespace() {
            Ok(Some($namespace)) => $crate::call::answer(|| $work),
            Ok(None) => $next,
            Err(errno) => $crate::call::answer(|| Err(errno)),
        }
    };
}

pub(crate) use serve;
