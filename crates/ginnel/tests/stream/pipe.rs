//! `pipe(2)`, `pipe(7)`, `splice(2)`, `tee(2)`, `vmsplice(2)`.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use ginnel::Deadline;
use ginnel::stream::pipe::{PipeOptions, inherit, splice, splice_deadline, tee, try_splice, try_tee};
use ginnel::stream::{ByteRead, ByteWrite, PipeReader, PipeWriter, pipe, socketpair};
use ginnel_testkit::{Exit, c_program, fork, isolated, run_ok, unprivileged, wait_blocked_in};

use super::{LONG, POLL, interrupted, pattern, times_out};

#[test]
fn both_directions_between_parent_and_child() {
    isolated(|| {
        let (requests, to_child) = pipe().unwrap();
        let (from_child, replies) = pipe().unwrap();
        let (mut requests, mut replies) = (Some(requests), Some(replies));
        let (mut to_child, mut from_child) = (Some(to_child), Some(from_child));
        let child = fork(|| {
            // What the child does not use it must close, or the end never comes.
            drop((to_child.take(), from_child.take()));
            let mut text = String::new();
            requests.take().unwrap().read_to_string(&mut text).unwrap();
            replies.take().unwrap().write_all(text.to_uppercase().as_bytes()).unwrap();
        });
        drop((requests.take(), replies.take()));
        to_child.take().unwrap().write_all(b"question").unwrap();
        let mut answer = String::new();
        from_child.take().unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "QUESTION");
        child.assert_ok();
    });
}

#[test]
fn the_end_comes_with_the_last_writer() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let mut second =
            Some(PipeWriter::from(std::os::fd::AsFd::as_fd(&writer).try_clone_to_owned().unwrap()));
        drop(writer);
        assert!(reader.try_read(&mut [0; 8]).unwrap_err().is_would_block(), "a duplicate is still open");
        second.as_ref().unwrap().try_write(b"last").unwrap();
        second.take();
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 4);
        assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(reader.read_deadline(&mut [0; 8], LONG).unwrap(), 0);
    });
}

#[test]
fn no_reader_is_epipe() {
    isolated(|| {
        let (reader, mut writer) = pipe().unwrap();
        drop(reader);
        for error in [
            writer.try_write(b"x").unwrap_err(),
            writer.write_deadline(b"x", LONG).unwrap_err(),
            writer.write_atomic(b"x").unwrap_err(),
            writer.vmsplice(b"x").unwrap_err(),
        ] {
            assert_eq!(error.errno_name(), "EPIPE");
            assert!(error.is_disconnected());
        }
        assert!(writer.try_write(b"x").unwrap_err().to_string().contains("every reader has closed"));
        assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_reader_that_dies_makes_a_blocked_writer_fail() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let mut reader = Some(reader);
        let child = fork(|| {
            std::thread::sleep(std::time::Duration::from_secs(60));
        });
        // The child has a reader too: the writer sees no EPIPE while it lives.
        reader.take();
        writer.write_all_deadline(&vec![0; writer.capacity().unwrap()], LONG).unwrap();
        times_out(|deadline| writer.write_deadline(b"x", deadline));
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        assert_eq!(writer.write_deadline(b"x", LONG).unwrap_err().errno_name(), "EPIPE");
    });
}

