//! Catching: handlers, flags, what interrupts and what does not, what a fork does.

use std::io::Read;
use std::time::{Duration, Instant};

use ginnel::notify::{Code, Disposition, Flag, Handler, Signal, Target};
use ginnel_testkit::{Exit, fork, isolated, wait_blocked_in, wait_until};

use super::me;

#[test]
fn a_handler_keeps_each_signal_with_its_info() {
    isolated(|| {
        fork(|| {
            let realtime = Signal::realtime(4).unwrap();
            let handler = Handler::new(Signal::USR1 | realtime).unwrap();
            assert!(handler.try_wait().unwrap_err().is_would_block());
            me().send(Signal::USR1).unwrap();
            for n in 0..3 {
                me().queue(realtime, n).unwrap();
            }
            let first = handler.wait().unwrap();
            assert_eq!((first.signal, first.code, first.uid), (Signal::USR1, Code::User, 0));
            for n in 0..3 {
                assert_eq!(handler.wait().unwrap().payload.unwrap().int(), n);
            }
            let begin = Instant::now();
            let late = handler.wait_deadline(Duration::from_millis(20)).unwrap_err();
            assert!(late.is_timed_out() && begin.elapsed() >= Duration::from_millis(20));
            assert_eq!(handler.lost(), 0);
        })
        .assert_ok();
    });
}

#[test]
fn waiting_is_not_interrupted_by_what_is_waited_for() {
    isolated(|| {
        for deadline in [None, Some(Duration::from_secs(15))] {
            for interrupts in [false, true] {
                let child = fork(|| {
                    let handler = Handler::new(Signal::USR1).unwrap();
                    Signal::USR1.set_interrupts(interrupts).unwrap();
                    assert_eq!(handler.wait_deadline(deadline).unwrap().signal, Signal::USR1);
                });
                let call = if deadline.is_some() { libc::SYS_poll } else { libc::SYS_read };
                wait_until("it waits", || {
                    ginnel_testkit::blocked_in(child.pid(), call)
                        || ginnel_testkit::blocked_in(child.pid(), libc::SYS_ppoll)
                });
                child.signal(libc::SIGUSR1);
                child.assert_ok();
            }
        }
    });
}

#[test]
fn a_flag_gets_a_read_out_and_a_handler_does_not() {
    isolated(|| {
        let child = fork(|| {
            let (mut reader, _writer) = std::io::pipe().unwrap();
            let flag = Flag::new(Signal::TERM).unwrap();
            let error = reader.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
            assert!(flag.is_raised() && flag.take() && !flag.take());
        });
        wait_blocked_in(child.pid(), libc::SYS_read);
        child.signal(libc::SIGTERM);
        child.assert_ok();

        let (mut reader, writer) = std::io::pipe().unwrap();
        let (mut ready, tell) = std::io::pipe().unwrap();
        let child = fork(move || {
            let handler = Handler::new(Signal::TERM).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(handler.wait().unwrap().signal, Signal::TERM);
                    std::io::Write::write_all(&mut &tell, b"x").unwrap();
                });
                // Restarted: the byte comes after the signal.
                assert_eq!(reader.read(&mut [0]).unwrap(), 1);
            });
        });
        wait_blocked_in(child.pid(), libc::SYS_read);
        child.signal(libc::SIGTERM);
        ready.read_exact(&mut [0]).unwrap();
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        child.assert_ok();
    });
}

#[test]
fn several_catch_the_same_signal() {
    isolated(|| {
        fork(|| {
            let (first, second) =
                (Handler::new(Signal::USR1).unwrap(), Handler::new(Signal::USR1 | Signal::USR2).unwrap());
            let flag = Flag::new(Signal::USR1).unwrap();
            me().send(Signal::USR1).unwrap();
            assert!(flag.take() && first.try_wait().is_ok() && second.try_wait().is_ok());
            drop((first, flag));
            me().send(Signal::USR1).unwrap();
            assert!(second.try_wait().is_ok());
            drop(second);
            // Caught by nobody: nothing happens.
            me().send(Signal::USR1).unwrap();
            assert_eq!(Disposition::current(Signal::USR1).unwrap(), Disposition::Caught);
        })
        .assert_ok();
        let child = fork(|| {
            drop(Handler::new(Signal::USR1).unwrap());
            Signal::USR1.restore_default().unwrap();
            me().send(Signal::USR1).unwrap();
        });
        assert_eq!(child.wait(), Exit::Signal(libc::SIGUSR1));
    });
}

