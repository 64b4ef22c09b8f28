//! Naming and sending: to processes, threads, groups; payloads; permission; C on the other end.

use std::process::Command;

use ginnel::notify::{Code, DefaultAction, Payload, Signal, SignalSet, Target};
use ginnel_testkit::{Exit, c_program, fork, isolated, run_ok, unprivileged, wait_blocked_in, wait_until};

use super::{Talker, me};

#[test]
fn names_and_numbers() {
    for signal in Signal::all() {
        assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        assert_eq!(signal.number().to_string().parse::<Signal>().unwrap(), signal);
    }
    assert_eq!(Signal::all().count(), 31 + Signal::realtime_count() as usize);
    assert_eq!("rtmax".parse::<Signal>().unwrap().number(), libc::SIGRTMAX());
    assert_eq!("SIGRTMAX-2".parse::<Signal>().unwrap().number(), libc::SIGRTMAX() - 2);
    assert_eq!("POLL".parse::<Signal>().unwrap(), Signal::IO);
    for bad in ["", "SIG", "0", "-1", "32", "33", "65", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMINX", "NOSUCH"]
    {
        let error = bad.parse::<Signal>().unwrap_err();
        assert_eq!(error.errno_name(), "EINVAL", "{bad}");
        assert!(error.hint().is_some(), "{bad}");
    }
    assert_eq!(Signal::CHLD.default_action(), DefaultAction::Ignore);
    assert_eq!(Signal::realtime(0).unwrap().default_action(), DefaultAction::Terminate);
    assert!("-7".parse::<Target>().unwrap() == Target::Group(7));
    assert_eq!("7/8".parse::<Target>().unwrap(), Target::Thread { process: 7, thread: 8 });
    assert!("seven".parse::<Target>().is_err());
}

/// `kill -l` of the system's own shell knows the same names.
#[test]
fn names_are_kills() {
    isolated(|| {
        for signal in Signal::all().filter(|signal| !signal.is_realtime()) {
            let name = run_ok(Command::new("bash").args(["-c", &format!("kill -l {}", signal.number())]));
            assert_eq!(format!("SIG{}", name.trim()), signal.to_string());
        }
    });
}

#[test]
fn numbers_that_kill_would_take_for_many_are_refused() {
    let bad = [
        Target::Process(0),
        Target::Process(-1),
        Target::Process(i32::MIN),
        Target::Group(1),
        Target::Group(0),
        Target::Group(-5),
        Target::from_kill(i32::MIN),
        Target::Thread { process: 0, thread: 1 },
        Target::Thread { process: 1, thread: -1 },
    ];
    for target in bad {
        for error in [target.send(Signal::CONT), target.queue(Signal::CONT, 1), target.probe()] {
            assert_eq!(error.unwrap_err().errno_name(), "EINVAL", "{target}");
        }
    }
}

#[test]
fn a_signal_ends_a_process() {
    isolated(|| {
        let child = fork(rustix::event::pause);
        Target::Process(child.pid()).send(Signal::TERM).unwrap();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGTERM));
    });
}

#[test]
fn nobody_there() {
    isolated(|| {
        let child = fork(|| {});
        let target = Target::Process(child.pid());
        wait_until("it ends", || !child.is_alive());
        // Not waited for: it is still there.
        assert!(target.exists().unwrap());
        target.send(Signal::TERM).unwrap();
        child.assert_ok();
        assert!(!target.exists().unwrap());
        let error = target.send(Signal::TERM).unwrap_err();
        assert_eq!((error.errno_name(), error.operation()), ("ESRCH", "kill"));
        assert!(error.is_not_found());
        assert!(error.to_string().contains("waited for"), "{error}");
        assert_eq!(target.queue(Signal::TERM, 1).unwrap_err().errno_name(), "ESRCH");
        let nobodys = Target::Thread { process: std::process::id() as i32, thread: 1 };
        assert_eq!(nobodys.probe().unwrap_err().errno_name(), "ESRCH");
        assert_eq!(Target::Group(30_000).probe().unwrap_err().errno_name(), "ESRCH");
    });
}

