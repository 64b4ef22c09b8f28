//! `ginnel serve`: a command answers requests, from many clients at once.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ginnel::Endpoint;
use ginnel::endpoint::SysvName;
use ginnel::message::{PosixQueue, SysvQueue, UdpSocket, UnixDatagram, UnixSeqpacketListener};
use ginnel::notify::{Handler, Signal};
use ginnel::stream::{TcpListener, UnixListener};

use crate::args;
use crate::failure::{Failure, Result};
use crate::guardian::Guardian;
use crate::home::{self, HomeArgs};
use crate::output;
use crate::rpc::client::not_here;
use crate::rpc::jobs::Jobs;
use crate::rpc::lamp::{Lamp, Place};
use crate::rpc::{connections, datagrams, posix, sysv};
use crate::signals;

/// Answer requests: run a command for each, what it prints is the reply.
///
/// The request is the command's standard input. If the command fails, the client is told its exit status and the last line
/// of its standard error. GINNEL_CLIENT_PID is the client's PID where it is known (from the kernel for unix and
/// unix-seqpacket, from the client itself for queues and unix-dgram), GINNEL_CLIENT_UID its user where the kernel vouches
/// for it. Ctrl-C ends the server and the commands that still run, and removes what the server has made.
#[derive(Debug, clap::Args)]
#[command(after_help = "Endpoints: sysv-msg, posix-mq, unix, tcp, unix-seqpacket, unix-dgram, udp.

Examples:
  ginnel serve unix:/tmp/s -- tr a-z A-Z
  ginnel serve sysv-msg:0x2a --create --jobs 4 -- sed s/^/re:/
  ginnel serve tcp:localhost:7000 --timeout 5s -- sh -c 'read city; grep \"$city\" weather.txt'

Then, elsewhere:
  ginnel call unix:/tmp/s 'over the garden wall'
  seq 1000 | ginnel call --lines sysv-msg:0x2a

A reply is as long as the mechanism takes: kernel.msgmax and the queue's msg_qbytes (sysv-msg), its mq_msgsize (posix-mq),
16 MiB (unix, tcp), the socket's send buffer (unix-seqpacket, unix-dgram), 65,483 bytes (udp). More is an error reply.
Over a System V queue a reply finds its client by PID: clients and server share one PID namespace.")]
pub(crate) struct Args {
    /// Where requests come from.
    endpoint: Endpoint,
    #[command(flatten)]
    home: HomeArgs,
    /// How many commands may run at once; as many as there are CPUs unless said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Make the queue if it is not there. Sockets are always made.
    #[arg(long)]
    create: bool,
    /// Permission bits of what is made.
    #[arg(long, default_value = "600", value_parser = args::mode)]
    mode: u32,
    /// Kill a command that takes longer than this (500ms, 5s, 2m), and tell its client.
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    timeout: Option<Duration>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

type SharedGuardian = Arc<Mutex<Option<Guardian>>>;

/// A signal has come, and its thread is about to end this process.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The socket file that this server has made: its path, device and inode. The guardian leaves it alone as long as
/// somebody listens, and we do, to the very end.
static SOCKET_FILE: Mutex<Option<(PathBuf, u64, u64)>> = Mutex::new(None);

pub(crate) fn run(args: Args) -> Result {
    args.home.check(&args.endpoint)?;
    args.home.choose()?;
    let parallel = match args.jobs {
        Some(jobs) => jobs.into(),
        None => std::thread::available_parallelism().map_or(1, Into::into),
    };
    let guardian = Guardian::start()?;
    let jobs = Arc::new(Jobs::new(args.command.clone(), args.timeout, parallel, &guardian));
    let guardian: SharedGuardian = Arc::new(Mutex::new(Some(guardian)));
    end_by_signal(guardian.clone())?;
    let outcome = serve(&args, &jobs, &guardian);
    if ENDING.load(Ordering::SeqCst) {
        // What ended the serving is that the queue was removed, by the thread that ends this process.
        loop {
            std::thread::park();
        }
    }
    clean_up(&guardian);
    outcome.map(|()| ExitCode::SUCCESS)
}

/// On Ctrl-C and the like the guardian ends what runs and removes what was made; then this process ends.
fn end_by_signal(guardian: SharedGuardian) -> Result<()> {
    let caught = Handler::new(signals::unless_ignored(&[Signal::INT, Signal::TERM, Signal::HUP])?)?;
    std::thread::spawn(move || {
        while caught.wait().is_err() {}
        ENDING.store(true, Ordering::SeqCst);
        clean_up(&guardian);
        std::process::exit(0);
    });
    Ok(())
}

/// Removes what was made and ends what runs, before this process ends.
fn clean_up(guardian: &SharedGuardian) {
    if let Some((path, device, inode)) = SOCKET_FILE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let is_ours = |file: std::fs::Metadata| (file.dev(), file.ino()) == (device, inode);
        if std::fs::symlink_metadata(&path).is_ok_and(is_ours) {
            // Gone already is what was wanted.
            let _ = std::fs::remove_file(path);
        }
    }
    // Its drop waits until it has done its work.
    drop(guardian.lock().unwrap_or_else(PoisonError::into_inner).take());
}

