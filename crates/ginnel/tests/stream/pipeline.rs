//! Pipelines: `pipe(2)`, `fork(2)`, `dup2(2)`, `exec(3)` done right.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use ginnel::stream::pipeline::End;
use ginnel::stream::popen::argv;
use ginnel::stream::{ByteRead, Fifo, Pipeline, Popen, Pty, pipe};
use ginnel_testkit::{c_program, example, fork, isolated, temp_dir, wait_blocked_in, wait_until};

use super::{LONG, POLL, interrupted, times_out};

fn output(line: &str) -> String {
    let out = Pipeline::parse(line).unwrap().stdin(End::Null).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn gone(pid: i32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn as_in_a_shell() {
    isolated(|| {
        let directory = temp_dir();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("failures.txt"), "bob 3\nann 1\nbob 1\neve 2\n").unwrap();
        for line in [
            format!("cat {} | grep bob | sort", at("failures.txt")),
            format!("sort < {}", at("failures.txt")),
            format!("sort < {} | head -n 1", at("failures.txt")),
            "printf 'a b\\n' | tr a-z A-Z".into(),
            format!("ls {} 2>&1 | wc -l", at("none")),
            format!("ls {} 2>{} | wc -l", at("none"), at("err")),
            "echo 'a|b' \"c > d\" e\\ f".into(),
            format!("sh -c 'echo out; echo err >&2' 2>&1 >{} | cat", at("o")),
            format!("sh -c 'echo out; echo err >&2' >{} 2>&1 | cat", at("p")),
        ] {
            let shell = Command::new("sh").arg("-c").arg(&line).output().unwrap();
            assert_eq!(output(&line), String::from_utf8(shell.stdout).unwrap(), "{line}");
        }
        assert_eq!(std::fs::read_to_string(at("o")).unwrap(), "out\n");
        assert_eq!(std::fs::read_to_string(at("p")).unwrap(), "out\nerr\n");
        output(&format!("echo one > {0}", at("log")));
        output(&format!("echo two >> {0}", at("log")));
        assert_eq!(std::fs::read_to_string(at("log")).unwrap(), "one\ntwo\n");
    });
}

#[test]
fn every_stages_status_and_sigpipe() {
    isolated(|| {
        let mut running = Pipeline::parse("yes | head -n 1 | sh -c 'cat >/dev/null; exit 7'")
            .unwrap()
            .stdout(End::Null)
            .spawn()
            .unwrap();
        let status = running.wait().unwrap();
        assert_eq!(status.stages[0].status.signal(), Some(libc::SIGPIPE), "yes: its reader is gone");
        assert_eq!(status.stages[1].status.code(), Some(0));
        assert_eq!(status.last().code(), Some(7));
        assert!(!status.success());
        assert_eq!(status.first_failure().unwrap().0, 0);
        assert_eq!(running.wait().unwrap().last().code(), Some(7), "it can be asked again");
        assert_eq!(running.kill().unwrap_err().errno_name(), "ESRCH");
    });
}

#[test]
fn one_process_group_of_their_own() {
    isolated(|| {
        let mut running = Pipeline::parse("sleep 1000 | sleep 1000 | sleep 1000").unwrap().spawn().unwrap();
        // SAFETY: it takes a number.
        let group = |pid: i32| unsafe { libc::getpgid(pid) };
        let pids = running.pids();
        assert_eq!(pids.iter().map(|pid| group(*pid)).collect::<Vec<_>>(), [pids[0]; 3]);
        assert_eq!(running.group(), pids[0]);
        assert_ne!(group(0), pids[0]);
        assert!(running.try_wait().unwrap_err().is_would_block());
        times_out(|deadline| running.wait_deadline(deadline));
        assert_eq!(running.signal(999).unwrap_err().errno_name(), "EINVAL");
        running.signal(libc::SIGTERM).unwrap();
        let status = running.wait_deadline(LONG).unwrap();
        assert!(status.stages.iter().all(|stage| stage.status.signal() == Some(libc::SIGTERM)));
    });
}

#[test]
fn no_stage_holds_what_is_not_its_own() {
    isolated(|| {
        let program = c_program!("tests/stream/pipe.c").display().to_string();
        let (_other, _ends) = pipe().unwrap();
        // Each stage of five prints its descriptors to the errors, which are collected.
        let stage = format!("sh -c '{program} descriptors >&2'");
        let line = [&stage[..]; 5].join(" | ");
        let out = Pipeline::parse(&line).unwrap().stdin(End::Null).stderr(End::Piped).output().unwrap();
        assert_eq!(String::from_utf8(out.stderr).unwrap(), "0 1 2 \n".repeat(5));
    });
}

#[test]
fn a_stage_that_cannot_start_takes_the_others_with_it() {
    isolated(|| {
        let directory = temp_dir();
        let fifo = Fifo::create(directory.path().join("f")).unwrap();
        let alive = fifo.try_open_reader().unwrap();
        // The first stage holds the FIFO open for as long as it lives.
        let hold = format!("sh -c 'exec 9>{}; sleep 1000'", fifo.path().display());
        let error =
            Pipeline::parse(&format!("{hold} | no-such-program -x | cat")).unwrap().spawn().unwrap_err();
        assert_eq!(error.errno_name(), "ENOENT");
        assert_eq!(error.object(), "stage 2 (no-such-program -x)");
        wait_until("the first stage and its child are gone", || alive.try_wait_for_writer().is_err());
        let none = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(none.err(), Some(rustix::io::Errno::CHILD), "and reaped");

        let error = Pipeline::parse("cat < /no/such/file | cat").unwrap().spawn().unwrap_err();
        assert_eq!((error.errno_name(), error.object()), ("ENOENT", "/no/such/file"));
        assert!(error.hint().unwrap().contains("stage 1"), "{error}");
        let error = Pipeline::parse("cd /tmp").unwrap().spawn().unwrap_err();
        assert!(error.to_string().contains("sh -c"), "{error}");
    });
}

#[test]
fn dropped_it_is_killed_and_reaped() {
    isolated(|| {
        let running = Pipeline::parse("sleep 1000 | sh -c 'sleep 1000; true'").unwrap().spawn().unwrap();
        let pids = running.pids();
        wait_blocked_in(pids[1], libc::SYS_wait4);
        let grandchild: i32 = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pids[1]))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        drop(running);
        assert!(pids.iter().all(|pid| gone(*pid)));
        wait_until("the shell's own child is gone too", || gone(grandchild));
    });
}