#[test]
fn nobody_may_not_signal_root() {
    isolated(|| {
        let roots = std::process::id() as i32;
        unprivileged(move || {
            let target = Target::Process(roots);
            let error = target.send(Signal::TERM).unwrap_err();
            assert!(error.is_permission_denied());
            assert_eq!(error.errno_name(), "EPERM");
            let text = error.to_string();
            assert!(text.contains("belongs to user 0") && text.contains("user 65534"), "{text}");
            assert_eq!(target.queue(Signal::TERM, 1).unwrap_err().errno_name(), "EPERM");
            assert!(target.exists().unwrap(), "it exists all the same");
            // In the same session SIGCONT is free.
            target.send(Signal::CONT).unwrap();
            me().probe().unwrap();
        })
        .assert_ok();
    });
}

#[test]
fn root_may_signal_nobody_and_nobody_itself() {
    isolated(|| {
        let first = unprivileged(rustix::event::pause);
        let pid = first.pid();
        wait_blocked_in(pid, libc::SYS_pause);
        unprivileged(move || Target::Process(pid).send(Signal::USR1).unwrap()).assert_ok();
        assert_eq!(first.wait(), Exit::Signal(libc::SIGUSR1));
        let second = unprivileged(rustix::event::pause);
        wait_until("it is nobody", || ginnel::notify::Status::of(second.pid()).unwrap().uid == 65534);
        Target::Process(second.pid()).send(Signal::USR2).unwrap();
        assert_eq!(second.wait(), Exit::Signal(libc::SIGUSR2));
    });
}

#[test]
fn ten_standard_are_one_and_ten_realtime_are_ten() {
    isolated(|| {
        fork(|| {
            let realtime = Signal::realtime(2).unwrap();
            let signals = Signal::USR1 | realtime;
            let _blocked = signals.block().unwrap();
            for n in 0..10 {
                me().send(Signal::USR1).unwrap();
                me().queue(realtime, n).unwrap();
            }
            let one = signals.try_wait().unwrap();
            assert_eq!((one.signal, one.code), (Signal::USR1, Code::User));
            for n in 0..10 {
                let info = signals.try_wait().unwrap();
                assert_eq!((info.signal, info.payload.unwrap().int()), (realtime, n));
            }
            assert_eq!(signals.try_wait().unwrap_err().errno_name(), "EAGAIN");
        })
        .assert_ok();
    });
}

#[test]
fn of_two_standard_payloads_the_first_stays() {
    isolated(|| {
        fork(|| {
            let signals = SignalSet::from(Signal::USR1);
            let _blocked = signals.block().unwrap();
            me().queue(Signal::USR1, 1).unwrap();
            me().queue(Signal::USR1, 2).unwrap();
            assert_eq!(signals.wait().unwrap().payload.unwrap().int(), 1);
            assert!(signals.try_wait().is_err());
        })
        .assert_ok();
    });
}

#[test]
fn lower_numbers_first() {
    isolated(|| {
        fork(|| {
            let order =
                [Signal::INT, Signal::TERM, Signal::realtime(0).unwrap(), Signal::realtime(9).unwrap()];
            let signals: SignalSet = order.into_iter().collect();
            let _blocked = signals.block().unwrap();
            for signal in order.into_iter().rev() {
                me().send(signal).unwrap();
            }
            for signal in order {
                assert_eq!(signals.wait().unwrap().signal, signal);
            }
        })
        .assert_ok();
    });
}

