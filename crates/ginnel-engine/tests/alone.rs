//! One process and every unsafe part of every object, nobody else about: what a checker of memory can look at, which can
//! neither follow futexes between processes nor be killed at an instruction. `just valgrind` runs it under valgrind.

use ginnel_engine::Errno;
use ginnel_engine::memory::sysv_segment::SysvSegment;
use ginnel_engine::message::posix_queue::{LARGE, PosixQueue, QueueLimits};
use ginnel_engine::message::sysv_queue::{LARGE_BYTES, SysvQueue};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::barrier::Barrier;
use ginnel_engine::sync::condvar::Condvar;
use ginnel_engine::sync::mutex::Mutex;
use ginnel_engine::sync::posix_semaphore::Semaphore;
use ginnel_engine::sync::region::Region;
use ginnel_engine::sync::rwlock::RwLock;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::wait::Patience;
use libc::{IPC_NOWAIT, IPC_PRIVATE, O_CREAT, O_RDWR, sembuf};

const NEVER: Patience = Patience::None;

/// In namespaces of its own, without the processes between: a checker follows this one.
fn home() -> Namespace {
    ginnel_testkit::private();
    Namespace::private().unwrap()
}

#[test]
fn sysv_queue() {
    let home = home();
    let id = SysvQueue::get(&home, IPC_PRIVATE, 0o600).unwrap();
    let queue = SysvQueue::open(&home, id).unwrap();
    for len in [0, 1, 7, 64, 2000, LARGE_BYTES, LARGE_BYTES + 1] {
        let sent: Vec<u8> = (0..len).map(|index| index as u8).collect();
        for (kind, wanted, flags) in [(1, 0, 0), (5, 5, 0), (3, -4, 0), (2, 1, libc::MSG_EXCEPT)] {
            queue.send(kind, &sent, IPC_NOWAIT, NEVER).unwrap();
            let mut room = vec![0; len];
            let copy = libc::MSG_COPY | IPC_NOWAIT;
            assert_eq!(queue.recv(&mut room, 0, copy, NEVER), Ok((kind, len)));
            assert_eq!(queue.recv(&mut room, wanted, flags | IPC_NOWAIT, NEVER), Ok((kind, len)));
            assert_eq!(room, sent);
        }
    }
    SysvQueue::remove(&home, id).unwrap();
}

#[test]
fn posix_queue() {
    let home = home();
    let limits = QueueLimits { messages_max: 4, message_bytes_max: LARGE as u64 + 64 };
    let queue = PosixQueue::open(&home, b"/queue", O_RDWR | O_CREAT, 0o600, Some(limits)).unwrap();
    for len in [0, 1, 64, LARGE, LARGE + 64] {
        let sent: Vec<u8> = (0..len).map(|index| index as u8).collect();
        queue.send(7, &sent, NEVER).unwrap();
        queue.send(9, b"first", NEVER).unwrap();
        let mut room = vec![0; LARGE + 64];
        assert_eq!(queue.receive(&mut room, NEVER).unwrap().priority, 9);
        let received = queue.receive(&mut room, NEVER).unwrap();
        assert!(received.priority == 7 && room[..received.len] == sent);
    }
    PosixQueue::unlink(&home, b"/queue").unwrap();
}

#[test]
fn sysv_semaphores() {
    let home = home();
    let id = SysvSemaphores::get(&home, IPC_PRIVATE, 3, 0o600).unwrap();
    let set = SysvSemaphores::open(&home, id).unwrap();
    let op = |sem_num, sem_op| sembuf { sem_num, sem_op, sem_flg: libc::SEM_UNDO as i16 };
    set.operate(&[op(0, 2), op(1, 1), op(0, -1)], NEVER).unwrap();
    assert_eq!(set.operate(&[op(2, -1)], NEVER), Err(Errno::AGAIN));
    let mut values = [9; 3];
    set.values(&mut values).unwrap();
    assert_eq!(values, [1, 1, 0]);
    SysvSemaphores::remove(&home, id).unwrap();
}

#[test]
fn sysv_segment() {
    let home = home();
    let id = SysvSegment::get(&home, IPC_PRIVATE, 10_000, 0o600).unwrap();
    let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
    assert_eq!(SysvSegment::status(&home, id).unwrap().attached, 1);
    SysvSegment::remove(&home, id).unwrap();
    SysvSegment::detach(address).unwrap();
    assert_eq!(SysvSegment::status(&home, id).unwrap_err(), Errno::INVAL);
}

#[test]
fn what_lies_in_memory() {
    let region = Region::anonymous(1 << 16).unwrap();
    let mutex = Mutex::init(region, 0).unwrap();
    let condvar = Condvar::init(region, 64).unwrap();
    let semaphore = Semaphore::init(region, 192, 1).unwrap();
    let lock = RwLock::init(region, 256, 3).unwrap();
    let at = (256 + RwLock::size_bytes(3)).next_multiple_of(64);
    let barrier = Barrier::init(region, at, 1).unwrap();
    for _ in 0..3 {
        mutex.lock(NEVER).unwrap();
        condvar.notify_all();
        mutex.unlock().unwrap();
        semaphore.wait(NEVER).unwrap();
        assert_eq!(semaphore.wait(NEVER), Err(Errno::AGAIN));
        semaphore.post().unwrap();
        let hold = lock.read(NEVER).unwrap();
        assert_eq!(lock.write(NEVER).unwrap_err(), Errno::DEADLK);
        lock.unlock(hold).unwrap();
        let hold = lock.write(NEVER).unwrap();
        lock.unlock(hold).unwrap();
        assert!(barrier.wait(None).unwrap());
    }
}
