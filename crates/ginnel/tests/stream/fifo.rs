//! `fifo(7)`, `mkfifo(3)`.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Command, Stdio};

use ginnel::Deadline;
use ginnel::stream::{ByteRead, ByteWrite, Fifo, FifoReader, FifoWriter, PipeReader, PipeWriter};
use ginnel_testkit::{
    Exit, TempDir, c_program, fork, isolated, run_ok, temp_dir, unprivileged, wait_blocked_in,
};

use super::{LONG, OPEN, POLL, SHORT, interrupted, pattern, stay, times_out};

fn fifo() -> (TempDir, Fifo) {
    let directory = temp_dir();
    let fifo = Fifo::create(directory.path().join("f")).unwrap();
    (directory, fifo)
}

fn both() -> (TempDir, FifoReader, FifoWriter) {
    let (directory, fifo) = fifo();
    let (reader, writer) = fifo.open_both().unwrap();
    (directory, reader, writer)
}

#[test]
fn made_as_asked_and_opened_as_it_is() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("f");
        let missing = Fifo::open(&path).unwrap_err();
        assert!(missing.is_not_found());
        assert!(missing.to_string().starts_with(&format!("fifo:{}: ", path.display())));

        Fifo::options().create_new(true).mode(0o640).open(&path).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert!(meta.file_type().is_fifo());
        assert_eq!(meta.permissions().mode() & 0o777, 0o640);
        assert!(Fifo::options().create_new(true).open(&path).unwrap_err().is_already_exists());
        Fifo::create(&path).unwrap();
        Fifo::open(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
        Fifo::create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "private by default"
        );
        assert_eq!(Fifo::create("/dev/shm/no/such/directory").unwrap_err().errno_name(), "ENOENT");
    });
}

#[test]
fn something_else_is_refused_and_left_alone() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("f");
        std::fs::write(&path, "precious").unwrap();
        for error in [Fifo::open(&path).unwrap_err(), Fifo::create(&path).unwrap_err()] {
            assert_eq!(error.errno_name(), "EINVAL");
            assert!(error.to_string().ends_with("this is a regular file, not a FIFO"), "{error}");
        }
        assert!(Fifo::open(directory.path()).unwrap_err().to_string().contains("a directory"));

        // It was one when the handle was made.
        std::fs::remove_file(&path).unwrap();
        let fifo = Fifo::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        for error in [
            fifo.try_open_reader().unwrap_err(),
            fifo.try_open_writer().unwrap_err(),
            fifo.open_both().unwrap_err(),
            fifo.remove().unwrap_err(),
        ] {
            assert_eq!(error.errno_name(), "EINVAL", "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn removed_on_drop_by_its_maker_only_and_only_itself() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("f");
        let options = Fifo::options().create(true).remove_on_drop(true);
        let mut first = Some(options.open(&path).unwrap());
        drop(options.open(&path).unwrap());
        assert!(path.exists(), "the second did not make it");
        fork(|| drop(first.take())).assert_ok();
        assert!(path.exists(), "a forked child's copy does not remove it");
        drop(first.take());
        assert!(!path.exists());

        let first = options.open(&path).unwrap();
        let kept = directory.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        Fifo::create(&path).unwrap();
        drop(first);
        assert!(path.exists() && kept.exists(), "another file has the name now");

        std::env::set_current_dir(directory.path()).unwrap();
        let relative = options.open("relative").unwrap();
        std::env::set_current_dir("/").unwrap();
        drop(relative);
        assert!(!directory.path().join("relative").exists(), "it is found from another directory too");

        let mut keep = options.open(directory.path().join("k")).unwrap();
        keep.keep();
        drop(keep);
        assert!(directory.path().join("k").exists());
    });
}

#[test]
fn without_a_partner() {
    isolated(|| {
        let (_directory, fifo) = fifo();
        let nobody = fifo.try_open_writer().unwrap_err();
        assert_eq!(nobody.errno_name(), "ENXIO");
        assert!(nobody.is_not_found() && nobody.to_string().contains("nobody has it open for reading"));
        assert_eq!(fifo.open_writer_deadline(Deadline::NOW).unwrap_err().errno_name(), "ENXIO");
        times_out(|deadline| fifo.open_writer_deadline(deadline));
        times_out(|deadline| fifo.open_reader_deadline(deadline));
        interrupted(OPEN, || fifo.open_writer());
        interrupted(OPEN, || fifo.open_reader());
        interrupted(OPEN, || fifo.open_writer_deadline(LONG));

        let reader = fifo.try_open_reader().unwrap();
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0, "no writer: the end");
        assert!(fifo.try_open_writer().is_ok());
    });
}

