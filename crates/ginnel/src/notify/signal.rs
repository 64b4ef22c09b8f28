//! Signals and whom they are sent to: `signal(7)`, `kill(2)`, `killpg(3)`, `tgkill(2)`, `sigqueue(3)`.
//!
//! # What a user sees
//! A [`Signal`] has a number and a name; a [`Target`] says who is to get it. A standard signal that is pending already
//! is not queued a second time: ten are delivered as one. Real-time signals queue, in order, lowest number first, each
//! with its payload when it was sent by [`Target::queue`].
//!
//! Differences from the bare calls: `kill(2)` gives the numbers 0, -1 and below a meaning of their own, and
//! `killpg(1, ..)` reaches every process there is. Here each of them is a target with a name, and a process number that
//! is not greater than 0, or a group number that is not greater than 1, is refused.
//!
//! The numbers 32 and 33 (the C library uses them among its threads) are no signals here: to send one to a thread of
//! one's own process could end that thread in the middle of Rust code.
//!
//! To receive: [`SignalSet::wait`](super::SignalSet::wait), [`SignalFd`](super::SignalFd),
//! [`Handler`](super::Handler), [`Flag`](super::Flag).
#![allow(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use rustix::io::Errno;

use super::disposition::Status;
use super::siginfo::{Payload, RawInfo};
use crate::error::{Error, Label, Result};
use crate::wait::check;

/// A signal: a standard one by its constant, a real-time one by [`Signal::realtime`].
///
/// ```
/// use ginnel::notify::Signal;
///
/// assert_eq!("TERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("sigterm".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("15".parse::<Signal>()?, Signal::TERM);
/// assert_eq!("RTMIN+3".parse::<Signal>()?, Signal::realtime(3)?);
/// assert_eq!(Signal::realtime(3)?.to_string(), "SIGRTMIN+3");
/// assert!("TREM".parse::<Signal>().unwrap_err().to_string().contains("did you mean TERM"));
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

/// What a signal does to a process that neither ignores nor catches it: `signal(7)`.
///
/// ```
/// use ginnel::notify::{DefaultAction, Signal};
///
/// assert_eq!(Signal::TERM.default_action(), DefaultAction::Terminate);
/// assert_eq!(Signal::CHLD.default_action(), DefaultAction::Ignore);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    /// It ends the process.
    Terminate,
    /// It ends the process, which dumps its core.
    Core,
    /// Nothing.
    Ignore,
    /// It stops the process until `SIGCONT`.
    Stop,
    /// A stopped process goes on.
    Continue,
}

macro_rules! standard_signals {
    ($($name:ident = $raw:ident, $action:ident, $meaning:literal;)*) => {
        impl Signal {
            $(
                #[doc = concat!("`", stringify!($raw), "`: ", $meaning, ".")]
                pub const $name: Signal = Signal(libc::$raw);
            )*
        }

        const STANDARD: &[(Signal, &str, DefaultAction, &str)] =
            &[$((Signal::$name, stringify!($name), DefaultAction::$action, $meaning)),*];
    };
}

