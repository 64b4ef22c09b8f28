//! The program in the place of the command: its arguments, exit code, signals, environment.

use std::process::Stdio;

use ginnel_testkit::{Exit, isolated, run, run_ok, spawn, temp_dir, wait_blocked_in};

use crate::support::{fails, ginnel, inside, library, namespaces, objects, ok, text};

#[test]
fn exit_codes_and_signals_are_the_programs() {
    isolated(|| {
        for code in [0, 1, 42, 125, 255] {
            let exit = run(&mut ginnel(&["run", "--", "sh", "-c", &format!("exit {code}")])).status;
            assert_eq!(Exit::from(exit), Exit::Code(code));
        }
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGSEGV] {
            let line = format!("ulimit -c 0; kill -{signal} $$");
            for private in [&[][..], &["--private"]] {
                let args = [&["run"], private, &["--", "sh", "-c", &line]].concat();
                assert_eq!(Exit::from(run(&mut ginnel(&args)).status), Exit::Signal(signal));
            }
        }
        // It has the command's pid, so that who signals the command signals it.
        let program = spawn(&mut ginnel(&["run", "--", "sleep", "1000"]));
        wait_blocked_in(program.pid(), libc::SYS_clock_nanosleep);
        program.signal(libc::SIGTERM);
        assert_eq!(program.wait(), Exit::Signal(libc::SIGTERM));
    });
}

#[test]
fn signals_that_are_ignored_or_blocked_are_as_they_were() {
    isolated(|| {
        let lines = |status: &str| -> Vec<String> {
            let kept = |line: &&str| line.starts_with("Sig") && !line.starts_with("SigQ");
            status.lines().filter(kept).map(str::to_owned).collect()
        };
        let script = |rest: &str| format!("trap '' HUP USR1; exec {rest}");
        let without = run_ok(std::process::Command::new("sh").args(["-c", &script("cat /proc/self/status")]));
        let command = env!("CARGO_BIN_EXE_ginnel");
        for private in ["", "--private"] {
            let line = script(&format!("{command} run {private} -- cat /proc/self/status"));
            let with =
                run_ok(std::process::Command::new("sh").args(["-c", &line]).env("GINNEL_LIBRARY", library()));
            assert_eq!(lines(&with), lines(&without), "{private}");
        }
    });
}

#[test]
fn arguments_streams_and_environment_go_through() {
    isolated(|| {
        assert_eq!(ok(&["run", "--", "printf", "%s|", "--private", "-x", "", "a b"]), "--private|-x||a b|");
        assert_eq!(ok(&["run", "--", "sh", "-c", "echo $0 $1", "zero", "one"]), "zero one\n");
        let mut cat = ginnel(&["run", "--private", "--", "cat"]);
        let mut cat = spawn(cat.stdin(Stdio::piped()).stdout(Stdio::piped()));
        std::io::Write::write_all(&mut cat.stdin().unwrap(), b"through").unwrap();
        assert_eq!(cat.wait_with_output().stdout, b"through");
        // What is preloaded already stays, once.
        let print = ["run", "--", "sh", "-c", "echo $LD_PRELOAD $GINNEL_NAMESPACE"];
        let library = text(&library());
        let printed = run_ok(ginnel(&print).env("LD_PRELOAD", "libm.so.6"));
        assert_eq!(printed, format!("{library}:libm.so.6 /dev/shm/ginnel-0/default\n"));
        let again = ["run", "--", env!("CARGO_BIN_EXE_ginnel"), "run", "--", "sh", "-c", "echo $LD_PRELOAD"];
        assert_eq!(ok(&again), format!("{library}\n"));
    });
}

#[test]
fn descriptors_below_the_inherited_one_are_as_without() {
    isolated(|| {
        let list = ["sh", "-c", "ls /proc/$$/fd"];
        let without = run_ok(std::process::Command::new(list[0]).args(&list[1..]));
        assert_eq!(inside(&list), without);
        let private = ok(&[&["run", "--private", "--"], &list[..]].concat());
        let low: Vec<&str> = private.lines().filter(|number| number.parse::<i32>().unwrap() < 500).collect();
        assert_eq!(low, without.lines().collect::<Vec<_>>(), "{private}");
    });
}

