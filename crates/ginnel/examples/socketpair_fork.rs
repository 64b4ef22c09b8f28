//! A parent and its child with one socket pair for both directions, frames over it, and who is at the other end.
//!
//!     cargo run --example socketpair_fork -- 12 30 7
//!
//! The child adds up each list of numbers that the parent sends and answers with the sum. It ends when the parent has
//! closed its end.

use std::process::ExitCode;

use ginnel::process::fork;
use ginnel::stream::{Framed, UnixStream, socketpair};

fn main() -> ExitCode {
    let numbers: Vec<String> = std::env::args().skip(1).collect();
    if numbers.is_empty() {
        eprintln!("usage: socketpair_fork NUMBER...");
        return ExitCode::from(2);
    }
    match ask(&numbers.join(" ")) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("socketpair_fork: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(numbers: &str) -> ginnel::Result<String> {
    let (parents, childs) = socketpair()?;
    let (mut parents, mut childs) = (Some(parents), Some(childs));
    let child = fork(|| {
        drop(parents.take());
        match add(childs.take().expect("it is here")) {
            Ok(()) => 0,
            Err(_) => 1,
        }
    })?;
    drop(childs.take());
    let mut connection = Framed::new(parents.take().expect("it is here"));
    connection.send(numbers.as_bytes())?;
    let answer = connection.recv()?.unwrap_or_default();
    drop(connection);
    let status = child.wait()?;
    Ok(format!("{} (the child ended: {status})", String::from_utf8_lossy(&answer)))
}

fn add(connection: UnixStream) -> ginnel::Result<()> {
    let mut connection = Framed::new(connection);
    while let Some(list) = connection.recv()? {
        let words = String::from_utf8_lossy(&list).into_owned();
        let sum: Result<i64, _> = words.split_whitespace().map(str::parse::<i64>).sum();
        let answer = sum.map_or_else(|error| error.to_string(), |sum| sum.to_string());
        connection.send(answer.as_bytes())?;
    }
    Ok(())
}