/// Either side first, each by each form of opening.
#[test]
fn either_side_may_come_first() {
    isolated(|| {
        type Read = fn(&Fifo) -> FifoReader;
        type Write = fn(&Fifo) -> FifoWriter;
        let readers: [Read; 2] =
            [|fifo| fifo.open_reader().unwrap(), |fifo| fifo.open_reader_deadline(LONG).unwrap()];
        let writers: [Write; 2] =
            [|fifo| fifo.open_writer().unwrap(), |fifo| fifo.open_writer_deadline(LONG).unwrap()];
        let (_directory, fifo) = fifo();
        for (open_reader, open_writer) in
            readers.iter().flat_map(|reader| writers.iter().map(move |writer| (reader, writer)))
        {
            let reads = || {
                let mut text = String::new();
                open_reader(&fifo).read_to_string(&mut text).unwrap();
                assert_eq!(text, "hello");
            };
            let writes = || open_writer(&fifo).write_all(b"hello").unwrap();
            let reader = fork(reads);
            wait_blocked_in(reader.pid(), OPEN);
            writes();
            reader.assert_ok();
            let writer = fork(writes);
            wait_blocked_in(writer.pid(), OPEN);
            reads();
            writer.assert_ok();
        }
    });
}

#[test]
fn the_end_and_the_readers_return() {
    isolated(|| {
        let (_directory, fifo) = fifo();
        let reader = fifo.try_open_reader().unwrap();
        for round in 0..3 {
            assert!(reader.try_wait_for_writer().unwrap_err().is_would_block());
            times_out(|deadline| reader.wait_for_writer_deadline(deadline));
            let child = fork(|| {
                reader.wait_for_writer().unwrap();
                let mut text = String::new();
                (&reader).read_to_string(&mut text).unwrap();
                assert_eq!(text, format!("round {round}"));
            });
            wait_blocked_in(child.pid(), POLL);
            let mut writer = fifo.open_writer().unwrap();
            assert!(reader.try_wait_for_writer().is_ok());
            write!(writer, "round {round}").unwrap();
            drop(writer);
            child.assert_ok();
            assert_eq!(reader.try_read(&mut [0; 9]).unwrap(), 0, "the end");
        }
        interrupted(POLL, || reader.wait_for_writer());
    });
}

/// A writer that came, wrote and went between the reader's last read and its wait.
#[test]
fn what_a_writer_left_behind_ends_the_wait_for_one() {
    isolated(|| {
        let (_directory, fifo) = fifo();
        let reader = fifo.try_open_reader().unwrap();
        for _ in 0..2 {
            fifo.open_writer().unwrap().write_all(b"left").unwrap();
            reader.wait_for_writer().unwrap();
            assert_eq!(reader.try_read(&mut [0; 9]).unwrap(), 4);
            assert_eq!(reader.try_read(&mut [0; 9]).unwrap(), 0, "the end");
        }
        let child = fork(|| reader.wait_for_writer().unwrap());
        wait_blocked_in(child.pid(), POLL);
        drop(fifo.open_writer().unwrap());
        child.assert_ok();
        let child = fork(|| reader.wait_for_writer().unwrap());
        wait_blocked_in(child.pid(), POLL);
        let _silent = fifo.open_writer().unwrap();
        child.assert_ok();
    });
}

#[test]
fn a_writer_outlives_one_reader_and_finds_the_next() {
    isolated(|| {
        let (_directory, fifo) = fifo();
        let (reader, writer) = fifo.open_both().unwrap();
        drop(reader);
        assert_eq!(writer.try_write(b"x").unwrap_err().errno_name(), "EPIPE");
        let reader = fifo.open_reader().unwrap();
        writer.try_write(b"again").unwrap();
        assert_eq!(reader.try_read(&mut [0; 9]).unwrap(), 5);
    });
}

#[test]
fn a_killed_writer_is_the_end_and_a_killed_reader_is_epipe() {
    isolated(|| {
        let (_directory, fifo) = fifo();
        let reader = fifo.try_open_reader().unwrap();
        let child = fork(|| {
            let writer = fifo.open_writer().unwrap();
            writer.try_write(b"before").unwrap();
            stay();
        });
        wait_blocked_in(child.pid(), libc::SYS_pause);
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        drop(reader.peek(&mut [0; 9]));
        assert_eq!(reader.read_deadline(&mut [0; 9], LONG).unwrap(), 6, "what it wrote is there");
        assert_eq!(reader.read_deadline(&mut [0; 9], LONG).unwrap(), 0);
        drop(reader);

        let child = fork(|| {
            let _reader = fifo.open_reader().unwrap();
            stay();
        });
        let writer = fifo.open_writer_deadline(LONG).unwrap();
        wait_blocked_in(child.pid(), libc::SYS_pause);
        writer.try_write(b"unread").unwrap();
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        assert_eq!(writer.try_write(b"x").unwrap_err().errno_name(), "EPIPE");
    });
}

