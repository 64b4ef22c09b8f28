//! One object of each kind that lives in a file, made, used and removed in the same way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::message::posix_queue::{LARGE, PosixQueue, QueueLimits};
use ginnel_engine::message::sysv_queue::{LARGE_BYTES, SysvQueue};
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use libc::{IPC_CREAT, IPC_EXCL, IPC_NOWAIT, O_CREAT, O_EXCL, O_RDWR, sembuf};

pub(crate) const KINDS: [Kind; 5] =
    [Kind::SysvQueue, Kind::SysvSemaphores, Kind::SysvSegment, Kind::PosixQueue, Kind::PosixSemaphore];

const NEW: i32 = IPC_CREAT | IPC_EXCL | 0o600;

/// An object's place: its kind and number.
#[derive(Clone, Copy)]
pub(crate) struct Place<'n> {
    pub(crate) home: &'n Namespace,
    pub(crate) kind: Kind,
    pub(crate) key: i32,
}

fn op(sem_num: u16, sem_op: i16, sem_flg: i32) -> sembuf {
    sembuf { sem_num, sem_op, sem_flg: sem_flg as i16 }
}

fn briefly() -> Patience {
    Patience::Until(Instant::now() + Duration::from_millis(8))
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

/// An errno that a caller of any of them must expect. Any other one would hide what is wrong.
fn expected<T>(outcome: Result<T>) -> Option<T> {
    const KNOWN: [Errno; 20] = [
        Errno::UCLEAN,
        Errno::TIMEDOUT,
        Errno::NOMSG,
        Errno::AGAIN,
        Errno::IDRM,
        Errno::TOOBIG,
        Errno::MSGSIZE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::INVAL,
        Errno::NOENT,
        Errno::RANGE,
        Errno::FBIG,
        Errno::OVERFLOW,
        Errno::BUSY,
        Errno::EXIST,
        Errno::ACCESS,
        Errno::PERM,
        Errno::NOLCK,
        Errno::DEADLK,
    ];
    match outcome {
        Ok(value) => Some(value),
        Err(errno) => {
            assert!(KNOWN.contains(&errno), "{errno}");
            None
        }
    }
}

impl Place<'_> {
    pub(crate) fn name(&self) -> String {
        format!("/object{}", self.key)
    }

    fn id(&self) -> Result<i32> {
        match self.kind {
            Kind::SysvQueue => SysvQueue::get(self.home, self.key, 0),
            Kind::SysvSemaphores => SysvSemaphores::get(self.home, self.key, 0, 0),
            _ => SysvSegment::get(self.home, self.key, 0, 0),
        }
    }

    fn queue(&self) -> Result<PosixQueue> {
        PosixQueue::open(self.home, self.name().as_bytes(), O_RDWR, 0, None)
    }

    fn semaphore(&self) -> Result<PosixSemaphore> {
        PosixSemaphore::open(self.home, self.name().as_bytes(), 0, 0, 0)
    }

    /// A new one, with something in it. It fails if there is one, or something of one.
    pub(crate) fn make(&self) -> Result<()> {
        let name = self.name();
        match self.kind {
            Kind::SysvQueue => {
                let queue = SysvQueue::open(self.home, SysvQueue::get(self.home, self.key, NEW)?)?;
                for (kind, len) in [(1, 10), (2, 100), (3, 3000), (2, LARGE_BYTES + 10)] {
                    queue.send(kind, &vec![7; len], 0, soon())?;
                }
                queue.descriptor()?;
            }
            Kind::SysvSemaphores => {
                let id = SysvSemaphores::get(self.home, self.key, 3, NEW)?;
                SysvSemaphores::open(self.home, id)?.set_values(&[1, 0, 5])?;
            }
            Kind::SysvSegment => drop(SysvSegment::get(self.home, self.key, 10_000, NEW)?),
            Kind::PosixQueue => {
                let bytes = LARGE as u64 + 64;
                let limits = QueueLimits { messages_max: 4, message_bytes_max: bytes };
                let flags = O_RDWR | O_CREAT | O_EXCL;
                let queue = PosixQueue::open(self.home, name.as_bytes(), flags, 0o600, Some(limits))?;
                queue.send(5, &[1; 16], soon())?;
                queue.send(600, &vec![2; bytes as usize], soon())?;
                queue.descriptor()?;
            }
            _ => drop(PosixSemaphore::open(self.home, name.as_bytes(), O_CREAT | O_EXCL, 0o600, 1)?),
        }
        Ok(())
    }

    /// Its file.
    pub(crate) fn file(&self) -> PathBuf {
        let directory = self.home.path().join(self.kind.directory());
        if self.kind.is_sysv() {
            return directory.join(format!("i.{}", self.id().unwrap()));
        }
        let end = &self.name()[1..];
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap()
    }

    /// Opens it, does what can be done with it in each way, `rounds` times, and has each call end by its deadline.
    pub(crate) fn work(&self, mut goes_on: impl FnMut() -> bool) {
        match self.kind {
            Kind::SysvQueue => {
                let Some(queue) = expected(self.id()).and_then(|id| expected(SysvQueue::open(self.home, id)))
                else {
                    return;
                };
                let mut room = vec![0; 2 * LARGE_BYTES];
                let mut rounds = 0;
                while goes_on() {
                    for (kind, flags) in [
                        (0, 0),
                        (2, IPC_NOWAIT),
                        (-3, libc::MSG_NOERROR),
                        (1, libc::MSG_EXCEPT | IPC_NOWAIT),
                        (0, libc::MSG_COPY | IPC_NOWAIT),
                    ] {
                        expected(queue.recv(&mut room, kind, flags, briefly()));
                    }
                    for (kind, len) in [(1, 10), (9, 100), (2, LARGE_BYTES + 10)] {
                        expected(queue.send(kind, &vec![3; len], 0, briefly()));
                    }
                    expected(self.id().and_then(|id| SysvQueue::status(self.home, id)));
                    // While somebody polls there is no short way: one in the whole round, and one before it.
                    rounds += 1;
                    if rounds % 3 == 1 {
                        expected(self.id().and_then(|id| {
                            SysvQueue::open(self.home, id).and_then(|queue| queue.descriptor().map(drop))
                        }));
                    }
                }
            }
            Kind::SysvSemaphores => {
                let Some(set) =
                    expected(self.id()).and_then(|id| expected(SysvSemaphores::open(self.home, id)))
                else {
                    return;
                };
                while goes_on() {
                    let undo = libc::SEM_UNDO;
                    expected(set.operate(&[op(0, -1, undo), op(1, 1, 0)], briefly()));
                    expected(set.operate(&[op(0, 1, undo), op(1, -1, 0)], briefly()));
                    expected(set.operate(&[op(2, 0, 0)], briefly()));
                    expected(set.value(1));
                    expected(set.waiting(0));
                    expected(set.waiting_zero(2));
                    expected(set.set_value(0, 1));
                    expected(set.set_values(&vec![1; set.count().min(32_000)]));
                    expected(self.id().and_then(|id| SysvSemaphores::status(self.home, id)));
                }
            }
            Kind::SysvSegment => {
                while goes_on() {
                    let Some(id) = expected(self.id()) else { continue };
                    if let Some(address) = expected(SysvSegment::attach(self.home, id, 0, 0)) {
                        expected(SysvSegment::status(self.home, id));
                        expected(SysvSegment::detach(address));
                    }
                }
            }
            Kind::PosixQueue => {
                let Some(queue) = expected(self.queue()) else { return };
                let mut room = vec![0; 2 * LARGE];
                while goes_on() {
                    expected(queue.receive(&mut room, briefly()));
                    expected(queue.send(1, &[3; 64], briefly()));
                    expected(queue.send(32_767, &vec![3; LARGE + 64], briefly()));
                    expected(queue.receive(&mut room, briefly()));
                    expected(queue.attributes());
                    expected(queue.descriptor().map(drop));
                }
            }
            _ => {
                let Some(named) = expected(self.semaphore()) else { return };
                while goes_on() {
                    expected(named.semaphore().wait(briefly()));
                    expected(named.semaphore().post());
                }
            }
        }
    }

    /// Adds what one [`Place::take`] takes.
    pub(crate) fn add(&self) -> Result<()> {
        match self.kind {
            Kind::SysvQueue => SysvQueue::open(self.home, self.id()?)?.send(77, b"mine", 0, soon()),
            Kind::SysvSemaphores => {
                SysvSemaphores::open(self.home, self.id()?)?.operate(&[op(1, 1, 0)], soon())
            }
            Kind::SysvSegment => SysvSegment::detach(SysvSegment::attach(self.home, self.id()?, 0, 0)?),
            Kind::PosixQueue => self.queue()?.send(7777, b"mine", soon()),
            _ => self.semaphore()?.semaphore().post(),
        }
    }

    pub(crate) fn take(&self, patience: Patience) -> Result<()> {
        let mut room = vec![0; 2 * LARGE];
        match self.kind {
            Kind::SysvQueue => {
                let queue = SysvQueue::open(self.home, self.id()?)?;
                let (_, len) = queue.recv(&mut room, 77, 0, patience)?;
                assert_eq!(&room[..len], b"mine");
            }
            Kind::SysvSemaphores => {
                SysvSemaphores::open(self.home, self.id()?)?.operate(&[op(1, -1, 0)], patience)?
            }
            Kind::SysvSegment => assert_eq!(SysvSegment::status(self.home, self.id()?)?.mode & 0o777, 0o600),
            Kind::PosixQueue => {
                let received = self.queue()?.receive(&mut room, patience)?;
                assert_eq!((received.priority, &room[..received.len]), (7777, &b"mine"[..]));
            }
            _ => self.semaphore()?.semaphore().wait(patience)?,
        }
        Ok(())
    }

    /// One that nobody harmed does what it did before.
    pub(crate) fn assert_works(&self, at: &str) {
        self.add().unwrap_or_else(|errno| panic!("the object beside it, {at}: {errno}"));
        self.take(soon()).unwrap_or_else(|errno| panic!("the object beside it, {at}: {errno}"));
    }

    /// Away with it, whatever it has become: its file says its id, whether or not its key still leads there.
    pub(crate) fn remove(&self, file: &Path, at: &str) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let id = || name.strip_prefix("i.").unwrap().parse::<i32>().unwrap();
        let removed = match self.kind {
            Kind::SysvQueue => SysvQueue::remove(self.home, id()),
            Kind::SysvSemaphores => SysvSemaphores::remove(self.home, id()),
            Kind::SysvSegment => SysvSegment::remove(self.home, id()),
            Kind::PosixQueue => PosixQueue::unlink(self.home, self.name().as_bytes()),
            _ => PosixSemaphore::unlink(self.home, self.name().as_bytes()),
        };
        expected(removed);
        self.home.collect(false).unwrap_or_else(|errno| panic!("collecting, {at}: {errno}"));
    }
}
