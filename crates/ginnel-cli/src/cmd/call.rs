//! `ginnel call`: ask a server, print its reply.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use ginnel::Endpoint;

use crate::args::Wait;
use crate::failure::{Context, Failure, Result};
use crate::home::HomeArgs;
use crate::output;
use crate::rpc::client::{Approach, Client};

/// Send a request to a server (`ginnel serve`) and print its reply.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel call unix:/tmp/s 'over the garden wall'
  ginnel call --wait --timeout 10s sysv-msg:0x2a < question.txt
  seq 1000 | ginnel call --lines tcp:localhost:7000

Exit code 1 if there was no reply, or it says that the command failed; the reason is on standard error.
Over udp a request or a reply can get lost: use --timeout.")]
pub(crate) struct Args {
    /// Where the server is.
    endpoint: Endpoint,
    #[command(flatten)]
    home: HomeArgs,
    /// The request; standard input unless given.
    #[arg(conflicts_with = "lines")]
    message: Option<OsString>,
    /// Each line of standard input, with its end, is a request of its own; each reply is printed as a line, in order.
    #[arg(long)]
    lines: bool,
    /// Wait for a server that is not there yet.
    #[arg(long = "wait")]
    wait_for_server: bool,
    /// The server of the queue is not `ginnel serve`, or in another network namespace: do not look whether it is there.
    #[arg(long)]
    foreign: bool,
    #[command(flatten)]
    wait: Wait,
}

pub(crate) fn run(args: Args) -> Result {
    args.home.check(&args.endpoint)?;
    args.home.choose()?;
    let approach = Approach { wait: args.wait_for_server, foreign: args.foreign };
    if args.lines {
        return each_line(&args, approach);
    }
    let request = match &args.message {
        Some(message) => message.as_bytes().to_vec(),
        None => {
            let mut request = Vec::new();
            io::stdin().lock().read_to_end(&mut request).context("standard input")?;
            request
        }
    };
    let deadline = args.wait.deadline();
    let mut reply = Client::open(&args.endpoint, approach, deadline)?.call(&request, deadline)?;
    // A prompt on the same line would look like a part of it.
    if io::stdout().is_terminal() && reply.last().is_some_and(|last| *last != b'\n') {
        reply.push(b'\n');
    }
    output::print(reply)?;
    Ok(ExitCode::SUCCESS)
}

/// A request that fails does not keep the others from being asked; its number is told.
fn each_line(args: &Args, approach: Approach) -> Result {
    let mut client = Client::open(&args.endpoint, approach, args.wait.deadline())?;
    let mut failed = false;
    let mut input = io::stdin().lock();
    for number in 1_u64.. {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).context("standard input")? == 0 {
            break;
        }
        match client.call(&line, args.wait.deadline()) {
            Ok(mut reply) => {
                if reply.last() != Some(&b'\n') {
                    reply.push(b'\n');
                }
                output::print(reply)?;
            }
            Err(Failure::Failed(why)) if client.is_usable() => {
                output::note(format_args!("line {number}: {why}"));
                failed = true;
            }
            Err(Failure::Failed(why)) => return Err(Failure::failed(format!("line {number}: {why}"))),
            Err(other) => return Err(other),
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