#[test]
fn the_three_forms_of_reading_and_writing() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        assert_eq!(reader.try_read(&mut [0]).unwrap_err().errno_name(), "EAGAIN");
        times_out(|deadline| reader.read_deadline(&mut [0], deadline));
        let child = fork(|| {
            let mut byte = [0];
            assert_eq!((&reader).read(&mut byte).unwrap(), 1);
            assert_eq!(byte, [7]);
            assert_eq!(reader.read_deadline(&mut byte, LONG).unwrap(), 1);
            assert_eq!(byte, [8]);
        });
        wait_blocked_in(child.pid(), libc::SYS_read);
        assert_eq!(writer.try_write(&[7]).unwrap(), 1);
        wait_blocked_in(child.pid(), POLL);
        assert_eq!(writer.try_write(&[8]).unwrap(), 1);
        child.assert_ok();

        let capacity = writer.capacity().unwrap();
        assert_eq!(writer.try_write(&vec![1; capacity + 1]).unwrap(), capacity);
        assert_eq!(reader.available().unwrap(), capacity);
        assert_eq!(writer.try_write(b"x").unwrap_err().errno_name(), "EAGAIN");
        let short = writer.write_all_deadline(b"xyz", super::SHORT).unwrap_err();
        assert_eq!((short.done, short.total), (0, 3));
        let child = fork(|| {
            assert_eq!((&writer).write(b"x").unwrap(), 1);
            assert_eq!(writer.write_deadline(b"y", LONG).unwrap(), 1);
        });
        wait_blocked_in(child.pid(), libc::SYS_write);
        reader.read_exact_deadline(&mut vec![0; capacity], LONG).unwrap();
        child.assert_ok();
        let mut rest = [0; 2];
        reader.read_exact_deadline(&mut rest, LONG).unwrap();
        assert_eq!(&rest, b"xy");
    });
}

#[test]
fn o_nonblock_is_left_alone() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let flags = || {
            [rustix::fs::fcntl_getfl(&reader).unwrap(), rustix::fs::fcntl_getfl(&writer).unwrap()]
                .map(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
        };
        let _ = reader.try_read(&mut [0]);
        let _ = reader.read_deadline(&mut [0], super::SHORT);
        let _ = writer.try_write(&pattern(100_000));
        let _ = writer.write_deadline(b"x", super::SHORT);
        assert_eq!(flags(), [false, false]);
    });
}

#[test]
fn a_signal_interrupts() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        interrupted(POLL, || reader.read_deadline(&mut [0], LONG));
        interrupted(libc::SYS_read, || reader.read_deadline(&mut [0], Deadline::NEVER));
        interrupted(libc::SYS_tee, || reader.peek(&mut [0]));
        writer.try_write(&vec![0; writer.capacity().unwrap()]).unwrap();
        interrupted(POLL, || writer.write_deadline(&[0], LONG));
        interrupted(libc::SYS_write, || writer.write_atomic(&[0]));
        interrupted(libc::SYS_vmsplice, || writer.vmsplice(b"x"));
        let (_other, to) = pipe().unwrap();
        to.try_write(&vec![0; to.capacity().unwrap()]).unwrap();
        interrupted(libc::SYS_splice, || splice(&reader, &to, 10));
    });
}

#[test]
fn many_writers_never_interleave_up_to_pipe_buf() {
    isolated(|| {
        const WRITERS: u8 = 8;
        const RECORDS: usize = 50;
        let (mut reader, writer) = pipe().unwrap();
        // Odd lengths, so that records straddle the kernel's pages, and one of exactly PIPE_BUF.
        let length = |writer: u8| if writer == 0 { 4096 } else { 4000 - 37 * usize::from(writer) };
        let children: Vec<_> = (0..WRITERS)
            .map(|number| {
                fork(|| {
                    for _ in 0..RECORDS {
                        writer.write_atomic(&vec![number; length(number)]).unwrap();
                    }
                })
            })
            .collect();
        drop(writer);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        children.into_iter().for_each(|child| child.assert_ok());
        let (mut rest, mut seen) = (&all[..], [0; WRITERS as usize]);
        while let Some(&number) = rest.first() {
            let (record, after) = rest.split_at(length(number));
            assert!(record.iter().all(|byte| *byte == number), "a record of writer {number} was torn");
            seen[usize::from(number)] += 1;
            rest = after;
        }
        assert_eq!(seen, [RECORDS; WRITERS as usize]);
    });
}

