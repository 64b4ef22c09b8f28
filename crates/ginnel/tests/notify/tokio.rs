//! The async forms.

use std::time::Duration;

use ginnel::notify::{EventFd, Handler, PidFd, Signal, SignalFd};
use ginnel::tokio::Async;
use ginnel_testkit::{fork, isolated};

use super::me;

/// Runs a future on one thread, in a process that has no other.
fn alone<F: Future<Output = ()>>(future: impl FnOnce() -> F) {
    isolated(|| {
        fork(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                tokio::time::timeout(Duration::from_secs(15), future()).await.expect("within 15 s")
            });
        })
        .assert_ok();
    });
}

#[test]
fn signals_are_read() {
    alone(|| async {
        let realtime = Signal::realtime(1).unwrap();
        let signals = Async::new(SignalFd::new(realtime).unwrap()).unwrap();
        let late = tokio::time::timeout(Duration::from_millis(10), signals.read()).await;
        assert!(late.is_err(), "nothing was sent");
        let reader = async {
            for n in 0..20 {
                assert_eq!(signals.read().await.unwrap().payload.unwrap().int(), n);
            }
        };
        let sender = async {
            for n in 0..20 {
                me().queue(realtime, n).unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(reader, sender);
    });
}

#[test]
fn a_handlers_signals_are_waited_for() {
    alone(|| async {
        let handler = Async::new(Handler::new(Signal::USR1).unwrap()).unwrap();
        let sender = async {
            tokio::task::yield_now().await;
            me().send(Signal::USR1).unwrap();
        };
        let (info, ()) = tokio::join!(handler.wait(), sender);
        assert_eq!(info.unwrap().signal, Signal::USR1);
    });
}

#[test]
fn a_counter_is_waited_for_at_both_ends() {
    alone(|| async {
        let event = EventFd::options().semaphore(true).open().unwrap();
        let other = Async::new(event.try_clone().unwrap()).unwrap();
        let event = Async::new(event).unwrap();
        let waiter = async {
            for _ in 0..3 {
                assert_eq!(event.wait().await.unwrap(), 1);
            }
        };
        tokio::join!(waiter, async { other.add(3).await.unwrap() });

        // Full, for what is to be added: it goes on when one was taken, not before.
        other.add(EventFd::MAX).await.unwrap();
        let adder = other.add(2);
        tokio::pin!(adder);
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut adder).await.is_err());
        event.wait().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut adder).await.is_err());
        event.wait().await.unwrap();
        adder.await.unwrap();
        assert_eq!(event.get_ref().count(), Some(EventFd::MAX));
    });
}

#[test]
fn a_processs_end_is_waited_for() {
    alone(|| async {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Async::new(PidFd::of_child(&child).unwrap()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(10), process.wait()).await.is_err());
        process.get_ref().send(Signal::TERM).unwrap();
        process.wait().await.unwrap();
        assert_eq!(process.reap().await.unwrap().status, Some(libc::SIGTERM));
        assert_eq!(process.reap().await.unwrap_err().errno_name(), "ECHILD");
    });
}
