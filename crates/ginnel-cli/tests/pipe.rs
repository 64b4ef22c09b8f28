//! `ginnel pipe`, as a stranger runs it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ginnel::stream::{ByteRead, Pty};
use ginnel_testkit::{Exit, isolated, run, spawn, temp_dir, wait_until};
use serde_json::Value;

fn pipe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ginnel"));
    command.arg("pipe").args(arguments).env("LC_ALL", "C");
    command
}

/// Exit code, standard output, standard error.
fn outcome(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = run(&mut pipe(arguments));
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (status.code().unwrap_or_else(|| panic!("{status}")), stdout, stderr)
}

/// Whether a process that was started with this among its arguments runs.
fn runs(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.into_iter().any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}

#[test]
fn output_and_statuses_are_the_shells() {
    isolated(|| {
        for (line, code, output) in [
            ("printf 'b\\na\\n' | sort | head -n 1", 0, "a\n"),
            ("true | false | true", 1, ""),
            ("sh -c 'exit 3' | sh -c 'exit 4' | true", 4, ""),
            ("true | sh -c 'kill -KILL $$'", 137, ""),
            ("yes | head -n 1", 141, "y\n"),
            ("sh -c 'echo no >&2' 2>&1 | tr n N", 0, "No\n"),
        ] {
            assert_eq!(outcome(&[line]), (code, output.into(), String::new()), "{line}");
            let shell = run(Command::new("bash").args(["-c", &format!("set -o pipefail; {line}")]));
            assert_eq!(shell.status.code(), Some(code), "bash: {line}");
            assert_eq!(String::from_utf8_lossy(&shell.stdout), output, "bash: {line}");
        }
    });
}

#[test]
fn standard_input_is_the_first_stages_and_files_are_redirected() {
    isolated(|| {
        let mut child = spawn(pipe(&["tr a-z A-Z | rev"]).stdin(Stdio::piped()).stdout(Stdio::piped()));
        child.stdin().unwrap().write_all(b"lennig\n").unwrap();
        let output = child.wait_with_output();
        assert_eq!(output.stdout, b"GINNEL\n");

        let directory = temp_dir();
        let (input, sorted) = (directory.path().join("in"), directory.path().join("out"));
        fs::write(&input, "2\n1\n").unwrap();
        let line = format!("cat < {} | sort > {}", input.display(), sorted.display());
        assert_eq!(outcome(&[&line]), (0, String::new(), String::new()));
        assert_eq!(fs::read_to_string(sorted).unwrap(), "1\n2\n");
    });
}

#[test]
fn every_stages_status_is_told() {
    isolated(|| {
        let (code, output, told) = outcome(&["--status", "sh -c 'exit 3' | sh -c 'kill -TERM $$' | echo x"]);
        assert_eq!((code, output.as_str()), (143, "x\n"));
        assert_eq!(
            told,
            "stage 1 (sh -c exit 3): exited with 3\nstage 2 (sh -c kill -TERM $$): killed by SIGTERM\n\
             stage 3 (echo x): exited with 0\n"
        );
        let (_, output, told) =
            outcome(&["--status", "--json", "sh -c 'exit 3' | sh -c 'kill -TERM $$' | echo x"]);
        assert_eq!(output, "x\n");
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["stages"][0]["code"], 3);
        assert_eq!(told["stages"][1]["signal"], 15);
        assert_eq!(told["stages"][1]["code"], Value::Null);
        assert_eq!(told["stages"][2]["command"], "echo x");
    });
}