fn serve(args: &Args, jobs: &Arc<Jobs>, guardian: &SharedGuardian) -> Result<()> {
    let endpoint = &args.endpoint;
    match endpoint {
        Endpoint::SysvQueue(name) => {
            let queue = open_sysv(args, *name, guardian)?;
            let _lamp = light(&sysv::place(&queue));
            ready(endpoint, &format!(" (id {})", queue.id()));
            sysv::serve(queue, jobs.clone())
        }
        Endpoint::PosixQueue(name) => {
            let queue = open_posix(args, name, guardian)?;
            let _lamp = light(&posix::place(name));
            ready(endpoint, "");
            posix::serve(&queue, jobs)
        }
        Endpoint::UnixStream(name) => {
            let options = UnixListener::options().mode(args.mode).backlog(4096);
            let listener = adopted(guardian, endpoint, Some(name), || options.bind(name))?;
            ready(endpoint, "");
            connections::serve_unix(&listener, jobs)
        }
        Endpoint::UnixSeqpacket(name) => {
            let options = UnixSeqpacketListener::options().mode(args.mode).replace_stale(true);
            let listener = adopted(guardian, endpoint, Some(name), || options.bind(name))?;
            ready(endpoint, "");
            connections::serve_seqpacket(&listener, jobs)
        }
        Endpoint::UnixDatagram(name) => {
            let options = UnixDatagram::options().mode(args.mode).replace_stale(true);
            let socket = adopted(guardian, endpoint, Some(name), || options.bind(name))?;
            ready(endpoint, "");
            datagrams::serve_unix(socket, jobs)
        }
        Endpoint::Tcp(address) => {
            let listener = TcpListener::options().backlog(4096).bind(address)?;
            ready(endpoint, &format!(" (address {})", listener.local_address()?));
            connections::serve_tcp(&listener, jobs)
        }
        Endpoint::Udp(address) => {
            let socket = UdpSocket::bind(address)?;
            ready(endpoint, &format!(" (address {})", socket.local_address()?));
            datagrams::serve_udp(socket, jobs)
        }
        _ => Err(not_here(endpoint)),
    }
}

fn ready(endpoint: &Endpoint, detail: &str) {
    output::tell(format!("serving {endpoint}{detail}\n"));
}

/// A server works without its lamp; its clients have to say `--foreign`.
fn light(place: &Place) -> Option<Lamp> {
    let lamp = Lamp::light(place);
    if let Err(Failure::Failed(why)) = &lamp {
        output::note(format_args!("clients cannot see that this server is there, and need --foreign: {why}"));
    }
    lamp.ok()
}

