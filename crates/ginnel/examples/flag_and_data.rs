//! A flag and data in a private System V segment: a master makes it and waits, a writer that is told only the id
//! writes.
//!
//! The segment has no key, so nobody finds it by chance. It is removed when the master is done, which takes effect
//! when the last process has detached: a reader that still has it attached reads on.
//!
//! ```text
//! $ cargo run --example flag_and_data -- master
//! segment 3: waiting
//!                                  $ cargo run --example flag_and_data -- reader 3      (in a second terminal)
//!                                  $ cargo run --example flag_and_data -- writer 3 hello (in a third)
//! process 4711 wrote: hello
//! ```

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};
use ginnel::memory::{Access, Mapping, SysvSegment};
use rustix::io::Errno;
use rustix::thread::futex;

const USAGE: &str = "usage: flag_and_data master | writer ID TEXT | reader ID";

/// 1 when the rest is written; a futex, so that the master sleeps until then.
const FLAG: usize = 0;
const HEAD: usize = 8;
const TEXT: usize = 16;
const SIZE: usize = 4096;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    writer: u32,
    text_len: u32,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["master"] => master(),
        ["writer", id, text] if id.parse::<i32>().is_ok() => writer(id.parse().unwrap_or(0), text),
        ["reader", id] if id.parse::<i32>().is_ok() => reader(id.parse().unwrap_or(0)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = outcome {
        eprintln!("flag_and_data: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn master() -> ginnel::Result<()> {
    // Removed when this handle is dropped, also when something fails on the way.
    let segment = SysvSegment::private(SIZE)?;
    let mapping = segment.attach()?;
    println!("segment {}: waiting", segment.id());
    let flag = mapping.atomic_u32(FLAG)?;
    while flag.load(Ordering::Acquire) == 0 {
        // Returns at once if the flag is no longer 0.
        match futex::wait(flag, futex::Flags::empty(), 0, None) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => {
                eprintln!("flag_and_data: futex: {errno}");
                break;
            }
        }
    }
    show(&mapping)
}

fn writer(id: i32, text: &str) -> ginnel::Result<()> {
    let mapping = SysvSegment::from_id(id).attach()?;
    mapping.write_bytes(TEXT, text.as_bytes())?;
    mapping.write_at(HEAD, Head { writer: std::process::id(), text_len: text.len() as u32 })?;
    // The data first, then the flag: whoever sees the flag sees the data.
    let flag = mapping.atomic_u32(FLAG)?;
    flag.store(1, Ordering::Release);
    let _ = futex::wake(flag, futex::Flags::empty(), u32::MAX);
    Ok(())
}

fn reader(id: i32) -> ginnel::Result<()> {
    let mapping = SysvSegment::from_id(id).attach_read_only()?;
    println!("attached; press Enter to read");
    let _ = std::io::stdin().read_line(&mut String::new());
    if mapping.load_u32(FLAG)? == 0 {
        println!("nothing is written yet");
        return Ok(());
    }
    show(&mapping)
}

fn show(mapping: &Mapping<impl Access>) -> ginnel::Result<()> {
    let head: Head = mapping.read_at(HEAD)?;
    let text = mapping.read_vec(TEXT..TEXT + head.text_len as usize)?;
    println!("process {} wrote: {}", head.writer, String::from_utf8_lossy(&text));
    Ok(())
}
