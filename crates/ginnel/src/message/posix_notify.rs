//! Notices of a POSIX queue: `mq_notify(3)`, by signal, by thread, or none.
//!
//! # What a user sees
//! One process at a time is registered with a queue. It is told once, when a message comes to the empty queue and nobody
//! waits in a receive for it; then it is registered no more, and registers again, *before* it empties the queue, if it
//! wants the next notice. A program that can poll needs none of this: the queue's descriptor is readable.
//!
//! # How it works inside
//! The notice to a thread travels as in glibc: the kernel writes a cookie of 32 bytes, whose last tells why, to a netlink
//! socket when a message comes or the registration ends. A thread that blocks all signals waits there. In a user-space home
//! such a thread waits in the queue itself.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, mpsc};

use ginnel_engine::message::posix_queue as engine;
use ginnel_engine::wait::Patience;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::message::posix_queue::{Home, PosixQueue};
use crate::wait::check;

const COOKIE_BYTES: usize = 32;
/// In the cookie's last byte: a message came (`NOTIFY_WOKENUP` of the kernel). Else the registration has ended.
const WOKEN_UP: u8 = 1;

impl PosixQueue {
    /// Has this process sent `signal` with `payload` when a message comes to the empty queue, once.
    ///
    /// The signal's `si_code` is `SI_MESGQ` and its sender the process that sent the message.
    ///
    /// # Errors
    /// `EBUSY`: a process, perhaps this one, is registered. `EINVAL`: no such signal.
    pub fn notify_signal(&self, signal: i32, payload: i32) -> Result<()> {
        let fd = match self.home() {
            Home::Kernel(fd) => fd,
            Home::User(queue) => {
                // A negative one is none either.
                let signal = u32::try_from(signal).unwrap_or(u32::MAX);
                let notice = engine::Notification::Signal { signal, value: u64::from(payload as u32) };
                return self.registered(queue.engine().notify(notice).map(drop));
            }
        };
        let mut event = sigevent(libc::SIGEV_SIGNAL, signal);
        // SAFETY: sigval is the C union of int and pointer; writing its int is what the kernel hands on.
        unsafe { (&raw mut event.sigev_value).cast::<i32>().write(payload) };
        self.register(fd, Some(&event))
    }

    /// Runs `notice` in a thread of its own when a message comes to the empty queue, once.
    ///
    /// Dropped without having run when the registration ends first: by [`PosixQueue::notify_cancel`], or when this
    /// process closes a descriptor of the queue.
    ///
    /// ```
    /// # ginnel_testkit::private();
    /// use std::sync::mpsc;
    /// use ginnel::message::PosixQueue;
    ///
    /// let queue = PosixQueue::create("/doc-notice")?;
    /// let (tell, told) = mpsc::channel();
    /// queue.notify_thread(move || tell.send("there is post").unwrap())?;
    /// queue.send(0, b"dear neighbour")?;
    /// assert_eq!(told.recv(), Ok("there is post"));
    /// # PosixQueue::remove("/doc-notice")?;
    /// # Ok::<(), ginnel::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EBUSY`: a process, perhaps this one, is registered. `EAGAIN`: no further thread. `EMFILE`.
    /// `EAFNOSUPPORT`: no netlink (a sandbox).
    pub fn notify_thread(&self, notice: impl FnOnce() + Send + 'static) -> Result<()> {
        let fd = match self.home() {
            Home::Kernel(fd) => fd,
            Home::User(queue) => return self.notify_thread_of(queue.engine(), notice),
        };
        let fail = |operation, errno| Error::new(operation, errno, self.label());
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .map_err(|errno| fail("socket", errno))?;
        let kernels_end = socket.as_raw_fd();
        let (hand_over, handed_over) = mpsc::channel::<OwnedFd>();
        let spawned = with_signals_blocked(|before| {
            std::thread::Builder::new().name("mq_notify".into()).spawn(move || {
                // Nothing is handed over when the registration failed.
                let Ok(socket) = handed_over.recv() else { return };
                if message_came(&socket) {
                    drop(socket);
                    restore_signals(&before);
                    notice();
                }
            })
        });
        spawned.map_err(|error| Error::from_io("pthread_create", &error, self.label()))?;
        let cookie = [0_u8; COOKIE_BYTES];
        let mut event = sigevent(libc::SIGEV_THREAD, kernels_end);
        event.sigev_value.sival_ptr = cookie.as_ptr().cast_mut().cast();
        self.register(fd, Some(&event))?;
        // The thread waits for it and cannot be gone.
        let _ = hand_over.send(socket);
        Ok(())
    }