#[test]
fn a_namespace_is_chosen_by_option_then_variable_then_default() {
    isolated(|| {
        let print = ["run", "--", "sh", "-c", "echo $GINNEL_NAMESPACE"];
        assert_eq!(ok(&print), "/dev/shm/ginnel-0/default\n");
        assert_eq!(run_ok(ginnel(&print).env("GINNEL_NAMESPACE", "")), "/dev/shm/ginnel-0/default\n");
        assert_eq!(run_ok(ginnel(&print).env("GINNEL_NAMESPACE", "mine")), "/dev/shm/ginnel-0/mine\n");
        let option = [&["run", "--namespace", "/dev/shm/theirs"], &print[1..]].concat();
        assert_eq!(run_ok(ginnel(&option).env("GINNEL_NAMESPACE", "mine")), "/dev/shm/theirs\n");
        let mut names = namespaces();
        names.sort();
        assert_eq!(names, ["default", "mine"]);
        // One within another: the inner one's, and the outer one's variable goes in.
        let command = env!("CARGO_BIN_EXE_ginnel");
        let line = format!("{command} run -- sh -c 'echo $GINNEL_NAMESPACE'");
        assert_eq!(inside(&["sh", "-c", &line]), "/dev/shm/ginnel-0/jobs\n");
    });
}

#[test]
fn limits_are_those_of_the_namespace_that_is_made() {
    isolated(|| {
        let objects = objects();
        let limited = ["run", "--private", "--limit", "msgmnb=1M", "--limit", "msg_max=3"];
        let queue = ok(&[&limited[..], &["--", &objects, "limits", "1"]].concat());
        assert_eq!(queue, "1048576\n");
        let file = ok(&[&limited[..], &["--", "cat", "/proc/sys/fs/mqueue/msg_max"]].concat());
        assert_eq!(file, "3\n");
        for (limit, words) in
            [("msgmnb", "NAME=VALUE"), ("msgmnx=1", "there are: msgmax, msgmnb"), ("msgmnb=much", "much")]
        {
            let output = run(&mut ginnel(&["run", "--limit", limit, "--", "true"]));
            assert_eq!(output.status.code(), Some(2), "{limit}");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains(words), "{limit}: {stderr}");
        }
        // More than can be: nothing is run.
        fails(
            125,
            &mut ginnel(&["run", "--private", "--limit", "semvmx=40000", "--", "echo", "ran"]),
            &["limit"],
        );
    });
}

#[test]
fn env_is_what_a_shell_evaluates() {
    isolated(|| {
        let objects = objects();
        inside(&["true"]);
        let command = env!("CARGO_BIN_EXE_ginnel");
        let shell = |line: &str| {
            let mut sh = std::process::Command::new("sh");
            run_ok(sh.args(["-ec", line]).env("GINNEL_LIBRARY", library()).env_remove("GINNEL_NAMESPACE"))
        };
        shell(&format!("eval \"$({command} env --namespace jobs)\"; {objects} put sysv-msg 7 evaluated"));
        assert_eq!(inside(&[&objects, "take", "sysv-msg", "7"]), "evaluated\n");
        // A name that a shell would take apart.
        let line = format!(
            "eval \"$({command} env --namespace \"it's \\$HOME\")\"; LD_PRELOAD= ; echo \"$GINNEL_NAMESPACE\""
        );
        assert_eq!(shell(&line), "it's $HOME\n");
        let unit = ok(&["env", "--namespace", "100% \"quoted\"", "--format", "systemd"]);
        let library = text(&library());
        assert_eq!(
            unit,
            format!(
                "Environment=\"LD_PRELOAD={library}\"\nEnvironment=\"GINNEL_NAMESPACE=100%% \\\"quoted\\\"\"\n"
            )
        );
        let default = ok(&["env"]);
        assert!(default.ends_with("export GINNEL_NAMESPACE='default'\n"), "{default}");
    });
}

#[test]
fn a_script_is_served_by_its_interpreter_with_or_without_a_line_that_names_one() {
    isolated(|| {
        let directory = temp_dir();
        for (name, first) in [("with", "#!/bin/sh -e\n"), ("env", "#! /usr/bin/env sh\n"), ("without", "")] {
            let script = directory.path().join(name);
            std::fs::write(&script, format!("{first}{} put sysv-msg 7 {name}\n", objects())).unwrap();
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            inside(&[&text(&script)]);
            assert_eq!(inside(&[&objects(), "take", "sysv-msg", "7"]), format!("{name}\n"));
        }
    });
}
