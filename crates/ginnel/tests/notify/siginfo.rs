//! What comes with signals that no process sends: timers, descriptors, children.
#![allow(unsafe_code)]

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use ginnel::notify::{Code, Payload, Signal, SignalFd, SignalSet};
use ginnel_testkit::{fork, isolated};

#[test]
fn payloads() {
    for int in [0, 1, -1, i32::MIN, i32::MAX] {
        assert_eq!(Payload::from(int).int(), int);
    }
    assert_eq!(Payload::from(0), Payload::default());
    assert_eq!(Payload::from_word(usize::MAX).word(), usize::MAX);
}

#[test]
fn a_timers_payload_and_overrun() {
    isolated(|| {
        fork(|| {
            let realtime = Signal::realtime(6).unwrap();
            let signals = SignalSet::from(realtime);
            let _blocked = signals.block().unwrap();
            // SAFETY: all zeros is a valid sigevent.
            let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = realtime.number();
            event.sigev_value =
                libc::sigval { sival_ptr: std::ptr::without_provenance_mut(0x1234_5678_9abc) };
            let mut timer = std::ptr::null_mut();
            let soon = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let spec = libc::itimerspec { it_value: soon, it_interval: soon };
            // SAFETY: the pointers are valid for the calls.
            unsafe {
                assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
                assert_eq!(libc::timer_settime(timer, 0, &raw const spec, std::ptr::null_mut()), 0);
            }
            let first = signals.wait().unwrap();
            assert_eq!(
                (first.code, first.payload),
                (Code::Timer, Some(Payload::from_word(0x1234_5678_9abc)))
            );
            assert_eq!((first.pid, first.uid, first.status, first.address), (0, 0, None, None));
            assert!(first.overrun.unwrap() >= 0);
            let descriptor = SignalFd::of(realtime).unwrap();
            let second = descriptor.read().unwrap();
            assert_eq!((second.code, second.payload), (first.code, first.payload));
        })
        .assert_ok();
    });
}

#[test]
fn a_descriptor_that_is_ready() {
    isolated(|| {
        fork(|| {
            let realtime = Signal::realtime(6).unwrap();
            let signals = SignalSet::from(realtime);
            // For good: that the writer is closed is one more.
            signals.block().unwrap().keep();
            let (reader, mut writer) = std::io::pipe().unwrap();
            let fd = reader.as_raw_fd();
            // SAFETY: these commands take numbers.
            unsafe {
                assert_eq!(libc::fcntl(fd, libc::F_SETOWN, std::process::id()), 0);
                assert_eq!(libc::fcntl(fd, 10 /* F_SETSIG */, realtime.number()), 0);
                assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC), 0);
            }
            let descriptor = SignalFd::of(realtime).unwrap();
            for by_descriptor in [false, true] {
                writer.write_all(b"x").unwrap();
                let info = if by_descriptor { descriptor.read() } else { signals.wait() }.unwrap();
                assert_eq!((info.code, info.descriptor), (Code::Ready, Some(fd)));
                assert_eq!((info.pid, info.payload), (0, None));
            }
        })
        .assert_ok();
    });
}

#[test]
fn a_fault_sent_by_hand_is_no_fault() {
    isolated(|| {
        fork(|| {
            let signals = SignalSet::from(Signal::SEGV);
            let _blocked = signals.block().unwrap();
            Signal::SEGV.raise().unwrap();
            let info = signals.wait().unwrap();
            assert_eq!((info.signal, info.code, info.address), (Signal::SEGV, Code::Thread, None));
        })
        .assert_ok();
    });
}

#[test]
fn a_child_that_stops_and_goes_on() {
    isolated(|| {
        fork(|| {
            let signals = SignalSet::from(Signal::CHLD);
            let _blocked = signals.block().unwrap();
            let child = fork(|| {
                rustix::event::pause();
            });
            for (signal, code) in [
                (libc::SIGSTOP, Code::ChildStopped),
                (libc::SIGCONT, Code::ChildContinued),
                (libc::SIGKILL, Code::ChildKilled),
            ] {
                child.signal(signal);
                let info = signals.wait().unwrap();
                assert_eq!((info.signal, info.code, info.pid), (Signal::CHLD, code, child.pid()));
                assert_eq!((info.status, info.payload), (Some(signal), None));
            }
            child.wait();
        })
        .assert_ok();
    });
}
