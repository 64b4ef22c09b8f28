#![allow(unsafe_code)]
//! `picture` against the kernel: real pipelines, and reference counts checked by another way of counting.
//!
//! Each test runs itself again in a process of its own, with 0, 1 and 2 as its only descriptors: so descriptor numbers
//! are known, what the pipeline writes can be read, and a test that hangs is killed with all its processes.

use ginnel_inspect::descriptors::Kind;
use ginnel_inspect::open_files::{FileId, Reference};
use ginnel_inspect::picture::{Outcome, Renderer, Step, picture};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::{env, fs, thread};

const ALONE: &str = "GINNEL_TEST_ALONE";
const DEADLINE_SECONDS: u32 = 60;

/// Runs `body` in a process of its own, and gives what was written to its standard output meanwhile. None in that process.
fn alone(test: &str, body: impl FnOnce()) -> Option<String> {
    if env::var_os(ALONE).is_some_and(|name| name == *test) {
        // SAFETY: this process has no other user of descriptors from 3 on; SIGALRM's default action ends it.
        unsafe {
            libc::alarm(DEADLINE_SECONDS);
            libc::close_range(3, libc::c_uint::MAX, 0);
        }
        print!("<<<");
        io::stdout().flush().unwrap();
        body();
        print!(">>>");
        io::stdout().flush().unwrap();
        return None;
    }
    let output = again(test).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    let (_, rest) = text.split_once("<<<").unwrap();
    Some(rest.rsplit_once(">>>").unwrap().0.to_owned())
}

