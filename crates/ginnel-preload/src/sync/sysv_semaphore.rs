//! `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::sync::sysv_semaphore::{COUNT_MAX, Status, SysvSemaphores, VALUE_MAX};
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use libc::{c_int, c_ushort, key_t, sembuf, semid_ds, size_t, timespec};

use crate::call::mapped;
use crate::home::serve;
use crate::next::next;
use crate::open::Open;
use crate::sysv;

const SEM_STAT: c_int = 18;
const SEM_INFO: c_int = 19;
const SEM_STAT_ANY: c_int = 20;

/// `struct seminfo`.
#[repr(C)]
struct Info {
    map: c_int,
    mni: c_int,
    mns: c_int,
    mnu: c_int,
    msl: c_int,
    opm: c_int,
    ume: c_int,
    usz: c_int,
    vmx: c_int,
    aem: c_int,
}

static OPEN: Open<SysvSemaphores> = Open::new();

/// A call on an open set. One that is removed is open no more; a call can also be wrong with a set that is there, whose
/// handle knows what this process has to undo.
#[inline]
fn on_set<T>(home: &Namespace, id: i32, call: impl FnOnce(&SysvSemaphores) -> Result<T>) -> Result<T> {
    let outcome = OPEN.with(id, || SysvSemaphores::open(home, id), call);
    if matches!(outcome, Err(Errno::INVAL | Errno::IDRM)) {
        forget_removed(home, id);
    }
    outcome
}

#[cold]
fn forget_removed(home: &Namespace, id: i32) {
    if matches!(home.stat(Kind::SysvSemaphores, id), Err(Errno::INVAL | Errno::IDRM)) {
        OPEN.forget(id);
    }
}

/// `semget(2)`.
///
/// # Safety
/// None is needed: it is the C library's symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn semget(key: key_t, count: c_int, flags: c_int) -> c_int {
    serve!(
        |home| SysvSemaphores::get(home, key, count, flags),
        else next!(semget(key: key_t, count: c_int, flags: c_int) -> c_int)
    )
}

/// `semop(2)`.
///
/// # Safety
/// As the C library's: `count` operations stand there.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn semop(id: c_int, operations: *mut sembuf, count: size_t) -> c_int {
    serve!(
        // SAFETY: the caller's promise.
        |home| unsafe { operate(home, id, operations, count, Patience::Endless) },
        else next!(semop(id: c_int, operations: *mut sembuf, count: size_t) -> c_int)
    )
}

/// `semtimedop(2)`.
///
/// # Safety
/// As [`semop`]; `timeout` is one or null.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn semtimedop(
    id: c_int,
    operations: *mut sembuf,
    count: size_t,
    timeout: *const timespec,
) -> c_int {
    serve!(|home| {
        // SAFETY: the caller's promise.
        let patience = unsafe { patience(timeout)? };
        // SAFETY: as above.
        unsafe { operate(home, id, operations, count, patience) }
    }, else next!(semtimedop(id: c_int, operations: *mut sembuf, count: size_t, timeout: *const timespec) -> c_int))
}

/// # Safety
/// As [`semtimedop`].
unsafe fn patience(timeout: *const timespec) -> Result<Patience> {
    if timeout.is_null() {
        return Ok(Patience::Endless);
    }
    mapped(timeout)?;
    // SAFETY: the caller's promise.
    let timeout = unsafe { timeout.read_unaligned() };
    let seconds = u64::try_from(timeout.tv_sec).map_err(|_| Errno::INVAL)?;
    let nanoseconds =
        u32::try_from(timeout.tv_nsec).ok().filter(|n| *n < 1_000_000_000).ok_or(Errno::INVAL)?;
    let until = Instant::now().checked_add(Duration::new(seconds, nanoseconds));
    Ok(until.map_or(Patience::Endless, Patience::Until))
}

/// # Safety
/// As [`semop`].
#[inline]
unsafe fn operate(
    home: &Namespace,
    id: c_int,
    operations: *mut sembuf,
    count: size_t,
    patience: Patience,
) -> Result<c_int> {
    // As the kernel, before it looks for the set.
    if count < 1 || id < 0 {
        return Err(Errno::INVAL);
    }
    if count as u64 > home.limits().semopm {
        return Err(Errno::TOOBIG);
    }
    mapped(operations)?;
    // SAFETY: the caller's promise.
    let operations = unsafe { std::slice::from_raw_parts(operations, count) };
    match on_set(home, id, |set| set.operate(operations, patience)) {
        Ok(()) => Ok(0),
        Err(Errno::TIMEDOUT) => Err(Errno::AGAIN),
        Err(errno) => Err(errno),
    }
}

