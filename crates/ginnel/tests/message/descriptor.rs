//! Descriptors and credentials over every kind of Unix socket; nothing leaks; and C.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use ginnel::Credentials;
use ginnel::message::descriptor::{self, DESCRIPTORS_MAX};
use ginnel::message::{UnixDatagram, UnixSeqpacket};
use ginnel_testkit::{c_program, fork, isolated, spawn, temp_dir, unprivileged};

use crate::common::{LONG, assert_close_on_exec, assert_fails, assert_interrupted, assert_times_out};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn file_with(text: &str) -> (ginnel_testkit::TempDir, File) {
    let dir = temp_dir();
    let mut file =
        File::options().create_new(true).read(true).write(true).open(dir.path().join("f")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    (dir, file)
}

#[test]
fn an_open_file_passes_over_every_kind_of_unix_socket() {
    isolated(|| {
        let pairs: [(OwnedFd, OwnedFd); 3] = [
            UnixStream::pair().map(|(a, b)| (a.into(), b.into())).unwrap(),
            UnixSeqpacket::pair().map(|(a, b)| (a.into(), b.into())).unwrap(),
            std::os::unix::net::UnixDatagram::pair().map(|(a, b)| (a.into(), b.into())).unwrap(),
        ];
        for (a, b) in pairs {
            let (_dir, file) = file_with("shared offset");
            let child = fork(|| {
                let mut buffer = [0; 64];
                let parcel = descriptor::recv_with_deadline(&b, &mut buffer, LONG).unwrap();
                assert_eq!(&buffer[..parcel.len], b"here");
                let [fd] = <[OwnedFd; 1]>::try_from(parcel.descriptors).unwrap();
                let mut start = [0; 7];
                File::from(fd).read_exact(&mut start).unwrap();
                assert_eq!(&start, b"shared ");
            });
            assert_eq!(descriptor::send_with(&a, b"here", &[file.as_fd()]).unwrap(), 4);
            child.assert_ok();
            let mut rest = String::new();
            (&file).read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "offset", "one open file description, one offset");
        }
    });
}

#[test]
fn as_many_as_there_may_be_and_no_more() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let before = open_descriptors();
        let many = vec![a.as_fd(); DESCRIPTORS_MAX];
        descriptor::send_with(&a, b"", &many).unwrap();
        let parcel = descriptor::recv_with(&b, &mut []).unwrap();
        assert_eq!((parcel.len, parcel.descriptors.len()), (0, DESCRIPTORS_MAX));
        for fd in &parcel.descriptors {
            // SAFETY: F_GETFD takes no pointer.
            assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        }
        drop(parcel);
        assert_eq!(open_descriptors(), before);
        let too_many = vec![a.as_fd(); DESCRIPTORS_MAX + 1];
        assert!(
            assert_fails("E2BIG", descriptor::send_with(&a, b"x", &too_many)).hint().unwrap().contains("253")
        );
        assert_close_on_exec();
    });
}

#[test]
fn nothing_leaks_when_a_message_is_refused_or_not_asked_for() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let before = open_descriptors();
        let three = [a.as_fd(); 3];
        descriptor::send_with(&a, b"longer than the buffer", &three).unwrap();
        let error = assert_fails("EMSGSIZE", descriptor::recv_with(&b, &mut [0; 4]));
        assert!(error.hint().unwrap().contains("3 descriptors"), "{error}");
        assert_eq!(open_descriptors(), before);

        // A receive that does not ask for them drops them.
        descriptor::send_with(&a, b"plain", &three).unwrap();
        assert_eq!(b.recv_vec().unwrap().unwrap(), b"plain");
        descriptor::send_with(&a, b"peeked", &three).unwrap();
        b.peek_deadline(&mut [0; 8], LONG).unwrap();
        b.recv(&mut [0; 8]).unwrap();
        let (c, d) = UnixDatagram::pair().unwrap();
        descriptor::send_with(&c, b"plain", &three).unwrap();
        d.recv(&mut [0; 8]).unwrap();
        drop((c, d));
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_receiver_without_room_for_them_gets_none() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        descriptor::send_with(&a, b"five", &[a.as_fd(); 5]).unwrap();
        descriptor::send_with(&a, b"one", &[a.as_fd()]).unwrap();
        fork(|| {
            let highest = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            // Room for two or three more.
            let limit = libc::rlimit { rlim_cur: highest + 2, rlim_max: highest + 2 };
            // SAFETY: the limit is a whole rlimit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let error = assert_fails("EMFILE", descriptor::recv_with(&b, &mut [0; 8]));
            assert!(error.hint().unwrap().contains("RLIMIT_NOFILE"), "{error}");
            let parcel = descriptor::recv_with(&b, &mut [0; 8]).unwrap();
            assert_eq!(parcel.descriptors.len(), 1, "the five were closed: there is room for one");
        })
        .assert_ok();
    });
}

#[test]
fn a_stream_keeps_descriptors_with_their_bytes() {
    isolated(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let error = assert_fails("EINVAL", descriptor::send_with(&a, b"", &[a.as_fd()]));
        assert!(error.hint().unwrap().contains("byte"), "{error}");
        (&a).write_all(b"before").unwrap();
        descriptor::send_with(&a, b"with", &[a.as_fd()]).unwrap();
        (&a).write_all(b"after").unwrap();
        let mut all: Vec<u8> = Vec::new();
        let mut ended_at = None;
        let mut buffer = [0; 64];
        while all.len() < 15 {
            let parcel = descriptor::recv_with(&b, &mut buffer).unwrap();
            all.extend(&buffer[..parcel.len]);
            if !parcel.descriptors.is_empty() {
                assert_eq!(ended_at.replace(all.len()), None);
            }
        }
        assert_eq!(all, b"beforewithafter");
        assert_eq!(ended_at, Some(10), "a receive ends with the bytes that brought descriptors");
        descriptor::send_with(&a, b"x", &[]).unwrap();
        drop(a);
        assert_eq!(descriptor::recv_with(&b, &mut buffer).unwrap().len, 1);
        assert_eq!(descriptor::recv_with(&b, &mut buffer).unwrap().len, 0, "the end");
    });
}

