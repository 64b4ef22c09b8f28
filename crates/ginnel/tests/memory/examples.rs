//! The example programs, as real processes.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use ginnel::memory::{FileMapping, SysvSegment};
use ginnel::sync::{LockKind, RecordLocks};
use ginnel_testkit::{Objects, example, isolated, run, run_ok, spawn, temp_dir, wait_blocked_in, wait_until};

use crate::start;

fn command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command.args(args);
    command
}

/// Runs an example that must fail; its exit status and what it says.
fn fails(name: &str, args: &[&str]) -> (i32, String) {
    let output = run(&mut command(name, args));
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_example_has_a_usage() {
    isolated(|| {
        for name in ["flag_and_data", "mapped_file", "anonymous", "linked_list", "plain_file"] {
            let (status, text) = fails(name, &["nonsense"]);
            assert_eq!(status, 2, "{name}");
            assert!(text.starts_with(&format!("usage: {name} ")), "{text}");
        }
    });
}

#[test]
fn flag_and_data() {
    isolated(|| {
        let before = Objects::snapshot();
        let mut master = start(&mut command("flag_and_data", &["master"]));
        let id = master.line.strip_prefix("segment ").unwrap().strip_suffix(": waiting").unwrap().to_string();
        let segment = SysvSegment::from_id(id.parse().unwrap());
        wait_blocked_in(master.child.pid(), libc::SYS_futex);
        let mut reader = start(&mut command("flag_and_data", &["reader", &id]));
        assert_eq!(segment.status().unwrap().attached, 2);

        let writer = spawn(&mut command("flag_and_data", &["writer", &id, "hello"]));
        let written = format!("process {} wrote: hello\n", writer.pid());
        writer.assert_ok();
        assert_eq!(master.rest(), written);
        master.child.assert_ok();

        // The reader still has what the master has removed.
        let status = segment.status().unwrap();
        assert!(status.is_removed && status.attached == 1);
        reader.child.stdin().unwrap().write_all(b"\n").unwrap();
        assert_eq!(reader.rest(), written);
        reader.child.assert_ok();
        assert!(segment.status().unwrap_err().is_removed());
        before.assert_same();

        let (status, text) = fails("flag_and_data", &["writer", &id, "late"]);
        assert_eq!(status, 1);
        assert!(text.contains("it was removed"), "{text}");
    });
}

#[test]
fn a_killed_master_leaves_its_segment_and_ipcrm_removes_it() {
    isolated(|| {
        let master = start(&mut command("flag_and_data", &["master"]));
        let id = master.line.split([' ', ':']).nth(1).unwrap().to_string();
        master.child.kill();
        master.child.wait();
        let segment = SysvSegment::from_id(id.parse().unwrap());
        assert_eq!(segment.status().unwrap().attached, 0);
        run_ok(Command::new("ipcrm").args(["-m", &id]));
        assert!(segment.status().unwrap_err().is_removed());
    });
}

#[test]
fn mapped_file() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("board");
        let name = path.to_str().unwrap();
        run_ok(&mut command("mapped_file", &["write", name, "4090", "across the page"]));
        assert_eq!(run_ok(&mut command("mapped_file", &["read", name, "4090", "15"])), "across the page\n");
        assert_eq!(run_ok(&mut command("mapped_file", &["try", name, "4090", "ACROSS"])), "ACROSS\n");
        assert_eq!(run_ok(&mut command("mapped_file", &["read", name, "4090", "6"])), "across\n");
        let (status, text) = fails("mapped_file", &["read", name, "4090", "16"]);
        assert_eq!(status, 1);
        assert!(text.contains("it has 4105 bytes"), "{text}");
        let last = u64::MAX.to_string();
        for verb in ["read", "write"] {
            let (status, text) = fails("mapped_file", &[verb, name, &last, "17"]);
            assert_eq!(status, 1, "{text}");
            assert!(text.contains("EINVAL"), "{text}");
        }

        // A lock on the part keeps a writer waiting, a reader only if it is exclusive, and other parts not at all.
        let locks = RecordLocks::open(&path).unwrap();
        let guard = locks.lock(4090..4100, LockKind::Shared).unwrap();
        let writer = spawn(&mut command("mapped_file", &["write", name, "4090", "now it is another"]));
        wait_blocked_in(writer.pid(), libc::SYS_fcntl);
        run_ok(&mut command("mapped_file", &["write", name, "0", "elsewhere"]));
        assert_eq!(run_ok(&mut command("mapped_file", &["read", name, "4090", "6"])), "across\n");
        drop(guard);
        writer.assert_ok();
        let guard = locks.lock(.., LockKind::Exclusive).unwrap();
        let reader = spawn(command("mapped_file", &["read", name, "4090", "17"]).stdout(Stdio::piped()));
        wait_blocked_in(reader.pid(), libc::SYS_fcntl);
        drop(guard);
        assert_eq!(reader.wait_with_output().stdout, b"now it is another\n");
    });
}

