//! A process stopped by `SIGSTOP` anywhere in a call, within the critical section too: others keep their deadlines or are
//! delayed, who has no patience is told so, nothing is taken for dead, and all goes on after `SIGCONT`.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ginnel_engine::Errno;
use ginnel_engine::namespace::Kind;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{fork, wait_until};

use crate::common::{Stepped, is_stopped, stride_or};
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