#[test]
fn stage_that_cannot_start_is_named_and_nothing_runs() {
    isolated(|| {
        let directory = temp_dir();
        let mark = directory.path().join("ran");
        let line = format!("touch {} | no-such-program -x | cat", mark.display());
        let (code, output, told) = outcome(&[&line]);
        assert_eq!((code, output.as_str()), (127, ""));
        assert!(told.contains("stage 2 (no-such-program -x)") && told.contains("PATH"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");

        let (code, _, told) = outcome(&["/etc/passwd | cat"]);
        assert!(
            code == 126 && told.contains("stage 1 (/etc/passwd)") && told.contains("executable"),
            "{told}"
        );
        let (code, _, told) = outcome(&["echo x | cat < /no/such/file"]);
        assert!(code == 1 && told.contains("/no/such/file") && told.contains("stage 2 (cat)"), "{told}");
    });
}

#[test]
fn bad_lines_are_usage_errors_with_a_hint() {
    isolated(|| {
        for (line, hint) in [
            ("echo 'x", "' is not closed"),
            ("echo a | | cat", "before or after a |"),
            ("echo a |", "before or after a |"),
            ("", "empty"),
            ("echo a; echo b", "; is for a shell"),
            ("echo $x", "$ is for a shell"),
            ("echo a & ", "& is for a shell"),
            ("cat *.c", "* is for a shell"),
            ("cat >", "file name"),
        ] {
            for mode in [&[][..], &["--stats"], &["--picture"]] {
                let (code, output, told) = outcome(&[mode, &[line]].concat());
                assert_eq!((code, output.as_str()), (2, ""), "{line}: {told}");
                assert!(told.contains(hint), "{line}: {told}");
            }
        }
        assert_eq!(outcome(&["--json", "true"]).0, 2);
        assert_eq!(outcome(&["--picture", "--stats", "true"]).0, 2);
        assert_eq!(outcome(&["--timeout", "5 parsecs", "true"]).0, 2);
    });
}

#[test]
fn timeout_kills_all_and_names_what_still_ran() {
    isolated(|| {
        for mode in [&[][..], &["--stats"]] {
            let line = "true | sh -c 'sleep 98761; true' | cat";
            let (code, output, told) = outcome(&[mode, &["--timeout", "200ms", line]].concat());
            assert_eq!((code, output.as_str()), (1, ""));
            assert!(
                told.contains("200ms") && told.contains("stage 2 (sh") && told.contains("stage 3 (cat)"),
                "{told}"
            );
            assert!(!told.contains("stage 1"), "{told}");
            wait_until("what the stage started is killed", || !runs("98761"));
        }
        assert_eq!(outcome(&["--timeout", "1m", "echo x"]), (0, "x\n".into(), String::new()));
    });
}

/// A pipeline whose second stage has started, and has ended the first word of its standard error.
fn started(mode: &[&str], seconds: &str) -> ginnel_testkit::Spawned {
    let line = format!("sleep {seconds} | sh -c 'echo ready >&2; cat; true' | cat");
    let mut child = spawn(
        pipe(&[mode, &[&line]].concat()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()),
    );
    let mut ready = [0; 6];
    child.stderr().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    child
}

#[test]
fn interrupt_ends_all_stages_quietly() {
    isolated(|| {
        for mode in [&[][..], &["--stats"]] {
            for signal in [2, 15] {
                let child = started(mode, "98762");
                child.signal(signal);
                // By the signal, which is 130 for the shell that waits.
                assert_eq!(child.wait(), Exit::Signal(signal));
                wait_until("no stage is left", || !runs("98762"));
            }
        }
        // Not before the sleep runs: a shell between its fork and the exec would swallow the signal.
        let line = "sleep 98762 | sh -c 'until grep -qx sleep /proc/[0-9]*/comm; do :; done 2>&-; kill -INT $PPID; cat'";
        let script = ["-c", "\"$0\" pipe \"$1\"; echo $?", env!("CARGO_BIN_EXE_ginnel"), line];
        let output = run(Command::new("bash").args(script));
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"130\n"[..], &b""[..]));
    });
}

#[test]
fn killed_it_leaves_no_process_behind() {
    isolated(|| {
        for mode in [&[][..], &["--stats"]] {
            let child = started(mode, "98763");
            wait_until("the first stage runs", || runs("98763"));
            child.kill();
            assert_eq!(child.wait(), Exit::Signal(9));
            wait_until("no stage is left", || !runs("98763") && !runs("cat"));
            wait_until("the guardian has gone", || !runs("__guardian"));
        }
        let mut child =
            spawn(pipe(&["--picture", "sleep 98764 | cat"]).stdout(Stdio::piped()).stderr(Stdio::null()));
        let text = BufReader::new(child.stdout().unwrap());
        let _last = text.lines().find(|line| line.as_ref().unwrap().starts_with("-----")).unwrap();
        child.kill();
        wait_until("no stage is left", || !runs("98764") && !runs("cat"));
    });
}

