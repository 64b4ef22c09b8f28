//! The user-space home, by the engine's own types.

use ginnel_engine::message::posix_queue::{self, QueueLimits};
use ginnel_engine::message::sysv_queue;
use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::mutex::{self, Locked};
use ginnel_engine::sync::posix_semaphore::PosixSemaphore;
use ginnel_engine::sync::region::Region;
use ginnel_engine::sync::sysv_semaphore;
use ginnel_engine::wait::Patience;

use super::{Mutex, Queue, Semaphores, Shape};
use crate::error::{Error, Named, Result, ensure};
use crate::message::Message;
use crate::place::{Limits, Place};

/// A System V queue.
pub(crate) struct SysvQueue(sysv_queue::SysvQueue);

impl Queue for SysvQueue {
    fn make(place: &Place, number: u32, shape: Shape, limits: &Limits) -> Result<()> {
        let home = home(place)?;
        // As deep as the kernel's; where that has none, as deep as was asked for.
        let bytes = limits.sysv_bytes(shape.message_bytes, shape.bytes, shape.bytes_needed);
        let id = sysv_queue::SysvQueue::get(&home, place.key_of(number), NEW).named("msgget")?;
        let status = sysv_queue::SysvQueue::status(&home, id).named("msgctl")?;
        let bytes_max = bytes.unwrap_or(shape.bytes);
        let change = sysv_queue::Change { bytes_max, ..sysv_queue::Change::none(&status) };
        sysv_queue::SysvQueue::set(&home, id, change).named("msgctl")
    }

    fn open(place: &Place, number: u32) -> Result<SysvQueue> {
        let home = home(place)?;
        let id = sysv_queue::SysvQueue::get(&home, place.key_of(number), 0).named("msgget")?;
        Ok(SysvQueue(sysv_queue::SysvQueue::open(&home, id).named("opening the queue")?))
    }

    fn remove(place: &Place, number: u32) {
        // Its directory goes with the row, too.
        let _ = home(place).map(|home| {
            let id = sysv_queue::SysvQueue::get(&home, place.key_of(number), 0)?;
            sysv_queue::SysvQueue::remove(&home, id)
        });
    }

    #[inline]
    fn send(&self, message: &Message) -> Result<()> {
        self.0.send(message.kind(), message.payload(), 0, Patience::Endless).named("msgsnd")
    }

    #[inline]
    fn recv(&self, message: &mut Message, kind: i64) -> Result<()> {
        let (_, len) = self.0.recv(message.payload_mut(), kind, 0, Patience::Endless).named("msgrcv")?;
        ensure(len == message.bytes(), "msgrcv gave another length than was sent")
    }
}

/// A POSIX queue.
pub(crate) struct PosixQueue(posix_queue::PosixQueue);

impl Queue for PosixQueue {
    fn make(place: &Place, number: u32, shape: Shape, limits: &Limits) -> Result<()> {
        // As deep as the kernel's; where that has none, as deep as is needed for both sides to be at work.
        let messages_max = limits.posix_depth(shape.message_bytes, shape.messages).unwrap_or(8);
        let limits = QueueLimits { messages_max, message_bytes_max: shape.message_bytes as u64 };
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let name = place.name_of(number);
        posix_queue::PosixQueue::open(&home(place)?, name.as_bytes(), flags, 0o600, Some(limits))
            .named("mq_open")?;
        Ok(())
    }

    fn open(place: &Place, number: u32) -> Result<PosixQueue> {
        let name = place.name_of(number);
        let queue = posix_queue::PosixQueue::open(&home(place)?, name.as_bytes(), libc::O_RDWR, 0, None);
        Ok(PosixQueue(queue.named("mq_open")?))
    }

    fn remove(place: &Place, number: u32) {
        // Its directory goes with the row, too.
        let _ =
            home(place).map(|home| posix_queue::PosixQueue::unlink(&home, place.name_of(number).as_bytes()));
    }

    #[inline]
    fn send(&self, message: &Message) -> Result<()> {
        self.0.send(0, message.payload(), Patience::Endless).named("mq_send")
    }

    #[inline]
    fn recv(&self, message: &mut Message, _kind: i64) -> Result<()> {
        let got = self.0.receive(message.payload_mut(), Patience::Endless).named("mq_receive")?;
        ensure(got.len == message.bytes(), "mq_receive gave another length than was sent")
    }
}