#[test]
fn the_three_forms_and_signals() {
    isolated(|| {
        let (_directory, reader, writer) = both();
        assert!(reader.try_read(&mut [0]).unwrap_err().is_would_block());
        times_out(|deadline| reader.read_deadline(&mut [0], deadline));
        interrupted(POLL, || reader.read_deadline(&mut [0], Deadline::NEVER));
        interrupted(POLL, || reader.read_deadline(&mut [0], LONG));
        let child = fork(|| {
            assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 5);
        });
        wait_blocked_in(child.pid(), POLL);
        writer.write_atomic(b"hello").unwrap();
        child.assert_ok();

        let capacity = writer.capacity().unwrap();
        let sent = pattern(2 * capacity);
        assert_eq!(writer.try_write(&sent).unwrap(), capacity);
        assert!(writer.try_write(b"x").unwrap_err().is_would_block());
        assert!(writer.try_write_atomic(b"x").unwrap_err().is_would_block());
        times_out(|deadline| writer.write_atomic_deadline(b"x", deadline));
        interrupted(POLL, || writer.write_atomic(b"x"));
        assert_eq!(writer.write_atomic(&[0; 4097]).unwrap_err().errno_name(), "EMSGSIZE");
        let child = fork(|| (&writer).write_all(&sent[capacity..]).unwrap());
        wait_blocked_in(child.pid(), POLL);
        let mut got = vec![0; 2 * capacity];
        reader.read_exact_deadline(&mut got, LONG).unwrap();
        assert!(got == sent);
        child.assert_ok();
    });
}

#[test]
fn peek_and_capacity() {
    isolated(|| {
        let (_directory, reader, writer) = both();
        assert!(reader.try_peek(&mut [0]).unwrap_err().is_would_block());
        times_out(|deadline| reader.peek_deadline(&mut [0], deadline));
        writer.try_write(b"look").unwrap();
        let mut buffer = [0; 9];
        assert_eq!(reader.peek(&mut buffer).unwrap(), 4);
        assert_eq!(reader.available().unwrap(), 4);
        assert_eq!(writer.set_capacity(1 << 17).unwrap(), 1 << 17);
        assert_eq!(reader.capacity().unwrap(), 1 << 17);
        assert_eq!(reader.set_capacity(4096).unwrap(), 4096);
    });
}

#[test]
fn given_to_a_child_it_blocks() {
    isolated(|| {
        let (_directory, reader, writer) = both();
        let still_ours = &writer;
        let mut child = Command::new("cat").stdin(reader).stdout(Stdio::piped()).spawn().unwrap();
        // A cat whose input had O_NONBLOCK would have died of EAGAIN.
        wait_blocked_in(child.id() as i32, libc::SYS_read);
        still_ours.try_write(b"late").unwrap();
        drop(writer);
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "late");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn c_writes_and_reads() {
    isolated(|| {
        let program = c_program!("tests/stream/fifo.c");
        let (_directory, fifo) = fifo();
        let child = fork(|| {
            run_ok(Command::new(&program).arg("write").arg(fifo.path()).arg("from C"));
        });
        let mut text = String::new();
        fifo.open_reader_deadline(LONG).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "from C");
        child.assert_ok();

        let child = fork(|| {
            assert_eq!(run_ok(Command::new(&program).arg("read").arg(fifo.path())), "from Rust");
        });
        fifo.open_writer_deadline(LONG).unwrap().write_all(b"from Rust").unwrap();
        child.assert_ok();
    });
}

#[test]
fn permissions() {
    isolated(|| {
        let directory = temp_dir();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let fifo = Fifo::options().create(true).mode(0o644).open(directory.path().join("f")).unwrap();
        unprivileged(|| {
            assert!(fifo.try_open_writer().unwrap_err().is_permission_denied());
            assert!(fifo.open_both().unwrap_err().is_permission_denied());
            assert!(fifo.remove().unwrap_err().is_permission_denied());
            assert!(Fifo::create(directory.path().join("g")).unwrap_err().is_permission_denied());
            fifo.try_open_reader().unwrap();
        })
        .assert_ok();
    });
}

/// One that this library did not open: neither `RWF_NOWAIT` nor `O_NONBLOCK` is to be had.
#[test]
fn somebody_elses_descriptor() {
    isolated(|| {
        let (_directory, fifo) = fifo();
        let held = std::fs::OpenOptions::new().read(true).write(true).open(fifo.path()).unwrap();
        let reader = PipeReader::from(OwnedFd::from(std::fs::File::open(fifo.path()).unwrap()));
        let writer = std::fs::OpenOptions::new().write(true).open(fifo.path()).unwrap();
        let writer = PipeWriter::from(OwnedFd::from(writer));
        assert!(reader.try_read(&mut [0]).unwrap_err().is_would_block());
        times_out(|deadline| reader.read_deadline(&mut [0], deadline));
        let sent = pattern(100_000);
        let short = writer.write_all_deadline(&sent, SHORT).unwrap_err();
        assert_eq!(short.done, writer.capacity().unwrap());
        assert!(writer.try_write(b"x").unwrap_err().is_would_block());
        let mut got = vec![0; short.done];
        reader.read_exact_deadline(&mut got, LONG).unwrap();
        assert!(got == sent[..short.done]);
        for end in [reader.as_fd(), writer.as_fd()] {
            let flags = rustix::fs::fcntl_getfl(end).unwrap();
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "left alone");
        }
        drop((held, writer));
        assert_eq!(reader.try_read(&mut [0]).unwrap(), 0);
    });
}