#[test]
fn mapped_file_under_many_writers_is_never_half_written() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("board");
        let name = path.to_str().unwrap();
        let texts: Vec<String> =
            (b'a'..b'g').map(|letter| (letter as char).to_string().repeat(9000)).collect();
        run_ok(&mut command("mapped_file", &["write", name, "7", &texts[0]]));
        let writers: Vec<_> = texts
            .iter()
            .map(|text| spawn(&mut command("mapped_file", &["write", name, "7", text])))
            .collect();
        for _ in 0..10 {
            let seen = run_ok(&mut command("mapped_file", &["read", name, "7", "9000"]));
            assert!(texts.contains(&seen.trim_end().to_string()));
        }
        writers.into_iter().for_each(|writer| writer.assert_ok());
        let killed = spawn(&mut command("mapped_file", &["write", name, "7", &texts[1]]));
        killed.kill();
        killed.wait();
        run_ok(&mut command("mapped_file", &["write", name, "7", &texts[2]]));
        assert_eq!(FileMapping::open(&path).unwrap().read_vec(7..).unwrap(), texts[2].as_bytes());
    });
}

#[test]
fn anonymous() {
    isolated(|| {
        let output = run_ok(&mut command("anonymous", &["5", "20000"]));
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines[5], "counted 100000");
        let pids: BTreeSet<_> = lines[..5].iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert!(pids.len() == 5 && !pids.contains("0"), "{output}");
    });
}

#[test]
fn linked_list() {
    isolated(|| {
        let before = Objects::snapshot();
        run_ok(&mut command("linked_list", &["push", "/words", "alpha", "beta"]));
        run_ok(&mut command("linked_list", &["push", "/words", "gamma"]));
        let shown = run_ok(&mut command("linked_list", &["show", "/words"]));
        let (places, words) = shown.split_once('\n').unwrap();
        let places: Vec<_> = places.split(' ').filter(|word| word.starts_with("0x")).collect();
        assert!(places.len() == 2 && places[0] != places[1], "{places:?}");
        assert_eq!(words, "gamma\nbeta\nalpha\n");

        let words: Vec<Vec<String>> =
            (0..8).map(|i| (0..200).map(|j| format!("word-{i}-{j}")).collect()).collect();
        let pushers: Vec<_> = words
            .iter()
            .map(|words| spawn(Command::new(example("linked_list")).args(["push", "/words"]).args(words)))
            .collect();
        // Whoever looks meanwhile sees a whole list.
        (0..50).for_each(|_| drop(run_ok(&mut command("linked_list", &["show", "/words"]))));
        pushers.into_iter().for_each(|pusher| pusher.assert_ok());
        let killed = spawn(Command::new(example("linked_list")).args(["push", "/words"]).args(&words[0]));
        killed.kill();
        killed.wait();
        let shown = run_ok(&mut command("linked_list", &["show", "/words"]));
        let shown: BTreeSet<_> = shown.lines().skip(1).collect();
        assert!(words.iter().flatten().all(|word| shown.contains(word.as_str())));
        assert_eq!(shown.len(), 3 + 8 * 200);

        let large = "x".repeat(100_000);
        let full = vec![large.as_str(); 11];
        let output = run(Command::new(example("linked_list")).args(["push", "/words"]).args(full));
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("not within the mapping"));
        run_ok(&mut command("linked_list", &["show", "/words"]));
        run_ok(&mut command("linked_list", &["remove", "/words"]));
        assert_eq!(fails("linked_list", &["show", "/words"]).0, 1);
        before.assert_same();
    });
}

#[test]
fn plain_file() {
    isolated(|| {
        let directory = temp_dir();
        let path = directory.path().join("channel");
        let name = path.to_str().unwrap();
        assert_eq!(fails("plain_file", &["recv", name]).0, 1);
        run_ok(&mut command("plain_file", &["send", name, "first"]));
        run_ok(&mut command("plain_file", &["send", name, ""]));
        assert_eq!(run_ok(&mut command("plain_file", &["recv", name])), "first\n");
        assert_eq!(run_ok(&mut command("plain_file", &["recv", name])), "\n");
        assert_eq!(fails("plain_file", &["recv", name]), (1, "plain_file: no message\n".to_string()));

        let senders: Vec<_> = (0..20)
            .map(|i| spawn(&mut command("plain_file", &["send", name, &format!("message {i}")])))
            .collect();
        let mut got = BTreeSet::new();
        wait_until("20 messages, each once", || {
            let output = run(&mut command("plain_file", &["recv", name]));
            if output.status.success() {
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(got.insert(text.clone()), "{text} came twice");
            }
            got.len() == 20
        });
        senders.into_iter().for_each(|sender| sender.assert_ok());

        // What a sender left torn is written over.
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[9, 0, 0]).unwrap();
        run_ok(&mut command("plain_file", &["send", name, "after"]));
        assert_eq!(run_ok(&mut command("plain_file", &["recv", name])), "after\n");
    });
}