#[test]
fn outer_ends_piped_and_given() {
    isolated(|| {
        let mut running = Pipeline::parse("tr a-z A-Z | rev")
            .unwrap()
            .stdin(End::Piped)
            .stdout(End::Piped)
            .spawn()
            .unwrap();
        running.stdin.take().unwrap().write_all(b"abc\n").unwrap();
        let mut text = String::new();
        running.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "CBA\n");
        assert!(running.wait().unwrap().success());

        let (reader, writer) = pipe().unwrap();
        let status =
            Pipeline::new([["echo", "given"]]).unwrap().stdout(writer).spawn().unwrap().wait().unwrap();
        assert!(status.success());
        let mut buffer = [0; 16];
        assert_eq!(reader.try_read(&mut buffer).unwrap(), 6);
        assert_eq!(reader.try_read(&mut buffer).unwrap(), 0, "no end of ours was left open");
    });
}

#[test]
fn more_both_ways_than_the_pipes_hold() {
    isolated(|| {
        let input = super::pattern(3_000_000);
        let out = Pipeline::parse("cat | cat | sh -c 'cat; echo done >&2'")
            .unwrap()
            .stdin(End::Piped)
            .stderr(End::Piped)
            .output_deadline(&input, LONG)
            .unwrap();
        assert!(out.stdout == input);
        assert_eq!(out.stderr, b"done\n");
        let late = Pipeline::parse("sleep 1000").unwrap();
        times_out(|deadline| late.output_deadline(b"", deadline));
        // Input that nobody reads is no error.
        let out =
            Pipeline::parse("head -c 1").unwrap().stdin(End::Piped).output_deadline(&input, LONG).unwrap();
        assert_eq!(out.stdout, input[..1]);
    });
}

#[test]
fn a_signal_interrupts_the_wait() {
    isolated(|| {
        interrupted(POLL, || {
            let mut running = Pipeline::parse("sleep 1000").unwrap().spawn().unwrap();
            running.wait()
        });
    });
}

#[test]
fn in_the_foreground_of_a_terminal() {
    isolated(|| {
        // What is typed while the example's pipeline runs reaches the pipeline, and afterwards the shell again.
        let mut emulator = Pty::options().open().unwrap();
        let mut command = Command::new("sh");
        // The last stage speaks, so that all have started by then.
        let script =
            "\"$0\" \"sleep 1000 | sh -c 'echo pipeline runs; exec sleep 2000'\"; read x; echo got $x";
        command.args(["-c", script]).arg(example("pipeline"));
        let mut child = emulator.spawn(command).unwrap();
        screen_shows(&emulator, "pipeline runs");
        emulator.write_all(b"\x03").unwrap();
        let screen = screen_shows(&emulator, "exec sleep 2000\r\n");
        assert_eq!(screen.matches("signal: 2 (SIGINT)").count(), 2, "{screen}");
        emulator.write_all(b"words\r").unwrap();
        screen_shows(&emulator, "got words");
        assert!(child.wait().unwrap().success());
    });
}

