//! A plain file as the channel, with a record lock: messages are appended, and each is taken by one receiver.
//!
//! Nothing but `read`, `write` and a lock, so any program in any language can take part, and the messages survive a
//! restart of the host. The price: nobody is woken, so a receiver that waits must ask again and again.
//!
//! Two hosts: where both mount one file system, and that passes record locks on to its server (NFS does), the lock
//! holds between the hosts, and taking it makes the other host's writes seen. A mapping is not coherent between hosts:
//! use reads and writes, as here. A host that goes down with the lock held keeps it until the server notices.
//!
//! The file begins with a number of 8 bytes, the offset of the first message not yet taken; then come the messages,
//! each behind its length, a number of 8 bytes.
//!
//! ```text
//! $ cargo run --example plain_file -- send /tmp/channel hello
//! $ cargo run --example plain_file -- recv /tmp/channel
//! hello
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use ginnel::sync::{LockKind, RecordLocks};

const USAGE: &str = "usage: plain_file send PATH TEXT | recv PATH";

const NUMBER: u64 = 8;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["send", path, text] => send(path, text.as_bytes()).map(|()| true),
        ["recv", path] => recv(path),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("plain_file: no message");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("plain_file: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(path: &str, text: &[u8]) -> io::Result<()> {
    let locks = RecordLocks::create(path)?;
    let _turn = locks.lock(.., LockKind::Exclusive)?;
    let file = File::options().read(true).write(true).open(path)?;
    if file.metadata()?.len() < NUMBER {
        put(&file, 0, NUMBER)?;
    }
    // One write, so that a sender killed in between leaves a message or none. A torn one (the disk was full) ends the
    // file in the middle of a message, and is written over by the next.
    let message = [&(text.len() as u64).to_le_bytes(), text].concat();
    file.write_all_at(&message, end_of_messages(&file)?)
}

/// Prints the next message: whether there was one.
fn recv(path: &str) -> io::Result<bool> {
    let locks = RecordLocks::open(path)?;
    let _turn = locks.lock(.., LockKind::Exclusive)?;
    let file = File::options().read(true).write(true).open(path)?;
    let at = first(&file)?;
    if at == end_of_messages(&file)? {
        return Ok(false);
    }
    let mut text = vec![0; get(&file, at)? as usize];
    file.read_exact_at(&mut text, at + NUMBER)?;
    put(&file, 0, at + NUMBER + text.len() as u64)?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(true)
}

fn first(file: &File) -> io::Result<u64> {
    if file.metadata()?.len() < NUMBER { Ok(NUMBER) } else { get(file, 0) }
}

/// Where the last whole message ends.
fn end_of_messages(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut at = first(file)?;
    while at + NUMBER <= size {
        match get(file, at)?.checked_add(at + NUMBER) {
            Some(next) if next <= size => at = next,
            _ => break,
        }
    }
    Ok(at)
}

fn get(file: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; NUMBER as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

fn put(file: &File, at: u64, number: u64) -> io::Result<()> {
    file.write_all_at(&number.to_le_bytes(), at)
}
