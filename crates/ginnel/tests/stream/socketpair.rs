//! `socketpair(2)`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};

use ginnel::Deadline;
use ginnel::stream::{ByteRead, ByteWrite, UnixStream, socketpair};
use ginnel_testkit::{Exit, fork, isolated, wait_blocked_in};

use super::{LONG, POLL, interrupted, pattern, sigpipe_kills, stay, times_out};

#[test]
fn both_directions_in_a_fork() {
    isolated(|| {
        let (near, far) = socketpair().unwrap();
        let (mut near, mut far) = (Some(near), Some(far));
        let child = fork(|| {
            drop(near.take());
            let mut far = far.take().unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).unwrap();
            far.write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        drop(far.take());
        let mut near = near.take().unwrap();
        near.write_all(b"question").unwrap();
        near.shutdown_write().unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "QUESTION");
        assert_eq!(near.peer_credentials().unwrap().pid, std::process::id() as i32, "who made the pair");
        child.assert_ok();
    });
}

#[test]
fn three_forms_peek_and_signals() {
    isolated(|| {
        let (near, far) = socketpair().unwrap();
        let mut buffer = [0; 16];
        assert!(near.try_read(&mut buffer).unwrap_err().is_would_block());
        assert!(near.try_peek(&mut buffer).unwrap_err().is_would_block());
        times_out(|deadline| near.read_deadline(&mut buffer, deadline));
        times_out(|deadline| near.peek_deadline(&mut [0], deadline));
        interrupted(libc::SYS_recvfrom, || near.read_deadline(&mut [0], Deadline::NEVER));
        interrupted(libc::SYS_recvfrom, || near.peek(&mut [0]));
        interrupted(POLL, || near.read_deadline(&mut [0], LONG));
        let child = fork(|| {
            assert_eq!((&near).read(&mut [0; 16]).unwrap(), 5);
        });
        wait_blocked_in(child.pid(), libc::SYS_recvfrom);
        far.try_write(b"hello").unwrap();
        child.assert_ok();
        far.try_write(b"hello").unwrap();
        assert_eq!(near.peek(&mut buffer).unwrap(), 5);
        assert_eq!(near.available().unwrap(), 5);
        assert_eq!(near.read_deadline(&mut buffer, LONG).unwrap(), 5);

        while far.try_write(&[0; 4096]).is_ok() {}
        times_out(|deadline| far.write_deadline(&[0; 4096], deadline));
        interrupted(libc::SYS_sendto, || far.write_deadline(&[0; 4096], Deadline::NEVER));
        let flags = rustix::fs::fcntl_getfl(&near).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "left alone");
    });
}

#[test]
fn large_payload_and_partial_write() {
    isolated(|| {
        let (near, far) = socketpair().unwrap();
        let sent = pattern(3_000_000);
        let short = near.write_all_deadline(&sent, super::SHORT).unwrap_err();
        assert!(short.error.is_timed_out() && short.done > 0 && short.done < short.total, "{short}");
        let child = fork(|| near.write_all_deadline(&sent[short.done..], LONG).unwrap());
        let mut got = vec![0; sent.len()];
        far.read_exact_deadline(&mut got, LONG).unwrap();
        assert!(got == sent);
        child.assert_ok();
    });
}

#[test]
fn a_peer_that_is_gone() {
    isolated(|| {
        // SIGPIPE would kill: Rust ignores it, so ask for it.
        fork(|| {
            sigpipe_kills();
            let (near, far) = socketpair().unwrap();
            drop(far);
            assert_eq!(near.try_write(b"x").unwrap_err().errno_name(), "EPIPE");
            assert_eq!(near.write_deadline(b"x", LONG).unwrap_err().errno_name(), "EPIPE");
            assert!((&near).write(b"x").is_err());
            assert_eq!(near.try_read(&mut [0]).unwrap(), 0);
        })
        .assert_ok();

        let (near, far) = socketpair().unwrap();
        let (near, mut far) = (near, Some(far));
        let child = fork(|| {
            far.as_ref().unwrap().try_read(&mut [0]).unwrap_err();
            stay();
        });
        wait_blocked_in(child.pid(), libc::SYS_pause);
        far.take();
        near.try_write(b"unread").unwrap();
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        let error = near.read_deadline(&mut [0], LONG).unwrap_err();
        assert_eq!(error.errno_name(), "ECONNRESET");
        assert!(error.is_disconnected());
    });
}

#[test]
fn shutdown_of_each_half() {
    isolated(|| {
        let (near, far) = socketpair().unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(far.try_read(&mut [0]).unwrap(), 0);
        far.try_write(b"still").unwrap();
        assert_eq!(near.try_read(&mut [0; 9]).unwrap(), 5);
        assert_eq!(near.try_write(b"x").unwrap_err().errno_name(), "EPIPE");
    });
}

#[test]
fn as_a_childs_standard_streams_and_as_stds() {
    isolated(|| {
        let (mut near, far) = socketpair().unwrap();
        let far = std::os::unix::net::UnixStream::from(far);
        let again = UnixStream::from(far.try_clone().unwrap());
        let mut child =
            Command::new("rev").stdin(again).stdout(Stdio::from(UnixStream::from(far))).spawn().unwrap();
        near.write_all(b"abc\n").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "cba\n");
        assert!(child.wait().unwrap().success());
    });
}
