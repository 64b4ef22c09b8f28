//! The process-shared read-write lock, with real processes killed at every instruction of taking and giving it back.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Random, Stepped, hostile, is_stopped, killed, number, stride_or};
use ginnel_engine::Errno;
use ginnel_engine::sync::mutex::Locked;
use ginnel_engine::sync::rwlock::{Hold, RwLock};
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, blocked_in, fork, isolated, isolated_for, wait_blocked_in, wait_until};

const ENDLESS: Patience = Patience::Endless;
const ONE: usize = 0;
const OTHER: usize = 1;
const STOP: usize = 2;
const READS: usize = 3;
const ORDER: usize = 4;

fn lock() -> RwLock<'static> {
    (0..16).for_each(|index| set(index, 0));
    RwLock::init(common::region(), 64, 16).unwrap()
}

fn get(index: usize) -> u64 {
    number(index).load(Ordering::SeqCst)
}

fn set(index: usize, value: u64) {
    number(index).store(value, Ordering::SeqCst);
}

fn soon() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(15))
}

/// Two words that change together.
fn write(lock: RwLock<'_>) {
    let hold = lock.write(soon()).unwrap();
    if hold.locked() == Locked::OwnerDied {
        set(OTHER, get(ONE));
        lock.mark_consistent(&hold).unwrap();
    }
    assert_eq!(get(ONE), get(OTHER), "somebody is in there as well");
    set(ONE, get(ONE) + 1);
    set(OTHER, get(OTHER) + 1);
    lock.unlock(hold).unwrap();
}

fn read(lock: RwLock<'_>) {
    let hold = lock.read(soon()).unwrap();
    if hold.locked() == Locked::Whole {
        assert_eq!(get(ONE), get(OTHER), "a writer is in there as well");
    }
    number(READS).fetch_add(1, Ordering::SeqCst);
    lock.unlock(hold).unwrap();
}

fn waiting(work: impl FnOnce()) -> Child {
    let child = fork(work);
    wait_blocked_in(child.pid(), libc::SYS_futex_waitv);
    child
}

/// A child that holds it until it is told or killed.
fn holding(take: impl Fn() -> Hold) -> Child {
    set(ORDER + 8, 0);
    let child = fork(|| {
        let _hold = take();
        set(ORDER + 8, 1);
        common::pause_for_ever();
    });
    wait_until("it holds it", || get(ORDER + 8) == 1);
    child
}

#[test]
fn the_rules() {
    isolated(|| {
        let region = common::region();
        assert_eq!(RwLock::init(region, 0, 0).unwrap_err(), Errno::INVAL);
        assert_eq!(RwLock::init(region, 8, 4).unwrap_err(), Errno::INVAL, "not aligned");
        assert_eq!(RwLock::open(region, 0).unwrap_err(), Errno::UCLEAN, "nobody has made one");
        let lock = lock();
        let reading = lock.read(ENDLESS).unwrap();
        assert_eq!(lock.write(Patience::None).unwrap_err(), Errno::DEADLK);
        let again = lock.read(ENDLESS).unwrap();
        assert_eq!(lock.mark_consistent(&again), Err(Errno::INVAL));
        fork(|| {
            let lock = RwLock::open(common::region(), 64).unwrap();
            assert_eq!(lock.write(Patience::None).unwrap_err(), Errno::BUSY);
            let until = Instant::now() + Duration::from_millis(50);
            assert_eq!(lock.write(Patience::Until(until)).unwrap_err(), Errno::TIMEDOUT);
            assert!(Instant::now() >= until, "before its deadline");
            let hold = lock.read(Patience::None).unwrap();
            lock.unlock(hold).unwrap();
            assert_eq!(lock.unlock(reading), Err(Errno::PERM), "the parent's");
        })
        .assert_ok();
        lock.unlock(again).unwrap();
    });
}

#[test]
fn it_has_room_for_as_many_as_it_was_made_for() {
    isolated(|| {
        let lock = lock();
        let holds: Vec<_> = (0..16).map(|_| lock.read(ENDLESS).unwrap()).collect();
        assert_eq!(lock.read(ENDLESS).unwrap_err(), Errno::NOLCK);
        holds.into_iter().for_each(|hold| lock.unlock(hold).unwrap());
        write(lock);
    });
}