#[test]
fn closed_output_is_quiet() {
    isolated(|| {
        for (mode, stages) in
            [("", "yes"), ("--stats", "yes | cat"), ("--picture", "yes"), ("--picture --json", "true | true")]
        {
            let line = format!("{} pipe {mode} '{stages}' | head -n 1", env!("CARGO_BIN_EXE_ginnel"));
            let output = run(Command::new("bash").args(["-c", &line]));
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!told.contains("ginnel:") && !told.contains("panic"), "{mode}: {told}");
            assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1, "{mode}");
            wait_until("nothing runs on", || !runs("yes"));
        }
    });
}

const ISSUE: &str = "cat /etc/passwd | grep root | sort";

fn steps(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A kernel of the test's own: what each descriptor leads to, by the calls alone.
#[derive(Default)]
struct Model {
    tables: BTreeMap<i64, BTreeMap<i32, usize>>,
    files: usize,
}

impl Model {
    fn start(step: &Value) -> Model {
        let mut model = Model::default();
        let mut known = BTreeMap::new();
        let process = &step["processes"][0];
        let table = process["descriptors"].as_object().unwrap().iter().map(|(fd, entry)| {
            let file = *known.entry(entry["open_file"].to_string()).or_insert_with(|| {
                model.files += 1;
                model.files
            });
            (fd.parse().unwrap(), file)
        });
        let table = table.collect();
        model.tables.insert(process["pid"].as_i64().unwrap(), table);
        model
    }

    fn call(&mut self, pid: i64, call: &str) {
        let (name, rest) = call.split_once('(').unwrap();
        let numbers: Vec<i64> =
            rest.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        let table = self.tables.get_mut(&pid).unwrap();
        match name {
            "pipe" => {
                for fd in &numbers {
                    self.files += 1;
                    assert!(table.insert(*fd as i32, self.files).is_none(), "{call}");
                }
            }
            "fork" => {
                let copy = table.clone();
                self.tables.insert(numbers[0], copy);
            }
            "dup2" => drop(table.insert(numbers[1] as i32, table[&(numbers[0] as i32)])),
            "close" => assert!(table.remove(&(numbers[0] as i32)).is_some(), "{call}"),
            "execve" => {}
            other => panic!("a call that textbooks do not have: {other}"),
        }
    }

    /// For each descriptor how many descriptors share its open file.
    fn counts(&self) -> BTreeMap<(i64, i32), usize> {
        let all = || {
            self.tables.iter().flat_map(|(pid, table)| table.iter().map(move |(fd, file)| (*pid, *fd, *file)))
        };
        all().map(|(pid, fd, file)| ((pid, fd), all().filter(|other| other.2 == file).count())).collect()
    }
}

fn counts(step: &Value) -> BTreeMap<(i64, i32), usize> {
    let files =
        step["open_files"].as_array().unwrap().iter().map(|file| file["references"].as_array().unwrap());
    files
        .flat_map(|references| {
            references.iter().map(|one| {
                ((one["pid"].as_i64().unwrap(), one["fd"].as_i64().unwrap() as i32), references.len())
            })
        })
        .collect()
}

#[test]
fn picture_has_the_counts_that_follow_from_the_calls() {
    isolated(|| {
        let (code, output, errors) = outcome(&["--picture", "--json", ISSUE]);
        assert_eq!(code, 0);
        assert!(errors.contains("root:x:0:0:"), "the pipeline's own output: {errors}");
        let steps = steps(&output);
        let mut model = Model::start(&steps[0]);
        for step in &steps[1..] {
            model.call(step["pid"].as_i64().unwrap(), step["call"].as_str().unwrap());
            assert_eq!(counts(step), model.counts(), "after {}", step["call"]);
        }
        let calls: Vec<_> = steps.iter().map(|step| step["call"].as_str().unwrap()).collect();
        let names: Vec<_> = calls.iter().map(|call| call.split('(').next().unwrap()).collect();
        assert_eq!(names.join(" "), TEXTBOOK);
    });
}

const TEXTBOOK: &str = "start pipe fork dup2 close close execve close \
    pipe fork dup2 dup2 close close close execve close close fork dup2 close execve close";

/// The stages run on when the last step is shown: `/proc` has what they hold.
#[test]
fn picture_ends_in_what_the_stages_hold() {
    isolated(|| {
        let mut child = spawn(
            pipe(&["--picture", "--json", "sleep 98765 | cat"]).stdout(Stdio::piped()).stderr(Stdio::null()),
        );
        let lines = BufReader::new(child.stdout().unwrap()).lines().map(Result::unwrap);
        let steps: Vec<Value> = lines.take(13).map(|line| serde_json::from_str(&line).unwrap()).collect();
        let last = steps.last().unwrap();
        assert!(last["call"].as_str().unwrap().starts_with("close"), "{last}");
        let stages = &last["processes"].as_array().unwrap()[1..];
        assert_eq!(stages.len(), 2);
        for stage in stages {
            let shown = stage["descriptors"].as_object().unwrap();
            for (fd, entry) in shown {
                let link = format!("/proc/{}/fd/{fd}", stage["pid"]);
                assert_eq!(fs::read_link(link).unwrap().to_str(), entry["target"].as_str());
            }
            let pipes = shown.values().filter(|entry| entry["target"] == shown["0"]["target"]).count();
            assert!(pipes >= 1);
        }
        assert_eq!(stages[0]["descriptors"]["1"]["target"], stages[1]["descriptors"]["0"]["target"]);
        child.signal(15);
    });
}

#[test]
fn picture_as_text_has_each_call_in_order_then_the_output() {
    isolated(|| {
        let (code, output, errors) = outcome(&["--picture", "--status", ISSUE]);
        assert_eq!(code, 0);
        assert_eq!(
            errors,
            "stage 1 (cat): exited with 0\nstage 2 (grep): exited with 0\nstage 3 (sort): exited with 0\n"
        );
        let line = "-".repeat(100);
        let (picture, after) = output.split_once(&format!("{line}\n")).unwrap();
        let expected = run(Command::new("bash").args(["-c", ISSUE]).env("LC_ALL", "C")).stdout;
        assert_eq!(after.as_bytes(), expected);
        let calls = picture.lines().filter_map(|line| {
            let (number, call) = line.get(..4).zip(line.get(4..))?;
            number.trim().parse::<u32>().ok()?;
            (number.ends_with("  ") && line.contains(" in ")).then(|| call.split(['(', ' ']).next().unwrap())
        });
        assert_eq!(calls.collect::<Vec<_>>().join(" "), TEXTBOOK);
        assert!(picture.lines().all(|line| line.chars().count() <= 100));

        let (code, output, _) = outcome(&["--picture", "sh -c 'echo alone; exit 5'"]);
        assert_eq!((code, output.rsplit_once(&format!("{line}\n")).unwrap().1), (5, "alone\n"));
        let (code, output, _) = outcome(&["--picture", "no-such-program | echo on"]);
        assert_eq!(code, 127);
        assert!(output.contains("ENOENT") && output.ends_with(&format!("{line}\non\n")), "{output}");
        let (code, output, told) = outcome(&["--picture", "cat < /etc/passwd"]);
        assert!(code == 2 && output.is_empty() && told.contains("no redirections"), "{told}");
    });
}

fn stats(line: &str) -> Value {
    let (_, _, told) = outcome(&["--stats", "--json", line]);
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

const SLOW: &str = "sh -c 'while read -r line; do sleep 0.05; echo \"$line\"; done'";

#[test]
fn slow_stage_is_found_wherever_it_is() {
    isolated(|| {
        let directory = temp_dir();
        let input = directory.path().join("in");
        fs::write(&input, "a\nb\nc\nd\ne\nf\ng\nh\n").unwrap();
        let input = input.display();
        for (line, slow) in [
            (format!("{SLOW} < {input} | cat | sort"), 1),
            (format!("cat {input} | {SLOW} | sort"), 2),
            (format!("cat {input} | sort | {SLOW}"), 3),
            // More than the pipes hold, so that the stages before do wait.
            ("head -c 1000000 /dev/zero | cat | sh -c 'sleep 0.4; cat > /dev/null'".into(), 3),
        ] {
            let report = stats(&line);
            assert_eq!(report["holds_up"]["stage"], slow, "{line}: {report:#}");
            let (_, _, told) = outcome(&["--stats", &line]);
            assert!(told.contains("sh holds the "), "{line}: {told}");
        }
        let nobody = stats("true | true");
        assert_eq!(nobody["holds_up"], Value::Null, "{nobody:#}");
    });
}

#[test]
fn bytes_are_counted_exactly() {
    isolated(|| {
        let report = stats("head -c 1000003 /dev/zero | cat | tr -d 'x' | head -c 1000000000 | wc -c");
        for stage in 0..5 {
            let stage_report = &report["stages"][stage];
            let count = |there: bool| if there { Value::from(1_000_003) } else { Value::Null };
            assert_eq!(stage_report["bytes_in"], count(stage > 0), "{report:#}");
            assert_eq!(stage_report["bytes_out"], count(stage < 4), "{report:#}");
        }
        assert_eq!(outcome(&["--stats", "printf abc | cat"]).1, "abc");
    });
}

/// A stage that reads no more is told to the one before at its next write, relay or not.
#[test]
fn end_of_a_reader_goes_through_at_once() {
    isolated(|| {
        for mode in [&[][..], &["--stats"]] {
            let line = "sh -c 'exec 2>/dev/null; echo 1; read line < FIFO; echo 2; echo $? > RESULT' | true";
            let directory = temp_dir();
            let (fifo, result) = (directory.path().join("fifo"), directory.path().join("result"));
            run(Command::new("mkfifo").arg(&fifo));
            let line = line
                .replace("FIFO", fifo.to_str().unwrap())
                .replace("RESULT", result.to_str().unwrap())
                .replace("sh -c '", "sh -c 'trap \"\" PIPE; ");
            let child = spawn(pipe(&[mode, &[&line]].concat()).stderr(Stdio::null()));
            // `true` has ended for sure when it is a zombie, or gone.
            let ended = || stage_ended(child.pid(), "true");
            wait_until("the reader has ended", ended);
            // The relay has been told by the same close; it needs to get to run.
            wait_until("the relay has closed its end", || writes_into_nothing(child.pid(), "sh"));
            fs::write(&fifo, "go\n").unwrap();
            child.wait();
            assert_eq!(fs::read_to_string(&result).unwrap(), "1\n", "the write after the end failed");
        }
    });
}

/// The first stage has written all and waits; the second has read a part, and has left the rest.
#[test]
fn bytes_that_nobody_read_are_told_apart() {
    isolated(|| {
        let directory = temp_dir();
        let fifo = directory.path().join("fifo");
        run(Command::new("mkfifo").arg(&fifo));
        let line = format!("sh -c 'printf 1234567890; read line < {}' | head -c 4", fifo.display());
        let child = spawn(pipe(&["--stats", "--json", &line]).stdout(Stdio::null()).stderr(Stdio::piped()));
        wait_until("the reader has ended", || stage_ended(child.pid(), "head"));
        wait_until("the relay has closed its end", || writes_into_nothing(child.pid(), "sh"));
        fs::write(&fifo, "go\n").unwrap();
        let report: Value = serde_json::from_slice(&child.wait_with_output().stderr).unwrap();
        assert_eq!(report["stages"][0]["bytes_out"], 10, "{report:#}");
        assert_eq!(report["stages"][1]["bytes_in"], 4, "{report:#}");
    });
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn stage_ended(ginnel: i32, name: &str) -> bool {
    children(ginnel).into_iter().any(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(&format!("({name}) Z"))
    })
}

/// Whether nobody holds the reading end of what the stage writes to.
fn writes_into_nothing(ginnel: i32, name: &str) -> bool {
    let comm = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() == name;
    let Some(stage) = children(ginnel).into_iter().find(comm) else { return false };
    let Ok(target) = fs::read_link(format!("/proc/{stage}/fd/1")) else { return false };
    let holds = |pid: i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == target)).count()
    };
    [vec![ginnel], children(ginnel)]
        .concat()
        .into_iter()
        .filter(|pid| *pid != stage)
        .all(|pid| holds(pid) == 0)
}