standard_signals! {
    HUP = SIGHUP, Terminate, "the terminal was hung up; to a daemon: read the configuration again";
    INT = SIGINT, Terminate, "interrupt from the keyboard (Ctrl-C)";
    QUIT = SIGQUIT, Core, "quit from the keyboard (Ctrl-\\)";
    ILL = SIGILL, Core, "an illegal instruction";
    TRAP = SIGTRAP, Core, "a trace or breakpoint trap";
    ABRT = SIGABRT, Core, "abort(3)";
    BUS = SIGBUS, Core, "a bad memory access: past the end of a mapped file, for one";
    FPE = SIGFPE, Core, "an arithmetic error: an integer divided by zero, for one";
    KILL = SIGKILL, Terminate, "ends a process; it cannot be caught, blocked or ignored";
    USR1 = SIGUSR1, Terminate, "the program's own";
    SEGV = SIGSEGV, Core, "an invalid memory reference";
    USR2 = SIGUSR2, Terminate, "the program's own";
    PIPE = SIGPIPE, Terminate, "a write to a pipe or socket that nobody reads";
    ALRM = SIGALRM, Terminate, "the timer of alarm(2) or setitimer(2)";
    TERM = SIGTERM, Terminate, "please end";
    STKFLT = SIGSTKFLT, Terminate, "unused";
    CHLD = SIGCHLD, Ignore, "a child ended, stopped or went on";
    CONT = SIGCONT, Continue, "go on if stopped";
    STOP = SIGSTOP, Stop, "stops a process; it cannot be caught, blocked or ignored";
    TSTP = SIGTSTP, Stop, "stop from the keyboard (Ctrl-Z)";
    TTIN = SIGTTIN, Stop, "a process in the background read from the terminal";
    TTOU = SIGTTOU, Stop, "a process in the background wrote to the terminal, or set it";
    URG = SIGURG, Ignore, "urgent data on a socket";
    XCPU = SIGXCPU, Core, "the limit of processor time was hit";
    XFSZ = SIGXFSZ, Core, "the limit of a file's size was hit";
    VTALRM = SIGVTALRM, Terminate, "the timer of setitimer(2) on processor time";
    PROF = SIGPROF, Terminate, "the profiling timer of setitimer(2)";
    WINCH = SIGWINCH, Ignore, "the terminal's window has another size";
    IO = SIGIO, Terminate, "a descriptor is ready";
    PWR = SIGPWR, Terminate, "the power fails";
    SYS = SIGSYS, Core, "a bad system call, or one that seccomp refuses";
}

const ALIASES: &[(&str, Signal)] = &[("IOT", Signal::ABRT), ("CLD", Signal::CHLD), ("POLL", Signal::IO)];

impl Signal {
    /// The `n`th real-time signal, from 0: `SIGRTMIN + n`.
    ///
    /// # Errors
    /// `EINVAL`: there are no more than [`Signal::realtime_count`].
    pub fn realtime(n: u32) -> Result<Signal> {
        if n < Signal::realtime_count() {
            return Ok(Signal(libc::SIGRTMIN() + n as i32));
        }
        let most = Signal::realtime_count() - 1;
        Err(invalid(&format!("RTMIN+{n}"), format!("real-time signals are RTMIN+0 to RTMIN+{most}")))
    }

    /// How many real-time signals a program has: 31 with glibc.
    pub fn realtime_count() -> u32 {
        (libc::SIGRTMAX() - libc::SIGRTMIN() + 1) as u32
    }

    /// The signal with this number.
    ///
    /// # Errors
    /// `EINVAL`: no such signal, or one that the C library keeps for itself (32 and 33).
    pub fn from_number(number: i32) -> Result<Signal> {
        Signal::known(number).ok_or_else(|| {
            let why = match number {
                32..=64 => "this number is reserved by the C library".to_owned(),
                _ => format!("signals are 1 to 31 and {} to {}", libc::SIGRTMIN(), libc::SIGRTMAX()),
            };
            invalid(&number.to_string(), why)
        })
    }

    pub(super) fn known(number: i32) -> Option<Signal> {
        let realtime = libc::SIGRTMIN()..=libc::SIGRTMAX();
        ((1..=31).contains(&number) || realtime.contains(&number)).then_some(Signal(number))
    }

    /// Every signal, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Signal> {
        (1..=libc::SIGRTMAX()).filter_map(Signal::known)
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether it is a real-time signal: it queues.
    pub fn is_realtime(self) -> bool {
        self.0 >= libc::SIGRTMIN()
    }

    /// What it does to a process that neither ignores nor catches it.
    pub fn default_action(self) -> DefaultAction {
        self.row().map_or(DefaultAction::Terminate, |row| row.2)
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        self.row().map_or("real-time, the program's own", |row| row.3)
    }

