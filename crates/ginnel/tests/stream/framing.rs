//! Frames over streams.

use std::io::Read;

use ginnel::stream::{ByteWrite, Framed, pipe, socketpair};
use ginnel_testkit::{Exit, fork, isolated, wait_blocked_in};

use super::{LONG, POLL, interrupted, pattern, stay, times_out};

#[test]
fn frames_of_all_sizes_both_ways() {
    isolated(|| {
        let (near, far) = socketpair().unwrap();
        let sizes = [0, 1, 3, 4, 5, 4095, 65_536, 65_537, 1_000_000];
        let (near, mut far) = (Framed::new(near), Some(Framed::new(far)));
        let mut near = Some(near);
        let child = fork(|| {
            drop(near.take());
            let mut far = far.take().unwrap();
            while let Some(frame) = far.recv().unwrap() {
                far.send(&frame).unwrap();
            }
        });
        drop(far.take());
        let mut near = near.take().unwrap();
        for size in sizes {
            near.send(&pattern(size)).unwrap();
            assert!(near.recv_deadline(LONG).unwrap().unwrap() == pattern(size));
        }
        drop(near);
        child.assert_ok();
    });
}

#[test]
fn on_the_wire_the_length_is_four_bytes_in_network_order() {
    isolated(|| {
        let (mut reader, writer) = pipe().unwrap();
        let mut framed = Framed::new(writer);
        framed.send(&[7; 258]).unwrap();
        drop(framed);
        let mut wire = Vec::new();
        reader.read_to_end(&mut wire).unwrap();
        assert_eq!(wire[..4], [0, 0, 1, 2]);
        assert_eq!(wire.len(), 262);
    });
}

#[test]
fn a_frame_that_comes_in_pieces_is_kept_between_calls() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let mut framed = Framed::new(reader);
        for byte in b"\0\0\0\x05hell" {
            writer.try_write(&[*byte]).unwrap();
            assert!(framed.try_recv().unwrap_err().is_would_block());
            times_out(|deadline| framed.recv_deadline(deadline.min(super::SHORT)));
        }
        writer.try_write(b"o\0\0\0\0").unwrap();
        assert_eq!(framed.try_recv().unwrap().unwrap(), b"hello");
        assert_eq!(framed.try_recv().unwrap().unwrap(), b"");
        interrupted(POLL, || framed.recv_deadline(LONG));
        drop(writer);
        assert_eq!(framed.recv().unwrap(), None);
        assert_eq!(framed.recv().unwrap(), None);
    });
}

#[test]
fn an_end_in_the_middle_is_an_error() {
    isolated(|| {
        for (wire, said) in [
            (&b"\0\0"[..], "frame's length"),
            (b"\0\0\0\x05", "after 0 of a frame's 5"),
            (b"\0\0\0\x05he", "after 2"),
        ] {
            let (reader, writer) = pipe().unwrap();
            writer.try_write(wire).unwrap();
            drop(writer);
            let error = Framed::new(reader).recv().unwrap_err();
            assert!(error.is_disconnected() && error.to_string().contains(said), "{error}");
            assert!(Framed::new(wire).read_frame().unwrap_err().is_disconnected());
        }

        let (near, far) = socketpair().unwrap();
        let (mut near, mut far) = (Some(near), Some(far));
        let child = fork(|| {
            drop(near.take());
            far.as_ref().unwrap().try_write(b"\0\0\0\x05he").unwrap();
            stay();
        });
        drop(far.take());
        let mut near = Framed::new(near.take().unwrap());
        wait_blocked_in(child.pid(), libc::SYS_pause);
        child.kill();
        assert_eq!(child.wait(), Exit::Signal(libc::SIGKILL));
        assert!(near.recv().unwrap_err().is_disconnected());
    });
}