#[test]
fn the_kernel_vouches_for_the_sender() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        assert_eq!(descriptor::send_with(&a, b"x", &[]).unwrap(), 1);
        assert_eq!(descriptor::recv_with(&b, &mut [0; 8]).unwrap().credentials, None);
        descriptor::pass_credentials(&b, true).unwrap();
        descriptor::pass_process(&b, true).unwrap();
        let child = unprivileged(|| {
            descriptor::send_with(&a, b"me", &[]).unwrap();
            let forged = Credentials { pid: 1, uid: 0, gid: 0 };
            let error = assert_fails("EPERM", descriptor::send_credentials(&a, b"root", forged, LONG));
            assert!(error.hint().unwrap().contains("privileged"), "{error}");
        });
        let child_pid = child.pid();
        let parcel = descriptor::recv_with(&b, &mut [0; 8]).unwrap();
        assert_eq!(parcel.credentials, Some(Credentials { pid: child_pid, uid: 65534, gid: 65534 }));
        let pidfd = parcel.process.expect("its pidfd");
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        assert!(
            info.lines().any(|line| line == format!("Pid:\t{child_pid}") || line == "Pid:\t-1"),
            "{info}"
        );
        child.assert_ok();

        let claimed = Credentials { pid: std::process::id() as i32, uid: 1234, gid: 5678 };
        descriptor::send_credentials(&a, b"as root I may", claimed, LONG).unwrap();
        assert_eq!(descriptor::recv_with(&b, &mut [0; 32]).unwrap().credentials, Some(claimed));
        assert_fails(
            "ESRCH",
            descriptor::send_credentials(&a, b"x", Credentials { pid: 4_000_000, ..claimed }, LONG),
        );
        assert_eq!(Credentials::of_peer(&a).unwrap().pid, std::process::id() as i32);
    });
}

#[test]
fn a_sender_of_another_pid_namespace_is_process_0() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        descriptor::pass_credentials(&b, true).unwrap();
        // The receiver goes into a namespace from which the sender cannot be seen.
        let receiver = fork(|| {
            // SAFETY: unshare takes no pointer.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            fork(|| {
                let parcel = descriptor::recv_with_deadline(&b, &mut [0; 8], LONG).unwrap();
                assert_eq!(parcel.credentials.unwrap().pid, 0);
            })
            .assert_ok();
        });
        descriptor::send_with(&a, b"x", &[]).unwrap();
        receiver.assert_ok();
    });
}

#[test]
fn the_three_forms() {
    isolated(|| {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        assert!(assert_fails("EAGAIN", descriptor::try_recv_with(&b, &mut [0; 8])).is_would_block());
        assert_times_out(|limit| descriptor::recv_with_deadline(&b, &mut [0; 8], limit));
        assert_interrupted(libc::SYS_recvmsg, || descriptor::recv_with(&b, &mut [0; 8]));
        while descriptor::try_send_with(&a, &[0; 1000], &[]).is_ok() {}
        assert_times_out(|limit| descriptor::send_with_deadline(&a, b"x", &[a.as_fd()], limit));
        assert_interrupted(libc::SYS_sendmsg, || descriptor::send_with(&a, b"x", &[a.as_fd()]));
        drop(b);
        assert!(descriptor::send_with(&a, b"x", &[]).unwrap_err().is_disconnected());
        let file = File::open("/etc/passwd").unwrap();
        assert_fails("ENOTSOCK", descriptor::send_with(&file, b"x", &[]));
        assert_fails("ENOTSOCK", descriptor::recv_with(&file, &mut [0; 8]));
    });
}

#[test]
fn c_passes_to_rust_and_rust_to_c() {
    isolated(|| {
        let program = c_program!("tests/message/descriptor.c");
        let (dir, file) = file_with("written once");
        let start = |arguments: &[&str]| {
            let (ours, theirs) = UnixSeqpacket::pair().unwrap();
            let mut command = Command::new(&program);
            (ours, spawn(command.args(arguments).stdin(OwnedFd::from(theirs)).stdout(Stdio::piped())))
        };
        let (ours, c) = start(&["recv"]);
        descriptor::send_with(&ours, b"x", &[file.as_fd()]).unwrap();
        assert_eq!(c.wait_with_output().stdout, b"written once");

        let (ours, c) = start(&["send", dir.path().join("f").to_str().unwrap()]);
        let mut buffer = [0; 64];
        let parcel = descriptor::recv_with_deadline(&ours, &mut buffer, LONG).unwrap();
        assert_eq!(&buffer[..parcel.len], b"take this");
        let mut text = String::new();
        let [fd] = <[OwnedFd; 1]>::try_from(parcel.descriptors).unwrap();
        File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "written once");
        c.assert_ok();
    });
}

#[test]
fn too_many_on_the_way_are_refused() {
    isolated(|| {
        unprivileged(|| {
            let limit = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
            // SAFETY: the limit is a whole rlimit.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let (a, _b) = UnixSeqpacket::pair().unwrap();
            let ten: [BorrowedFd<'_>; 10] = [a.as_fd(); 10];
            let error = (0..5)
                .find_map(|_| descriptor::send_with(&a, b"x", &ten).err())
                .expect("more than the limit are on the way");
            assert_eq!(error.errno_name(), "ETOOMANYREFS", "{error}");
        })
        .assert_ok();
    });
}
