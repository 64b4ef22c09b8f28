//! `SIGBUS` in our mappings becomes an error: `sigaction(2)`, `mmap(2)`.
//!
//! # What a user sees
//! The kernel answers an access to a mapped page that is not there (the file was truncated, its disk failed, its file
//! system is full) with `SIGBUS`, which kills. Here, the access comes back and the call that made it fails with
//! `EFAULT`, as a system call given that memory would; [`Mapping::check`](super::Mapping::check) tells it of accesses
//! through references to atomics.
//!
//! A handler for `SIGBUS` is installed with the first mapping of the process and stays. A `SIGBUS` that is not about
//! one of our mappings goes to the handler that was there before, under its own flags and mask, and kills where that
//! would have been the default. Two limits: a program that installs a handler *later* must call the one it replaced,
//! and a thread that blocks `SIGBUS` is killed (the kernel delivers no blocked fault).
//!
//! # How it works inside
//! The handler finds the mapping in a list that it walks without a lock, notes the page as lost, and *then* puts an
//! anonymous page of zeros in its place; the faulting instruction runs again, on memory that is there. Whoever copies
//! looks for lost pages after the copy, so no zeros are ever taken for data. A lost page stays lost for this mapping,
//! even if the file grows again: what is written to it would go nowhere.
//!
//! Entries are never freed, only used again, so that the handler may stand on any of them. Each has a version that is
//! odd while the entry changes: the handler skips such an entry, which cannot be the one of a faulting address, since
//! its mapping is borrowed by the code that faulted.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::wait::check;

/// A mapping that the handler knows, until it is dropped. Drop it before the memory is unmapped.
#[derive(Debug)]
pub(super) struct Watch(&'static Entry);

#[derive(Debug)]
struct Entry {
    /// Odd while the fields below change.
    version: AtomicU32,
    start: AtomicUsize,
    /// 0 for an entry that is not in use.
    end: AtomicUsize,
    writable: AtomicBool,
    /// The hull of the lost pages, as addresses; empty at first (`usize::MAX` to 0).
    lost_start: AtomicUsize,
    lost_end: AtomicUsize,
    /// The size of a page that was replaced: larger than the system's for huge pages, and 0 for none yet.
    lost_page_bytes: AtomicUsize,
    /// Set before the entry is published; entries stay in the list for ever.
    next: AtomicPtr<Entry>,
}

/// The list the handler walks.
static HEAD: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// Entries in the list that nobody uses, and whether the handler is installed.
static REGISTRY: Mutex<Registry> = Mutex::new(Registry { free: Vec::new(), installed: false });

struct Registry {
    free: Vec<&'static Entry>,
    installed: bool,
}

/// What was to be done on `SIGBUS` before the handler was installed: leaked, as the handler may read it at any time.
/// Null for the default.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

impl Watch {
    /// Tells the handler of a mapping.
    pub(super) fn new(memory: Range<usize>, writable: bool) -> Result<Watch, Errno> {
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        if !registry.installed {
            install()?;
            registry.installed = true;
        }
        let entry = registry.free.pop().unwrap_or_else(Entry::publish);
        entry.version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        entry.start.store(memory.start, Ordering::Relaxed);
        entry.end.store(memory.end, Ordering::Relaxed);
        entry.writable.store(writable, Ordering::Relaxed);
        entry.lost_start.store(usize::MAX, Ordering::Relaxed);
        entry.lost_end.store(0, Ordering::Relaxed);
        entry.lost_page_bytes.store(0, Ordering::Relaxed);
        entry.version.fetch_add(1, Ordering::Release);
        Ok(Watch(entry))
    }

    /// Notes that the mapping is read-only from now on.
    pub(super) fn set_read_only(&self) {
        self.0.writable.store(false, Ordering::Relaxed);
    }

    /// The addresses among which pages were lost; empty when none was.
    ///
    /// A caller that has accessed the memory before sees every page that its accesses lost, and every page that
    /// was lost by others and whose zeros it may have read.
    pub(super) fn lost(&self) -> Range<usize> {
        self.witness().lost()
    }

    /// What tells the same, apart from this; not to be asked after this is dropped.
    pub(super) fn witness(&self) -> Witness {
        Witness(self.0)
    }

    /// The size of the pages that were replaced, if any was.
    pub(super) fn lost_page_bytes(&self) -> Option<usize> {
        Some(self.0.lost_page_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

/// See [`Watch::witness`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness(&'static Entry);

impl Witness {
    /// As [`Watch::lost`].
    pub(super) fn lost(self) -> Range<usize> {
        // Orders the accesses to the memory, which may have read a page put there by another thread's handler, before
        // the loads of what that handler had noted before it put the page there.
        fence(Ordering::Acquire);
        self.0.lost_start.load(Ordering::Relaxed)..self.0.lost_end.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.version.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.0.end.store(0, Ordering::Relaxed);
        self.0.version.fetch_add(1, Ordering::Release);
        registry.free.push(self.0);
    }
}

impl Entry {
    /// A new entry, at the head of the list. The caller holds the registry's lock.
    fn publish() -> &'static Entry {
        let entry: &'static Entry = Box::leak(Box::new(Entry {
            version: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            lost_start: AtomicUsize::new(usize::MAX),
            lost_end: AtomicUsize::new(0),
            lost_page_bytes: AtomicUsize::new(0),
            next: AtomicPtr::new(HEAD.load(Ordering::Relaxed)),
        }));
        HEAD.store(ptr::from_ref(entry).cast_mut(), Ordering::Release);
        entry
    }

    /// The mapping's end and whether it is writable, if the address lies in it. Async-signal-safe.
    fn covers(&self, address: usize) -> Option<(Range<usize>, bool)> {
        let before = self.version.load(Ordering::Acquire);
        let memory = self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed);
        let writable = self.writable.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before;
        (stable && memory.contains(&address)).then_some((memory, writable))
    }
}

