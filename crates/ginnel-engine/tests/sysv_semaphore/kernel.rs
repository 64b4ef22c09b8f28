//! The same random calls in a set of the kernel's and in one of ours, by processes that block and are killed: after each,
//! everything that can be seen must be the same.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ginnel_engine::Errno;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, blocked_in, fork, isolated_for, wait_until};
use libc::sembuf;

use super::{Home, NO_WAIT, UNDO, VALUE_MAX, fresh, values};

const SEMAPHORES: usize = 4;
const WORKERS: usize = 6;
/// An operation with this number ends the list.
const END: u16 = u16::MAX;
const LIST: usize = 8;

/// A process that does what it is told, and says how it went.
struct Worker {
    child: Child,
    orders: std::io::PipeWriter,
    results: std::io::PipeReader,
    /// The system call that it blocks in.
    call: i64,
    busy: bool,
}

impl Worker {
    fn start(call: i64, operate: impl Fn(&mut [sembuf]) -> i32) -> Worker {
        let (orders_end, orders) = std::io::pipe().unwrap();
        let (results, results_end) = std::io::pipe().unwrap();
        let child = fork(|| {
            let (mut orders, mut results) = (&orders_end, &results_end);
            loop {
                let mut bytes = [0; 6 * LIST];
                orders.read_exact(&mut bytes).unwrap();
                let number = |at: usize| i16::from_ne_bytes([bytes[at], bytes[at + 1]]);
                let mut operations: Vec<_> = (0..LIST)
                    .map(|at| sembuf {
                        sem_num: number(6 * at) as u16,
                        sem_op: number(6 * at + 2),
                        sem_flg: number(6 * at + 4),
                    })
                    .take_while(|operation| operation.sem_num != END)
                    .collect();
                results.write_all(&operate(&mut operations).to_ne_bytes()).unwrap();
            }
        });
        Worker { child, orders, results, call, busy: false }
    }

    fn order(&mut self, operations: &[sembuf]) {
        let mut bytes = Vec::new();
        for at in 0..LIST {
            let end = sembuf { sem_num: END, sem_op: 0, sem_flg: 0 };
            let operation = operations.get(at).copied().unwrap_or(end);
            bytes.extend_from_slice(&operation.sem_num.to_ne_bytes());
            bytes.extend_from_slice(&operation.sem_op.to_ne_bytes());
            bytes.extend_from_slice(&operation.sem_flg.to_ne_bytes());
        }
        self.orders.write_all(&bytes).unwrap();
        self.busy = true;
    }

    fn has_result(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.results.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, ours to write.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    /// Waits until it has a result or sleeps: the result.
    fn settle(&mut self) -> Option<i32> {
        if !self.busy {
            return None;
        }
        // What may let it go on has happened before: if it sleeps now, nothing did.
        wait_until("a result, or it sleeps", || self.has_result() || blocked_in(self.child.pid(), self.call));
        if !self.has_result() {
            return None;
        }
        let mut result = [0; 4];
        self.results.read_exact(&mut result).unwrap();
        self.busy = false;
        Some(i32::from_ne_bytes(result))
    }

    fn kill(self) {
        self.child.kill();
        self.child.wait();
    }
}

/// One set in both homes, and for each worker a process on either side.
struct Both {
    ours: Home,
    theirs: i32,
    workers: Vec<[Worker; 2]>,
    /// Which worker had which process ids.
    pids: Vec<[u32; 2]>,
}

fn semctl(id: i32, index: usize, command: i32, argument: usize) -> i32 {
    // SAFETY: the argument is a number, or the address of as many values as the set has.
    let result = unsafe { libc::semctl(id, index as i32, command, argument) };
    assert!(result >= 0, "semctl {command}: {}", std::io::Error::last_os_error());
    result
}

const GETPID: i32 = 11;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    values: Vec<u16>,
    waiting: Vec<(i32, i32)>,
    /// Which worker, and which of its lives.
    last: Vec<Option<usize>>,
    had_operation: bool,
}

impl Both {
    fn new() -> Both {
        let ours = fresh(SEMAPHORES);
        // SAFETY: no memory is involved.
        let theirs = unsafe { libc::semget(libc::IPC_PRIVATE, SEMAPHORES as i32, 0o600) };
        assert!(theirs >= 0);
        let mut both = Both { ours, theirs, workers: Vec::new(), pids: Vec::new() };
        both.pids.push([std::process::id(); 2]);
        for _ in 0..WORKERS {
            let workers = both.worker();
            both.workers.push(workers);
        }
        both
    }

    fn worker(&mut self) -> [Worker; 2] {
        let (set, id) = (&self.ours.set, self.theirs);
        let ours = Worker::start(libc::SYS_futex_waitv, |operations| {
            set.operate(operations, Patience::Endless).err().map_or(0, Errno::raw_os_error)
        });
        let theirs = Worker::start(libc::SYS_semtimedop, |operations| {
            // SAFETY: as many operations as said.
            let result = unsafe {
                libc::syscall(libc::SYS_semtimedop, id, operations.as_mut_ptr(), operations.len(), 0)
            };
            if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
        });
        self.pids.push([ours.child.pid() as u32, theirs.child.pid() as u32]);
        [ours, theirs]
    }

    fn who(&self, pid: u32, side: usize) -> Option<usize> {
        self.pids.iter().rposition(|pids| pids[side] == pid)
    }