    fn row(self) -> Option<&'static (Signal, &'static str, DefaultAction, &'static str)> {
        STANDARD.iter().find(|row| row.0 == self)
    }

    /// Sends it to the calling thread: `raise(3)`. It is delivered before this returns, unless it is blocked.
    ///
    /// # Errors
    /// As [`Target::send`].
    pub fn raise(self) -> Result<()> {
        Target::this_thread().send(self)
    }
}

impl fmt::Display for Signal {
    /// `SIGTERM`, `SIGRTMIN+3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.pad(&format!("SIG{}", row.1)),
            None => f.pad(&format!("SIGRTMIN+{}", self.0 - libc::SIGRTMIN())),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Signal {
    type Err = Error;

    /// With `SIG` or without, in any case; `RTMIN+n`, `RTMAX-n`, or the number.
    fn from_str(text: &str) -> Result<Signal> {
        if let Ok(number) = text.parse() {
            return Signal::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = STANDARD.iter().map(|row| (row.1, row.0)).chain(ALIASES.iter().copied());
        if let Some((_, signal)) = known.clone().find(|(known, _)| *known == name) {
            return Ok(signal);
        }
        if let Some(signal) = parse_realtime(name) {
            return signal;
        }
        let same_letters = |known: &str| sorted(known) == sorted(name);
        let begins = |known: &str| !name.is_empty() && known.starts_with(name);
        let close = known.map(|(known, _)| known).find(|known| same_letters(known) || begins(known));
        let guess = close.map_or(String::new(), |known| format!("; did you mean {known}?"));
        Err(invalid(text, format!("a signal is a name (TERM, SIGTERM, RTMIN+3) or a number{guess}")))
    }
}

fn sorted(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes
}

fn parse_realtime(name: &str) -> Option<Result<Signal>> {
    let last = Signal::realtime_count() - 1;
    let n = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => 0,
        (Some(rest), _) => rest.strip_prefix('+')?.parse().ok()?,
        (_, Some("")) => last,
        (_, Some(rest)) => {
            let below: u32 = rest.strip_prefix('-')?.parse().ok()?;
            match last.checked_sub(below) {
                Some(n) => n,
                None => {
                    return Some(Err(invalid(name, format!("real-time signals are RTMAX-{last} to RTMAX"))));
                }
            }
        }
        _ => return None,
    };
    Some(Signal::realtime(n))
}

fn invalid(text: &str, why: String) -> Error {
    Error::invalid("signal", &Label::new(format!("signal {text}")), why)
}

/// Who is to get a signal.
///
/// ```
/// use ginnel::notify::{Signal, SignalSet, Target};
///
/// let signals = SignalSet::from(Signal::realtime(0)?);
/// let _blocked = signals.block()?;
/// let me = Target::Process(std::process::id() as i32);
/// # // Any thread of a test's process could take it, and they have it unblocked.
/// # let me = Target::this_thread();
/// for number in 1..=3 {
///     me.queue(Signal::realtime(0)?, number)?;
/// }
/// for number in 1..=3 {
///     assert_eq!(signals.wait()?.payload.unwrap().int(), number);
/// }
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A process: any of its threads that does not block the signal takes it.
    Process(i32),
    /// One thread of a process (`tgkill(2)`).
    Thread {
        /// The process id.
        process: i32,
        /// The thread id: `gettid(2)`.
        thread: i32,
    },
    /// Every process of a group (`killpg(3)`).
    Group(i32),
    /// Every process of the caller's group, the caller too.
    OwnGroup,
    /// Every process that the caller may signal, but for process 1 and itself (`kill(-1, ..)`).
    Everyone,
}

impl Target {
    /// The calling process.
    pub fn this_process() -> Target {
        Target::Process(std::process::id() as i32)
    }

    /// The calling thread.
    pub fn this_thread() -> Target {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Target::Thread { process: std::process::id() as i32, thread }
    }

    /// What a number means to `kill(2)`: a process, 0 for the caller's group, -1 for everyone, less for a group.
    pub fn from_kill(number: i32) -> Target {
        match number {
            0 => Target::OwnGroup,
            -1 => Target::Everyone,
            1.. => Target::Process(number),
            _ => Target::Group(number.checked_neg().unwrap_or(0)),
        }
    }