/// Reads until `what` is there.
fn screen_shows(emulator: &Pty, what: &str) -> String {
    let mut screen = String::new();
    while !screen.contains(what) {
        let mut buffer = [0; 256];
        let len = emulator.read_deadline(&mut buffer, LONG).unwrap();
        assert!(len > 0, "ended without {what:?}: {screen}");
        screen.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
    screen
}

#[test]
fn a_forked_childs_copy_does_not_kill_it() {
    isolated(|| {
        let mut running = Some(Pipeline::parse("sleep 1000 | sleep 1000").unwrap().spawn().unwrap());
        let mut popen = Some(Popen::write(argv(["sleep", "1000"])).unwrap());
        fork(|| drop((running.take(), popen.take()))).assert_ok();
        assert!(running.unwrap().try_wait().unwrap_err().is_would_block());
        assert!(popen.unwrap().try_close().unwrap_err().is_would_block());
    });
}

/// `yes` writes faster than anybody reads: there is always something to do, and the deadline comes all the same.
#[test]
fn a_deadline_ends_a_command_that_never_stops_writing() {
    isolated(|| {
        let yes = || Pipeline::parse("yes").unwrap().stdin(End::Null);
        times_out(|deadline| yes().output_deadline(b"", deadline));
        let mut popen = Popen::both(argv(["yes"])).unwrap();
        times_out(|deadline| popen.communicate(b"", deadline));
    });
}

/// A stage that leads a session of its own is in no group of the pipeline's.
#[test]
fn a_stage_that_has_left_the_group_is_signalled_and_killed_too() {
    isolated(|| {
        let away = |pid| {
            // SAFETY: getsid takes a number.
            wait_until("the second stage is a session's leader", || unsafe { libc::getsid(pid) } == pid);
        };
        let mut running = Pipeline::parse("sleep 1000 | setsid sleep 1000").unwrap().spawn().unwrap();
        away(running.pids()[1]);
        running.signal(libc::SIGTERM).unwrap();
        let status = running.wait_deadline(LONG).unwrap();
        assert!(status.stages.iter().all(|stage| stage.status.signal() == Some(libc::SIGTERM)), "{status:?}");

        let mut running = Pipeline::parse("true | setsid sleep 1000").unwrap().spawn().unwrap();
        let pids = running.pids();
        away(pids[1]);
        assert!(running.try_wait().unwrap_err().is_would_block());
        drop(running);
        assert!(pids.into_iter().all(gone));
    });
}

#[test]
fn without_enough_descriptors_nothing_is_left_over() {
    isolated(|| {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let limit = |descriptors| {
            let limit = Rlimit { current: Some(descriptors), maximum: Some(4096) };
            setrlimit(Resource::Nofile, limit).unwrap();
        };
        // One of them reads the directory.
        let before = open() - 1;
        let (mut failed, mut worked) = (0, 0);
        for spare in 0..24 {
            let pipeline = Pipeline::parse("cat | cat 2>&1 | cat").unwrap();
            let pipeline = pipeline.stdin(End::Piped).stdout(End::Piped).stderr(End::Piped);
            limit((before + spare) as u64);
            let outcome = pipeline.output_deadline(b"x", LONG);
            let popen = Popen::both(argv(["cat"])).map(|mut cat| cat.communicate(b"x", LONG));
            let emulator = Pty::options().open().and_then(|pty| pty.terminal().map(drop));
            limit(4096);
            match outcome {
                Ok(out) => assert_eq!((worked += 1, out.stdout), ((), b"x".to_vec())),
                Err(error) => assert_eq!((failed += 1, error.errno_name()), ((), "EMFILE"), "{error}"),
            }
            assert!(popen.is_ok_and(|said| said.is_ok()) || spare < 8);
            assert!(emulator.is_ok() || spare < 8);
            assert_eq!(open() - 1, before, "{spare} to spare");
            // SAFETY: no status is asked for.
            let child = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
            assert_eq!(child, -1, "no child is left");
        }
        assert!(failed > 5 && worked > 5);
    });
}
