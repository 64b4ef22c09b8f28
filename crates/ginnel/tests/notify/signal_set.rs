//! Masks, pending signals and waiting in three forms.

use std::time::{Duration, Instant};

use ginnel::notify::{Code, Flag, Handler, Signal, SignalSet, Target};
use ginnel_testkit::{Exit, fork, isolated, wait_blocked_in};

use super::me;

#[test]
fn sets() {
    let mut signals = SignalSet::EMPTY;
    assert!(signals.is_empty());
    signals |= Signal::INT;
    signals.extend([Signal::TERM, Signal::INT]);
    assert_eq!(signals.len(), 2);
    assert_eq!(signals.iter().collect::<Vec<_>>(), [Signal::INT, Signal::TERM]);
    assert_eq!(signals - Signal::INT, Signal::TERM.into());
    assert_eq!(signals.without(Signal::INT).with(Signal::INT), signals);
    assert_eq!(!SignalSet::EMPTY, SignalSet::full());
    assert_eq!(SignalSet::full().len(), Signal::all().count());
    assert_eq!(SignalSet::full().to_string().parse::<SignalSet>().unwrap(), SignalSet::full());
    assert_eq!("".parse::<SignalSet>().unwrap(), SignalSet::EMPTY);
    assert!("INT,NOPE".parse::<SignalSet>().is_err());
}

#[test]
fn blocked_signals_are_pending_until_the_guard_is_dropped() {
    isolated(|| {
        let child = fork(|| {
            let guard = SignalSet::from(Signal::USR1).block().unwrap();
            me().send(Signal::USR1).unwrap();
            assert_eq!(SignalSet::pending(), Signal::USR1.into());
            assert!(guard.before().is_empty());
            drop(guard);
            unreachable!("the signal is delivered before the mask is back");
        });
        assert_eq!(child.wait(), Exit::Signal(libc::SIGUSR1));
    });
}

#[test]
fn guards_nest() {
    isolated(|| {
        let outer = (Signal::USR1 | Signal::USR2).block().unwrap();
        {
            let _inner = SignalSet::from(Signal::USR1).unblock().unwrap();
            assert_eq!(SignalSet::blocked(), Signal::USR2.into());
            {
                let _only = SignalSet::from(Signal::HUP).set_mask().unwrap();
                assert_eq!(SignalSet::blocked(), Signal::HUP.into());
            }
            assert_eq!(SignalSet::blocked(), Signal::USR2.into());
        }
        assert_eq!(SignalSet::blocked(), Signal::USR1 | Signal::USR2);
        outer.keep();
        assert_eq!(SignalSet::blocked(), Signal::USR1 | Signal::USR2);
    });
}

#[test]
fn waiting_sleeps_until_the_signal() {
    isolated(|| {
        let child = fork(|| {
            let signals = SignalSet::from(Signal::HUP);
            let _blocked = signals.block().unwrap();
            let info = signals.wait().unwrap();
            assert_eq!((info.signal, info.code), (Signal::HUP, Code::User));
            assert_eq!(info.pid, std::os::unix::process::parent_id() as i32);
        });
        wait_blocked_in(child.pid(), libc::SYS_rt_sigtimedwait);
        Target::Process(child.pid()).send(Signal::HUP).unwrap();
        child.assert_ok();
    });
}

#[test]
fn a_deadline_is_not_early_and_is_etimedout() {
    isolated(|| {
        let signals = SignalSet::from(Signal::HUP);
        let _blocked = signals.block().unwrap();
        let begin = Instant::now();
        let error = signals.wait_deadline(Duration::from_millis(30)).unwrap_err();
        assert!(begin.elapsed() >= Duration::from_millis(30));
        assert!(error.is_timed_out());
        assert!(error.to_string().starts_with("signals HUP: sigtimedwait"), "{error}");
        // What is there already is taken, however late it is.
        Target::this_thread().send(Signal::HUP).unwrap();
        assert!(signals.wait_deadline(begin).is_ok());
        assert!(signals.try_wait().unwrap_err().is_would_block());
    });
}

#[test]
fn anothers_handler_interrupts() {
    isolated(|| {
        let child = fork(|| {
            let _flag = Flag::new(Signal::USR1).unwrap();
            let signals = SignalSet::from(Signal::HUP);
            let _blocked = signals.block().unwrap();
            assert!(signals.wait().unwrap_err().is_interrupted());
        });
        wait_blocked_in(child.pid(), libc::SYS_rt_sigtimedwait);
        child.signal(libc::SIGUSR1);
        child.assert_ok();
    });
}

#[test]
fn suspend_lets_a_pending_signal_through_at_once() {
    isolated(|| {
        let child = fork(|| {
            let handler = Handler::new(Signal::USR1).unwrap();
            let signals = SignalSet::from(Signal::USR1);
            let _blocked = signals.block().unwrap();
            assert!(SignalSet::EMPTY.try_suspend().unwrap_err().is_would_block());
            let begin = Instant::now();
            let late = SignalSet::EMPTY.suspend_deadline(Duration::from_millis(10)).unwrap_err();
            assert!(late.is_timed_out() && begin.elapsed() >= Duration::from_millis(10));

            me().send(Signal::USR1).unwrap();
            assert!(handler.try_wait().is_err());
            SignalSet::EMPTY.try_suspend().unwrap();
            assert_eq!(handler.try_wait().unwrap().signal, Signal::USR1);
            assert_eq!(SignalSet::blocked(), signals);
        });
        child.assert_ok();
    });
}

#[test]
fn suspend_sleeps_until_a_handler_has_run() {
    isolated(|| {
        let child = fork(|| {
            let handler = Handler::new(Signal::USR1).unwrap();
            let signals = SignalSet::from(Signal::USR1);
            let _blocked = signals.block().unwrap();
            SignalSet::EMPTY.suspend().unwrap();
            assert_eq!(handler.try_wait().unwrap().signal, Signal::USR1);
            assert_eq!(SignalSet::blocked(), signals);
        });
        wait_blocked_in(child.pid(), libc::SYS_ppoll);
        child.signal(libc::SIGUSR1);
        child.assert_ok();
    });
}
