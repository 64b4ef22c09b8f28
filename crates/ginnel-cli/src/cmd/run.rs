//! `ginnel run`: an unmodified program on the user-space home.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use ginnel::Namespace;
use ginnel::namespace::Limits;

use crate::failure::{Failure, Result};
use crate::{drop_in, home, output, warden};

/// Run an unmodified program with its System V and POSIX IPC in user space.
///
/// The program's calls of msgsnd(2), semop(2), shmat(2), mq_send(3), sem_wait(3), shm_open(3) and all their sisters are
/// served by a library that the dynamic linker loads before the C library, from a namespace: a directory in a memory
/// file system. No limit of the kernel's holds, no privilege is needed, and no object of the kernel's is made or seen. The
/// programs that it starts are served too, and all that are run in the same namespace share its objects.
///
/// The program takes the place of this command: its exit code is the command's. 126 and 127 if it could not be started,
/// 125 if it is the namespace that could not be had.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel run -- ./server
  ginnel run --namespace jobs -- python3 worker.py
  ginnel run --private -- make check
  ginnel run --namespace jobs --limit msgmnb=1M -- ./sender
  ginnel run --namespace jobs -- ipcs -a")]
pub(crate) struct Args {
    /// The namespace's name or directory, made if there is none; what GINNEL_NAMESPACE says unless given, and `default`
    /// if it says nothing.
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "private")]
    namespace: Option<String>,
    /// A namespace of its own, which is gone, with all it holds, when the last process of the program's has ended.
    #[arg(long)]
    private: bool,
    /// A limit of a namespace that is made here, under the kernel's name for it: msgmax, msgmnb, semmsl, semopm, semvmx,
    /// shmmax, msg_max, msgsize_max, msg_default or msgsize_default.
    #[arg(long, value_name = "NAME=VALUE", value_parser = limit)]
    limit: Vec<(&'static str, u64)>,
    /// What to run, with its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What is used when nothing is said.
const DEFAULT: &str = "default";
/// As env(1), nice(1) and the like: what failed is this command, not the program.
const FAILED: u8 = 125;

/// The namespace that the words of the command line, or the environment, choose.
pub(crate) fn named(namespace: Option<&str>) -> String {
    let given = namespace.map(str::to_owned).or_else(|| std::env::var(home::VARIABLE).ok());
    given.filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT.into())
}

pub(crate) fn run(args: Args) -> Result {
    let failed = |failure: Failure| match failure {
        Failure::Failed(why) => {
            output::note(why);
            Ok(ExitCode::from(FAILED))
        }
        other => Err(other),
    };
    match args.prepare() {
        Ok(Ok(mut command)) => {
            let error = command.exec();
            output::note(format_args!("{}: {error}", command.get_program().to_string_lossy()));
            Ok(ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }))
        }
        Ok(Err(unreachable)) => {
            output::note(unreachable.why);
            Ok(ExitCode::from(unreachable.code))
        }
        Err(failure) => failed(failure),
    }
}

impl Args {
    fn prepare(&self) -> Result<drop_in::Reached<Command>> {
        let library = drop_in::library()?;
        // Before anything is made.
        let program = match drop_in::check(&self.command[0]) {
            Ok(program) => program,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        let namespace = self.open()?;
        let mut command = Command::new(program);
        command.arg0(&self.command[0]).args(&self.command[1..]);
        command.env(drop_in::PRELOAD, drop_in::preload(&library));
        let path = namespace.path().ok_or_else(|| {
            Failure::usage("the kernel's home needs no library; run the program without `ginnel run`")
        })?;
        command.env(home::VARIABLE, path);
        if namespace.is_private() {
            command.env(warden::HELD_VARIABLE, warden::watch(&namespace)?);
        }
        Ok(Ok(command))
    }

    fn open(&self) -> Result<Namespace> {
        let options = Namespace::options().limits(self.limits());
        if self.private {
            return Ok(options.private()?);
        }
        let name = named(self.namespace.as_deref());
        let options = options.create(true);
        Ok(match name.as_str() {
            home::KERNEL_NAME => Namespace::kernel(),
            path if path.contains('/') => options.at(path)?,
            name => options.open(name)?,
        })
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for (name, value) in &self.limit {
            if let Some(limit) = field(&mut limits, name) {
                *limit = *value;
            }
        }
        // As the kernel has it where nothing is said: no default is above what may be asked for.
        let is_named = |name: &str| self.limit.iter().any(|(named, _)| *named == name);
        if !is_named("msg_default") {
            limits.msg_default = limits.msg_default.min(limits.msg_max);
        }
        if !is_named("msgsize_default") {
            limits.msgsize_default = limits.msgsize_default.min(limits.msgsize_max);
        }
        limits
    }
}

const LIMITS: [&str; 10] = [
    "msgmax",
    "msgmnb",
    "semmsl",
    "semopm",
    "semvmx",
    "shmmax",
    "msg_max",
    "msgsize_max",
    "msg_default",
    "msgsize_default",
];

fn field<'l>(limits: &'l mut Limits, name: &str) -> Option<&'l mut u64> {
    Some(match name {
        "msgmax" => &mut limits.msgmax,
        "msgmnb" => &mut limits.msgmnb,
        "semmsl" => &mut limits.semmsl,
        "semopm" => &mut limits.semopm,
        "semvmx" => &mut limits.semvmx,
        "shmmax" => &mut limits.shmmax,
        "msg_max" => &mut limits.msg_max,
        "msgsize_max" => &mut limits.msgsize_max,
        "msg_default" => &mut limits.msg_default,
        "msgsize_default" => &mut limits.msgsize_default,
        _ => return None,
    })
}

/// `msgmnb=1M`
fn limit(text: &str) -> std::result::Result<(&'static str, u64), String> {
    let (name, value) = text.split_once('=').ok_or("a limit is NAME=VALUE, for instance msgmnb=1M")?;
    let name = LIMITS.into_iter().find(|known| *known == name);
    let name = name.ok_or_else(|| format!("there is no such limit; there are: {}", LIMITS.join(", ")))?;
    Ok((name, crate::args::size(value)?))
}