#[test]
fn yes_head_ends_at_once_with_stats() {
    isolated(|| {
        let (code, output, told) = outcome(&["--stats", "yes | head -n 1"]);
        assert_eq!((code, output.as_str()), (141, "y\n"));
        assert!(told.contains("BYTES OUT") && told.contains("head -n 1"), "{told}");
        let report = stats("yes | head -c 10");
        assert_eq!(report["stages"][0]["signal"], 13, "SIGPIPE: {report:#}");
    });
}

/// What is on the screen, read until it has this.
fn read_until(terminal: &mut Pty, wanted: &str) -> String {
    let mut screen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&screen).into_owned();
        if text.contains(wanted) {
            return text;
        }
        let mut chunk = [0; 4096];
        let read = terminal.read_deadline(&mut chunk, Duration::from_secs(20));
        match read {
            Ok(len) if len > 0 => screen.extend_from_slice(&chunk[..len]),
            other => panic!("{other:?} instead of {wanted:?} after {text:?}"),
        }
    }
}

#[test]
fn control_c_on_a_terminal_reaches_every_stage_once() {
    isolated(|| {
        let directory = temp_dir();
        let mark = directory.path().join("mark");
        let line = format!(
            "sh -c 'trap \"echo int >> {0}\" INT; echo ready; sleep 98766; sleep 0.3; exit 0' | cat",
            mark.display()
        );
        let mut terminal = Pty::options().open().unwrap();
        let mut child = terminal.spawn(pipe(&[&line])).unwrap();
        read_until(&mut terminal, "ready\r\n");
        wait_until("the stage sleeps", || runs("98766"));
        terminal.write_all(b"\x03").unwrap();
        let screen = read_until(&mut terminal, "^C");
        assert_eq!(child.wait().unwrap().signal(), Some(2), "{screen}");
        assert_eq!(fs::read_to_string(mark).unwrap(), "int\n");
    });
}