/// `semctl(2)`. In C it has a variable number of arguments, of which the fourth is passed as any other.
///
/// # Safety
/// As the C library's: `argument` is what the command wants.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn semctl(id: c_int, number: c_int, command: c_int, argument: usize) -> c_int {
    serve!(
        // SAFETY: the caller's promise.
        |home| unsafe { control(home, id, number, command, argument) },
        else next!(semctl(id: c_int, number: c_int, command: c_int, argument: usize) -> c_int)
    )
}

fn index(number: c_int) -> Result<usize> {
    usize::try_from(number).map_err(|_| Errno::INVAL)
}

/// # Safety
/// As [`semctl`].
unsafe fn control(
    home: &Namespace,
    id: c_int,
    number: c_int,
    command: c_int,
    argument: usize,
) -> Result<c_int> {
    if id < 0 {
        return Err(Errno::INVAL);
    }
    let values = argument as *mut c_ushort;
    let status = argument as *mut semid_ds;
    match command {
        libc::GETVAL => on_set(home, id, |set| Ok(set.value(index(number)?)?.into())),
        libc::GETPID => on_set(home, id, |set| Ok(set.last_pid(index(number)?)? as c_int)),
        libc::GETNCNT => on_set(home, id, |set| Ok(set.waiting(index(number)?)? as c_int)),
        libc::GETZCNT => on_set(home, id, |set| Ok(set.waiting_zero(index(number)?)? as c_int)),
        libc::SETVAL => {
            let value = argument as c_int;
            let value = u16::try_from(value).ok().filter(|value| *value <= VALUE_MAX).ok_or(Errno::RANGE)?;
            on_set(home, id, |set| set.set_value(index(number)?, value)).map(|()| 0)
        }
        libc::GETALL => on_set(home, id, |set| {
            let mut all = vec![0; set.count()];
            set.values(&mut all)?;
            mapped(values)?;
            // SAFETY: the caller's promise: there is room for all of them.
            unsafe { std::ptr::copy_nonoverlapping(all.as_ptr(), values, all.len()) };
            Ok(0)
        }),
        libc::SETALL => on_set(home, id, |set| {
            mapped(values)?;
            // SAFETY: the caller's promise: as many as the set has.
            let all = unsafe { std::slice::from_raw_parts(values, set.count().min(COUNT_MAX)) };
            set.set_values(all).map(|()| 0)
        }),
        libc::IPC_RMID => {
            SysvSemaphores::remove(home, id)?;
            OPEN.forget(id);
            Ok(0)
        }
        libc::IPC_SET => {
            mapped(status)?;
            // SAFETY: the caller's promise.
            let asked = unsafe { status.read_unaligned() };
            home.set(Kind::SysvSemaphores, id, sysv::change(&asked.sem_perm))?;
            Ok(0)
        }
        libc::IPC_STAT => {
            let found = SysvSemaphores::status(home, id)?;
            mapped(status)?;
            // SAFETY: the caller's promise.
            unsafe { status.write_unaligned(filled(&found)) };
            Ok(0)
        }
        SEM_STAT | SEM_STAT_ANY => {
            let id = sysv::id_at(home, Kind::SysvSemaphores, id)?;
            let found = SysvSemaphores::status(home, id)?;
            mapped(status)?;
            // SAFETY: the caller's promise.
            unsafe { status.write_unaligned(filled(&found)) };
            Ok(id)
        }
        libc::IPC_INFO | SEM_INFO => {
            let into = argument as *mut Info;
            mapped(into)?;
            let (info, last) = info(home, command == SEM_INFO)?;
            // SAFETY: the caller's promise.
            unsafe { into.write_unaligned(info) };
            Ok(last)
        }
        _ => Err(Errno::INVAL),
    }
}

fn filled(status: &Status) -> semid_ds {
    // SAFETY: numbers only, all of which may be 0.
    let mut filled: semid_ds = unsafe { std::mem::zeroed() };
    filled.sem_perm = sysv::permissions(&status.object);
    filled.sem_otime = status.last_operation as _;
    filled.sem_ctime = status.last_change as _;
    filled.sem_nsems = status.count as _;
    filled
}

/// The limits, or what there is, and the highest index.
fn info(home: &Namespace, used: bool) -> Result<(Info, c_int)> {
    let sets = home.list(Kind::SysvSemaphores)?;
    let limits = home.limits();
    let mut info = Info {
        map: i32::MAX,
        mni: i32::MAX,
        mns: i32::MAX,
        mnu: i32::MAX,
        msl: sysv::int(limits.semmsl),
        opm: sysv::int(limits.semopm),
        ume: sysv::int(limits.semopm),
        usz: 20,
        vmx: sysv::int(limits.semvmx),
        aem: sysv::int(limits.semvmx),
    };
    if used {
        info.usz = sysv::int(sets.len() as u64);
        let counts = sets.iter().filter_map(|set| set.status).map(|status| status.extent);
        info.aem = sysv::int(counts.sum());
    }
    Ok((info, sysv::last_index(sets.len())))
}