    /// Sends a signal.
    ///
    /// The sender needs `CAP_KILL`, or its real or effective user must be the receiver's real or saved one; `SIGCONT`
    /// needs no more than the same session. With a group or everyone as the target, one process that gets it is success.
    ///
    /// # Errors
    /// `ESRCH`: there is no such process, thread or group; a process that ended and has not been waited for is still
    /// there. `EPERM`: the caller may not signal it. `EINVAL`: a number that names no process.
    pub fn send(self, signal: Signal) -> Result<()> {
        self.send_raw(signal.number())
    }

    /// Sends a signal with a payload, `SI_QUEUE`: `sigqueue(3)`, and `rt_tgsigqueueinfo(2)` for a thread.
    ///
    /// A real-time signal queues behind those that are pending. A standard one that is pending already is dropped, with
    /// its payload, and that is success. Never waits.
    ///
    /// # Errors
    /// `EAGAIN`: the receiver's user has `RLIMIT_SIGPENDING` signals queued; nothing was sent. (A real-time signal sent
    /// by [`Target::send`] is delivered then too, once, without its `Info`.) `ESRCH`, `EPERM` as [`Target::send`].
    /// `EINVAL`: the target is a group or everyone, which the kernel cannot queue for.
    pub fn queue(self, signal: Signal, payload: impl Into<Payload>) -> Result<()> {
        self.queue_raw(signal, payload.into())
    }

    /// Asks what sending would answer, and sends nothing: the signal 0 of `kill(2)`.
    ///
    /// # Errors
    /// As [`Target::send`]: `ESRCH` for nobody there, `EPERM` for somebody whom the caller may not signal.
    pub fn probe(self) -> Result<()> {
        self.send_raw(0)
    }

    /// Whether there is such a process, thread or group, for the caller to signal or not.
    ///
    /// A number may be in use again for another process; a [`PidFd`](super::PidFd) cannot be mistaken.
    ///
    /// # Errors
    /// `EINVAL`: a number that names no process.
    pub fn exists(self) -> Result<bool> {
        match self.probe() {
            Ok(()) => Ok(true),
            Err(error) if error.raw() == Errno::PERM => Ok(true),
            Err(error) if error.raw() == Errno::SRCH => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send_raw(self, number: i32) -> Result<()> {
        self.check_numbers(self.send_call())?;
        // SAFETY: kill and tgkill take numbers only. `number` is 0 or a Signal's, none of the C library's own, so no
        // handler runs that is not made for a signal that anybody may send at any time.
        let outcome = unsafe {
            match self {
                Target::Process(pid) => check(libc::kill(pid, number)),
                Target::Thread { process, thread } => {
                    check(libc::syscall(libc::SYS_tgkill, process, thread, number))
                }
                Target::Group(group) => check(libc::kill(-group, number)),
                Target::OwnGroup => check(libc::kill(0, number)),
                Target::Everyone => check(libc::kill(-1, number)),
            }
        };
        outcome.map(drop).map_err(|errno| self.explain(Error::new(self.send_call(), errno, &self.label())))
    }

    fn queue_raw(self, signal: Signal, payload: Payload) -> Result<()> {
        let call = match self {
            Target::Thread { .. } => "rt_tgsigqueueinfo",
            _ => "sigqueue",
        };
        self.check_numbers(call)?;
        let info = RawInfo::queued(signal, payload);
        // SAFETY: the pointer is to a whole siginfo_t, which the kernel reads; the signal is as in `send_raw`.
        let outcome = unsafe {
            match self {
                Target::Process(pid) => {
                    check(libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal.number(), info.as_ptr()))
                }
                Target::Thread { process, thread } => check(libc::syscall(
                    libc::SYS_rt_tgsigqueueinfo,
                    process,
                    thread,
                    signal.number(),
                    info.as_ptr(),
                )),
                Target::Group(_) | Target::OwnGroup | Target::Everyone => {
                    let why = "a payload goes to one process or thread; queue it to each member of the group";
                    return Err(Error::invalid(call, &self.label(), why));
                }
            }
        };
        outcome.map(drop).map_err(|errno| self.explain(Error::new(call, errno, &self.label())))
    }

    fn send_call(self) -> &'static str {
        match self {
            Target::Thread { .. } => "tgkill",
            Target::Group(_) => "killpg",
            _ => "kill",
        }
    }

