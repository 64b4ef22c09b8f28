//! Why does the reader never see the end? Because somebody still holds the writing end of its pipe.
//!
//!     cargo run --example leaked_end -- demo             makes such a pipe, and finds out who
//!     cargo run --example leaked_end -- find PID FD      who else holds the pipe that process PID has as FD
//!
//! Prints each holder's process id, name, descriptor and direction. Exit code 1 when there is a writer besides PID.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ginnel::stream::pipe::inherit;
use ginnel::stream::{ByteRead, ByteWrite, pipe};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match &arguments[..] {
        ["demo"] => demo(),
        ["find", pid, fd] => find(pid, fd),
        _ => {
            eprintln!("usage: leaked_end demo | find PID FD");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("leaked_end: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One end of a pipe in some process.
struct Holder {
    pid: String,
    comm: String,
    fd: String,
    writes: bool,
}

/// Whoever has the pipe of this name ("pipe:[4711]") open, as far as this user may look.
fn holders(pipe: &str) -> Vec<Holder> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        // `/proc/self` and `/proc/sys` are no processes.
        if pid.parse::<u32>().is_err() {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            if fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == pipe) {
                let fd = descriptor.file_name().to_string_lossy().into_owned();
                let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let writes = writes(&pid, &fd);
                found.push(Holder { pid: pid.clone(), comm: comm.trim().into(), fd, writes });
            }
        }
    }
    found
}

/// Whether a descriptor is open for writing: the last octal digit of its flags.
fn writes(pid: &str, fd: &str) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim();
    !flags.ends_with('0')
}

/// Prints the pipe's holders besides `pid` itself: how many of them write.
fn report(pid: &str, pipe: &str) -> usize {
    let others: Vec<_> = holders(pipe).into_iter().filter(|holder| holder.pid != pid).collect();
    for holder in &others {
        let does = if holder.writes { "writes" } else { "reads" };
        println!("{pipe}: process {} ({}) {does} it as descriptor {}", holder.pid, holder.comm, holder.fd);
    }
    others.iter().filter(|holder| holder.writes).count()
}

fn find(pid: &str, fd: &str) -> std::io::Result<usize> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
    Ok(report(pid, &link.to_string_lossy()))
}

/// A reader, a writer that is done, and a bystander that inherited the writing end and does not know.
fn demo() -> std::io::Result<usize> {
    let (reader, writer) = pipe()?;
    let mut command = Command::new("sleep");
    inherit(&mut command, writer.as_fd().try_clone_to_owned()?);
    let mut bystander = command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    drop(command);

    writer.write_all_deadline(b"that was all\n", Duration::from_secs(1))?;
    drop(writer);
    let mut buffer = [0; 64];
    let len = reader.try_read(&mut buffer)?;
    print!("read: {}", String::from_utf8_lossy(&buffer[..len]));
    match reader.read_deadline(&mut buffer, Duration::from_millis(200)) {
        Ok(_) => println!("read the end"),
        Err(error) if error.is_timed_out() => println!("no end: somebody still holds the writing end"),
        Err(error) => return Err(error.into()),
    }
    let me = std::process::id().to_string();
    let leaks = find(&me, &reader.as_fd().as_raw_fd().to_string())?;

    bystander.kill()?;
    bystander.wait()?;
    let len = reader.read_deadline(&mut buffer, Duration::from_secs(10))?;
    println!("after its death: {}", if len == 0 { "the end" } else { "more" });
    Ok(leaks)
}