    /// Registers this process for no notice (`SIGEV_NONE`), so that nobody else can register.
    ///
    /// # Errors
    /// `EBUSY`: a process, perhaps this one, is registered.
    pub fn notify_none(&self) -> Result<()> {
        match self.home() {
            Home::Kernel(fd) => self.register(fd, Some(&sigevent(libc::SIGEV_NONE, 0))),
            Home::User(queue) => {
                self.registered(queue.engine().notify(engine::Notification::Nothing).map(drop))
            }
        }
    }

    /// Ends this process's registration; nothing happens if it has none.
    ///
    /// # Errors
    /// None that this type can provoke.
    pub fn notify_cancel(&self) -> Result<()> {
        match self.home() {
            Home::Kernel(fd) => self.register(fd, None),
            Home::User(queue) => self.registered(queue.engine().cancel_notify()),
        }
    }

    fn notify_thread_of(
        &self,
        queue: &Arc<engine::PosixQueue>,
        notice: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let (hand_over, handed_over) = mpsc::channel();
        let queue_of_thread = queue.clone();
        let spawned = with_signals_blocked(|before| {
            std::thread::Builder::new().name("mq_notify".into()).spawn(move || {
                // Nothing is handed over when the registration failed.
                let Ok(registration) = handed_over.recv() else { return };
                let outcome = loop {
                    match queue_of_thread.wait_notice(registration, Patience::Endless) {
                        // A debugger's stop can end the call, with all signals blocked even.
                        Err(Errno::INTR) => {}
                        outcome => break outcome,
                    }
                };
                // Before the notice, which may go on for as long as the program.
                drop(queue_of_thread);
                if outcome == Ok(true) {
                    restore_signals(&before);
                    notice();
                }
            })
        });
        spawned.map_err(|error| Error::from_io("pthread_create", &error, self.label()))?;
        let registration = self.registered(queue.notify(engine::Notification::Thread))?;
        // The thread waits for it and cannot be gone.
        let _ = hand_over.send(registration);
        Ok(())
    }

    fn register(&self, fd: &OwnedFd, event: Option<&libc::sigevent>) -> Result<()> {
        let event_ptr = event.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the event is null or a whole sigevent; with SIGEV_THREAD its pointer is to 32 readable bytes and its
        // signal number a netlink socket of this process. The kernel copies all of it during the call.
        let outcome = check(unsafe { libc::syscall(libc::SYS_mq_notify, fd.as_raw_fd(), event_ptr) });
        self.registered(outcome.map(drop))
    }

    fn registered<T>(&self, outcome: Result<T, Errno>) -> Result<T> {
        outcome.map_err(|errno| {
            let error = Error::new("mq_notify", errno, self.label());
            match (errno, self.status().ok().and_then(|status| status.notifies_pid)) {
                (Errno::BUSY, Some(pid)) => error.with_hint(format!("process {pid} is registered")),
                (Errno::BUSY, None) => error.with_hint("another process is registered"),
                (Errno::INVAL, _) => error.with_hint("there is no such signal"),
                _ => error,
            }
        })
    }
}

fn sigevent(notify: i32, signal: i32) -> libc::sigevent {
    // SAFETY: all zeros is a valid sigevent; the fields that count are set below.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = notify;
    event.sigev_signo = signal;
    event
}

/// Waits for the kernel's cookie: whether a message came.
fn message_came(socket: &OwnedFd) -> bool {
    let mut cookie = [0_u8; COOKIE_BYTES];
    loop {
        match rustix::net::recv(socket, &mut cookie, RecvFlags::empty()) {
            // A debugger's stop can end the call, with all signals blocked even.
            Err(Errno::INTR) => {}
            Ok((COOKIE_BYTES, _)) => return cookie[COOKIE_BYTES - 1] == WOKEN_UP,
            // Nothing but the kernel's cookies counts here.
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Runs `spawn` with all signals blocked, which the new thread inherits: no handler of the program runs in it.
fn with_signals_blocked<T>(spawn: impl FnOnce(libc::sigset_t) -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigfillset initialises `all`; both sets are valid for pthread_sigmask, which fills `before`.
    let before = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    };
    let value = spawn(before);
    restore_signals(&before);
    value
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: the set is one that pthread_sigmask gave.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}
