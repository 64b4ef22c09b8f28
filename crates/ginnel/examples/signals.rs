//! Signals: send, catch, ignore, block, wait; to one process and to a group; a child's fault.
//!
//! In one terminal a receiver, which says its process id:
//!     cargo run --example signals -- catch TERM,USR1,RTMIN+2
//!     cargo run --example signals -- wait TERM,USR1,RTMIN+2
//!     cargo run --example signals -- read TERM,USR1,RTMIN+2
//!     cargo run --example signals -- ignore TERM,USR1
//! `catch` has a handler, `wait` blocks the signals and waits for them, `read` gets them from a descriptor.
//!
//! In another one, whoever sends:
//!     cargo run --example signals -- send PID USR1
//!     cargo run --example signals -- send PID RTMIN+2 42
//!     cargo run --example signals -- send -PGID TERM
//!     cargo run --example signals -- show PID
//!
//! And three that need no second terminal:
//!     cargo run --example signals -- burst     ten standard signals arrive as one, ten real-time ones as ten
//!     cargo run --example signals -- group     one signal to a group ends all of it
//!     cargo run --example signals -- fault     a child's SIGSEGV, caught by its parent
#![allow(unsafe_code)]

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use ginnel::notify::{Code, Group, Handler, Info, PidFd, Signal, SignalFd, SignalSet, Status, Target};

const USAGE: &str = "usage: signals catch|wait|read SIGNALS [COUNT] | ignore SIGNALS | show PID
       signals send PID|-PGID|PID/TID SIGNAL [PAYLOAD] | burst | group | fault";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["catch", signals] => catch(signals, "0"),
        ["catch", signals, count] => catch(signals, count),
        ["wait", signals] => wait(signals, "0"),
        ["wait", signals, count] => wait(signals, count),
        ["read", signals] => read(signals, "0"),
        ["read", signals, count] => read(signals, count),
        ["ignore", signals] => ignore(signals),
        ["send", target, signal] => send(target, signal, None),
        ["send", target, signal, payload] => send(target, signal, Some(payload)),
        ["show", pid] => show(pid),
        ["burst"] => burst(),
        ["group"] => group(),
        ["fault"] => fault(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("signals: {error}");
            ExitCode::FAILURE
        }
    }
}

/// By a handler: the signals are caught whatever the program does meanwhile.
fn catch(signals: &str, count: &str) -> Outcome {
    let handler = Handler::new(signals.parse::<SignalSet>()?)?;
    announce("catching", handler.signals());
    receive(count, || handler.wait())
}

/// Without a handler: blocked signals stay pending until they are waited for.
fn wait(signals: &str, count: &str) -> Outcome {
    let signals: SignalSet = signals.parse()?;
    let _blocked = signals.block()?;
    announce("waiting for", signals);
    receive(count, || signals.wait())
}

/// From a descriptor, which a program can poll together with its sockets.
fn read(signals: &str, count: &str) -> Outcome {
    let descriptor = SignalFd::new(signals.parse::<SignalSet>()?)?;
    announce("reading", descriptor.signals());
    receive(count, || descriptor.read())
}

/// Until the end of the standard input.
fn ignore(signals: &str) -> Outcome {
    let signals: SignalSet = signals.parse()?;
    for signal in signals.iter() {
        signal.ignore()?;
    }
    announce("ignoring", signals);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("still here");
    Ok(())
}

fn announce(what: &str, signals: SignalSet) {
    println!("{}: {what} {signals}", std::process::id());
}

/// Prints `count` signals; for ever with 0.
fn receive(count: &str, mut next: impl FnMut() -> ginnel::Result<Info>) -> Outcome {
    let count: u64 = count.parse().map_err(|_| "COUNT is a number")?;
    let mut received = 0;
    while count == 0 || received < count {
        println!("{}", describe(&next()?));
        received += 1;
    }
    Ok(())
}

fn describe(info: &Info) -> String {
    let how = match info.code {
        Code::User => "by kill",
        Code::Thread => "to this thread",
        Code::Queue => "queued",
        Code::Kernel => return format!("{} by the kernel", info.signal),
        _ => "otherwise",
    };
    let payload = info.payload.map_or(String::new(), |payload| format!(", payload {}", payload.int()));
    format!("{} {how}, from process {} of user {}{payload}", info.signal, info.pid, info.uid)
}

