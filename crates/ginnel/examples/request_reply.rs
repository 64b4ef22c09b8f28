//! Request and reply on one System V queue: requests have type 1, a reply has the PID of its client as its type.
//!
//! ```text
//! cargo run --example request_reply -- server 0x2b
//! cargo run --example request_reply -- client 0x2b hello 3
//! ```
//!
//! The server answers in capitals. It may be killed and started again at any time: what it had not taken yet waits in the
//! queue, and a client whose request it took with it to the grave asks again.
//!
//! Two things that a PID as an address does not give by itself, and what is done about them:
//!
//! * A client that was killed leaves its reply behind, and the next process with its PID would take it: each request has a
//!   number of its own, which its reply repeats, and a reply with another is thrown away.
//! * Two clients with the same PID in different PID namespaces (containers that share an IPC namespace) would take each
//!   other's replies: a request names its namespace, and a server refuses those that are not from its own.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

use ginnel::message::{Select, SysvQueue};
use ginnel::sysv::Key;

const USAGE: &str = "usage: request_reply server KEY | client KEY TEXT [COUNT] | remove KEY";
const REQUEST: i64 = 1;
/// Where refusals go: this, and the number of the namespace that is refused. No PID is as high.
const REFUSAL: i64 = 1 << 40;
const PATIENCE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["server", key] => server(key),
        ["client", key, text] => client(key, text, 1),
        ["client", key, text, count] if count.parse::<u32>().is_ok() => {
            client(key, text, count.parse().unwrap_or(1))
        }
        ["remove", key] => remove(key),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("request_reply: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn open(key: &str) -> ginnel::Result<SysvQueue> {
    SysvQueue::create(key.parse::<Key>()?)
}

fn remove(key: &str) -> Outcome {
    Ok(SysvQueue::open(key.parse::<Key>()?)?.remove()?)
}

fn namespace() -> std::io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

/// A request is `PID NAMESPACE NUMBER TEXT`, a reply `NUMBER TEXT`.
fn server(key: &str) -> Outcome {
    let queue = open(key)?;
    let here = namespace()?;
    println!("serving");
    loop {
        let request = queue.recv_vec(Select::Type(REQUEST))?;
        let request = String::from_utf8_lossy(&request.payload).into_owned();
        let mut parts = request.splitn(4, ' ');
        let (Some(pid), Some(from), Some(number), Some(text)) =
            (number_of(parts.next()), number_of(parts.next()), number_of(parts.next()), parts.next())
        else {
            eprintln!("not a request: {request:?}");
            continue;
        };
        if from != here {
            eprintln!("refused: process {pid} is in PID namespace {from}, and this server in {here}");
            queue.send(REFUSAL + from as i64, number.to_string().as_bytes())?;
            continue;
        }
        queue.send(pid as i64, format!("{number} {}", text.to_uppercase()).as_bytes())?;
    }
}

fn number_of(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

fn client(key: &str, text: &str, count: u32) -> Outcome {
    let pid = std::process::id();
    if i64::from(pid) == REQUEST {
        return Err("this is process 1 of its PID namespace, and type 1 is the requests'".into());
    }
    let queue = open(key)?;
    let first = RandomState::new().hash_one(pid) >> 1;
    for index in 0..count {
        let number = first + u64::from(index);
        println!("{}", ask(&queue, pid, number, &format!("{text} {index}"))?);
    }
    Ok(())
}

/// Sends the request, and sends it again whenever the reply is overdue.
fn ask(queue: &SysvQueue, pid: u32, number: u64, text: &str) -> Result<String, Box<dyn std::error::Error>> {
    let here = namespace()?;
    let request = format!("{pid} {here} {number} {text}");
    loop {
        queue.send(REQUEST, request.as_bytes())?;
        loop {
            match queue.recv_vec_deadline(Select::Type(pid.into()), PATIENCE) {
                Ok(reply) => {
                    let reply = String::from_utf8_lossy(&reply.payload).into_owned();
                    match reply.split_once(' ') {
                        Some((found, text)) if found.parse() == Ok(number) => return Ok(text.to_string()),
                        // Somebody's who had this PID before, or a second answer to what was asked twice.
                        _ => continue,
                    }
                }
                Err(error) if error.is_timed_out() => break,
                Err(error) => return Err(error.into()),
            }
        }
        if queue.try_recv(Select::Type(REFUSAL + here as i64), &mut [0; 64]).is_ok() {
            return Err("the server is in another PID namespace, where this PID is another process's".into());
        }
    }
}
