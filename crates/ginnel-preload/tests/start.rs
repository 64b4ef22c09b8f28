//! What the drop-in costs a program that makes none of its calls.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ginnel_testkit::{isolated, run_ok};

/// What the dynamic linker does for a library.
const OF_LOADING: [&str; 10] =
    ["openat", "open", "read", "pread64", "newfstatat", "fstat", "mmap", "mprotect", "munmap", "close"];
const PROGRAM: &str = "/bin/true";

/// How often each system call is made.
fn calls(is_served: bool) -> BTreeMap<String, usize> {
    let trace = "/dev/shm/.ginnel-testkit-trace";
    let mut command = Command::new("strace");
    command.args(["-o", trace]);
    if is_served {
        command.arg(format!("--env=LD_PRELOAD={}", common::library().display()));
        command.arg(format!("--env=GINNEL_NAMESPACE={}", common::NAMESPACE));
    }
    let output = command.arg(PROGRAM).output();
    let output = output.expect("strace, which .ci/programs installs");
    assert!(output.status.success(), "strace: {}", String::from_utf8_lossy(&output.stderr));
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(trace).expect("its trace").lines() {
        if let Some((name, _)) = line.split_once('(') {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn a_program_that_makes_no_call_makes_no_other_but_to_load_the_library() {
    isolated(|| {
        common::make_namespace();
        let (without, with) = (calls(false), calls(true));
        let more = |name: &&String| with[*name] > without.get(*name).copied().unwrap_or(0);
        let additional: Vec<&String> = with.keys().filter(more).collect();
        println!("additional system calls: {additional:?}, of {} in all", with.values().sum::<usize>());
        assert!(with["openat"] > without["openat"], "it was not loaded");
        let others = additional.iter().filter(|name| !OF_LOADING.contains(&name.as_str()));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&&String>::new(), "{with:?}");
    });
}

/// Measured, not asserted: a debug build on a busy host says little.
#[test]
fn the_time_that_it_takes_to_start() {
    const RUNS: usize = 60;
    isolated(|| {
        common::make_namespace();
        let time = |mut command: Command| -> Duration {
            let start = Instant::now();
            run_ok(&mut command);
            start.elapsed()
        };
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            without.push(time(Command::new(PROGRAM)));
            with.push(time(common::served(Path::new(PROGRAM))));
        }
        without.sort();
        with.sort();
        println!(
            "start: {:?} without, {:?} with the library (medians of {RUNS})",
            without[RUNS / 2],
            with[RUNS / 2]
        );
    });
}