#[test]
fn first_come_first_served() {
    isolated(|| {
        let lock = lock();
        let reading = lock.read(ENDLESS).unwrap();
        let in_turn = |turn: u64, kind: fn(&RwLock<'static>, Patience) -> ginnel_engine::Result<Hold>| {
            waiting(move || {
                let hold = kind(&lock, ENDLESS).unwrap();
                assert_eq!(get(ORDER), turn);
                set(ORDER, turn + 1);
                lock.unlock(hold).unwrap();
            })
        };
        let children = [
            in_turn(0, RwLock::write),
            in_turn(1, RwLock::read),
            in_turn(2, RwLock::write),
            in_turn(3, RwLock::write),
            in_turn(4, RwLock::read),
        ];
        assert_eq!(get(ORDER), 0, "a reader that comes later waits behind the writer");
        lock.unlock(reading).unwrap();
        children.into_iter().for_each(|child| child.assert_ok());
        assert_eq!(get(ORDER), 5);
    });
}

#[test]
fn one_that_gives_up_lets_those_behind_it_pass() {
    isolated(|| {
        let lock = lock();
        let _reading = lock.read(ENDLESS).unwrap();
        let writer = waiting(|| {
            let until = Patience::Until(Instant::now() + Duration::from_millis(300));
            assert_eq!(lock.write(until).unwrap_err(), Errno::TIMEDOUT);
        });
        let readers = [waiting(|| read(lock)), waiting(|| read(lock))];
        writer.assert_ok();
        readers.into_iter().for_each(|reader| reader.assert_ok());
    });
}

#[test]
fn the_dead_give_it_back() {
    isolated(|| {
        let lock = lock();
        let readers: Vec<_> = (0..3).map(|_| holding(|| lock.read(ENDLESS).unwrap())).collect();
        let writer = waiting(|| write(lock));
        readers.into_iter().for_each(killed);
        writer.assert_ok();

        let dying = holding(|| lock.write(ENDLESS).unwrap());
        let writer_before_death = waiting(|| drop(lock.write(ENDLESS)));
        killed(writer_before_death);
        let reader = waiting(|| {
            let hold = lock.read(ENDLESS).unwrap();
            assert_eq!(hold.locked(), Locked::OwnerDied);
            lock.unlock(hold).unwrap();
        });
        killed(dying);
        reader.assert_ok();
        let hold = lock.write(ENDLESS).unwrap();
        assert_eq!(hold.locked(), Locked::OwnerDied, "a reader puts nothing right");
        lock.mark_consistent(&hold).unwrap();
        assert_eq!(lock.mark_consistent(&hold), Err(Errno::INVAL));
        lock.unlock(hold).unwrap();
        read(lock);

        killed(holding(|| lock.write(ENDLESS).unwrap()));
        let hold = lock.write(ENDLESS).unwrap();
        let sleeper = waiting(|| assert_eq!(lock.read(ENDLESS).unwrap_err(), Errno::NOTRECOVERABLE));
        lock.unlock(hold).unwrap();
        sleeper.assert_ok();
        assert_eq!(lock.write(ENDLESS).unwrap_err(), Errno::NOTRECOVERABLE);
    });
}

#[test]
fn a_stopped_writer_delays_and_breaks_nothing() {
    isolated(|| {
        let lock = lock();
        let writer = fork(|| {
            let hold = lock.write(ENDLESS).unwrap();
            common::signal_self(libc::SIGSTOP);
            lock.unlock(hold).unwrap();
        });
        wait_until("it stops", || is_stopped(&writer));
        let short = Patience::Until(Instant::now() + Duration::from_millis(200));
        assert_eq!(lock.read(short).unwrap_err(), Errno::TIMEDOUT);
        let reader = waiting(|| read(lock));
        writer.signal(libc::SIGCONT);
        writer.assert_ok();
        reader.assert_ok();
    });
}

