//! Every word of a queue overwritten: each call ends with a result or `EUCLEAN`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ginnel_engine::Errno;
use ginnel_engine::message::posix_queue::{LARGE, Notification};
use ginnel_engine::segment::Segment;
use ginnel_engine::wait::Patience;
use ginnel_testkit::{blocked_in, fork, isolated_for, wait_until};
use rustix::fs::{Mode, OFlags};

use crate::{BOTH, again, path, queue};

fn words() -> Segment {
    let directory = rustix::fs::open(path("mq"), OFlags::DIRECTORY, Mode::empty()).unwrap();
    Segment::open(directory, c"queue").unwrap()
}

fn a_moment() -> Patience {
    Patience::Until(Instant::now() + Duration::from_millis(300))
}

/// A result, or an errno that a caller must expect anyway.
fn tolerable<T>(outcome: Result<T, Errno>, what: &str) {
    match outcome {
        Ok(_) | Err(Errno::UCLEAN | Errno::TIMEDOUT | Errno::NOMEM | Errno::AGAIN | Errno::BUSY) => {}
        Err(errno) => panic!("{what}: {errno}"),
    }
}

/// Every 8-byte word that a queue with content has, and how many there are of those that are not 0.
fn offsets(segment: &Segment) -> Vec<usize> {
    (0x40..segment.len())
        .step_by(8)
        .filter(|offset| {
            // All of the words that are used, and some of the many that are not.
            *offset < 0x100
                || (0x1000..0x1400).contains(offset)
                || segment.word64(*offset).unwrap().load(Ordering::SeqCst) != 0
                || offset.is_multiple_of(8 * 4099)
        })
        .collect()
}

fn scribble(bytes: usize, every: usize) {
    let make = || {
        let queue = queue(3, bytes as u64);
        let message = |number: u8| vec![number; if number == 1 { bytes } else { 16 }];
        queue.send(5, &message(1), Patience::None).unwrap();
        queue.send(600, &message(2), Patience::None).unwrap();
        queue.descriptor().unwrap();
        queue
    };
    let queue = make();
    let offsets = offsets(&words());
    drop(queue);
    let mut tried = 0;
    let random = std::env::var("GINNEL_STRIDE").is_err();
    let offsets = offsets.into_iter().step_by(if random { every } else { 1 });
    for offset in offsets {
        for value in [0, u64::MAX, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(offset as u64 | 1), 1 << 30] {
            let what = format!("{value:#x} at {offset:#x}");
            let queue = make();
            let blocked = [false, true].map(|sends| {
                let queue = &queue;
                fork(move || {
                    let other = again(BOTH);
                    let queue = other.as_ref().unwrap_or(queue);
                    if sends {
                        let until = Patience::Until(Instant::now() + Duration::from_millis(40));
                        tolerable(queue.send(1, &vec![3; bytes], until), "send");
                    }
                    let until = Patience::Until(Instant::now() + Duration::from_millis(40));
                    tolerable(queue.send(1, &[4; 16], until), "send");
                })
            });
            let [first, second] = blocked;
            wait_until("the first is blocked, or has ended", || {
                !second.is_alive() || blocked_in(second.pid(), libc::SYS_futex_waitv)
            });
            words().word64(offset).unwrap().store(value, Ordering::SeqCst);
            let worker = fork(|| {
                let mut buffer = vec![0; bytes];
                for round in 0..3 {
                    tolerable(queue.receive(&mut buffer, a_moment()), &what);
                    tolerable(queue.send(round, &vec![1; bytes], a_moment()), &what);
                    tolerable(queue.send(32767 - round, &[1; 16], a_moment()), &what);
                    tolerable(queue.notify(Notification::Nothing), &what);
                    tolerable(queue.attributes(), &what);
                }
                for _ in 0..3 {
                    tolerable(queue.receive(&mut buffer, a_moment()), &what);
                }
                tolerable(queue.descriptor().map(drop), &what);
            });
            // So that one that does not end can be looked for.
            println!("{what}");
            let pid = worker.pid();
            let exit = worker.wait();
            assert!(exit == ginnel_testkit::Exit::Code(0), "{what}: {pid} ended with {exit:?}");
            first.assert_ok();
            second.assert_ok();
            tried += 1;
        }
    }
    crate::common::tried(&format!("POSIX queue, messages of {bytes} bytes"), tried);
    assert!(tried > 50);
}

#[test]
fn a_scribbled_queue_is_an_error_or_works() {
    isolated_for(crate::common::limit(), || scribble(64, 13));
}

#[test]
fn a_scribbled_queue_of_large_messages_is_an_error_or_works() {
    isolated_for(crate::common::limit(), || scribble(LARGE + 64, 79));
}