fn send(target: &str, signal: &str, payload: Option<&str>) -> Outcome {
    let (target, signal): (Target, Signal) = (target.parse()?, signal.parse()?);
    match payload {
        None => target.send(signal)?,
        Some(payload) => {
            target.queue(signal, payload.parse::<i32>().map_err(|_| "PAYLOAD is a 32-bit number")?)?;
        }
    }
    Ok(())
}

/// What a process does about signals, and whether this user may send it one.
fn show(pid: &str) -> Outcome {
    let pid = pid.parse().map_err(|_| "PID is a number")?;
    let status = Status::of(pid)?;
    println!("ignored  {}", status.ignored);
    println!("caught   {}", status.caught);
    println!("blocked  {}", status.blocked);
    println!("pending  {}", status.pending | status.thread_pending);
    println!("queued   {} of {} for user {}", status.queued, status.queued_max, status.uid);
    match Target::Process(pid).probe() {
        Ok(()) => println!("this user may signal it"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}

/// A child takes what its parent sent while it did not look.
fn burst() -> Outcome {
    let realtime = Signal::realtime(2)?;
    let (mut is_ready, ready) = std::io::pipe()?;
    let (go, mut begin) = std::io::pipe()?;
    let child = ginnel::process::fork(|| match take_all(realtime, &ready, &go) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("signals: {error}");
            1
        }
    })?;
    drop((ready, go));
    is_ready.read_exact(&mut [0])?;
    let target = Target::Process(child.pid());
    for number in 1..=10 {
        target.send(Signal::USR1)?;
        target.queue(realtime, number)?;
    }
    println!("sent 10 {} and 10 {realtime}", Signal::USR1);
    begin.write_all(b"x")?;
    succeeded(child.wait()?)
}

fn take_all(realtime: Signal, mut ready: &PipeWriter, mut go: &PipeReader) -> Outcome {
    let signals = Signal::USR1 | realtime;
    let _blocked = signals.block()?;
    ready.write_all(b"x")?;
    go.read_exact(&mut [0])?;
    let mut standard = 0;
    let mut payloads = Vec::new();
    loop {
        match signals.try_wait() {
            Ok(Info { payload: Some(payload), .. }) => payloads.push(payload.int()),
            Ok(_) => standard += 1,
            Err(error) if error.is_would_block() => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("received {standard} {} and {} {realtime}: {payloads:?}", Signal::USR1, payloads.len());
    Ok(())
}

/// Three processes in one group, as a shell's job is.
fn group() -> Outcome {
    let start = |group| Command::new("sleep").arg("1000").process_group(group).spawn();
    let first = start(0)?;
    let group = Group::of(first.id() as i32)?;
    let job = [first, start(group.id())?, start(group.id())?];
    println!("group {group} has the processes {:?}", group.members()?);
    group.send(Signal::TERM)?;
    for _ in &job {
        let end = group.reap_deadline(Duration::from_secs(10))?;
        println!("process {} ended by {}", end.pid, killer(&end)?);
    }
    println!("group {group} is {}", if group.exists()? { "still there" } else { "gone" });
    Ok(())
}

/// A process cannot go on after a fault of its own; its parent can, and says what happened.
fn fault() -> Outcome {
    let child = ginnel::process::fork(|| {
        let nowhere = std::hint::black_box(16 as *mut u8);
        // SAFETY: none, which is the point: nothing is ever mapped at 16 (vm.mmap_min_addr), so the processor faults,
        // and the process ends here.
        unsafe { nowhere.write_volatile(1) };
        0
    })?;
    let process: PidFd = child.pidfd()?;
    let end = process.reap_deadline(Duration::from_secs(10))?;
    let signal = killer(&end)?;
    println!("child {} died of {signal}: {}", end.pid, signal.meaning());
    println!("core dumped: {}", if end.code == Code::ChildDumped { "yes" } else { "no" });
    Ok(())
}

/// The signal that ended a process.
fn killer(end: &Info) -> Result<Signal, Box<dyn std::error::Error>> {
    let status = end.exit_status().ok_or("it has not ended")?;
    let signal = status.signal().ok_or_else(|| format!("it was not a signal that ended it: {status}"))?;
    Ok(Signal::from_number(signal)?)
}

fn succeeded(status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(format!("the child failed: {status}").into()) }
}
