//! What comes with a signal: `siginfo_t` of `sigaction(2)`, `sigwaitinfo(2)` and `waitid(2)`, and that of `signalfd(2)`.
#![allow(unsafe_code)]

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::signal::Signal;

/// What travels with a queued signal: `union sigval`, an `int` or a pointer-sized word.
///
/// ```
/// use ginnel::notify::Payload;
///
/// assert_eq!(Payload::from(-7).int(), -7);
/// assert_eq!(Payload::from_word(0x1_0000_0002).word(), 0x1_0000_0002);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Payload(usize);

impl Payload {
    /// The payload that a C program reads as `sival_ptr`: a number; nobody follows it as a pointer.
    pub const fn from_word(word: usize) -> Payload {
        Payload(word)
    }

    /// The `int`: `sival_int`. The rest of the word is undefined when the sender set only this.
    pub const fn int(self) -> i32 {
        let bytes = self.0.to_ne_bytes();
        i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// The whole word: `sival_ptr`.
    pub const fn word(self) -> usize {
        self.0
    }
}

impl From<i32> for Payload {
    fn from(int: i32) -> Payload {
        let mut bytes = [0; size_of::<usize>()];
        bytes[..4].copy_from_slice(&int.to_ne_bytes());
        Payload(usize::from_ne_bytes(bytes))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({:#x})", self.0)
    }
}

/// Why a signal was sent: `si_code`.
///
/// ```
/// use std::process::Command;
/// use ginnel::notify::{Code, PidFd, Signal};
///
/// let exits = PidFd::of_child(&Command::new("false").spawn()?)?;
/// assert_eq!(exits.reap()?.code, Code::ChildExited);
///
/// let sleeper = PidFd::of_child(&Command::new("sleep").arg("60").spawn()?)?;
/// sleeper.send(Signal::TERM)?;
/// assert_eq!(sleeper.reap()?.code, Code::ChildKilled);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Code {
    /// By `kill(2)`, `killpg(3)` or `pidfd_send_signal(2)` (`SI_USER`).
    User,
    /// By `tgkill(2)` or `raise(3)`: meant for one thread (`SI_TKILL`).
    Thread,
    /// By `sigqueue(3)`: there is a payload (`SI_QUEUE`).
    Queue,
    /// By a timer of `timer_create(2)`: there is a payload (`SI_TIMER`).
    Timer,
    /// By a POSIX message queue, asked with `mq_notify(3)`: there is a payload (`SI_MESGQ`).
    MessageQueue,
    /// By asynchronous I/O that ended: there is a payload (`SI_ASYNCIO`).
    AsyncIo,
    /// By a descriptor that became ready, asked with `F_SETOWN` and `O_ASYNC` (`SI_SIGIO` and the `POLL_` codes).
    Ready,
    /// By the kernel, without a reason of the kinds below (`SI_KERNEL`): Ctrl-C on a terminal, for one.
    Kernel,
    /// A child exited (`CLD_EXITED`): the status is its exit code.
    ChildExited,
    /// A signal ended a child (`CLD_KILLED`): the status is the signal.
    ChildKilled,
    /// A signal ended a child, which dumped its core (`CLD_DUMPED`): the status is the signal.
    ChildDumped,
    /// A traced child stopped (`CLD_TRAPPED`): the status is the signal.
    ChildTrapped,
    /// A signal stopped a child (`CLD_STOPPED`): the status is the signal.
    ChildStopped,
    /// A stopped child goes on (`CLD_CONTINUED`): the status is `SIGCONT`.
    ChildContinued,
    /// The program's own instruction did it (`SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE`, `SIGTRAP`, `SIGSYS`), with the
    /// code that `sigaction(2)` lists for that signal.
    Fault(i32),
    /// Another code, as it is.
    Other(i32),
}

impl Code {
    fn new(signal: i32, code: i32) -> Code {
        match code {
            libc::SI_USER => Code::User,
            libc::SI_TKILL => Code::Thread,
            libc::SI_QUEUE => Code::Queue,
            libc::SI_TIMER => Code::Timer,
            libc::SI_MESGQ => Code::MessageQueue,
            libc::SI_ASYNCIO => Code::AsyncIo,
            libc::SI_SIGIO => Code::Ready,
            libc::SI_KERNEL => Code::Kernel,
            1.. => Code::of_kernel(signal, code),
            _ => Code::Other(code),
        }
    }

