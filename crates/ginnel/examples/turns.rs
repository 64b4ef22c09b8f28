//! A writer and a reader in strict turn: one System V segment, two semaphores, writer 1 and reader 0.
//!
//! In two terminals, in any order:
//!     cargo run --example turns -- read 0x7a 3
//!     cargo run --example turns -- write 0x7a one two three
//! and at the end:
//!     cargo run --example turns -- remove 0x7a
//!
//! Either may be killed while it has its turn, and started again: a turn that was not ended comes back to the side that
//! had it. So the text that a killed writer had half written is written anew before anybody reads it, and the text that a
//! killed reader had not done with is read again. `GINNEL_THINK_MS` makes each turn take that long.
//!
//! The trick is in how a turn ends. Taking it with undo lets the kernel give it back; but once the turn has been passed
//! on, it must not come back any more. `Permit::pass_on` does both in one atomic operation.

use std::process::ExitCode;
use std::time::Duration;

use ginnel::Result;
use ginnel::memory::{Mapping, SysvSegment};
use ginnel::sync::SysvSemaphores;
use ginnel::sysv::Key;

const USAGE: &str = "usage: turns write KEY TEXT... | read KEY COUNT | remove KEY";
const WRITER: u16 = 0;
const READER: u16 = 1;
const SEGMENT_BYTES: usize = 4096;
const TEXT_AT: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["write", key, ref texts @ ..] => write(key, texts),
        ["read", key, count] if count.parse::<usize>().is_ok() => read(key, count.parse().unwrap()),
        ["remove", key] => remove(key),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turns: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever comes first makes both; nobody sees the semaphores without their values.
fn open(key: &str) -> Result<(SysvSemaphores, Mapping)> {
    let key: Key = key.parse()?;
    let memory = SysvSegment::create(key, SEGMENT_BYTES)?.attach()?;
    let turns = SysvSemaphores::create_with(key, &[1, 0], Duration::from_secs(5))?;
    Ok((turns, memory))
}

fn write(key: &str, texts: &[&str]) -> Result<()> {
    let (turns, memory) = open(key)?;
    for text in texts {
        let turn = turns.acquire(&[(WRITER, 1)])?;
        let text = &text.as_bytes()[..text.len().min(SEGMENT_BYTES - TEXT_AT)];
        memory.write_at(0, text.len() as u64)?;
        memory.write_bytes(TEXT_AT, text)?;
        think();
        turn.pass_on(&[(READER, 1)])?;
    }
    Ok(())
}

fn read(key: &str, count: usize) -> Result<()> {
    let (turns, memory) = open(key)?;
    for _ in 0..count {
        let turn = turns.acquire(&[(READER, 1)])?;
        let len = memory.read_at::<u64>(0)? as usize;
        let text = memory.read_vec(TEXT_AT..TEXT_AT.saturating_add(len))?;
        think();
        println!("{}", String::from_utf8_lossy(&text));
        turn.pass_on(&[(WRITER, 1)])?;
    }
    Ok(())
}

fn remove(key: &str) -> Result<()> {
    let key: Key = key.parse()?;
    SysvSemaphores::open(key)?.remove()?;
    SysvSegment::open(key)?.remove()
}

fn think() {
    let time = std::env::var("GINNEL_THINK_MS").ok().and_then(|time| time.parse().ok()).unwrap_or(0);
    std::thread::sleep(Duration::from_millis(time));
}
