//! A mapped file with record locks: writers take turns, readers read together, and nobody sees half a text.
//!
//! The lock covers only the part of the file that is used, so that others can work on other parts meanwhile. What is
//! written stays after all processes have gone.
//!
//! ```text
//! $ cargo run --example mapped_file -- write /tmp/board 100 "back at five"
//! $ cargo run --example mapped_file -- read /tmp/board 100 12
//! back at five
//! $ cargo run --example mapped_file -- try /tmp/board 100 "back at six"    (a private copy: the file stays as it is)
//! back at six
//! ```

use std::process::ExitCode;

use ginnel::memory::FileMapping;
use ginnel::sync::{LockKind, RecordLocks};

const USAGE: &str =
    "usage: mapped_file write PATH OFFSET TEXT | read PATH OFFSET LENGTH | try PATH OFFSET TEXT";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [verb, path, offset, what] => match (verb, offset.parse(), what.parse()) {
            ("write", Ok(offset), _) => write(path, offset, what),
            ("try", Ok(offset), _) => try_out(path, offset, what),
            ("read", Ok(offset), Ok(len)) => read(path, offset, len),
            _ => return usage(),
        },
        _ => return usage(),
    };
    if let Err(error) = outcome {
        eprintln!("mapped_file: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn write(path: &str, offset: u64, text: &str) -> ginnel::Result<()> {
    let end = offset.saturating_add(text.len() as u64);
    let locks = RecordLocks::create(path)?;
    let _turn = locks.lock(offset..end, LockKind::Exclusive)?;
    let part = FileMapping::options().create(true).size(end).range(offset, text.len()).open(path)?;
    part.write_bytes(0, text.as_bytes())?;
    part.flush(..)
}

fn read(path: &str, offset: u64, len: usize) -> ginnel::Result<()> {
    let locks = RecordLocks::options().read(true).write(false).open(path)?;
    let _turn = locks.lock(offset..offset.saturating_add(len as u64), LockKind::Shared)?;
    let part = FileMapping::options().range(offset, len).open_read_only(path)?;
    println!("{}", String::from_utf8_lossy(&part.read_vec(..)?));
    Ok(())
}

fn try_out(path: &str, offset: u64, text: &str) -> ginnel::Result<()> {
    let part = FileMapping::options().private(true).range(offset, text.len()).open(path)?;
    part.write_bytes(0, text.as_bytes())?;
    println!("{}", String::from_utf8_lossy(&part.read_vec(..)?));
    Ok(())
}