    /// The positive codes mean another thing for every signal.
    fn of_kernel(signal: i32, code: i32) -> Code {
        match (signal, code) {
            (libc::SIGCHLD, libc::CLD_EXITED) => Code::ChildExited,
            (libc::SIGCHLD, libc::CLD_KILLED) => Code::ChildKilled,
            (libc::SIGCHLD, libc::CLD_DUMPED) => Code::ChildDumped,
            (libc::SIGCHLD, libc::CLD_TRAPPED) => Code::ChildTrapped,
            (libc::SIGCHLD, libc::CLD_STOPPED) => Code::ChildStopped,
            (libc::SIGCHLD, libc::CLD_CONTINUED) => Code::ChildContinued,
            (
                libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP | libc::SIGSYS,
                _,
            ) => Code::Fault(code),
            // POLL_IN to POLL_HUP, on whichever signal F_SETSIG chose.
            (_, 1..=6) => Code::Ready,
            _ => Code::Other(code),
        }
    }

    fn has_payload(self) -> bool {
        matches!(self, Code::Queue | Code::Timer | Code::MessageQueue | Code::AsyncIo)
    }

    fn has_sender(self) -> bool {
        matches!(self, Code::User | Code::Thread | Code::Queue | Code::MessageQueue) || self.is_child()
    }

    fn is_child(self) -> bool {
        use Code::*;
        matches!(self, ChildExited | ChildKilled | ChildDumped | ChildTrapped | ChildStopped | ChildContinued)
    }
}

/// A signal that arrived, or what became of a child: the parts of `siginfo_t` that mean something for its [`Code`].
///
/// ```
/// use ginnel::notify::{Code, Signal, SignalSet, Target};
///
/// let signals = SignalSet::from(Signal::USR1);
/// let _blocked = signals.block()?;
/// Target::this_thread().send(Signal::USR1)?;
/// let info = signals.wait()?;
/// assert_eq!((info.signal, info.code), (Signal::USR1, Code::Thread));
/// assert_eq!(info.pid, std::process::id() as i32);
/// # Ok::<(), ginnel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Info {
    /// Which signal; `SIGCHLD` for what `waitid(2)` tells.
    pub signal: Signal,
    /// Why it was sent.
    pub code: Code,
    /// The sender, or the child that it is about; 0 where the kernel sent it, and for a process that this PID
    /// namespace does not see.
    pub pid: i32,
    /// The sender's real user id, or the child's; 0 where the kernel sent it.
    pub uid: u32,
    /// What came with it, for the codes that have a payload.
    pub payload: Option<Payload>,
    /// A child's exit code or signal (`si_status`), for the codes that tell of a child.
    pub status: Option<i32>,
    /// Where the fault was (`si_addr`), for [`Code::Fault`].
    pub address: Option<usize>,
    /// The descriptor that became ready (`si_fd`), for [`Code::Ready`].
    pub descriptor: Option<i32>,
    /// How many expiries were missed (`si_overrun`), for [`Code::Timer`].
    pub overrun: Option<i32>,
}

impl Info {
    /// How the child ended, for the codes that tell of an end.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let status = self.status?;
        let raw = match self.code {
            Code::ChildExited => (status & 0xff) << 8,
            Code::ChildKilled => status & 0x7f,
            Code::ChildDumped => (status & 0x7f) | 0x80,
            _ => return None,
        };
        Some(ExitStatus::from_raw(raw))
    }