fn install() -> Result<(), Errno> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `old` is valid for the kernel's answer.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), old.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it filled `old`.
    PREVIOUS.store(Box::leak(Box::new(unsafe { old.assume_init() })), Ordering::Release);
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sa_sigaction = on_sigbus as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and is async-signal-safe.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const new, old.as_mut_ptr()) })?;
    // Another thread may have installed its own in between.
    // SAFETY: the call succeeded, so it filled `old`.
    PREVIOUS.store(Box::leak(Box::new(unsafe { old.assume_init() })), Ordering::Release);
    Ok(())
}

/// The handler: async-signal-safe throughout, and leaves `errno` as it was.
extern "C" fn on_sigbus(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a filled siginfo_t; a SIGBUS of the kernel's own has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let is_missing_page = matches!(code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR);
    if is_missing_page && replace_page(address) {
        return;
    }
    // SAFETY: the arguments are the kernel's.
    unsafe { as_before(signal, info, context, code) }
}

/// Puts zeros in the place of the missing page if it is in a mapping of ours: whether it did.
fn replace_page(address: usize) -> bool {
    let mut next = HEAD.load(Ordering::Acquire);
    // SAFETY: entries are leaked, and whole before they are published.
    while let Some(entry) = unsafe { next.as_ref() } {
        if let Some((memory, writable)) = entry.covers(address) {
            return replace_page_of(entry, memory, writable, address);
        }
        next = entry.next.load(Ordering::Relaxed);
    }
    false
}

/// The largest huge pages of any processor that Linux runs on: 16 GiB.
const PAGE_BYTES_MAX: usize = if usize::BITS == 64 { 16 << (usize::BITS / 2 - 2) } else { 1 << 30 };

fn replace_page_of(entry: &Entry, memory: Range<usize>, writable: bool, address: usize) -> bool {
    let write = if writable { ProtFlags::WRITE } else { ProtFlags::empty() };
    let mut page_bytes = rustix::param::page_size();
    // A part of a huge page cannot be replaced: EINVAL, until the size is right. So what is tried next is a part of
    // that huge page, or all of it, even where the mapping's length (a System V segment's) does not count all of it.
    while page_bytes <= PAGE_BYTES_MAX {
        let page = address & !(page_bytes - 1);
        if page < memory.start {
            return false;
        }
        // Noted before the page is there: whoever reads its zeros finds the note.
        entry.lost_start.fetch_min(page, Ordering::SeqCst);
        entry.lost_end.fetch_max(page + page_bytes, Ordering::SeqCst);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: these addresses belong to a mapping of ours (whole pages of it), which the faulting code has
        // borrowed. It holds no Rust object: all access is by raw copies and atomics, for which a page of zeros will
        // do.
        let replaced = unsafe {
            rustix::mm::mmap_anonymous(page as *mut c_void, page_bytes, ProtFlags::READ | write, flags)
        };
        match replaced {
            Ok(_) => {
                entry.lost_page_bytes.store(page_bytes, Ordering::Relaxed);
                return true;
            }
            Err(Errno::INVAL) => page_bytes *= 2,
            Err(_) => return false,
        }
    }
    false
}

/// Does what would have been done without our handler.
///
/// # Safety
/// The arguments are those the kernel gave to the handler.
unsafe fn as_before(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void, code: i32) {
    let is_fault = code > 0 && code != libc::BUS_MCEERR_AO;
    let previous = PREVIOUS.load(Ordering::Acquire);
    // SAFETY: null, or leaked.
    let Some(previous) = (unsafe { previous.as_ref() }) else {
        return by_default(signal, is_fault);
    };
    match previous.sa_sigaction {
        // A fault kills even where it is ignored.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => by_default(signal, is_fault),
        handler => {
            // SAFETY: a program's own handler for this signal, called with what the kernel would have given it, under
            // the mask and the flags that it was installed with.
            unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const previous.sa_mask, ptr::null_mut());
                if previous.sa_flags & libc::SA_NODEFER != 0 {
                    let mut own = MaybeUninit::uninit();
                    libc::sigemptyset(own.as_mut_ptr());
                    libc::sigaddset(own.as_mut_ptr(), signal);
                    libc::pthread_sigmask(libc::SIG_UNBLOCK, own.as_ptr(), ptr::null_mut());
                }
                if previous.sa_flags & libc::SA_RESETHAND != 0 {
                    // That one only: ours stays.
                    PREVIOUS.store(ptr::null_mut(), Ordering::Release);
                }
                if previous.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
                        std::mem::transmute(handler);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(i32) = std::mem::transmute(handler);
                    handler(signal);
                }
            }
        }
    }
}

/// The default: the process is killed, by the fault itself where it was one, so that a core dump shows the place.
fn by_default(signal: i32, is_fault: bool) {
    // SAFETY: both calls are async-signal-safe. The signal is blocked while its handler runs: what is raised here, or
    // faults again, is delivered on return.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if !is_fault {
            libc::raise(signal);
        }
    }
}