#[test]
fn too_large_is_refused_by_both() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let mut out = Framed::with_max(writer, 100);
        let error = out.send(&[0; 101]).unwrap_err();
        assert_eq!(error.errno_name(), "EMSGSIZE");
        assert!(error.to_string().contains("the frame has 101 bytes, the limit is 100"), "{error}");
        out.send(&[1; 100]).unwrap();
        let mut into = Framed::with_max(reader, 99);
        for _ in 0..2 {
            let error = into.recv().unwrap_err();
            assert_eq!(error.errno_name(), "EMSGSIZE", "again and again");
        }
        // Announced is not believed: 4 GiB are not allocated.
        let (reader, writer) = pipe().unwrap();
        writer.try_write(b"\xff\xff\xff\xffxyz").unwrap();
        let mut into = Framed::with_max(reader, usize::MAX);
        assert!(into.try_recv().unwrap_err().is_would_block());
        drop(writer);
        assert!(into.recv().unwrap_err().to_string().contains("after 3 of a frame's 4294967295"));
    });
}

#[test]
fn a_frame_that_fits_in_part_is_taken_and_kept_whole() {
    isolated(|| {
        let (reader, writer) = pipe().unwrap();
        let capacity = writer.capacity().unwrap();
        let (mut out, mut into) = (Framed::new(writer), Framed::new(reader));
        let large = pattern(3 * capacity);
        out.try_send(&large).unwrap();
        assert_eq!(out.pending(), 4 + large.len() - capacity);
        assert!(out.try_send(b"next").unwrap_err().is_would_block(), "not taken");
        times_out(|deadline| out.send_deadline(b"next", deadline));
        times_out(|deadline| out.flush_deadline(deadline));
        let mut got = None;
        while got.is_none() {
            got = into
                .try_recv()
                .or_else(|error| if error.is_would_block() { Ok(None) } else { Err(error) })
                .unwrap();
            let _ = out.try_flush();
        }
        assert!(got.unwrap() == large);
        assert_eq!(out.pending(), 0);
        out.send(b"next").unwrap();
        assert_eq!(into.recv().unwrap().unwrap(), b"next");
        drop(into);
        assert_eq!(out.send(b"x").unwrap_err().errno_name(), "EPIPE");
    });
}

#[test]
fn over_std() {
    isolated(|| {
        let mut out = Framed::with_max(Vec::new(), 10);
        out.write_frame(b"one").unwrap();
        out.write_frame(b"").unwrap();
        assert_eq!(out.write_frame(&[0; 11]).unwrap_err().errno_name(), "EMSGSIZE");
        let wire = out.into_inner();
        let mut into = Framed::new(&wire[..]);
        assert_eq!(into.read_frame().unwrap().unwrap(), b"one");
        assert_eq!(into.read_frame().unwrap().unwrap(), b"");
        assert_eq!(into.read_frame().unwrap(), None);
    });
}

/// Writes to a pipe, fails once with an errno of its own after a few bytes.
struct Failing {
    pipe: ginnel::stream::PipeWriter,
    fails: std::cell::Cell<u32>,
}

impl std::os::fd::AsFd for Failing {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl ByteWrite for Failing {
    fn write_deadline(&self, buf: &[u8], deadline: impl Into<ginnel::Deadline>) -> ginnel::Result<usize> {
        match self.fails.replace(self.fails.get().saturating_sub(1)) {
            2 => self.pipe.write_deadline(&buf[..6], deadline),
            // EBADF: not an end that writes. As good as any that is neither temporary nor the peer's end.
            1 => Err(ginnel::stream::PipeWriter::from(std::os::fd::OwnedFd::from(pipe()?.0))
                .try_write(b"x")
                .unwrap_err()),
            _ => self.pipe.write_deadline(buf, deadline),
        }
    }
}

#[test]
fn a_frame_that_was_begun_is_never_torn_by_the_next() {
    let (reader, writer) = pipe().unwrap();
    let mut sender = Framed::new(Failing { pipe: writer, fails: 2.into() });
    assert_eq!(sender.send(b"begun").unwrap_err().errno_name(), "EBADF");
    assert_eq!(sender.pending(), 3);
    sender.send(b"next").unwrap();
    let mut receiver = Framed::new(reader);
    assert_eq!(receiver.try_recv().unwrap().unwrap(), b"begun");
    assert_eq!(receiver.try_recv().unwrap().unwrap(), b"next");
}
