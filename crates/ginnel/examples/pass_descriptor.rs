//! Passing an open file to a process that could not open it itself, and knowing who passed it.
//!
//! ```text
//! cargo run --example pass_descriptor -- take @hatch
//! sudo cargo run --example pass_descriptor -- give @hatch /etc/shadow
//! ```

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::ExitCode;

use ginnel::message::{UnixSeqpacket, UnixSeqpacketListener, descriptor};

const USAGE: &str = "usage: pass_descriptor take NAME | give NAME FILE...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["take", name] => take(name),
        ["give", name, ref files @ ..] if !files.is_empty() => give(name, files),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pass_descriptor: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn give(name: &str, files: &[&str]) -> Outcome {
    let open = |path: &&str| File::open(path).map_err(|error| format!("{path}: {error}"));
    let files = files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let hatch = UnixSeqpacket::connect(name)?;
    descriptor::send_with(&hatch, b"with my compliments", &descriptors)?;
    Ok(())
}

fn take(name: &str) -> Outcome {
    let listener = UnixSeqpacketListener::bind(name)?;
    println!("waiting at {name}");
    let hatch = listener.accept()?;
    descriptor::pass_credentials(&hatch, true)?;
    let mut note = [0; 256];
    let parcel = descriptor::recv_with(&hatch, &mut note)?;
    if let Some(giver) = parcel.credentials {
        println!("from process {} of user {}", giver.pid, giver.uid);
    }
    println!("{}", String::from_utf8_lossy(&note[..parcel.len]));
    for fd in parcel.descriptors {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text)?;
        print!("{text}");
    }
    Ok(())
}
