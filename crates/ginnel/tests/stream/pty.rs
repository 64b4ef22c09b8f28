//! `pty(7)`, `posix_openpt(3)`, `setsid(2)`.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use ginnel::Deadline;
use ginnel::stream::pty::Size;
use ginnel::stream::{ByteRead, ByteWrite, Pty, pty};
use ginnel_testkit::{fork, isolated, wait_blocked_in};

use super::{LONG, POLL, interrupted, times_out};

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Reads until `what` is there.
fn shows(emulator: &Pty, what: &str) -> String {
    let mut screen = String::new();
    while !screen.contains(what) {
        let mut buffer = [0; 256];
        let len = emulator.read_deadline(&mut buffer, LONG).unwrap();
        assert!(len > 0, "ended without {what:?}: {screen:?}");
        screen.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    screen
}

#[test]
fn a_program_on_its_own_terminal() {
    isolated(|| {
        let mut emulator = Pty::options().size(Size { rows: 10, columns: 40 }).open().unwrap();
        let path = emulator.path().display().to_string();
        let mut child = emulator
            .spawn(sh("tty; stty size; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leads"))
            .unwrap();
        let mut screen = String::new();
        emulator.read_to_string(&mut screen).unwrap();
        assert_eq!(screen, format!("{path}\r\n10 40\r\nleads\r\n"), "and then the end, not EIO");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn typing_echo_control_c_and_a_new_size() {
    isolated(|| {
        let emulator = Pty::options().open().unwrap();
        let mut child = emulator
            .spawn(sh("trap 'stty size' WINCH; echo ready; read x; echo got $x; sleep 1000"))
            .unwrap();
        shows(&emulator, "ready");
        emulator.write_all_deadline(b"words\r", LONG).unwrap();
        assert!(shows(&emulator, "got words\r\n").contains("words\r\ngot"), "echoed");
        wait_blocked_in(child.id() as i32, libc::SYS_wait4);
        emulator.set_size(Size { rows: 7, columns: 9 }).unwrap();
        assert_eq!(emulator.size().unwrap(), Size { rows: 7, columns: 9 });
        emulator.write_all_deadline(b"\x03", LONG).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
    });
}

#[test]
fn hanging_up() {
    isolated(|| {
        let emulator = Pty::options().open().unwrap();
        let mut child = emulator.spawn(sh("echo ready; exec sleep 1000")).unwrap();
        shows(&emulator, "ready");
        drop(emulator);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGHUP));

        let (emulator, terminal) = pty().unwrap();
        drop(emulator);
        assert_eq!(terminal.try_read(&mut [0]).unwrap(), 0);
        assert_eq!(terminal.try_write(b"x").unwrap_err().errno_name(), "EIO");

        let (emulator, terminal) = pty().unwrap();
        terminal.try_write(b"last words").unwrap();
        drop(terminal);
        assert_eq!(emulator.read_deadline(&mut [0; 64], LONG).unwrap(), 10, "nothing is lost");
        assert_eq!(emulator.read_deadline(&mut [0; 64], LONG).unwrap(), 0);
        assert_eq!(emulator.try_read(&mut [0; 64]).unwrap(), 0);
    });
}

#[test]
fn raw_is_bytes_as_they_are() {
    isolated(|| {
        let (emulator, terminal) = pty().unwrap();
        terminal.set_raw().unwrap();
        let all: Vec<u8> = (0..=255).collect();
        emulator.write_all_deadline(&all, LONG).unwrap();
        let mut got = [0; 256];
        terminal.read_exact_deadline(&mut got, LONG).unwrap();
        assert_eq!(got[..], all);
        assert!(emulator.try_read(&mut got).unwrap_err().is_would_block(), "no echo");
        terminal.write_all_deadline(&all, LONG).unwrap();
        emulator.read_exact_deadline(&mut got, LONG).unwrap();
        assert_eq!(got[..], all);
        assert_eq!(terminal.size().unwrap(), Size { rows: 24, columns: 80 });
    });
}

#[test]
fn the_three_forms() {
    isolated(|| {
        let emulator = Pty::options().raw(true).open().unwrap();
        let terminal = emulator.terminal().unwrap();
        assert!(emulator.try_read(&mut [0]).unwrap_err().is_would_block());
        times_out(|deadline| emulator.read_deadline(&mut [0], deadline));
        times_out(|deadline| terminal.read_deadline(&mut [0], deadline));
        interrupted(POLL, || emulator.read_deadline(&mut [0], Deadline::NEVER));
        let child = fork(|| assert_eq!((&terminal).read(&mut [0; 9]).unwrap(), 2));
        wait_blocked_in(child.pid(), POLL);
        (&emulator).write_all(b"hi").unwrap();
        child.assert_ok();
        // Full in the end: nobody reads. The kernel moves what it can to the other side, when it likes.
        let error = loop {
            if let Err(error) = terminal.write_deadline(&[b'x'; 1000], super::SHORT) {
                break error;
            }
        };
        assert!(error.is_timed_out(), "{error}");
        assert_eq!(emulator.read_deadline(&mut [0; 10], LONG).unwrap(), 10);
    });
}

#[test]
fn given_to_a_child_it_blocks() {
    isolated(|| {
        let (emulator, terminal) = pty().unwrap();
        let mut child =
            Command::new("cat").stdin(terminal).stdout(std::process::Stdio::null()).spawn().unwrap();
        wait_blocked_in(child.id() as i32, libc::SYS_read);
        emulator.write_all_deadline(b"\x04", LONG).unwrap();
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn no_such_program() {
    isolated(|| {
        let emulator = Pty::options().open().unwrap();
        let error = emulator.spawn(Command::new("no-such-program")).unwrap_err();
        assert_eq!(error.errno_name(), "ENOENT");
    });
}

#[test]
fn typing_to_nobody_gives_up_at_the_deadline() {
    isolated(|| {
        let (emulator, terminal) = pty().unwrap();
        terminal.set_raw().unwrap();
        drop(terminal);
        let lots = vec![b'x'; 1 << 20];
        let short = emulator.write_all_deadline(&lots, super::SHORT).unwrap_err();
        assert!(short.error.is_timed_out() && short.done > 0, "{short}");
    });
}