/// The namespace of the row, which is a directory in the place's.
fn home(place: &Place) -> Result<Namespace> {
    Namespace::options().create(true).open(place.directory.join("home")).map_err(Error::failed)
}

const NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;

/// A System V semaphore set; with `SEM_UNDO` or without.
pub(crate) struct SysvSemaphores<const UNDO: bool>(sysv_semaphore::SysvSemaphores);

impl<const UNDO: bool> SysvSemaphores<UNDO> {
    #[inline]
    fn operate(&self, index: u16, by: i16) -> Result<()> {
        let sem_flg = if UNDO { libc::SEM_UNDO as i16 } else { 0 };
        let operation = libc::sembuf { sem_num: index, sem_op: by, sem_flg };
        self.0.operate(&[operation], Patience::Endless).named("semop")
    }
}

impl<const UNDO: bool> Semaphores for SysvSemaphores<UNDO> {
    fn make(place: &Place, values: [u16; 2]) -> Result<()> {
        let home = home(place)?;
        let id = sysv_semaphore::SysvSemaphores::get(&home, place.key_of(0), 2, NEW).named("semget")?;
        sysv_semaphore::SysvSemaphores::open(&home, id)
            .and_then(|set| set.set_values(&values))
            .named("semctl")
    }

    fn open(place: &Place) -> Result<Self> {
        let home = home(place)?;
        let id = sysv_semaphore::SysvSemaphores::get(&home, place.key_of(0), 0, 0).named("semget")?;
        Ok(SysvSemaphores(sysv_semaphore::SysvSemaphores::open(&home, id).named("opening the set")?))
    }

    fn remove(place: &Place) {
        // Its directory goes with the row, too.
        let _ = home(place).map(|home| {
            let id = sysv_semaphore::SysvSemaphores::get(&home, place.key_of(0), 0, 0)?;
            sysv_semaphore::SysvSemaphores::remove(&home, id)
        });
    }

    #[inline]
    fn take(&self, index: u16) -> Result<()> {
        self.operate(index, -1)
    }

    #[inline]
    fn give(&self, index: u16) -> Result<()> {
        self.operate(index, 1)
    }
}

/// Two named POSIX semaphores.
pub(crate) struct PosixSemaphores([PosixSemaphore; 2]);

impl Semaphores for PosixSemaphores {
    fn make(place: &Place, values: [u16; 2]) -> Result<()> {
        let home = home(place)?;
        for (number, value) in (0..).zip(values) {
            let flags = libc::O_CREAT | libc::O_EXCL;
            let name = place.name_of(number);
            PosixSemaphore::open(&home, name.as_bytes(), flags, 0o600, u32::from(value)).named("sem_open")?;
        }
        Ok(())
    }

    fn open(place: &Place) -> Result<PosixSemaphores> {
        let home = home(place)?;
        let open =
            |number| PosixSemaphore::open(&home, place.name_of(number).as_bytes(), 0, 0, 0).named("sem_open");
        Ok(PosixSemaphores([open(0)?, open(1)?]))
    }

    fn remove(place: &Place) {
        // Its directory goes with the row, too.
        let unlink =
            |home: &Namespace, number| PosixSemaphore::unlink(home, place.name_of(number).as_bytes());
        let _ = home(place).map(|home| [0, 1].map(|number| unlink(&home, number)));
    }

    #[inline]
    fn take(&self, index: u16) -> Result<()> {
        self.0[usize::from(index)].semaphore().wait(Patience::Endless).named("sem_wait")
    }

    #[inline]
    fn give(&self, index: u16) -> Result<()> {
        self.0[usize::from(index)].semaphore().post().named("sem_post")
    }
}

/// A robust mutex in shared memory.
pub(crate) struct RobustMutex(mutex::Mutex<'static>);

impl Mutex for RobustMutex {
    fn make(_place: &Place) -> Result<RobustMutex> {
        let mutex = Region::anonymous(mutex::Mutex::SIZE).and_then(|region| mutex::Mutex::init(region, 0));
        Ok(RobustMutex(mutex.named("pthread_mutex_init")?))
    }

    #[inline]
    fn lock(&self) -> Result<()> {
        match self.0.lock(Patience::Endless).named("pthread_mutex_lock")? {
            Locked::OwnerDied => Err(Error::failed("a holder of the mutex died")),
            _ => Ok(()),
        }
    }

    #[inline]
    fn unlock(&self) -> Result<()> {
        self.0.unlock().named("pthread_mutex_unlock")
    }
}