#[test]
fn an_atomic_write_is_whole_or_refused() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let error = writer.write_atomic(&[0; 4097]).unwrap_err();
        assert_eq!(error.errno_name(), "EMSGSIZE");
        assert!(error.hint().unwrap().contains("4096"), "{error}");
        // All but 100 bytes full: 4000 do not fit.
        writer.try_write(&vec![0; writer.capacity().unwrap() - 4096]).unwrap();
        writer.try_write(&[0; 3996]).unwrap();
        assert!(writer.try_write_atomic(&[1; 4000]).unwrap_err().is_would_block());
        times_out(|deadline| writer.write_atomic_deadline(&[1; 4000], deadline));
        assert_eq!(reader.available().unwrap(), writer.capacity().unwrap() - 100, "nothing of it went in");
    });
}

#[test]
fn packet_mode() {
    isolated(|| {
        let (reader, writer) = PipeOptions::default().packet(true).open().unwrap();
        writer.try_write(b"first").unwrap();
        writer.try_write(b"second").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(reader.try_read(&mut buffer).unwrap(), 5);
        assert_eq!(reader.try_read(&mut buffer[..3]).unwrap(), 3, "the rest of the packet is lost");
        assert!(reader.try_read(&mut buffer).unwrap_err().is_would_block());

        // A slot a packet, however short.
        let slots = writer.capacity().unwrap() / 4096;
        (0..slots).for_each(|_| assert_eq!(writer.try_write(b"x").unwrap(), 1));
        assert!(writer.try_write(b"x").unwrap_err().is_would_block());
        assert_eq!(reader.available().unwrap(), slots);
    });
}

#[test]
fn capacity_is_changed_within_limits() {
    isolated(|| {
        let (reader, writer) = PipeOptions::default().capacity(5000).open().unwrap();
        assert_eq!(writer.capacity().unwrap(), 8192, "a power of two of pages");
        assert_eq!(reader.set_capacity(1 << 20).unwrap(), 1 << 20);
        writer.write_all_deadline(&vec![0; 100_000], LONG).unwrap();
        let busy = writer.set_capacity(4096).unwrap_err();
        assert_eq!(busy.errno_name(), "EBUSY");
        unprivileged(|| {
            let refused = writer.set_capacity(1 << 24).unwrap_err();
            assert_eq!(refused.errno_name(), "EPERM");
            assert!(refused.hint().unwrap().contains("fs.pipe-max-size is 1048576"), "{refused}");
        })
        .assert_ok();
    });
}

#[test]
fn peek_takes_nothing() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let mut buffer = vec![0; 100_000];
        assert!(reader.try_peek(&mut buffer).unwrap_err().is_would_block());
        times_out(|deadline| reader.peek_deadline(&mut buffer, deadline));
        let sent = pattern(50_000);
        writer.write_all_deadline(&sent, LONG).unwrap();
        for _ in 0..3 {
            let len = reader.peek(&mut buffer).unwrap();
            assert_eq!(buffer[..len], sent);
        }
        assert_eq!(reader.try_peek(&mut buffer[..7]).unwrap(), 7);
        reader.read_exact_deadline(&mut buffer[..50_000], LONG).unwrap();
        assert_eq!(buffer[..50_000], sent);
        drop(writer);
        assert_eq!(reader.peek(&mut buffer).unwrap(), 0);
    });
}

#[test]
fn peek_has_as_many_slots_as_the_pipe() {
    isolated(|| {
        let (reader, writer) = PipeOptions::default().packet(true).capacity(1 << 18).open().unwrap();
        (0..60).for_each(|_| assert_eq!(writer.try_write(b"x").unwrap(), 1));
        assert_eq!(reader.try_peek(&mut [0; 100]).unwrap(), 60);
        assert_eq!(reader.available().unwrap(), 60);
    });
}

