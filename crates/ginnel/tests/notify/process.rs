//! `ginnel::process`: fork and what a command inherits.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::notify::{Code, Signal};
use ginnel::process;
use ginnel_testkit::{fork, isolated, run};

#[test]
fn not_with_threads() {
    // libtest's main thread is the second one.
    let error = process::fork(|| 0).unwrap_err();
    assert_eq!(error.errno_name(), "EBUSY");
    assert!(error.to_string().contains("before any thread"), "{error}");
}

#[test]
fn status_panic_and_signal() {
    isolated(|| {
        fork(|| {
            let child = process::fork(|| 7).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(7));
            assert_eq!(child.wait().unwrap_err().errno_name(), "ECHILD");
            assert_eq!(
                process::fork(|| panic!("its status is 101")).unwrap().wait().unwrap().code(),
                Some(101)
            );
            let child = process::fork(|| {
                loop {
                    rustix::event::pause()
                }
            })
            .unwrap();
            assert!(child.try_wait().unwrap_err().is_would_block());
            let begin = Instant::now();
            assert!(child.wait_deadline(Duration::from_millis(20)).unwrap_err().is_timed_out());
            assert!(begin.elapsed() >= Duration::from_millis(20));
            let held = child.pidfd().unwrap();
            child.signal(Signal::HUP).unwrap();
            assert_eq!(child.wait_deadline(Duration::from_secs(10)).unwrap().signal(), Some(libc::SIGHUP));
            held.try_wait().unwrap();
            // Its number may be somebody else's: nothing is sent there.
            for error in [child.kill(), child.signal(Signal::HUP), child.pidfd().map(drop)] {
                assert_eq!(error.unwrap_err().errno_name(), "ESRCH");
            }
            assert_eq!(child.wait_deadline(Duration::ZERO).unwrap_err().errno_name(), "ECHILD");
        })
        .assert_ok();
    });
}

#[test]
fn a_panic_whose_payload_panics_again_stays_in_the_child() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    isolated(|| {
        fork(|| {
            let child = process::fork(|| std::panic::panic_any(Bomb)).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(101));
        })
        .assert_ok();
    });
}

#[test]
fn a_killed_child_is_told_by_waitid() {
    isolated(|| {
        fork(|| {
            let child = process::fork(|| {
                loop {
                    rustix::event::pause()
                }
            })
            .unwrap();
            child.kill().unwrap();
            let end = child.pidfd().unwrap().reap().unwrap();
            assert_eq!(
                (end.code, end.pid, end.status),
                (Code::ChildKilled, child.pid(), Some(libc::SIGKILL))
            );
        })
        .assert_ok();
    });
}

/// What is printed without a newline comes out once, in the order in which it was printed.
#[test]
fn what_is_printed_comes_out_once() {
    isolated(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        fork(|| {
            rustix::stdio::dup2_stdout(&writer).unwrap();
            print!("parent ");
            process::fork(|| {
                print!("child ");
                0
            })
            .unwrap()
            .wait()
            .unwrap();
            print!("parent again");
            std::io::stdout().flush().unwrap();
        })
        .assert_ok();
        drop(writer);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "parent child parent again");
    });
}

#[test]
fn an_inherited_descriptor_is_there_and_no_other() {
    isolated(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        let number = process::inherit(&mut command, &writer).unwrap();
        assert!(number >= 3);
        command.arg("-c").arg(format!("echo over the wall >&{number}"));
        assert!(run(&mut command).status.success());
        drop((command, writer));
        // With the command gone nobody holds the writing end.
        assert_eq!(std::io::read_to_string(&reader).unwrap(), "over the wall\n");
    });
}
