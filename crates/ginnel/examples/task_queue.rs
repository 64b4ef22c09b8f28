//! A task queue: one producer, several workers; each task goes to one of them.
//!
//! ```text
//! cargo run --example task_queue -- work 0x2c &
//! cargo run --example task_queue -- work 0x2c &
//! cargo run --example task_queue -- produce 0x2c 10
//! cargo run --example task_queue -- finish 0x2c 2
//! ```
//!
//! A worker that is killed between tasks takes none with it: a task is in the queue until a worker has it. One that is
//! killed *in* a task takes that one with it, which no queue can tell from a worker that is slow; a program that must not
//! lose it has its workers confirm, and hands out again what was not confirmed by a worker that is gone.

use std::io::Write;
use std::process::ExitCode;

use ginnel::message::{Select, SysvQueue};
use ginnel::sysv::Key;

const USAGE: &str =
    "usage: task_queue produce KEY COUNT [FIRST] | work KEY | finish KEY WORKERS | remove KEY";
const TASK: i64 = 1;
/// Of a higher type than tasks: `UpTo` takes it only when there are none left.
const FINISH: i64 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |index: usize| words.get(index).map_or(Ok(0), |word| word.parse::<u32>());
    let outcome = match (&words[..], number(2), number(3)) {
        (["produce", key, _] | ["produce", key, _, _], Ok(count), Ok(first)) => produce(key, first, count),
        (["work", key], ..) => work(key),
        (["finish", key, _], Ok(workers), _) => finish(key, workers),
        (["remove", key], ..) => open(key).and_then(|queue| queue.remove()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("task_queue: {error}");
            ExitCode::FAILURE
        }
    }
}

fn open(key: &str) -> ginnel::Result<SysvQueue> {
    SysvQueue::create(key.parse::<Key>()?)
}

fn produce(key: &str, first: u32, count: u32) -> ginnel::Result<()> {
    let queue = open(key)?;
    (first..first + count).try_for_each(|task| queue.send(TASK, task.to_string().as_bytes()))
}

fn finish(key: &str, workers: u32) -> ginnel::Result<()> {
    let queue = open(key)?;
    (0..workers).try_for_each(|_| queue.send(FINISH, b""))
}

fn work(key: &str) -> ginnel::Result<()> {
    let queue = open(key)?;
    let mut out = std::io::stdout();
    loop {
        let message = queue.recv_vec(Select::UpTo(FINISH))?;
        if message.message_type == FINISH {
            return Ok(());
        }
        let task = String::from_utf8_lossy(&message.payload);
        // The work. One write a line: done is done, even if this process is killed right after.
        let _ = out.write_all(format!("did {task}\n").as_bytes()).and_then(|()| out.flush());
    }
}
