//! Direct and indirect communication, with and without rendezvous.
//!
//! Direct: a mailbox that belongs to one process, addressed by its PID, and gone with it, however it ends: an abstract Unix
//! datagram socket. Indirect: a port that many send to and several receive from: a System V queue.
//!
//! ```text
//! cargo run --example direct_indirect -- own                      # prints its PID, then what it gets
//! cargo run --example direct_indirect -- tell PID hello           # asynchronous: returns when it is sent
//! cargo run --example direct_indirect -- meet PID hello           # rendezvous: returns when it was received
//! cargo run --example direct_indirect -- port-send 0x2d hello
//! cargo run --example direct_indirect -- port-recv 0x2d
//! ```

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use ginnel::message::{Select, SysvQueue, UnixDatagram};
use ginnel::sysv::Key;
use ginnel::{Error, UnixAddress};

const USAGE: &str =
    "usage: direct_indirect own | tell PID TEXT | meet PID TEXT | port-send KEY TEXT | port-recv KEY";
const RECEIVED: &[u8] = b"received";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["own"] => own(),
        ["tell", pid, text] => tell(pid, text),
        ["meet", pid, text] => meet(pid, text),
        ["port-send", key, text] => {
            key.parse::<Key>().and_then(SysvQueue::create).and_then(|port| port.send(1, text.as_bytes()))
        }
        ["port-recv", key] => port_recv(key),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("direct_indirect: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mailbox_of(pid: impl std::fmt::Display) -> UnixAddress {
    UnixAddress::abstract_name(format!("ginnel-mailbox-{pid}"))
}

/// Receives until the message `bye`. A sender that has a mailbox of its own waits for the word that it was received.
fn own() -> Result<(), Error> {
    let pid = std::process::id();
    let mailbox = UnixDatagram::bind(mailbox_of(pid))?;
    println!("{pid}");
    loop {
        let mut buffer = [0; 8192];
        let got = mailbox.recv_from(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..got.len]);
        println!("{text}");
        let _ = std::io::stdout().flush();
        if got.sender != UnixAddress::Unnamed {
            // It may have given up meanwhile.
            let _ = mailbox.try_send_to(RECEIVED, &got.sender);
        }
        if text == "bye" {
            return Ok(());
        }
    }
}

fn tell(pid: &str, text: &str) -> Result<(), Error> {
    UnixDatagram::unbound()?.send_to(text.as_bytes(), mailbox_of(pid))
}

/// Connected, so that the receiver's death is seen while waiting.
fn meet(pid: &str, text: &str) -> Result<(), Error> {
    let mine = UnixDatagram::bind(mailbox_of(std::process::id()))?;
    mine.connect_to(mailbox_of(pid))?;
    mine.send(text.as_bytes())?;
    let mut buffer = [0; 64];
    loop {
        match mine.recv_deadline(&mut buffer, Duration::from_millis(200)) {
            Err(error) if error.is_timed_out() => {
                // Nobody is told when a datagram peer dies: look whether its mailbox is still there.
                UnixDatagram::connect(mailbox_of(pid))?;
            }
            Err(error) => return Err(error),
            Ok(_) => {
                println!("received by {pid}");
                return Ok(());
            }
        }
    }
}

fn port_recv(key: &str) -> Result<(), Error> {
    let message = SysvQueue::create(key.parse::<Key>()?)?.recv_vec(Select::Any)?;
    println!("{}", String::from_utf8_lossy(&message.payload));
    Ok(())
}
