//! A mailbox: a System V queue in which a message waits until somebody asks for it, whether its sender still runs or not.
//!
//! ```text
//! cargo run --example mailbox -- send 0x2a "the kettle boils"
//! cargo run --example mailbox -- list
//! cargo run --example mailbox -- recv 0x2a
//! cargo run --example mailbox -- remove 0x2a
//! ```
//!
//! A key is a number both sides know, or a file both sides know: `/etc/hostname#7` (`ftok`).

use std::process::ExitCode;

use ginnel::message::{Select, SysvQueue};
use ginnel::sysv::Key;

const USAGE: &str = "usage: mailbox send KEY TEXT | recv KEY | list | remove KEY";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["send", key, text] => send(key, text),
        ["recv", key] => recv(key),
        ["list"] => list(),
        ["remove", key] => key.parse::<Key>().and_then(SysvQueue::open).and_then(|queue| queue.remove()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mailbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(key: &str, text: &str) -> ginnel::Result<()> {
    SysvQueue::create(key.parse::<Key>()?)?.send(1, text.as_bytes())
}

/// Waits for a message if there is none; makes the mailbox if it is the first to come.
fn recv(key: &str) -> ginnel::Result<()> {
    let message = SysvQueue::create(key.parse::<Key>()?)?.recv_vec(Select::Any)?;
    println!("{}", String::from_utf8_lossy(&message.payload));
    Ok(())
}

fn list() -> ginnel::Result<()> {
    println!("key id messages bytes");
    for (id, status) in SysvQueue::list()? {
        println!("{} {id} {} {}", status.permissions.key, status.messages, status.bytes);
    }
    Ok(())
}