    pub(super) fn from_raw(raw: &RawInfo) -> Option<Info> {
        let [number, _, code] = [raw.0[0], raw.0[1], raw.0[2]];
        let union = &raw.0[UNION..];
        let word = |at: usize| {
            let [low, high] = [union[at].to_ne_bytes(), union[at + 1].to_ne_bytes()];
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&low);
            bytes[4..].copy_from_slice(&high);
            // On a 32-bit machine the word is its first half.
            usize::from_ne_bytes(bytes[..size_of::<usize>()].try_into().expect("a word's bytes"))
        };
        // struct { pid; uid; value or status } | { timer; overrun; value } | { addr } | { long band; fd }
        let fields = Fields {
            pid: union[0],
            uid: union[1] as u32,
            status: union[2],
            word: word(2),
            address: word(0),
            descriptor: union[size_of::<usize>() / 4],
            overrun: union[1],
        };
        Info::new(number, code, fields)
    }

    pub(super) fn from_signalfd(raw: &libc::signalfd_siginfo) -> Option<Info> {
        let fields = Fields {
            pid: raw.ssi_pid as i32,
            uid: raw.ssi_uid,
            status: raw.ssi_status,
            word: raw.ssi_ptr as usize,
            address: raw.ssi_addr as usize,
            descriptor: raw.ssi_fd,
            overrun: raw.ssi_overrun as i32,
        };
        Info::new(raw.ssi_signo as i32, raw.ssi_code, fields)
    }

    fn new(number: i32, code: i32, fields: Fields) -> Option<Info> {
        let signal = Signal::known(number)?;
        let code = Code::new(number, code);
        let sender = code.has_sender();
        Some(Info {
            signal,
            code,
            pid: if sender { fields.pid } else { 0 },
            uid: if sender { fields.uid } else { 0 },
            payload: code.has_payload().then_some(Payload(fields.word)),
            status: code.is_child().then_some(fields.status),
            address: matches!(code, Code::Fault(_)).then_some(fields.address),
            descriptor: (code == Code::Ready).then_some(fields.descriptor),
            overrun: (code == Code::Timer).then_some(fields.overrun),
        })
    }
}

/// The members of all arms of the union; which of them mean something is the code's to say.
struct Fields {
    pid: i32,
    uid: u32,
    status: i32,
    word: usize,
    address: usize,
    descriptor: i32,
    overrun: i32,
}

/// Where the union begins, in `int`s: three come before it, and it is aligned to a pointer.
const UNION: usize = if size_of::<usize>() == 8 { 4 } else { 3 };

/// `siginfo_t` as the kernel lays it out: numbers only, so every value of it is valid.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(8))]
pub(crate) struct RawInfo([i32; 32]);

const _: () = assert!(size_of::<RawInfo>() == size_of::<libc::siginfo_t>());

impl RawInfo {
    pub(crate) const ZERO: RawInfo = RawInfo([0; 32]);

    /// What `sigqueue(3)` gives to the kernel.
    pub(super) fn queued(signal: Signal, payload: Payload) -> RawInfo {
        let mut raw = RawInfo::ZERO;
        raw.0[0] = signal.number();
        raw.0[2] = libc::SI_QUEUE;
        raw.0[UNION] = std::process::id() as i32;
        raw.0[UNION + 1] = rustix::process::getuid().as_raw() as i32;
        for (slot, bytes) in raw.0[UNION + 2..].iter_mut().zip(payload.0.to_ne_bytes().chunks_exact(4)) {
            *slot = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        raw
    }

    /// Async-signal-safe.
    pub(super) fn copied(info: &libc::siginfo_t) -> RawInfo {
        // SAFETY: both types have 128 bytes; a siginfo_t that the kernel wrote for a handler is initialised throughout
        // (the kernel zeroes what the signal does not use), and RawInfo takes any bytes. read_unaligned asks for no
        // alignment.
        unsafe { (&raw const *info).cast::<RawInfo>().read_unaligned() }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut RawInfo {
        &raw mut *self
    }

    pub(super) fn as_ptr(&self) -> *const RawInfo {
        &raw const *self
    }

    /// Whether `waitid(2)` filled it: it leaves a zero where there is nothing to tell.
    pub(crate) fn is_filled(&self) -> bool {
        self.0[0] != 0
    }
}