#[test]
fn a_thread_is_told_from_its_process() {
    isolated(|| {
        let signals = SignalSet::from(Signal::USR1);
        let _blocked = signals.block().unwrap();
        Target::this_thread().send(Signal::USR1).unwrap();
        let info = signals.wait().unwrap();
        assert_eq!((info.code, info.pid, info.uid), (Code::Thread, std::process::id() as i32, 0));
        // Another thread's own signal is not this one's to take.
        std::thread::scope(|scope| {
            let (tell, hear) = std::sync::mpsc::channel();
            let other = scope.spawn(move || {
                tell.send(Target::this_thread()).unwrap();
                signals.wait().unwrap()
            });
            hear.recv().unwrap().queue(Signal::USR1, 77).unwrap();
            let got = other.join().unwrap();
            assert_eq!((got.code, got.payload.unwrap().int()), (Code::Queue, 77));
        });
        assert!(signals.try_wait().is_err());
    });
}

#[test]
fn the_queue_is_full() {
    isolated(|| {
        // The count is the user's, on all of the host: nobody's limit, set to what is queued now.
        unprivileged(|| {
            let status = ginnel::notify::Status::of(me_pid()).unwrap();
            let limit = rustix::process::Rlimit {
                current: Some(status.queued + 2),
                maximum: Some(status.queued + 2),
            };
            rustix::process::setrlimit(rustix::process::Resource::Sigpending, limit).unwrap();
            let realtime = Signal::realtime(0).unwrap();
            let signals = SignalSet::from(realtime);
            let _blocked = signals.block().unwrap();
            let error = (0..100).find_map(|n| me().queue(realtime, n).err()).expect("a limit");
            assert!(error.is_would_block());
            assert_eq!(error.errno_name(), "EAGAIN");
            let text = error.to_string();
            assert!(text.contains("RLIMIT_SIGPENDING") && text.contains("user 65534"), "{text}");
            assert_eq!(signals.wait().unwrap().payload.unwrap().int(), 0);
            me().queue(realtime, 1000).unwrap();
            while signals.try_wait().is_ok() {}
        })
        .assert_ok();
    });
}

fn me_pid() -> i32 {
    std::process::id() as i32
}

#[test]
fn no_payload_for_many() {
    isolated(|| {
        for target in [Target::Group(me_pid()), Target::OwnGroup, Target::Everyone] {
            let error = target.queue(Signal::CONT, 1).unwrap_err();
            assert_eq!(error.errno_name(), "EINVAL");
            assert!(error.hint().unwrap().contains("each member"));
        }
    });
}

#[test]
fn everyone_but_oneself() {
    isolated(|| {
        let children = [(); 3].map(|()| fork(rustix::event::pause));
        for child in &children {
            wait_blocked_in(child.pid(), libc::SYS_pause);
        }
        Target::Everyone.send(Signal::USR1).unwrap();
        for child in children {
            assert_eq!(child.wait(), Exit::Signal(libc::SIGUSR1));
        }
    });
}

#[test]
fn rust_sends_c_receives() {
    isolated(|| {
        let mut c = Talker::start(Command::new(c_program!("tests/notify/signal.c")).args(["recv", "11"]));
        assert_eq!(c.line(), "ready");
        let target = Target::Process(c.process.pid());
        for n in -5..5 {
            target.queue(Signal::realtime(2).unwrap(), n).unwrap();
        }
        // Sent without a payload: SI_USER.
        for n in -5..5 {
            assert_eq!(c.line(), format!("queue {n} from {}", me_pid()));
        }
        target.send(Signal::realtime(2).unwrap()).unwrap();
        assert!(c.line().starts_with("other "));
        c.process.assert_ok();
    });
}

#[test]
fn c_sends_rust_receives() {
    isolated(|| {
        let program = c_program!("tests/notify/signal.c");
        fork(move || {
            let signals = SignalSet::from(Signal::realtime(2).unwrap());
            let _blocked = signals.block().unwrap();
            run_ok(Command::new(program).args(["send", &me_pid().to_string(), "10"]));
            for n in 0..10 {
                let info = signals.wait().unwrap();
                assert_eq!((info.code, info.payload.unwrap().int()), (Code::Queue, n - 1));
                assert!(info.pid > me_pid(), "the sender's: {}", info.pid);
            }
            assert_eq!(signals.wait().unwrap().payload, Some(Payload::from_word(0x1234_5678_9abc)));
        })
        .assert_ok();
    });
}