/// A queue that is there is used as it is, and stays. One that is made is the guardian's to remove.
fn open_sysv(args: &Args, name: SysvName, guardian: &SharedGuardian) -> Result<SysvQueue> {
    let key = match name {
        SysvName::Key(key) => key,
        SysvName::Id(id) => {
            let queue = SysvQueue::from_id_in(home::current(), id);
            queue.status()?;
            return Ok(queue);
        }
    };
    match SysvQueue::open_in(home::current(), key) {
        Err(error) if error.is_not_found() && args.create => {}
        Err(error) if error.is_not_found() => return Err(with_create(error)),
        found => return Ok(found?),
    }
    let make = || SysvQueue::options().namespace(home::current()).create_new(true).mode(args.mode).open(key);
    match adopted(guardian, &args.endpoint, None, make) {
        // Another one was faster.
        Err(error) if error.is_already_exists() => Ok(SysvQueue::open_in(home::current(), key)?),
        made => Ok(made?),
    }
}

fn open_posix(args: &Args, name: &str, guardian: &SharedGuardian) -> Result<PosixQueue> {
    let options = PosixQueue::options().namespace(home::current()).write(false);
    match options.clone().open(name) {
        Err(error) if error.is_not_found() && args.create => {}
        Err(error) if error.is_not_found() => return Err(with_create(error)),
        found => return Ok(found?),
    }
    match adopted(guardian, &args.endpoint, None, || {
        options.clone().create_new(true).mode(args.mode).open(name)
    }) {
        Err(error) if error.is_already_exists() => Ok(options.open(name)?),
        made => Ok(made?),
    }
}

fn with_create(error: ginnel::Error) -> Failure {
    Failure::failed(format!("{error}; or serve it with --create"))
}

/// Makes something that the guardian removes: it is told before, so that no kill falls between. A socket file is removed
/// only while nobody listens on it, so one that turns out to be somebody else's is in no danger.
fn adopted<T>(
    guardian: &SharedGuardian,
    endpoint: &Endpoint,
    socket_name: Option<&str>,
    make: impl FnOnce() -> ginnel::Result<T>,
) -> ginnel::Result<T> {
    // An abstract name goes with its socket.
    let is_abstract = socket_name.is_some_and(|name| name.starts_with('@'));
    let endpoint = absolute(endpoint, socket_name);
    let tell = |what: fn(&mut Guardian, &Endpoint) -> Result<()>| {
        if let Some(guardian) = &mut *guardian.lock().unwrap_or_else(PoisonError::into_inner) {
            // Without it the only loss is the cleaning up after a SIGKILL.
            let _ = what(guardian, &endpoint);
        }
    };
    if !is_abstract {
        tell(Guardian::adopt);
    }
    let made = make();
    if is_abstract {
        return made;
    }
    match (&made, socket_name) {
        (Err(_), _) => tell(Guardian::release),
        (Ok(_), Some(name)) => {
            let file = std::path::absolute(name)
                .and_then(|path| std::fs::symlink_metadata(&path).map(|file| (path, file.dev(), file.ino())));
            *SOCKET_FILE.lock().unwrap_or_else(PoisonError::into_inner) = file.ok();
        }
        (Ok(_), None) => {}
    }
    made
}

/// The same socket, whatever the guardian's directory is.
fn absolute(endpoint: &Endpoint, socket_name: Option<&str>) -> Endpoint {
    let path = socket_name.and_then(|name| std::path::absolute(Path::new(name)).ok());
    let Some(path) = path.and_then(|path| path.into_os_string().into_string().ok()) else {
        return endpoint.clone();
    };
    match endpoint {
        Endpoint::UnixStream(_) => Endpoint::UnixStream(path),
        Endpoint::UnixSeqpacket(_) => Endpoint::UnixSeqpacket(path),
        Endpoint::UnixDatagram(_) => Endpoint::UnixDatagram(path),
        other => other.clone(),
    }
}