#[test]
fn control_z_stops_all_and_fg_goes_on() {
    isolated(|| {
        let state = |name: &str| {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let mut stats = all.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
            stats
                .find(|stat| stat.contains(&format!("({name})")))
                .map(|stat| stat.rsplit_once(") ").unwrap().1.chars().next().unwrap())
        };
        let mut terminal = Pty::options().open().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["--norc", "--noprofile", "-i"]).env("PS1", "prompt>").env("TERM", "dumb");
        let mut shell = terminal.spawn(shell).unwrap();
        read_until(&mut terminal, "prompt>");
        let line = format!("{} pipe 'sleep 98767 | cat'\n", env!("CARGO_BIN_EXE_ginnel"));
        terminal.write_all(line.as_bytes()).unwrap();
        wait_until("both stages run", || state("sleep") == Some('S') && state("cat") == Some('S'));
        terminal.write_all(b"\x1a").unwrap();
        read_until(&mut terminal, "Stopped");
        wait_until("both stages are stopped", || state("sleep") == Some('T') && state("cat") == Some('T'));
        terminal.write_all(b"fg\n").unwrap();
        wait_until("both stages go on", || state("sleep") == Some('S') && state("cat") == Some('S'));
        terminal.write_all(b"\x03").unwrap();
        wait_until("no stage is left", || !runs("98767"));
        terminal.write_all(b"echo code=$?\n").unwrap();
        read_until(&mut terminal, "code=130");
        terminal.write_all(b"exit\n").unwrap();
        shell.wait().unwrap();
    });
}

#[test]
fn live_line_only_on_a_terminal() {
    isolated(|| {
        let line = "sleep 0.5 | cat";
        let script = format!("'{}' pipe --stats '{line}' > /dev/null", env!("CARGO_BIN_EXE_ginnel"));
        let mut terminal = Pty::options().open().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("TERM", "xterm");
        let mut child = terminal.spawn(shell).unwrap();
        read_until(&mut terminal, "waiting for stage 1");
        read_until(&mut terminal, "sleep holds the others up");
        assert!(child.wait().unwrap().success());

        let (_, _, told) = outcome(&["--stats", line]);
        assert!(!told.contains("waiting for") && !told.contains('\x1b'), "{told}");
    });
}
