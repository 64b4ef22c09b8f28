//! `popen(3)`, `pclose(3)`.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use ginnel::stream::Popen;
use ginnel::stream::popen::{argv, shell};
use ginnel_testkit::{c_program, isolated, temp_dir, wait_blocked_in};

use super::{LONG, POLL, interrupted, pattern, times_out};

#[test]
fn reading_writing_and_both() {
    isolated(|| {
        let mut read = Popen::read(shell("echo out; exit 3")).unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "out\n");
        assert_eq!(read.write(b"x").unwrap_err().raw_os_error(), None);
        assert!(read.write(b"x").unwrap_err().to_string().contains("EBADF"));
        assert_eq!(read.close().unwrap().code(), Some(3));
        assert_eq!(read.close().unwrap().code(), Some(3), "it can be asked again");

        let directory = temp_dir();
        let path = directory.path().join("sorted");
        let mut write = Popen::write(argv(["sort", "-o", path.to_str().unwrap()])).unwrap();
        assert!(write.read(&mut [0]).unwrap_err().to_string().contains("EBADF"));
        write.write_all(b"b\na\n").unwrap();
        assert!(write.close().unwrap().success());
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\n");

        let mut both = Popen::both(argv(["cat"])).unwrap();
        both.write_all(b"ping").unwrap();
        let mut word = [0; 4];
        both.read_exact(&mut word).unwrap();
        both.close_input();
        assert_eq!(both.read(&mut word).unwrap(), 0);
        assert!(both.close().unwrap().success());
    });
}

#[test]
fn an_argument_vector_is_not_a_shell_line() {
    isolated(|| {
        let text = |command: Command| {
            let mut text = String::new();
            Popen::read(command).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(text(argv(["printf", "%s|", "a b", "*", "$(id); x"])), "a b|*|$(id); x|");
        assert_eq!(text(shell("printf '%s|' a\\ b $((1+1)); echo")), "a b|2|\n");
    });
}

#[test]
fn what_cannot_start_is_an_error_at_once() {
    isolated(|| {
        let error = Popen::read(argv(["no-such-program"])).unwrap_err();
        assert_eq!((error.operation(), error.errno_name()), ("execve", "ENOENT"));
        assert!(error.to_string().starts_with("command no-such-program: "), "{error}");
        assert_eq!(Popen::read(argv(["/etc/passwd"])).unwrap_err().errno_name(), "EACCES");
        assert!(Popen::read(argv::<&str>([])).is_err());
    });
}

#[test]
fn both_ways_more_than_the_pipes_hold() {
    isolated(|| {
        let input = pattern(2_000_000);
        let mut cat = Popen::both(argv(["cat"])).unwrap();
        assert!(cat.communicate(&input, LONG).unwrap() == input);
        assert!(cat.close().unwrap().success());
        let mut silent = Popen::both(argv(["sleep", "1000"])).unwrap();
        times_out(|deadline| silent.communicate(b"", deadline));
    });
}

#[test]
fn deadlines_signals_and_the_drop() {
    isolated(|| {
        let mut sleep = Popen::write(argv(["sleep", "1000"])).unwrap();
        assert!(sleep.try_close().unwrap_err().is_would_block());
        times_out(|deadline| sleep.close_deadline(deadline));
        sleep.signal(libc::SIGTERM).unwrap();
        assert_eq!(sleep.close_deadline(LONG).unwrap().signal(), Some(libc::SIGTERM));
        assert_eq!(sleep.kill().unwrap_err().errno_name(), "ESRCH");
        interrupted(POLL, || Popen::write(argv(["sleep", "1000"])).unwrap().close());

        let dropped = Popen::write(argv(["sleep", "1000"])).unwrap();
        let pid = dropped.pid();
        wait_blocked_in(pid, libc::SYS_clock_nanosleep);
        drop(dropped);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "killed and reaped");
    });
}

#[test]
fn the_next_popen_does_not_inherit_the_last() {
    isolated(|| {
        let first = Popen::both(argv(["cat"])).unwrap();
        let mut second =
            Popen::read(argv([c_program!("tests/stream/pipe.c").to_str().unwrap(), "descriptors"])).unwrap();
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "0 1 2 \n");
        drop(first);
    });
}
