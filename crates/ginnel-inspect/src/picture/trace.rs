#![allow(unsafe_code)]
//! `ptrace(2)`, as much of it as the picture needs: let a process run to its next stop, and say what that stop is.
//!
//! Requests are made as bare system calls: the C libraries differ in the types of `ptrace`, and in how they give back
//! what a peek read.

use crate::{Error, Result};
use std::{io, mem};

/// Why a traced process is not running.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// At the entry of a system call.
    Entry {
        /// Its number.
        number: i64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// At the exit of a system call, with its result: an errno negated where it failed.
    Exit(i64),
    /// In `fork`; the new process is traced too.
    Forked,
    /// In `execve`: the new program is there, and has not started.
    Executed,
    /// About to get a signal.
    Signal(i32),
    /// It has ended.
    Ended,
}

/// Makes the caller's parent its tracer. Async-signal-safe.
pub(super) fn trace_me() -> bool {
    // SAFETY: PTRACE_TRACEME takes no pointers.
    unsafe { request(libc::PTRACE_TRACEME as i64, 0, 0, 0) == 0 }
}

/// What the tracer wants to be told, and that whatever it traces is killed when it ends.
pub(super) fn set_options(pid: i32) -> Result<()> {
    let options = libc::PTRACE_O_EXITKILL
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    // SAFETY: PTRACE_SETOPTIONS takes a number.
    let done = unsafe { request(libc::PTRACE_SETOPTIONS as i64, pid, 0, options as usize) };
    checked(done, "PTRACE_SETOPTIONS", pid)
}

/// Lets the process run to the next entry or exit of a system call, or other stop.
pub(super) fn run_to_system_call(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: PTRACE_SYSCALL takes a number.
    let done = unsafe { request(libc::PTRACE_SYSCALL as i64, pid, 0, signal as usize) };
    checked(done, "PTRACE_SYSCALL", pid)
}

/// Lets the process run to its next stop other than system calls.
pub(super) fn run(pid: i32) -> Result<()> {
    // SAFETY: PTRACE_CONT takes a number.
    let done = unsafe { request(libc::PTRACE_CONT as i64, pid, 0, 0) };
    checked(done, "PTRACE_CONT", pid)
}

/// Lets the process run, and traces it no more.
pub(super) fn detach(pid: i32) -> Result<()> {
    // SAFETY: PTRACE_DETACH takes a number.
    let done = unsafe { request(libc::PTRACE_DETACH as i64, pid, 0, 0) };
    checked(done, "PTRACE_DETACH", pid)
}

/// Waits for the next stop of the process, or its end.
///
/// `EINTR` is returned: a caller that counts on a signal to get out of a launch gets out.
pub(super) fn wait(pid: i32) -> Result<Stop> {
    let mut status = 0;
    // SAFETY: waitpid writes to `status` only.
    if unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } < 0 {
        return Err(Error::last("waitpid", format!("process {pid}")));
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Stop::Ended);
    }
    const SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;
    match (libc::WSTOPSIG(status), status >> 16) {
        (SYSTEM_CALL, _) => system_call(pid),
        (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => Ok(Stop::Executed),
        (libc::SIGTRAP, 1..) => Ok(Stop::Forked),
        (signal, _) => Ok(Stop::Signal(signal)),
    }
}

/// Kills the process, and waits until it has ended. Only for one that has not been waited for to its end.
pub(super) fn kill(pid: i32) {
    // SAFETY: kill takes numbers, and this process number is not anyone else's before it has been waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    loop {
        match wait(pid) {
            Ok(Stop::Ended) => return,
            Ok(_) => {}
            // There is no giving up here: what is not waited for stays as a zombie.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Two descriptors at an address of the stopped process: what `pipe(2)` has written.
pub(super) fn read_two_descriptors(pid: i32, address: u64) -> Result<[i32; 2]> {
    const { assert!(size_of::<usize>() == size_of::<[i32; 2]>(), "a word holds two descriptors on 64-bit only") };
    let mut word = 0usize;
    // SAFETY: the system call, unlike the C library's function, writes the word that it read to its last argument.
    let done = unsafe {
        request(libc::PTRACE_PEEKDATA as i64, pid, address as usize, (&raw mut word).expose_provenance())
    };
    checked(done, "PTRACE_PEEKDATA", pid)?;
    let bytes = word.to_ne_bytes();
    let descriptor = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok([descriptor(0), descriptor(4)])
}

/// `struct ptrace_syscall_info`, of which not every C library has a definition.
#[repr(C)]
#[derive(Default)]
struct SystemCallInfo {
    operation: u8,
    architecture: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    /// At an entry: the call's number and six arguments. At an exit: its result.
    words: [u64; 8],
}

fn system_call(pid: i32) -> Result<Stop> {
    const GET_SYSCALL_INFO: i64 = 0x420e;
    const EXIT: u8 = 2;
    let mut info = SystemCallInfo::default();
    // SAFETY: the kernel writes at most the size given, and any bytes are a valid SystemCallInfo.
    let done = unsafe {
        let info = (&raw mut info).expose_provenance();
        request(GET_SYSCALL_INFO, pid, mem::size_of::<SystemCallInfo>(), info)
    };
    if done < 0 {
        return Err(Error::last("ptrace(PTRACE_GET_SYSCALL_INFO)", format!("process {pid}"))
            .with_hint("it needs Linux 5.3"));
    }
    let [number, arguments @ .., _] = info.words;
    Ok(if info.operation == EXIT {
        Stop::Exit(number as i64)
    } else {
        Stop::Entry { number: number as i64, arguments }
    })
}

/// # Safety
/// `data` is what the request wants it to be.
unsafe fn request(request: i64, pid: i32, address: usize, data: usize) -> i64 {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_ptrace, request, libc::c_long::from(pid), address, data) }
}

fn checked(done: i64, request: &'static str, pid: i32) -> Result<()> {
    if done >= 0 {
        return Ok(());
    }
    let error = Error::new("ptrace", format!("{request} of process {pid}"), io::Error::last_os_error());
    Err(match error.raw_os_error() {
        Some(libc::EPERM) => {
            error.with_hint("the kernel allows no tracing here: see kernel.yama.ptrace_scope")
        }
        _ => error,
    })
}
