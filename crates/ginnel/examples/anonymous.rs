//! Memory that a parent shares with its children: each adds to one counter and leaves its process id.
//!
//! The memory has no name and needs none: the children get it by the fork.
//!
//! ```text
//! $ cargo run --example anonymous -- 4 100000
//! child 0 was process 4712
//! ...
//! counted 400000
//! ```

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use ginnel::memory::Anonymous;
use ginnel::process::fork;

const USAGE: &str = "usage: anonymous CHILDREN COUNT";

const COUNTER: usize = 0;
const PIDS: usize = 8;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [children, count] = &args[..] else { return usage() };
    let (Ok(children), Ok(count)) = (children.parse(), count.parse()) else { return usage() };
    match run(children, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anonymous: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn run(children: usize, count: u64) -> ginnel::Result<()> {
    let shared = Anonymous::map(PIDS + children * size_of::<u32>())?;
    let pids = shared.array::<u32>(PIDS, children)?;
    let counter = shared.atomic_u64(COUNTER)?;

    let mut family = Vec::new();
    for i in 0..children {
        family.push(fork(|| {
            for _ in 0..count {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            match pids.set(i, std::process::id()) {
                Ok(()) => 0,
                Err(_) => 1,
            }
        })?);
    }
    for child in &family {
        child.wait()?;
    }
    for (i, pid) in pids.iter().enumerate() {
        println!("child {i} was process {}", pid?);
    }
    println!("counted {}", counter.load(Ordering::Relaxed));
    Ok(())
}
