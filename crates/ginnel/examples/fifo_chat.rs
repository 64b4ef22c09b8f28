//! Two people on two terminals, two FIFOs between them.
//!
//!     cargo run --example fifo_chat -- /tmp/to-ann /tmp/to-bob     Ann reads the first and writes to the second
//!     cargo run --example fifo_chat -- /tmp/to-bob /tmp/to-ann     Bob, on another terminal, the other way round
//!
//! Either may start first, leave and come back; each is told when the other does. A line that is written while nobody
//! is there waits. End with Ctrl-D. The FIFOs are made if they are not there, and stay.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

use ginnel::stream::{Fifo, FifoWriter};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &arguments[..] else {
        eprintln!("usage: fifo_chat FIFO-TO-READ FIFO-TO-WRITE");
        return ExitCode::from(2);
    };
    match chat(from, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fifo_chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chat(from: &str, to: &str) -> std::io::Result<()> {
    let (from, to) = (Fifo::create(from)?, Fifo::create(to)?);
    // Each FIFO has a thread of its own: opening one waits for the other person, and must not hold up the other one.
    std::thread::spawn(move || {
        if let Err(error) = listen(&from) {
            eprintln!("fifo_chat: {error}");
            std::process::exit(1);
        }
    });
    let mut writer = None;
    for line in std::io::stdin().lock().lines() {
        say(&to, &mut writer, &(line? + "\n"))?;
    }
    Ok(())
}

/// Prints what the other one writes, for as often as they come.
fn listen(from: &Fifo) -> std::io::Result<()> {
    loop {
        let reader = from.open_reader()?;
        println!("-- the other side is here");
        for line in BufReader::new(reader).lines() {
            println!("> {}", line?);
        }
        println!("-- the other side left");
    }
}

/// Sends a line to whoever reads, and waits for somebody if there is nobody.
fn say(to: &Fifo, writer: &mut Option<FifoWriter>, line: &str) -> std::io::Result<()> {
    loop {
        let open = match writer.take() {
            Some(open) => open,
            None => match to.try_open_writer() {
                Err(error) if error.is_not_found() => {
                    println!("-- nobody there yet; the line waits");
                    to.open_writer()?
                }
                other => other?,
            },
        };
        match (&open).write_all(line.as_bytes()) {
            // They left; their FIFO is there for when they come back.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            outcome => {
                *writer = Some(open);
                return outcome;
            }
        }
    }
}
