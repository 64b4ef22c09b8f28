//! `ping`: ICMP echo through the kernel's ping socket if this user may have one, else through a raw socket.
//!
//! ```text
//! cargo run --example ping -- 127.0.0.1
//! cargo run --example ping -- ::1 5
//! ```

use std::net::{IpAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ginnel::message::IcmpEcho;

const USAGE: &str = "usage: ping HOST [COUNT]";
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (host, count) = match words[..] {
        [host] => (host, Ok(3)),
        [host, count] => (host, count.parse::<u16>()),
        _ => ("", Ok(0)),
    };
    let (Ok(count @ 1..), false) = (count, host.is_empty()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match ping(host, count) {
        Ok(0) => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ping: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many replies came.
fn ping(host: &str, count: u16) -> Result<u16, Box<dyn std::error::Error>> {
    let address: IpAddr = (host, 0).to_socket_addrs()?.next().ok_or("no address")?.ip();
    let echo = IcmpEcho::open(address)?;
    println!("{address} through a {} socket", if echo.is_raw() { "raw" } else { "ping" });
    let mut replies = 0;
    for sequence in 1..=count {
        let start = Instant::now();
        echo.send(sequence, b"is anybody there?")?;
        let mut buffer = [0; 64];
        match echo.recv_deadline(&mut buffer, PATIENCE) {
            // A late one of an earlier request counts for that one.
            Ok(reply) => {
                replies += 1;
                println!(
                    "{} bytes from {}: seq={} time={:?}",
                    reply.len,
                    reply.sender,
                    reply.sequence,
                    start.elapsed()
                );
            }
            Err(error) if error.is_timed_out() => println!("seq={sequence} no reply"),
            Err(error) => return Err(error.into()),
        }
    }
    println!("{replies} of {count}");
    Ok(replies)
}