fn killed_at_every_instruction(work: fn(RwLock<'_>), stride: usize) -> (u32, u32) {
    let (mut kills, mut with_others) = (0, 0);
    for steps in (0..).step_by(stride) {
        let lock = lock();
        let victim = Stepped::start(|| work(lock));
        let going = (0..steps).all(|_| victim.step());
        let others: Vec<_> = [write as fn(RwLock<'_>), read, write]
            .into_iter()
            .map(|work| {
                let other = fork(|| work(lock));
                wait_until("it waits, or is done", || {
                    !other.is_alive() || blocked_in(other.pid(), libc::SYS_futex_waitv)
                });
                other
            })
            .collect();
        with_others += u32::from(others[2].is_alive());
        victim.kill();
        others.into_iter().for_each(|other| other.assert_ok());
        assert!(matches!(get(ONE), 2 | 3) && get(ONE) == get(OTHER), "after {steps} instructions");
        kills += 1;
        if !going {
            break;
        }
    }
    (kills, with_others)
}

#[test]
fn a_writer_killed_at_every_instruction_keeps_nobody() {
    isolated_for(crate::common::limit(), || {
        let (kills, with_others) = killed_at_every_instruction(write, stride_or(41));
        println!("{kills} kills of a writer, {with_others} with others waiting");
        crate::common::crash("rwlock write");
        assert!(kills > 5 && with_others > 2);
    });
}

#[test]
fn a_reader_killed_at_every_instruction_keeps_nobody() {
    isolated_for(crate::common::limit(), || {
        let (kills, with_others) = killed_at_every_instruction(read, stride_or(41));
        println!("{kills} kills of a reader, {with_others} with others waiting");
        crate::common::crash("rwlock read");
        assert!(kills > 5 && with_others > 2);
    });
}

#[test]
fn a_waiter_killed_at_every_instruction_passes_it_on() {
    isolated_for(crate::common::limit(), || {
        let mut kills = 0;
        for steps in (0..).step_by(stride_or(61)) {
            let lock = lock();
            let mut reading = Some(lock.read(ENDLESS).unwrap());
            let mut others = Vec::new();
            let victim = Stepped::start(|| write(lock));
            while reading.is_some() {
                assert!(victim.step_watched(|_| {
                    if let Some(hold) = reading.take() {
                        others.push(waiting(|| read(lock)));
                        others.push(waiting(|| write(lock)));
                        lock.unlock(hold).unwrap();
                    }
                }));
            }
            let mut asleep = false;
            let going = (0..steps).all(|_| victim.step_unless(&mut asleep) && !asleep);
            victim.kill();
            others.into_iter().for_each(|other| other.assert_ok());
            kills += 1;
            if !going {
                break;
            }
        }
        println!("{kills} kills of one whose turn it was");
        crate::common::crash("rwlock write, waited for");
        assert!(kills > 3);
    });
}

#[test]
fn many_processes_killed_at_random_and_nobody_sleeps_on() {
    isolated_for(Duration::from_secs(120), || {
        let lock = lock();
        let start = |place: u64| {
            fork(move || {
                while get(STOP) == 0 {
                    if place.is_multiple_of(3) { write(lock) } else { read(lock) }
                }
            })
        };
        let mut children: Vec<_> = (0..9).map(start).collect();
        let mut random = Random(13);
        let end = Instant::now() + Duration::from_secs(5);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(random.below(900)));
            let first = random.below(9);
            let victims = 1 + random.below(4);
            (0..victims).for_each(|nth| children[((first + 2 * nth) % 9) as usize].kill());
            for place in (0..victims).map(|nth| (first + 2 * nth) % 9) {
                killed(std::mem::replace(&mut children[place as usize], start(place)));
                kills += 1;
            }
        }
        let before = (get(ONE), get(READS));
        wait_until("those who are left go on", || get(ONE) > before.0 + 50 && get(READS) > before.1 + 50);
        set(STOP, 1);
        children.into_iter().for_each(|child| child.assert_ok());
        println!("{kills} kills, {} writes, {} reads", get(ONE), get(READS));
        assert!(kills > 100);
    });
}

#[test]
fn overwritten_it_returns_by_its_deadline() {
    isolated_for(crate::common::limit(), || {
        let mut tried = 0;
        for offset in (64..64 + RwLock::size_bytes(3)).step_by(8) {
            for value in hostile(offset) {
                let lock = lock();
                let short = || Patience::Until(Instant::now() + Duration::from_millis(40));
                let hold = lock.read(ENDLESS).unwrap();
                let writer = fork(|| {
                    let _ = lock.write(short()).map(|hold| lock.unlock(hold));
                });
                wait_until("it waits, or has ended", || {
                    !writer.is_alive() || blocked_in(writer.pid(), libc::SYS_futex_waitv)
                });
                common::word(offset).store(value, Ordering::SeqCst);
                fork(|| {
                    let _ = lock.read(short()).map(|hold| lock.unlock(hold));
                })
                .assert_ok();
                writer.assert_ok();
                // Giving back waits for the lock inside, which may seem to be another's who lives.
                if offset != 64 {
                    let _ = lock.unlock(hold);
                }
                tried += 1;
            }
        }
        crate::common::tried("read-write lock", tried);
    });
}