#[test]
fn a_handler_made_after_ignoring_catches_again() {
    isolated(|| {
        fork(|| {
            let first = Handler::new(Signal::USR1).unwrap();
            Signal::USR1.ignore().unwrap();
            me().send(Signal::USR1).unwrap();
            assert!(first.try_wait().is_err());
            let second = Handler::new(Signal::USR1).unwrap();
            me().send(Signal::USR1).unwrap();
            assert!(first.try_wait().is_ok() && second.try_wait().is_ok());
        })
        .assert_ok();
    });
}

#[test]
fn what_cannot_be_caught_is_einval() {
    isolated(|| {
        for signal in [Signal::KILL, Signal::STOP, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::FPE] {
            let error = Handler::new(Signal::USR1 | signal).unwrap_err();
            assert_eq!(error.errno_name(), "EINVAL");
            assert!(error.to_string().contains(&signal.to_string()), "{error}");
            assert!(Flag::new(signal).is_err());
        }
        assert_eq!(Signal::KILL.ignore().unwrap_err().errno_name(), "EINVAL");
        assert_eq!(Signal::STOP.restore_default().unwrap_err().errno_name(), "EINVAL");
        assert_eq!(Signal::USR2.set_interrupts(true).unwrap_err().errno_name(), "EINVAL");
    });
}

#[test]
fn past_512_unread_signals_are_counted() {
    isolated(|| {
        fork(|| {
            let handler = Handler::new(Signal::USR1).unwrap();
            for _ in 0..600 {
                me().send(Signal::USR1).unwrap();
            }
            let kept = std::iter::from_fn(|| handler.try_wait().ok()).count();
            assert_eq!((kept, handler.lost()), (512, 88));
            me().send(Signal::USR1).unwrap();
            assert!(handler.try_wait().is_ok());
        })
        .assert_ok();
    });
}

#[test]
fn a_forked_childs_signal_is_not_its_parents() {
    isolated(|| {
        fork(|| {
            let handler = Handler::new(Signal::USR1).unwrap();
            fork(|| {
                me().send(Signal::USR1).unwrap();
                assert!(handler.try_wait().unwrap_err().is_would_block());
                // One of its own works.
                let own = Handler::new(Signal::USR1).unwrap();
                me().send(Signal::USR1).unwrap();
                assert!(own.try_wait().is_ok());
            })
            .assert_ok();
            assert!(handler.try_wait().unwrap_err().is_would_block());
            me().send(Signal::USR1).unwrap();
            assert!(handler.try_wait().is_ok());
        })
        .assert_ok();
    });
}

#[test]
fn a_storm_loses_no_realtime_signal() {
    isolated(|| {
        let child = fork(|| {
            let realtime = Signal::realtime(7).unwrap();
            let handler = Handler::new(realtime).unwrap();
            for n in 0..2000 {
                assert_eq!(handler.wait().unwrap().payload.unwrap().int(), n);
            }
            assert_eq!(handler.lost(), 0);
        });
        wait_blocked_in(child.pid(), libc::SYS_read);
        let target = Target::Process(child.pid());
        for burst in 0..20 {
            for n in 0..100 {
                target.queue(Signal::realtime(7).unwrap(), burst * 100 + n).unwrap();
            }
            // As many as its pipe holds, and no more.
            wait_until("it reads", || {
                !child.is_alive() || ginnel_testkit::blocked_in(child.pid(), libc::SYS_read)
            });
        }
        child.assert_ok();
    });
}

#[test]
fn no_descriptor_leaks() {
    isolated(|| {
        let before = ginnel_testkit::Objects::snapshot();
        for _ in 0..3 {
            drop(Handler::new(Signal::USR1).unwrap());
            drop(Handler::new(Signal::KILL));
        }
        before.assert_same();
    });
}
