//! A stream server with many clients, over TCP or over a Unix socket: each line comes back in capitals.
//!
//!     cargo run --example upper_server -- serve unix:/tmp/upper      or tcp:localhost:7000, unix:@upper
//!     cargo run --example upper_server -- send unix:/tmp/upper 'hello there'
//!
//! One thread a client, so a slow one holds up nobody. A client that sends nothing for a minute, or does not take its
//! answers for as long, is dropped. Ends by SIGTERM; a socket file that stays behind is replaced at the next start.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use ginnel::Endpoint;
use ginnel::stream::{ByteRead, ByteWrite, TcpListener, TcpStream, UnixListener, UnixStream};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match &arguments[..] {
        ["serve", endpoint] => serve(endpoint),
        ["send", endpoint, text] => send(endpoint, text),
        _ => {
            eprintln!(
                "usage: upper_server serve ENDPOINT | send ENDPOINT TEXT\n       ENDPOINT: unix:PATH, tcp:HOST:PORT"
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("upper_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wrong_kind(endpoint: &Endpoint) -> std::io::Error {
    std::io::Error::other(format!("{endpoint}: a stream server is unix:PATH or tcp:HOST:PORT"))
}

fn serve(endpoint: &str) -> std::io::Result<()> {
    match endpoint.parse()? {
        Endpoint::UnixStream(name) => {
            let listener = UnixListener::bind(name)?;
            println!("ready on {endpoint}");
            loop {
                let client = listener.accept()?;
                let who = client.peer_credentials().map(|peer| format!("process {}", peer.pid));
                begin(client, who.unwrap_or_else(|error| error.to_string()));
            }
        }
        Endpoint::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            println!("ready on tcp:{}", listener.local_address()?);
            loop {
                let client = listener.accept()?;
                let who = client.peer_address().map(|address| address.to_string());
                begin(client, who.unwrap_or_else(|error| error.to_string()));
            }
        }
        other => Err(wrong_kind(&other)),
    }
}

/// Serves a client on a thread of its own.
fn begin(client: impl ByteRead + ByteWrite + Send + 'static, who: String) {
    std::thread::spawn(move || match upper(&client) {
        Ok(bytes) => eprintln!("{who}: {bytes} bytes"),
        Err(error) => eprintln!("{who}: {error}"),
    });
}

fn upper(client: &(impl ByteRead + ByteWrite)) -> ginnel::Result<usize> {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        let len = client.read_deadline(&mut buffer, PATIENCE)?;
        if len == 0 {
            return Ok(total);
        }
        buffer[..len].make_ascii_uppercase();
        client.write_all_deadline(&buffer[..len], PATIENCE)?;
        total += len;
    }
}

fn send(endpoint: &str, text: &str) -> std::io::Result<()> {
    match endpoint.parse()? {
        Endpoint::UnixStream(name) => exchange(UnixStream::connect_deadline(name, PATIENCE)?, text),
        Endpoint::Tcp(address) => exchange(TcpStream::connect_deadline(address, PATIENCE)?, text),
        other => Err(wrong_kind(&other)),
    }
}

fn exchange(mut server: impl Read + Write + ByteWrite, text: &str) -> std::io::Result<()> {
    writeln!(server, "{text}")?;
    server.shutdown_write()?;
    for line in BufReader::new(server).lines() {
        println!("{}", line?);
    }
    Ok(())
}
