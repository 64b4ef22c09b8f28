//! A process stopped by `SIGSTOP` anywhere in a call, within the critical section too: others keep their deadlines or are
//! delayed, who has no patience is told so, nothing is taken for dead, and all goes on after `SIGCONT`.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ginnel_engine::Errno;
use ginnel_engine::namespace::Kind;
use ginnel_engine::sync::barrier::Barrier;
use ginnel_engine::sync::condvar::Condvar;
use ginnel_engine::sync::mutex::{Locked, Mutex};
use ginnel_engine::wait::Patience;
use ginnel_testkit::{Child, fork, wait_until};

use crate::common::{Stepped, is_stopped, number, region, stride_or};
use crate::zoo::Place;
use crate::{VICTIM, drain, home};

const LOCK_WORD: u64 = 0x40;

pub(crate) fn anywhere(kind: Kind) {
    let home = home();
    let place = Place { home: &home, kind, key: VICTIM };
    place.make().unwrap();
    drain(place);
    if kind == Kind::PosixSemaphore {
        place.take(Patience::None).unwrap();
    }
    let file = std::fs::File::open(place.file()).unwrap();
    // A semaphore has no critical section, and a segment none in its file.
    let has_lock = !matches!(kind, Kind::PosixSemaphore | Kind::SysvSegment);
    let (mut stops, mut within) = (0, 0);
    for steps in (0..).step_by(if kind == Kind::SysvSegment { 40 } else { 1 } * stride_or(61)) {
        let at = format!("{kind:?}, stopped after {steps} instructions");
        let victim = Stepped::start(|| place.add().unwrap());
        let in_work = (0..steps).all(|_| victim.step());
        let mut word = [0; 8];
        file.read_exact_at(&mut word, LOCK_WORD).unwrap();
        let word_is_held = has_lock && u64::from_ne_bytes(word) as u32 != 0;
        within += u64::from(word_is_held);
        let victim = victim.leave_stopped();
        wait_until("it is stopped", || is_stopped(&victim));
        // A deadline is kept by what waits, for the object or for the lock.
        let brief = fork(|| {
            let until = Instant::now() + Duration::from_millis(20);
            match place.take(Patience::Until(until)) {
                // It had added it already: put back.
                Ok(()) => place.add().unwrap(),
                Err(errno) => {
                    assert_eq!(errno, Errno::TIMEDOUT, "{at}");
                    assert!(Instant::now() >= until, "{at}");
                }
            }
        });
        brief.assert_ok();
        // Who has no patience waits for the lock while it moves, and it does not.
        if word_is_held && within == 1 {
            assert!(matches!(place.take(Patience::None), Err(Errno::AGAIN | Errno::NOMSG)), "{at}");
        }
        let waits = fork(|| place.take(Patience::Endless).expect(&at));
        wait_until("it goes on", || {
            victim.signal(libc::SIGCONT);
            !victim.is_alive()
        });
        victim.assert_ok();
        waits.assert_ok();
        stops += 1;
        if !in_work {
            break;
        }
    }
    println!("stopped: {kind:?}: {stops} stops, {within} of them within the critical section");
    assert!(within > 0 || !has_lock);
}

const ITEMS: usize = 20;
const LEADERS: usize = 21;

fn goes_on(victim: Child, waiting: impl IntoIterator<Item = Child>) {
    wait_until("it goes on", || {
        victim.signal(libc::SIGCONT);
        !victim.is_alive()
    });
    victim.assert_ok();
    waiting.into_iter().for_each(Child::assert_ok);
}

/// Stops `work` at each `stride`-th instruction, or where it sleeps; `others` is asked of each such moment.
fn at_each_instruction(what: &str, prepare: impl Fn(), work: impl Fn(), others: impl Fn(Child, &str)) {
    let mut stops = 0;
    for steps in (0..).step_by(stride_or(61)) {
        let at = format!("{what}, stopped after {steps} instructions");
        prepare();
        let victim = Stepped::start(&work);
        let mut asleep = false;
        let in_work = (0..steps).all(|_| victim.step_unless(&mut asleep) && !asleep);
        if asleep {
            // In the middle of a system call: its own stop comes when that is cut short.
            victim.interrupt();
        }
        let victim = victim.leave_stopped();
        wait_until("it is stopped", || is_stopped(&victim));
        others(victim, &at);
        stops += 1;
        if !in_work {
            break;
        }
    }
    println!("stopped: {what}: {stops} stops");
    assert!(stops > 3);
}

/// One who makes an item and notifies, or takes one and waits for it.
pub(crate) fn in_a_condvar() {
    let region = region();
    let (mutex, changed) = (Mutex::init(region, 0).unwrap(), Condvar::init(region, 64).unwrap());
    let items = || number(ITEMS).load(Ordering::SeqCst);
    let give = || {
        mutex.lock(Patience::Endless).unwrap();
        number(ITEMS).fetch_add(1, Ordering::SeqCst);
        changed.notify_one();
        mutex.unlock().unwrap();
    };
    let take = || {
        assert_eq!(mutex.lock(Patience::Endless), Ok(Locked::Whole));
        while items() == 0 {
            assert_eq!(changed.wait(&mutex, None), Ok(Locked::Whole));
        }
        number(ITEMS).fetch_sub(1, Ordering::SeqCst);
        mutex.unlock().unwrap();
    };
    let briefly = |at: &str| {
        let until = Instant::now() + Duration::from_millis(20);
        match mutex.lock(Patience::Until(until)) {
            Ok(locked) => {
                assert_eq!(locked, Locked::Whole, "{at}");
                mutex.unlock().unwrap();
            }
            Err(errno) => assert!(errno == Errno::TIMEDOUT && Instant::now() >= until, "{at}: {errno}"),
        }
    };
    at_each_instruction(
        "one that notifies",
        || (),
        give,
        |victim, at| {
            fork(|| briefly(at)).assert_ok();
            let waits = fork(take);
            goes_on(victim, [waits]);
            assert_eq!(items(), 0, "{at}");
        },
    );
    at_each_instruction(
        "one that waits",
        || (),
        take,
        |victim, at| {
            fork(|| briefly(at)).assert_ok();
            let other = fork(take);
            let givers = [fork(give), fork(give)];
            goes_on(victim, givers.into_iter().chain([other]));
            assert_eq!(items(), 0, "{at}");
        },
    );
}

pub(crate) fn in_a_barrier() {
    let three = Barrier::init(region(), 64, 3).unwrap();
    let come = || {
        let leads = three.wait(None).unwrap();
        number(LEADERS).fetch_add(u64::from(leads), Ordering::SeqCst);
    };
    at_each_instruction(
        "one that comes to a barrier",
        || number(LEADERS).store(0, Ordering::SeqCst),
        come,
        |victim, at| {
            let brief = fork(|| {
                let until = Instant::now() + Duration::from_millis(20);
                assert_eq!(three.wait(Some(until)), Err(Errno::TIMEDOUT), "{at}");
                assert!(Instant::now() >= until, "{at}");
            });
            brief.assert_ok();
            goes_on(victim, [fork(come), fork(come)]);
            assert_eq!(number(LEADERS).load(Ordering::SeqCst), 1, "{at}");
        },
    );
}
