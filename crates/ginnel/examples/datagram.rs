//! A datagram server and its clients, over UDP or a Unix socket: the server answers in capitals.
//!
//! ```text
//! cargo run --example datagram -- serve udp:127.0.0.1:7000
//! cargo run --example datagram -- ask udp:127.0.0.1:7000 hello
//! cargo run --example datagram -- serve unix-dgram:@upper
//! cargo run --example datagram -- ask unix-dgram:@upper hello
//! ```

use std::process::ExitCode;
use std::time::Duration;

use ginnel::message::{UdpSocket, UnixDatagram};
use ginnel::{Endpoint, UnixAddress};

const USAGE: &str =
    "usage: datagram serve ENDPOINT | ask ENDPOINT TEXT, with udp:HOST:PORT or unix-dgram:NAME";
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (endpoint, text) = match words[..] {
        ["serve", endpoint] => (endpoint, None),
        ["ask", endpoint, text] => (endpoint, Some(text)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = endpoint.parse().and_then(|endpoint| match (endpoint, text) {
        (Endpoint::Udp(address), None) => serve_udp(&address),
        (Endpoint::Udp(address), Some(text)) => ask_udp(&address, text),
        (Endpoint::UnixDatagram(name), None) => serve_unix(&name),
        (Endpoint::UnixDatagram(name), Some(text)) => ask_unix(&name, text),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("datagram: {error}");
            ExitCode::FAILURE
        }
    }
}

fn upper(question: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(question).to_uppercase().into_bytes()
}

fn serve_udp(address: &str) -> ginnel::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("udp:{}", socket.local_address()?);
    let mut buffer = [0; 65_536];
    loop {
        let got = socket.recv_from(&mut buffer)?;
        socket.send_to(&upper(&buffer[..got.len]), got.sender)?;
    }
}

fn ask_udp(address: &str, text: &str) -> ginnel::Result<()> {
    let socket = UdpSocket::connect(address)?;
    socket.send(text.as_bytes())?;
    // A datagram may be lost, so this does not wait for ever.
    println!("{}", String::from_utf8_lossy(&socket.recv_vec_deadline(PATIENCE)?));
    Ok(())
}

fn serve_unix(name: &str) -> ginnel::Result<()> {
    let socket = UnixDatagram::bind(name)?;
    println!("unix-dgram:{}", socket.local_address()?);
    let mut buffer = [0; 65_536];
    loop {
        let got = socket.recv_from(&mut buffer)?;
        // A client that is gone must not end the server, and one that does not read must not hold it up.
        if let Err(error) = socket.try_send_to(&upper(&buffer[..got.len]), &got.sender) {
            eprintln!("datagram: no answer to {}: {error}", got.sender);
        }
    }
}

fn ask_unix(name: &str, text: &str) -> ginnel::Result<()> {
    // A name, so that the server can answer.
    let mine = UnixAddress::abstract_name(format!("ginnel-datagram-{}", std::process::id()));
    let socket = UnixDatagram::bind(mine)?;
    socket.connect_to(name)?;
    socket.send(text.as_bytes())?;
    println!("{}", String::from_utf8_lossy(&socket.recv_vec_deadline(PATIENCE)?));
    Ok(())
}
