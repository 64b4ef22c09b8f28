//! `--private`: gone, with all that it holds, when the last process of the tree is; however that ended.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel_testkit::{Exit, isolated, isolated_for, kernel_objects, run_ok, spawn, wait_until};

use crate::support::{PLACE, ginnel, library, namespaces, objects, ok};

/// Nothing is left: no namespace, and no object of the kernel's.
fn wait_nothing_left() {
    wait_until("the namespaces are gone", || namespaces().is_empty());
    let others = |line: &&str| !line.starts_with("dev-shm ginnel-0 ");
    let left = kernel_objects().lines().filter(others).map(str::to_owned).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
}

/// Every process in here but this one and pid 1.
fn others() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != 1 && *pid != std::process::id() as i32).collect()
}

/// As its environment says.
fn namespace_of(pid: i32) -> String {
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let path = environment.split('\0').find_map(|line| line.strip_prefix("GINNEL_NAMESPACE=")).unwrap();
    path.strip_prefix(PLACE).unwrap().trim_start_matches('/').to_owned()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// What a process says on its standard output until it has said that many bytes.
fn said(stream: &mut impl Read, len: usize) -> String {
    let mut text = vec![0; len];
    stream.read_exact(&mut text).expect("it says so");
    String::from_utf8(text).unwrap()
}

#[test]
fn all_that_is_leaked_goes_with_the_program() {
    isolated(|| {
        let leak = objects();
        ok(&["run", "--private", "--", &leak, "leak"]);
        wait_nothing_left();
        let killed = format!("{leak} leak < /dev/null; kill -9 $$");
        let output = ginnel_testkit::run(&mut ginnel(&["run", "--private", "--", "sh", "-c", &killed]));
        assert_eq!(Exit::from(output.status), Exit::Signal(libc::SIGKILL));
        wait_nothing_left();
    });
}

#[test]
fn nothing_is_left_when_everything_is_killed() {
    isolated(|| {
        let line = format!("{} leak & sleep 1000 & sleep 1000 & wait", objects());
        let mut tree = ginnel(&["run", "--private", "--", "sh", "-c", &format!("exec 3<&0; {line}")]);
        let mut tree = spawn(tree.stdin(Stdio::piped()).stdout(Stdio::piped()));
        said(&mut tree.stdout().unwrap(), 1);
        assert_eq!(namespaces().len(), 1);
        // All of the tree, not the warden.
        let is_warden = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("__warden"))
        };
        let mut all = others();
        all.retain(|pid| !is_warden(pid));
        assert!(all.len() >= 3, "{all:?}");
        all.into_iter().for_each(kill);
        wait_nothing_left();
    });
}

#[test]
fn what_a_killed_warden_leaves_the_next_run_removes() {
    isolated(|| {
        let mut leak = ginnel(&["run", "--private", "--", &objects(), "leak"]);
        let mut leak = spawn(leak.stdin(Stdio::piped()).stdout(Stdio::piped()));
        said(&mut leak.stdout().unwrap(), 1);
        others().into_iter().for_each(kill);
        leak.wait();
        assert_eq!(namespaces().len(), 1, "nobody was there to remove it");
        ok(&["run", "--private", "--", "true"]);
        wait_nothing_left();
    });
}

#[test]
fn a_daemon_that_never_made_a_call_keeps_it() {
    isolated(|| {
        let line = format!(
            "{} put sysv-msg 7 kept; setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!",
            objects()
        );
        let daemon: i32 = ok(&["run", "--private", "--", "sh", "-c", &line]).trim().parse().unwrap();
        // Sweeps, as each private one does that is made.
        for _ in 0..3 {
            ok(&["run", "--private", "--", "true"]);
        }
        let name = namespace_of(daemon);
        let held = std::fs::read_dir(format!("{PLACE}/{name}/msg")).expect("the daemon's namespace").count();
        assert!(held > 0, "its queue is gone");
        kill(daemon);
        wait_nothing_left();
    });
}

/// As daemons do, and all that Python's `subprocess` starts.
#[test]
fn a_daemon_that_closes_all_descriptors_keeps_it() {
    isolated(|| {
        let close = [
            "os.closerange(3, 65536)",
            "[ctypes.CDLL(None).close(number) for number in range(3, 4096)]",
            "ctypes.CDLL(None).closefrom(3)",
            "[ctypes.CDLL(None).fcntl(number, 2, 1) for number in range(3, 4096)]",
        ];
        for close in close {
            let script = format!(
                "import ctypes, os, sys, time
if os.fork(): os._exit(0)
os.setsid()
{close}
print(os.getpid(), flush=True)
os.close(1); os.close(2)
os.execvp('sh', ['sh', '-c', 'while ! test -e /dev/shm/.ginnel-testkit-go; do sleep 0.01; done; exec $0 put sysv-msg 7 late',
    sys.argv[1]])"
            );
            let mut starter = ginnel(&["run", "--private", "--", "python3", "-c", &script, &objects()]);
            let mut starter = spawn(starter.stdout(Stdio::piped()));
            let mut printed = String::new();
            // Until the daemon has closed it.
            starter.stdout().unwrap().read_to_string(&mut printed).unwrap();
            starter.wait();
            let daemon: i32 = printed.trim().parse().unwrap();
            // Sweeps, as each private one does that is made.
            ok(&["run", "--private", "--", "true"]);
            let name = namespace_of(daemon);
            assert!(namespaces().contains(&name), "{close}: the daemon's namespace is gone");
            std::fs::write("/dev/shm/.ginnel-testkit-go", "").unwrap();
            wait_nothing_left();
            std::fs::remove_file("/dev/shm/.ginnel-testkit-go").unwrap();
        }
    });
}

#[test]
fn two_hundred_at_once_do_not_meet() {
    const RUNS: usize = 200;
    isolated_for(Duration::from_secs(180), || {
        let leak = objects();
        let (input, hold) = std::io::pipe().unwrap();
        let (mut ready, output) = std::io::pipe().unwrap();
        let start = |_| {
            let mut command = ginnel(&["run", "--private", "--", &leak, "leak"]);
            command.stdin(input.try_clone().unwrap()).stdout(output.try_clone().unwrap());
            spawn(command.stderr(Stdio::piped()))
        };
        let runs: Vec<_> = (0..RUNS).map(start).collect();
        drop(output);
        // Each has one object of each kind by now, with the same keys and names.
        let mut dots = vec![0; RUNS];
        let all = ready.read_exact(&mut dots);
        let names = namespaces().len();
        drop(hold);
        for run in runs {
            let output = run.wait_with_output();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        all.expect("each has said that it is ready");
        assert_eq!(names, RUNS);
        wait_nothing_left();
    });
}

/// One within another is another one, and each goes with its own tree.
#[test]
fn nested_ones_are_apart() {
    isolated(|| {
        let (leak, command) = (objects(), env!("CARGO_BIN_EXE_ginnel"));
        let line = format!("{leak} leak; {command} run --private -- {leak} leak; {leak} take sysv-msg 0x2a");
        let mut outer = Command::new(command);
        outer.args(["run", "--private", "--", "sh", "-ec", &line]).env("GINNEL_LIBRARY", library());
        run_ok(outer.stdin(Stdio::null()));
        wait_nothing_left();
    });
}
