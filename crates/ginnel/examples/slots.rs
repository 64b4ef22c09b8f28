//! Counting semaphores and locks that guard slots: what is held, and what becomes of it when its holder is killed.
//!
//! A System V set; several units of several semaphores are taken at once or not at all, and come back when the holder is
//! killed:
//!     cargo run --example slots -- make 0x51 5 2
//!     cargo run --example slots -- take 0x51 0:3 1:1      (holds them until Enter, or until it is killed)
//!     cargo run --example slots -- show 0x51
//!     cargo run --example slots -- remove 0x51
//! A POSIX named semaphore; a killed holder's unit is lost:
//!     cargo run --example slots -- named /slots 2         (made with 2 units by whoever comes first)
//! A POSIX unnamed semaphore, shared by forked children, of whom no more than that many work at a time:
//!     cargo run --example slots -- unnamed 2 6
//! Ranges of a file, one after the other with Enter; two of these in opposite order are a deadlock, which is refused:
//!     cargo run --example slots -- lock FILE exclusive 0..10 10..20
//!     cargo run --example slots -- lock FILE exclusive 10..20 0..10

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ginnel::memory::Anonymous;
use ginnel::sync::record_lock::Owner;
use ginnel::sync::{LockKind, PosixSemaphore, RecordLocks, SysvSemaphores, UnnamedSemaphore};
use ginnel::sysv::Key;

const USAGE: &str = "usage: slots make KEY UNITS... | take KEY INDEX:UNITS... | show KEY | remove KEY
       slots named /NAME UNITS | unnamed UNITS CHILDREN | lock FILE shared|exclusive START..END...";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["make", key, ref units @ ..] if !units.is_empty() => make(key, units),
        ["take", key, ref units @ ..] if !units.is_empty() => take(key, units),
        ["show", key] => show(key),
        ["remove", key] => remove(key),
        ["named", name, units] => named(name, units),
        ["unnamed", units, children] => unnamed(units, children),
        ["lock", file, "shared", ref ranges @ ..] => lock(file, LockKind::Shared, ranges),
        ["lock", file, "exclusive", ref ranges @ ..] => lock(file, LockKind::Exclusive, ranges),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slots: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(key: &str, units: &[&str]) -> Outcome {
    let units = units.iter().map(|units| units.parse()).collect::<Result<Vec<u16>, _>>()?;
    let key: Key = key.parse()?;
    SysvSemaphores::options().create_new(true).open_with(key, &units, Duration::from_secs(5))?;
    Ok(())
}

fn take(key: &str, units: &[&str]) -> Outcome {
    let mut wanted = Vec::new();
    for text in units {
        let (index, units) = text.split_once(':').ok_or(USAGE)?;
        wanted.push((index.parse()?, units.parse()?));
    }
    let set = SysvSemaphores::open(key.parse::<Key>()?)?;
    let permit = set.acquire(&wanted)?;
    println!("held");
    wait_for_enter()?;
    Ok(permit.release()?)
}

fn show(key: &str) -> Outcome {
    let set = SysvSemaphores::open(key.parse::<Key>()?)?;
    for (index, value) in set.values()?.iter().enumerate() {
        println!("{index}: {value} free, {} waiting", set.waiting(index as u16)?);
    }
    Ok(())
}

fn remove(key: &str) -> Outcome {
    Ok(SysvSemaphores::open(key.parse::<Key>()?)?.remove()?)
}

fn named(name: &str, units: &str) -> Outcome {
    let semaphore = PosixSemaphore::create(name, units.parse()?)?;
    let _unit = semaphore.acquire()?;
    println!("held, {} left", semaphore.value()?);
    wait_for_enter()
}

fn unnamed(units: &str, children: &str) -> Outcome {
    let slots = UnnamedSemaphore::anonymous(units.parse()?)?;
    let memory = Anonymous::map(4096)?;
    let (working, most) = (memory.atomic_u32(0)?, memory.atomic_u32(64)?);
    let work = || {
        let Ok(_slot) = slots.acquire() else { return 1 };
        most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        working.fetch_sub(1, Ordering::SeqCst);
        0
    };
    let children = (0..children.parse::<u32>()?).map(|_| ginnel::process::fork(work));
    let children = children.collect::<Result<Vec<_>, _>>()?;
    for child in &children {
        if !child.wait()?.success() {
            return Err("a child failed".into());
        }
    }
    println!("{} children, {} at a time at the most", children.len(), most.load(Ordering::SeqCst));
    Ok(())
}

fn lock(file: &str, kind: LockKind, ranges: &[&str]) -> Outcome {
    // The process as the owner: that is what the kernel finds deadlocks among.
    let locks = RecordLocks::options().create(true).owner(Owner::Process).open(file)?;
    let mut guards = Vec::new();
    for text in ranges {
        let (start, end) = text.split_once("..").ok_or(USAGE)?;
        let (start, end) = (start.parse::<u64>()?, end.parse::<u64>()?);
        if let Some(holder) = locks.holder(start..end, kind)? {
            println!("waits: {:?} has {} {:?}", holder.pids, holder.range, holder.kind);
        }
        guards.push(locks.lock(start..end, kind)?);
        println!("locked {start}..{end}");
        wait_for_enter()?;
    }
    Ok(())
}

fn wait_for_enter() -> Outcome {
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
