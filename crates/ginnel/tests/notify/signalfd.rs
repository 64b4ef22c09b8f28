//! Signals by a descriptor.

use std::time::{Duration, Instant};

use ginnel::notify::{Code, Flag, Signal, SignalFd, SignalSet, Target};
use ginnel_testkit::{fork, isolated, wait_blocked_in, wait_until};

use super::me;

#[test]
fn three_forms() {
    isolated(|| {
        fork(|| {
            let realtime = Signal::realtime(1).unwrap();
            let signals = SignalFd::new(Signal::USR1 | realtime).unwrap();
            assert_eq!(SignalSet::blocked(), signals.signals());
            assert!(signals.try_read().unwrap_err().is_would_block());
            let begin = Instant::now();
            let late = signals.read_deadline(Duration::from_millis(20)).unwrap_err();
            assert!(late.is_timed_out() && begin.elapsed() >= Duration::from_millis(20));

            for n in 0..10 {
                me().send(Signal::USR1).unwrap();
                me().queue(realtime, -n).unwrap();
            }
            let one = signals.read().unwrap();
            assert_eq!(
                (one.signal, one.code, one.pid),
                (Signal::USR1, Code::User, std::process::id() as i32)
            );
            for n in 0..10 {
                let info = signals.read_deadline(Duration::from_secs(10)).unwrap();
                assert_eq!((info.signal, info.payload.unwrap().int()), (realtime, -n));
            }
            assert!(signals.try_read().is_err());
            // A whole word.
            me().queue(realtime, ginnel::notify::Payload::from_word(usize::MAX - 3)).unwrap();
            assert_eq!(signals.try_read().unwrap().payload.unwrap().word(), usize::MAX - 3);
        })
        .assert_ok();
    });
}

#[test]
fn reading_sleeps() {
    isolated(|| {
        for (deadline, call) in [(None, libc::SYS_read), (Some(Duration::from_secs(15)), libc::SYS_poll)] {
            let child = fork(|| {
                let signals = SignalFd::new(Signal::HUP).unwrap();
                assert_eq!(signals.read_deadline(deadline).unwrap().signal, Signal::HUP);
            });
            wait_until("it waits", || {
                ginnel_testkit::blocked_in(child.pid(), call)
                    || ginnel_testkit::blocked_in(child.pid(), libc::SYS_ppoll)
            });
            Target::Process(child.pid()).send(Signal::HUP).unwrap();
            child.assert_ok();
        }
    });
}

#[test]
fn a_handler_interrupts() {
    isolated(|| {
        let child = fork(|| {
            let _flag = Flag::new(Signal::USR1).unwrap();
            let signals = SignalFd::new(Signal::HUP).unwrap();
            assert!(signals.read().unwrap_err().is_interrupted());
        });
        wait_blocked_in(child.pid(), libc::SYS_read);
        child.signal(libc::SIGUSR1);
        child.assert_ok();
    });
}

#[test]
fn the_mask_can_change() {
    isolated(|| {
        fork(|| {
            let mut signals = SignalFd::new(Signal::USR1 | Signal::USR2).unwrap();
            signals.set_signals(Signal::USR2).unwrap();
            me().send(Signal::USR1).unwrap();
            assert!(signals.try_read().is_err());
            signals.set_signals(Signal::USR1).unwrap();
            assert_eq!(signals.try_read().unwrap().signal, Signal::USR1);
            assert_eq!(signals.signals(), Signal::USR1.into());
        })
        .assert_ok();
    });
}

#[test]
fn a_forked_child_reads_its_own_signals() {
    isolated(|| {
        fork(|| {
            let signals = SignalFd::new(Signal::USR1).unwrap();
            me().send(Signal::USR1).unwrap();
            fork(|| {
                assert!(signals.try_read().unwrap_err().is_would_block());
                me().send(Signal::USR1).unwrap();
                assert_eq!(signals.try_read().unwrap().pid, std::process::id() as i32);
            })
            .assert_ok();
            assert_eq!(signals.try_read().unwrap().pid, std::process::id() as i32);
        })
        .assert_ok();
    });
}

#[test]
fn a_childs_end_is_told_with_its_status() {
    isolated(|| {
        fork(|| {
            let signals = SignalFd::new(Signal::CHLD).unwrap();
            let child = fork(|| panic!("its code is 101"));
            let info = signals.read().unwrap();
            assert_eq!((info.code, info.pid, info.status), (Code::ChildExited, child.pid(), Some(101)));
            assert_eq!(info.exit_status().unwrap().code(), Some(101));
            child.wait();
        })
        .assert_ok();
    });
}

#[test]
fn close_on_exec_and_no_leak() {
    isolated(|| {
        let before = ginnel_testkit::Objects::snapshot();
        let signals = SignalFd::of(Signal::USR1).unwrap();
        assert!(SignalSet::blocked().is_empty(), "`of` leaves the mask alone");
        let text = ginnel_testkit::run_ok(std::process::Command::new("ls").args(["-l", "/proc/self/fd"]));
        assert!(!text.contains("signalfd"), "{text}");
        drop(signals);
        before.assert_same();
    });
}