#[test]
fn splice_and_tee_move_and_copy() {
    isolated(|| {
        let (a, into_a) = pipe().unwrap();
        let (b, into_b) = pipe().unwrap();
        assert!(try_splice(&a, &into_b, 100).unwrap_err().is_would_block());
        assert!(try_tee(&a, &into_b, 100).unwrap_err().is_would_block());
        times_out(|deadline| splice_deadline(&a, &into_b, 100, deadline));
        into_a.try_write(b"payload").unwrap();
        assert_eq!(tee(&a, &into_b, 100).unwrap(), 7);
        assert_eq!(splice(&a, &into_b, 3).unwrap(), 3);
        assert_eq!((a.available().unwrap(), b.available().unwrap()), (4, 10));
        let mut all = [0; 10];
        b.read_exact_deadline(&mut all, LONG).unwrap();
        assert_eq!(&all, b"payloadpay");

        // From a socket that has nothing, without waiting for it.
        let (near, far) = socketpair().unwrap();
        assert!(try_splice(&near, &into_b, 10).unwrap_err().is_would_block());
        times_out(|deadline| splice_deadline(&near, &into_b, 10, deadline));
        far.try_write(b"socket").unwrap();
        assert_eq!(splice(&near, &into_b, 10).unwrap(), 6);
        assert_eq!(
            splice(&a, &a, 1).unwrap_err().errno_name(),
            "EBADF",
            "an end that reads cannot be written"
        );
        assert_eq!(splice(&near, &near, 1).unwrap_err().errno_name(), "EINVAL", "no pipe");
    });
}

#[test]
fn vmsplice_takes_what_stays_for_ever() {
    isolated(|| {
        static TABLE: [u8; 20_000] = [42; 20_000];
        let (reader, writer) = pipe().unwrap();
        assert_eq!(writer.vmsplice(&TABLE).unwrap(), TABLE.len());
        let mut copy = [0; 20_000];
        reader.read_exact_deadline(&mut copy, LONG).unwrap();
        assert_eq!(copy, TABLE);
        while writer.try_vmsplice(&TABLE).is_ok() {}
        times_out(|deadline| writer.vmsplice_deadline(&TABLE, deadline));
    });
}

#[test]
fn c_reads_what_rust_writes_and_the_other_way_round() {
    isolated(|| {
        let program = c_program!("tests/stream/pipe.c");
        let sent = pattern(300_000);
        let expected = format!("{} {}\n", sent.len(), sent.iter().map(|byte| u64::from(*byte)).sum::<u64>());

        let (reader, mut writer) = pipe().unwrap();
        let mut child =
            Command::new(&program).args(["read", "0"]).stdin(reader).stdout(Stdio::piped()).spawn().unwrap();
        writer.write_all(&sent).unwrap();
        drop(writer);
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, expected);
        assert!(child.wait().unwrap().success());

        let (mut reader, writer) = pipe().unwrap();
        let mut command = Command::new(&program);
        let number = inherit(&mut command, writer);
        let mut child = command.args(["write", &number.to_string(), "300000"]).spawn().unwrap();
        drop(command);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == sent);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn nothing_is_inherited_by_exec() {
    isolated(|| {
        let (_reader, _writer) = pipe().unwrap();
        let (_near, _far) = socketpair().unwrap();
        let listener = ginnel::stream::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = ginnel::stream::TcpStream::connect(listener.local_address().unwrap()).unwrap();
        let _served = listener.accept().unwrap();
        let _unix = ginnel::stream::UnixListener::bind("@here").unwrap();
        let _pty = ginnel::stream::pty().unwrap();
        let directory = ginnel_testkit::temp_dir();
        let _fifo = ginnel::stream::Fifo::create(directory.path().join("f")).unwrap().open_both().unwrap();
        let mut command = Command::new(c_program!("tests/stream/pipe.c"));
        assert_eq!(run_ok(command.arg("descriptors").stdin(Stdio::null())).trim(), "0 1 2");
    });
}

#[test]
fn stds_own_ends_are_taken_and_given() {
    isolated(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = PipeReader::from(std::os::fd::OwnedFd::from(reader));
        let writer = PipeWriter::from(std::os::fd::OwnedFd::from(writer));
        writer.try_write(b"hello").unwrap();
        let mut file = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
        let mut text = [0; 5];
        file.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    });
}

#[test]
fn no_more_descriptors() {
    isolated(|| {
        fork(|| {
            let limit = rustix::process::Rlimit { current: Some(3), maximum: Some(3) };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            assert_eq!(pipe().unwrap_err().errno_name(), "EMFILE");
        })
        .assert_ok();
    });
}
