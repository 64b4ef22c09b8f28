//! `ginnel bench`, as a stranger runs it. How fast anything is, is not asked here.

use std::process::{Command, Stdio};
use std::time::Duration;

use ginnel_testkit::{
    Exit, Objects, isolated, isolated_for, run, run_within, spawn, unprivileged, wait_until,
};
use serde_json::Value;

const MINUTES: Duration = Duration::from_secs(600);
/// As little as gives figures.
const LITTLE: [&str; 4] = ["--runs", "1", "--seconds", "0.01"];

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ginnel"));
    command.arg("bench").args(arguments);
    command
}

fn json(arguments: &[&str]) -> Value {
    let output = run_within(bench(arguments).arg("--json"), MINUTES);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn names(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

/// Whether it is a number above 0.
fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn every_row_has_figures_and_they_fit_together() {
    isolated_for(MINUTES, || {
        let before = Objects::snapshot();
        let listed = json(&["--list"]);
        let report = json(&["--quick"]);
        assert_eq!(names(&report["rows"]), names(&listed));
        for row in report["rows"].as_array().unwrap() {
            check_row(row);
        }
        let machine = &report["machine"];
        assert!(is_positive(&machine["cpus"]) && machine["kernel"].is_string(), "{machine}");
        assert_eq!(report["settings"]["runs"], 3);
        before.assert_same();
    });
}

fn check_row(row: &Value) {
    let name = row["name"].as_str().unwrap();
    // The kernel's limit of bytes in POSIX queues is a limit of the user's, not of the namespace.
    if name == "flow/1m/posix-queue" && !is_positive(&row["kernel"]["count"]) {
        assert!(row.to_string().contains("RLIMIT_MSGQUEUE"), "{row}");
        return;
    }
    assert_eq!(row["outcome"], "measured", "{row}");
    let (kernel, user) = (&row["kernel"], &row["user"]);
    for home in [kernel, user] {
        let complete = match row["figure"].as_str().unwrap() {
            "time" => {
                let quantiles = ["p50_ns", "p99_ns", "p999_ns"].map(|name| home[name].as_f64().unwrap());
                assert!(quantiles.is_sorted(), "{row}");
                quantiles[0] > 0.0
            }
            "rate" => is_positive(&home["messages_per_s"]) && is_positive(&home["bytes_per_s"]),
            "sleep" => home["cpu_ns"].is_number() && home["context_switches"].is_number(),
            other => panic!("{other}: {row}"),
        };
        assert!(complete && is_positive(&home["count"]), "{row}");
    }
    let ratio = match row["figure"].as_str().unwrap() {
        "time" => Some(kernel["p50_ns"].as_f64().unwrap() / user["p50_ns"].as_f64().unwrap()),
        "rate" => Some(user["messages_per_s"].as_f64().unwrap() / kernel["messages_per_s"].as_f64().unwrap()),
        _ => None,
    };
    // The last digit may get lost on its way through JSON.
    let close = |printed: f64, ratio: f64| (printed / ratio - 1.0).abs() < 1e-9;
    assert!(row["ratio"].as_f64().zip(ratio).is_none_or(|(printed, ratio)| close(printed, ratio)), "{row}");
    assert_eq!(row["ratio"].is_number(), ratio.is_some(), "{row}");
    if let Some([low, high]) = row["ratio_range"].as_array().map(|range| [&range[0], &range[1]]) {
        assert!(low.as_f64().unwrap() <= high.as_f64().unwrap(), "{row}");
    }
    assert!(is_positive(&row["runs"]) && row["dropped"].is_array(), "{row}");
    // A row with a target says what became of it.
    for verdict in row["targets"].as_array().unwrap() {
        let known = verdict["limit"].is_number() && verdict["reached"].is_number();
        assert!(known, "{row}");
        assert_eq!(verdict["met"].is_boolean(), known && row["disturbed"] == false, "{row}");
    }
}

#[test]
fn the_table_is_aligned_and_has_no_progress_in_it() {
    isolated(|| {
        let output = run_within(&mut bench(&["--quick", "pair/semop", "type/10", "asleep/semop"]), MINUTES);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let end_of = |heading: &str| lines[0].find(heading).unwrap() + heading.len();
        let pair = lines.iter().find(|line| line.starts_with("pair/semop ")).unwrap();
        assert!(pair[..end_of("KERNEL P50")].ends_with("ns"), "{text}");
        assert!(pair[..end_of("RATIO")].ends_with(['x', '-']), "{text}");
        let asleep = lines.iter().find(|line| line.starts_with("asleep/semop ")).unwrap();
        assert!(asleep.contains(" CPU, ") && asleep.contains("<= 1 ms"), "{text}");
        assert!(text.contains(" targets met\n"), "{text}");
    });
}

#[test]
fn rows_are_chosen_by_their_names() {
    let listed = json(&["--list", "pair"]);
    assert!(names(&listed).iter().all(|name| name.starts_with("pair/")) && names(&listed).len() == 6);
    let text = String::from_utf8(run(&mut bench(&["--list"])).stdout).unwrap();
    assert!(
        text.contains("trip/two-cores/sysv-queue") && text.contains("0.5 us or 4 times the cache line"),
        "{text}"
    );
    for wrong in [
        &["teleport"][..],
        &["--runs", "0"],
        &["--seconds", "0"],
        &["--cpus", "1,1"],
        &["--quick", "--runs", "2"],
    ] {
        assert_eq!(run(&mut bench(wrong)).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn without_a_privilege_it_measures_what_it_may() {
    isolated(|| {
        unprivileged(|| {
            let report = json(&[&["pair/sysv-queue", "pair/posix-semaphore"][..], &LITTLE].concat());
            for row in report["rows"].as_array().unwrap() {
                check_row(row);
                assert!(row["limits"]["private_namespace"].is_boolean(), "{row}");
            }
        })
        .assert_ok();
    });
}

#[test]
fn what_is_interrupted_leaves_nothing() {
    isolated(|| {
        let before = Objects::snapshot();
        for signal in [libc::SIGINT, libc::SIGKILL] {
            let others = processes();
            let mut command = bench(&["trip/two-cores/sysv-queue", "--seconds", "30"]);
            let child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
            // The command, the row's process, its guardian, the answering process.
            wait_until("four processes work", || processes() >= others + 4);
            child.signal(signal);
            assert_eq!(child.wait(), Exit::Signal(signal));
            wait_until("all have ended", || processes() <= others);
            before.assert_same();
        }
    });
}

/// How many processes there are in this namespace.
fn processes() -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())).count()
}