fn again(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"]);
    command.env(ALONE, test).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn stages(line: &str) -> Vec<Vec<OsString>> {
    line.split('|').map(|stage| stage.split_whitespace().map(OsString::from).collect()).collect()
}

/// The steps of a pipeline, each checked against the kernel while all stands still, and its outcome.
fn steps(stages: &[Vec<OsString>]) -> (Vec<Step>, Outcome) {
    let mut steps = Vec::new();
    let outcome = picture(stages, |step| {
        check_against_kernel(step);
        steps.push(step.clone());
        Ok(())
    });
    (steps, outcome.unwrap())
}

fn statuses(outcome: &Outcome) -> Vec<i32> {
    outcome.stages.iter().map(|stage| stage.shell_status()).collect()
}

/// Every pair of descriptors of the stopped processes, compared by `kcmp`.
fn check_against_kernel(step: &Step) {
    let all: Vec<Reference> = step
        .processes
        .iter()
        .flat_map(|one| listed(one.pid).into_iter().map(|fd| Reference { pid: one.pid, fd }))
        .collect();
    let shown: BTreeMap<Reference, FileId> = step
        .processes
        .iter()
        .flat_map(|one| {
            one.descriptors.iter().map(|(&fd, entry)| (Reference { pid: one.pid, fd }, entry.open_file))
        })
        .collect();
    assert_eq!(shown.keys().copied().collect::<Vec<_>>(), sorted(&all), "{}", step.call);
    for &one in &all {
        let mut count = 0;
        for &other in &all {
            let same = kcmp(one, other) == 0;
            assert_eq!(same, shown[&one] == shown[&other], "{}: {one} and {other}", step.call);
            count += usize::from(same);
        }
        let file = step.open_files.iter().find(|file| file.id == shown[&one]).unwrap();
        assert_eq!(file.references.len(), count, "{}: the count of {}", step.call, file.id);
        assert!(file.references.contains(&one));
    }
    let ids: BTreeSet<_> = shown.values().copied().collect();
    assert_eq!(
        step.open_files.iter().map(|file| file.id).collect::<Vec<_>>(),
        ids.into_iter().collect::<Vec<_>>()
    );
}

fn sorted(references: &[Reference]) -> Vec<Reference> {
    references.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn listed(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

fn kcmp(one: Reference, other: Reference) -> i64 {
    // SAFETY: numbers only.
    let answer =
        unsafe { libc::syscall(libc::SYS_kcmp, one.pid, other.pid, 0, one.fd as u64, other.fd as u64) };
    assert!((0..=2).contains(&answer), "{one} and {other}: {}", io::Error::last_os_error());
    answer
}

#[test]
fn calls_are_the_textbooks() {
    alone("calls_are_the_textbooks", || {
        let (steps, outcome) = steps(&stages("cat /etc/passwd | grep root | sort"));
        let pid = |stage: usize| outcome.stages[stage].pid;
        let made: Vec<_> =
            steps.iter().map(|step| (step.process.as_str(), without_directory(&step.call))).collect();
        let expected = [
            ("shell", "start".into()),
            ("shell", "pipe() = [3, 4]".into()),
            ("shell", format!("fork() = {}", pid(0))),
            ("child 1 (to be cat)", "dup2(4, 1)".into()),
            ("child 1 (to be cat)", "close(3)".into()),
            ("child 1 (to be cat)", "close(4)".into()),
            ("cat", "execve(\"cat\", [\"cat\", \"/etc/passwd\"])".into()),
            ("shell", "close(4)".into()),
            ("shell", "pipe() = [4, 5]".into()),
            ("shell", format!("fork() = {}", pid(1))),
            ("child 2 (to be grep)", "dup2(3, 0)".into()),
            ("child 2 (to be grep)", "dup2(5, 1)".into()),
            ("child 2 (to be grep)", "close(3)".into()),
            ("child 2 (to be grep)", "close(4)".into()),
            ("child 2 (to be grep)", "close(5)".into()),
            ("grep", "execve(\"grep\", [\"grep\", \"root\"])".into()),
            ("shell", "close(3)".into()),
            ("shell", "close(5)".into()),
            ("shell", format!("fork() = {}", pid(2))),
            ("child 3 (to be sort)", "dup2(4, 0)".into()),
            ("child 3 (to be sort)", "close(4)".into()),
            ("sort", "execve(\"sort\", [\"sort\"])".into()),
            ("shell", "close(4)".into()),
        ];
        assert_eq!(made, expected);
        assert!(steps.iter().enumerate().all(|(index, step)| step.number == index));
    });
}

/// `execve("/usr/bin/cat", …)` as `execve("cat", …)`: the directory is the host's affair.
fn without_directory(call: &str) -> String {
    let Some((path, rest)) = call.strip_prefix("execve(\"").and_then(|rest| rest.split_once('"')) else {
        return call.to_owned();
    };
    format!("execve(\"{}\"{rest}", path.rsplit('/').next().unwrap())
}

#[test]
fn no_end_is_leaked() {
    alone("no_end_is_leaked", || {
        for line in ["true", "true | true", "true | true | true | true | true | true"] {
            let (steps, outcome) = steps(&stages(line));
            let (first, last) = (&steps[0], steps.last().unwrap());
            let standard: Vec<i32> = first.processes[0].descriptors.keys().copied().collect();
            assert_eq!(standard, [0, 1, 2]);
            assert_eq!(last.processes.len(), 1 + outcome.stages.len());
            for process in &last.processes {
                assert_eq!(
                    process.descriptors.keys().copied().collect::<Vec<_>>(),
                    standard,
                    "{}",
                    process.label
                );
            }
            let is_end = |object: &str| object.ends_with(" end)");
            let ends: Vec<_> = last.open_files.iter().filter(|file| is_end(&file.object)).collect();
            assert_eq!(ends.len(), 2 * (outcome.stages.len() - 1));
            assert!(
                ends.iter()
                    .all(|file| file.references.len() == 1 && !file.outside && file.kind == Kind::Pipe)
            );
            assert!(last.open_files.iter().filter(|file| !is_end(&file.object)).all(|file| file.outside));
            // What leads left in a stage is the pipe whose write end its neighbour has.
            for pair in last.processes[1..].windows(2) {
                let (write, read) = (&pair[0].descriptors[&1], &pair[1].descriptors[&0]);
                assert_eq!(write.descriptor.object, read.descriptor.object);
                assert_ne!(write.open_file, read.open_file);
            }
        }
    });
}

#[test]
fn letters_stay_with_their_open_files() {
    alone("letters_stay_with_their_open_files", || {
        let (steps, _) = steps(&stages("cat /etc/passwd | grep root | sort"));
        for pair in steps.windows(2) {
            let objects = |step: &Step| -> BTreeMap<_, _> {
                step.open_files
                    .iter()
                    .map(|file| (file.id, (file.object.clone(), file.object_id, file.access)))
                    .collect()
            };
            let (before, after) = (objects(&pair[0]), objects(&pair[1]));
            for (id, object) in &after {
                assert!(before.get(id).is_none_or(|known| known == object), "{id} in {}", pair[1].call);
            }
            let is_pipe = pair[1].call.starts_with("pipe()");
            assert_eq!(after.keys().filter(|id| !before.contains_key(id)).count(), 2 * usize::from(is_pipe));
        }
        let letters =
            |step: &Step| step.open_files.iter().map(|file| file.id.to_string()).collect::<String>();
        assert!(letters(steps.last().unwrap()).starts_with(&letters(&steps[0])));
    });
}

#[test]
fn output_and_statuses_are_the_pipelines() {
    let output = alone("output_and_statuses_are_the_pipelines", || {
        let (_, outcome) = steps(&stages("cat /etc/passwd | grep root | sort"));
        assert_eq!(statuses(&outcome), [0, 0, 0]);
    });
    let Some(output) = output else { return };
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let mut expected: Vec<_> = passwd.lines().filter(|line| line.contains("root")).collect();
    expected.sort_unstable();
    assert!(!expected.is_empty());
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn each_stage_has_its_own_end() {
    let script = |text: &str| vec!["sh".into(), "-c".into(), text.into()];
    alone("each_stage_has_its_own_end", || {
        let (_, outcome) = steps(&[script("exit 3"), script("kill -9 $$"), script("exit 0")]);
        assert_eq!(
            outcome.stages.iter().map(|stage| (stage.code, stage.signal)).collect::<Vec<_>>(),
            [(Some(3), None), (None, Some(9)), (Some(0), None)]
        );
        assert_eq!(statuses(&outcome), [3, 137, 0]);
    });
}

/// Rust ignores SIGPIPE; a pipeline's writer is to die of it when its reader has gone.
#[test]
fn writer_without_reader_gets_sigpipe() {
    let output = alone("writer_without_reader_gets_sigpipe", || {
        let (_, outcome) = steps(&stages("yes | head -n 1"));
        assert_eq!((outcome.stages[0].signal, outcome.stages[1].code), (Some(libc::SIGPIPE), Some(0)));
    });
    assert!(output.is_none_or(|output| output == "y\n"));
}

#[test]
fn command_that_is_not_found() {
    let output = alone("command_that_is_not_found", || {
        let (steps, outcome) = steps(&stages("cat /etc/passwd | ginnel-no-such-command -x | wc -c"));
        let at = steps.iter().position(|step| step.call.contains("ginnel-no-such")).unwrap();
        let (failed, exited) = (&steps[at], &steps[at + 1]);
        assert!(
            failed
                .call
                .ends_with("[\"ginnel-no-such-command\", \"-x\"]) = -1 ENOENT (No such file or directory)")
        );
        assert_eq!(
            (failed.process.as_str(), failed.pid),
            ("child 2 (to be ginnel-no-such-command)", outcome.stages[1].pid)
        );
        assert_eq!((exited.call.as_str(), exited.pid), ("_exit(127)", failed.pid));
        assert!(exited.processes.iter().all(|process| process.pid != failed.pid));
        // cat starts when the shell and the failed child have closed the read end: no one is left to read.
        assert_eq!(outcome.stages[0].signal, Some(libc::SIGPIPE));
        assert_eq!(statuses(&outcome)[1..], [127, 0]);
    });
    assert!(output.is_none_or(|output| output == "0\n"));
}

#[test]
fn command_that_cannot_be_executed() {
    alone("command_that_cannot_be_executed", || {
        let (steps, outcome) = steps(&stages("/etc/passwd"));
        assert!(steps.iter().any(|step| step.call.ends_with("= -1 EACCES (Permission denied)")));
        assert_eq!(statuses(&outcome), [126]);
    });
}

#[test]
fn what_is_inherited_is_shown_and_close_on_exec_is_not() {
    alone("what_is_inherited_is_shown_and_close_on_exec_is_not", || {
        let closes = fs::File::open("/etc/passwd").unwrap();
        // SAFETY: a new descriptor, which this process keeps to its end.
        let stays = unsafe { libc::dup(closes.as_raw_fd()) };
        assert!(stays > closes.as_raw_fd());
        let (steps, _) = steps(&stages("true | true"));
        for process in &steps.last().unwrap().processes {
            assert_eq!(process.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2, stays]);
            let entry = &process.descriptors[&stays];
            assert_eq!(
                (entry.descriptor.target.as_str(), entry.descriptor.kind),
                ("/etc/passwd", Kind::File)
            );
        }
        let file = steps[0].open_files.iter().find(|file| file.object == "/etc/passwd").unwrap();
        assert!(file.outside && file.references.len() == 1);
    });
}

#[test]
fn caller_that_ignores_sigchld_gets_statuses() {
    alone("caller_that_ignores_sigchld_gets_statuses", || {
        // SAFETY: SIG_IGN runs nothing.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let (_, outcome) = steps(&stages("true | false"));
        assert_eq!(statuses(&outcome), [0, 1]);
    });
}

#[test]
fn call_of_the_shell_that_fails_ends_the_launch() {
    alone("call_of_the_shell_that_fails_ends_the_launch", || {
        let limit = libc::rlimit { rlim_cur: 5, rlim_max: 5 };
        // SAFETY: setrlimit reads `limit` only.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let mut last = None;
        // 0 to 4 is room for the first pipe, not for the second.
        let error = picture(&stages("true | true | true"), |step| {
            last = Some(step.clone());
            Ok(())
        })
        .unwrap_err();
        let last = last.unwrap();
        assert_eq!((error.operation(), error.raw_os_error()), ("pipe", Some(libc::EMFILE)));
        assert!(last.call.starts_with("pipe() = -1 EMFILE"));
        assert!(
            last.processes.iter().all(|process| !fs::exists(format!("/proc/{}/exe", process.pid)).unwrap())
        );
    });
}

#[test]
fn step_that_fails_leaves_no_process() {
    alone("step_that_fails_leaves_no_process", || {
        for number in 0..=22 {
            let mut processes = Vec::new();
            let error = picture(&stages("cat /etc/passwd | grep root | sort"), |step| {
                if step.number < number {
                    return Ok(());
                }
                processes = step.processes.iter().map(|process| pidfd(process.pid)).collect();
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            });
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert!(!processes.is_empty());
            for process in processes {
                assert!(has_ended(&process, 0), "step {number}");
            }
        }
    });
}

/// Someone kills the first child, at its birth, between its calls, and while it is held at its `execve`.
#[test]
fn child_that_someone_kills_is_a_stage_that_was_killed() {
    alone("child_that_someone_kills_is_a_stage_that_was_killed", || {
        for number in [2, 4, 6, 22] {
            let outcome = picture(&stages("cat /etc/passwd | grep -c root | sort"), |step| {
                if step.number == number {
                    let child = pidfd(step.processes[1].pid);
                    pidfd_send_signal(&child, Signal::KILL)?;
                    assert!(has_ended(&child, DEADLINE_SECONDS));
                }
                Ok(())
            });
            assert_eq!(statuses(&outcome.unwrap()), [137, 1, 0], "at step {number}");
        }
    });
}

#[test]
fn nonsense_is_refused() {
    let never = |_: &Step| -> io::Result<()> { unreachable!("no process is to be started") };
    assert_eq!(picture(&[], never).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(
        picture(&[vec!["true".into()], vec![]], never).unwrap_err().raw_os_error(),
        Some(libc::EINVAL)
    );
    assert_eq!(picture(&[vec!["a\0b".into()]], never).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn killed_tracer_leaves_no_process() {
    for step in 0..=22 {
        kill_the_tracer(&step.to_string());
    }
    kill_the_tracer("launched");
}

/// Kills a tracer that waits at a step, or for its launched programs, and waits for the end of all its processes.
fn kill_the_tracer(place: &str) {
    let mut victim = again("victim").env("GINNEL_TEST_PLACE", place).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut pids = Vec::new();
    for line in lines {
        match line.split_once(' ') {
            Some(("pids", rest)) => pids = rest.split(' ').map(|pid| pid.parse().unwrap()).collect(),
            _ if line == "ready" => break,
            _ => {}
        }
    }
    assert!(!pids.is_empty(), "at {place}");
    let processes: Vec<_> = pids.iter().map(|&pid| pidfd(pid)).collect();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let all_ended = processes.iter().all(|process| has_ended(process, DEADLINE_SECONDS));
    for process in &processes {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    assert!(all_ended, "at {place}: one of {pids:?} lived on");
}

#[test]
#[ignore = "it waits to be killed by killed_tracer_leaves_no_process"]
fn victim() {
    let Some(place) = env::var_os("GINNEL_TEST_PLACE") else { return };
    // SAFETY: SIGALRM's default action ends this process, if its killer does not.
    unsafe { libc::alarm(2 * DEADLINE_SECONDS) };
    let line =
        if place == "launched" { "sleep 1000 | sleep 1000" } else { "cat /etc/passwd | grep root | sort" };
    let mut stages = stages(line);
    if place == "launched" {
        stages.push(vec!["sh".into(), "-c".into(), "echo ready; exec sleep 1000".into()]);
    }
    let outcome = picture(&stages, |step| {
        let pids: Vec<_> = step.processes.iter().map(|process| process.pid.to_string()).collect();
        println!("\npids {}", pids.join(" "));
        if *step.number.to_string() == *place {
            println!("ready");
            loop {
                thread::park();
            }
        }
        Ok(())
    });
    panic!("it was to be killed: {outcome:?}");
}

fn pidfd(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Whether the process has ended, or does so within the time. A zombie that no one has waited for has ended.
fn has_ended(process: &OwnedFd, seconds: u32) -> bool {
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which lives through the call.
    (unsafe { libc::poll(&mut poll, 1, (seconds * 1000) as i32) }) == 1
}

#[test]
fn rendered_step() {
    alone("rendered_step", || {
        let (steps, outcome) = steps(&stages("true | cat"));
        let mut renderer = Renderer::new();
        let texts: Vec<_> = steps.iter().map(|step| renderer.render(step)).collect();
        assert!(texts.iter().flat_map(|text| text.lines()).all(|line| line.chars().count() <= 100));

        let (shell, child) = (steps[0].pid, outcome.stages[0].pid);
        let standard: BTreeSet<_> =
            steps[0].processes[0].descriptors.values().map(|entry| entry.open_file).collect();
        let (out, read, write) = (
            steps[0].processes[0].descriptors[&1].open_file,
            FileId(standard.len()),
            FileId(standard.len() + 1),
        );
        let dup2 = &texts[3];
        assert!(dup2.starts_with(" 3  dup2(4, 1)  "));
        assert!(dup2.lines().next().unwrap().ends_with(&format!("in child 1 (to be true) {child}")));
        let marked: Vec<_> = dup2.lines().filter(|line| line.contains('*')).map(words).collect();
        assert_eq!(marked[0], format!("1 -> {out} * 1 -> {write} was {out}"));
        assert_eq!(
            marked.last().unwrap(),
            &format!("* {write} w pipe 1 (write end) 3 refs, was 2 {shell}:4 {child}:1,4")
        );
        let unmarked = format!("{read} r pipe 1 (read end) 2 refs {shell}:3 {child}:3");
        assert!(dup2.lines().map(words).any(|line| line == unmarked));
        assert!(texts[4].lines().map(words).any(|line| line.ends_with(&format!("x 3 closed, was {read}"))));
    });
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn step_as_json() {
    alone("step_as_json", || {
        let (steps, outcome) = steps(&stages("true"));
        let json = serde_json::to_value(&steps[1]).unwrap();
        assert_eq!(json["call"], format!("fork() = {}", outcome.stages[0].pid));
        assert_eq!(json["processes"][1]["descriptors"]["0"]["open_file"], "A");
        assert_eq!(json["processes"][1]["descriptors"]["0"]["target"], "/dev/null");
        assert_eq!(
            json["open_files"][0]["references"][1],
            serde_json::json!({ "pid": outcome.stages[0].pid, "fd": 0 })
        );
        assert_eq!(json["open_files"][0]["access"], "r");
    });
}