    fn ours(&self) -> Seen {
        let set = &self.ours;
        let count = |index| (set.waiting(index).unwrap() as i32, set.waiting_zero(index).unwrap() as i32);
        Seen {
            values: values(set),
            waiting: (0..SEMAPHORES).map(count).collect(),
            last: (0..SEMAPHORES).map(|index| self.who(set.last_pid(index).unwrap(), 0)).collect(),
            had_operation: set.status().unwrap().last_operation != 0,
        }
    }

    fn theirs(&self) -> Seen {
        let id = self.theirs;
        let mut values = vec![0_u16; SEMAPHORES];
        semctl(id, 0, GETALL, values.as_mut_ptr() as usize);
        let count = |index| (semctl(id, index, GETNCNT, 0), semctl(id, index, GETZCNT, 0));
        // SAFETY: all zeroes is a status, which the call fills.
        let mut status: libc::semid_ds = unsafe { std::mem::zeroed() };
        semctl(id, 0, libc::IPC_STAT, (&raw mut status) as usize);
        Seen {
            values,
            waiting: (0..SEMAPHORES).map(count).collect(),
            last: (0..SEMAPHORES).map(|index| self.who(semctl(id, index, GETPID, 0) as u32, 1)).collect(),
            had_operation: status.sem_otime != 0,
        }
    }

    /// When whoever can has gone on on both sides: which workers ended how. `first` is who has just been told something.
    fn settle(&mut self, first: Option<usize>) -> Vec<(usize, [Option<i32>; 2])> {
        // What a dead one had is given back by whoever comes next.
        self.ours();
        first
            .into_iter()
            .chain(0..WORKERS)
            .map(|number| (number, self.workers[number].each_mut().map(Worker::settle)))
            .collect()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn operation(&mut self) -> sembuf {
        let sem_op = match self.below(12) {
            0..3 => 0,
            3..7 => -1 - self.below(2) as i16,
            7..11 => 1 + self.below(2) as i16,
            _ => [i16::MAX, i16::MIN, -300, 20_000][self.below(4) as usize],
        };
        let mut sem_flg = 0;
        if self.below(10) == 0 {
            sem_flg |= NO_WAIT;
        }
        if self.below(3) == 0 {
            sem_flg |= UNDO;
        }
        sembuf { sem_num: self.below(SEMAPHORES as u64) as u16, sem_op, sem_flg }
    }
}

/// How many calls: `GINNEL_ROUNDS` for more.
fn rounds() -> u64 {
    std::env::var("GINNEL_ROUNDS").map_or(1_500, |rounds| rounds.parse().unwrap())
}

fn compare(seed: u64) {
    let mut random = Random(seed);
    let mut both = Both::new();
    let mut log = Vec::new();
    let (mut blocked, mut killed) = (0, 0);
    for round in 0..rounds() {
        let idle: Vec<_> = (0..WORKERS).filter(|number| !both.workers[*number][0].busy).collect();
        let choice = random.below(20);
        let mut told = None;
        if choice == 0 || idle.is_empty() {
            let number = random.below(WORKERS as u64) as usize;
            log.push(format!("kill {number}"));
            let new = both.worker();
            let old = std::mem::replace(&mut both.workers[number], new);
            old.into_iter().for_each(Worker::kill);
            killed += 1;
        } else if choice == 1 {
            let (index, value) = (random.below(SEMAPHORES as u64) as usize, random.below(4) as u16);
            log.push(format!("{index} is set to {value}"));
            both.ours.set_value(index, value).unwrap();
            semctl(both.theirs, index, SETVAL, usize::from(value));
        } else if choice == 2 {
            let values: Vec<u16> = (0..SEMAPHORES).map(|_| random.below(3) as u16).collect();
            log.push(format!("all are set to {values:?}"));
            both.ours.set_values(&values).unwrap();
            semctl(both.theirs, 0, SETALL, values.as_ptr() as usize);
        } else {
            let number = idle[random.below(idle.len() as u64) as usize];
            // Even seeds: mostly calls of one operation, which the kernel keeps in other lists.
            let several = random.below(if seed.is_multiple_of(2) { 12 } else { 2 }) == 0;
            let count = if several { 1 + random.below(LIST as u64) } else { 1 };
            let operations: Vec<_> = (0..count).map(|_| random.operation()).collect();
            let text: Vec<_> = operations
                .iter()
                .map(|operation| {
                    format!("{}{:+}/{:x}", operation.sem_num, operation.sem_op, operation.sem_flg)
                })
                .collect();
            log.push(format!("worker {number} does {text:?}"));
            both.workers[number].iter_mut().for_each(|worker| worker.order(&operations));
            told = Some(number);
        }
        let ended = both.settle(told);
        let last = &log[log.len().saturating_sub(40)..];
        for (number, [ours, theirs]) in &ended {
            assert_eq!(ours, theirs, "worker {number} in round {round} of seed {seed}, after {last:#?}");
        }
        assert_eq!(both.ours(), both.theirs(), "in round {round} of seed {seed}, after {last:#?}");
        blocked += both.workers.iter().filter(|pair| pair[0].busy).count();
    }
    println!("{} calls, {blocked} times blocked, {killed} processes killed", log.len());
    assert!(VALUE_MAX == 32767 && blocked > 100 && killed > 10);
}

#[test]
fn random_calls_go_as_they_do_in_the_kernel() {
    isolated_for(Duration::from_secs(600), || compare(1));
}

#[test]
fn random_calls_go_as_they_do_in_the_kernel_again() {
    let seed = std::env::var("GINNEL_SEED").map_or(2, |seed| seed.parse().unwrap());
    isolated_for(Duration::from_secs(600), || compare(seed));
}