    fn check_numbers(self, call: &'static str) -> Result<()> {
        let why = match self {
            Target::Process(..=0) => {
                "a process id is greater than 0; a group or everyone is a target of its own"
            }
            Target::Thread { process: ..=0, .. } | Target::Thread { thread: ..=0, .. } => {
                "a process id and a thread id are greater than 0"
            }
            Target::Group(..=1) => {
                "a group's number is greater than 1; killpg(1) would reach every process: say Everyone for that"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(call, &self.label(), why))
    }

    fn label(self) -> Label {
        Label::new(format!("signal:{self}"))
    }

    fn explain(self, error: Error) -> Error {
        let pid = match self {
            Target::Process(pid) | Target::Thread { process: pid, .. } => pid,
            _ => 0,
        };
        match (error.raw(), self) {
            (Errno::SRCH, Target::Thread { process, thread }) => {
                error.with_hint(format!("process {process} has no thread {thread}, or has ended"))
            }
            (Errno::SRCH, Target::Group(group)) => error.with_hint(format!("group {group} has no process")),
            (Errno::SRCH, _) => error.with_hint("no such process: it ended and was waited for, or never was"),
            (Errno::PERM, _) => error.with_hint(permission_hint(pid)),
            (Errno::AGAIN, _) => error.with_hint(queue_hint(pid)),
            _ => error,
        }
    }
}

/// Whose the process is, who asks, and what would be enough.
pub(super) fn permission_hint(pid: i32) -> String {
    let asks = rustix::process::geteuid().as_raw();
    let need = "the sender must be its user or have CAP_KILL (SIGCONT: be in its session)";
    match Status::of(pid) {
        Ok(status) => format!(
            "process {pid} belongs to user {} (saved {}), the sender is user {asks}: {need}",
            status.uid, status.saved_uid
        ),
        Err(_) => format!("it belongs to another user than {asks}: {need}"),
    }
}

pub(super) fn queue_hint(pid: i32) -> String {
    let raise = "have the receiver wait for them, or raise RLIMIT_SIGPENDING (`ulimit -i`)";
    match Status::of(pid) {
        Ok(status) => {
            format!(
                "user {} has {} of {} signals queued: {raise}",
                status.uid, status.queued, status.queued_max
            )
        }
        Err(_) => format!("too many signals are queued: {raise}"),
    }
}

impl fmt::Display for Target {
    /// As `kill(1)` takes it: `4711`, `-4711` for a group, `0`, `-1`; `4711/4713` for a thread.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Process(pid) => write!(f, "{pid}"),
            Target::Thread { process, thread } => write!(f, "{process}/{thread}"),
            Target::Group(group) => write!(f, "-{group}"),
            Target::OwnGroup => f.write_str("0"),
            Target::Everyone => f.write_str("-1"),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    /// As `kill(1)` has it: `4711`, `-4711` for a group, `0`, `-1`; `4711/4713` for a thread.
    fn from_str(text: &str) -> Result<Target> {
        let number = |text: &str| {
            text.parse::<i32>().map_err(|_| {
                let why = "a target is a process (4711), a group (-4711) or a thread (4711/4713)";
                Error::invalid("kill", &Label::new(format!("signal:{text}")), why)
            })
        };
        match text.split_once('/') {
            Some((process, thread)) => {
                Ok(Target::Thread { process: number(process)?, thread: number(thread)? })
            }
            None => Ok(Target::from_kill(number(text)?)),
        }
    }
}
