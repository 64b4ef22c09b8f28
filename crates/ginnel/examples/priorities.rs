//! Priorities: a POSIX queue, the most urgent message first; blocking, non-blocking and timed; told when something comes.
//!
//! ```text
//! cargo run --example priorities -- send /yard 1 "sweep the yard"
//! cargo run --example priorities -- send /yard 9 "the kettle boils"
//! cargo run --example priorities -- recv /yard            # waits if there is nothing
//! cargo run --example priorities -- try-recv /yard        # does not
//! cargo run --example priorities -- recv-within /yard 500 # milliseconds
//! cargo run --example priorities -- on-signal /yard       # mq_notify, by a real-time signal
//! cargo run --example priorities -- on-thread /yard       # mq_notify, by a thread
//! cargo run --example priorities -- remove /yard
//! ```

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use ginnel::message::PosixQueue;
use ginnel::message::posix_queue::Message;
use ginnel::notify::{Signal, SignalSet};

const USAGE: &str = "usage: priorities send NAME PRIORITY TEXT | recv NAME | try-recv NAME | recv-within NAME MILLISECONDS \
                     | on-signal NAME | on-thread NAME | remove NAME";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match (&words[..], words.get(2).and_then(|word| word.parse::<u32>().ok())) {
        (["send", name, _, text], Some(priority)) => {
            PosixQueue::create(name).and_then(|queue| queue.send(priority, text.as_bytes()))
        }
        (["recv", name], _) => PosixQueue::create(name).and_then(|queue| queue.recv_vec()).map(show),
        (["try-recv", name], _) => try_recv(name),
        (["recv-within", name, _], Some(milliseconds)) => PosixQueue::create(name)
            .and_then(|queue| queue.recv_vec_deadline(Duration::from_millis(milliseconds.into())))
            .map(show),
        (["on-signal", name], _) => on_signal(name),
        (["on-thread", name], _) => on_thread(name),
        (["remove", name], _) => PosixQueue::remove(name),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("priorities: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(message: Message) {
    println!("{} {}", message.priority, String::from_utf8_lossy(&message.payload));
}

fn try_recv(name: &str) -> ginnel::Result<()> {
    let queue = PosixQueue::create(name)?;
    let mut buffer = vec![0; queue.message_bytes_max()];
    let got = queue.try_recv(&mut buffer)?;
    buffer.truncate(got.len);
    show(Message { priority: got.priority, payload: buffer });
    Ok(())
}

/// Everything that is there, after the notice. Registering again comes first: what arrives in between is not missed.
fn drain(queue: &PosixQueue) -> ginnel::Result<()> {
    let mut buffer = vec![0; queue.message_bytes_max()];
    loop {
        match queue.try_recv(&mut buffer) {
            Ok(got) => {
                show(Message { priority: got.priority, payload: buffer[..got.len].to_vec() });
            }
            Err(error) if error.is_would_block() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn on_signal(name: &str) -> ginnel::Result<()> {
    const PAYLOAD: i32 = 42;
    let queue = PosixQueue::create(name)?;
    let signal = Signal::realtime(0)?;
    // Blocked, so that it waits for us to wait for it.
    let signals = SignalSet::from([signal]);
    let _blocked = signals.block()?;
    queue.notify_signal(signal.number(), PAYLOAD)?;
    println!("registered");
    let got = signals.wait()?;
    println!(
        "told by signal, payload {}, by process {}",
        got.payload.map_or(0, |payload| payload.int()),
        got.pid
    );
    drain(&queue)
}

fn on_thread(name: &str) -> ginnel::Result<()> {
    let queue = PosixQueue::create(name)?;
    let (tell, told) = mpsc::channel();
    queue.notify_thread(move || {
        let _ = tell.send(std::thread::current().name().map(String::from));
    })?;
    println!("registered");
    if let Ok(thread) = told.recv() {
        println!("told by thread {}", thread.unwrap_or_default());
    }
    drain(&queue)
}
