//! `ginnel ls`.

use std::os::unix::net::{UnixDatagram, UnixListener};

use ginnel::message::SysvQueue;
use ginnel_testkit::{isolated, run, unprivileged};
use serde_json::Value;

use crate::support::{ginnel, ok, wrong_usage};

fn make_all() {
    ok(&["send", "sysv-msg:0x2a", "--create", "hello"]);
    ok(&["send", "posix-mq:/jobs", "--create", "hello"]);
    ok(&["create", "sysv-shm:0x2a", "--size", "1MiB", "--mode", "0640"]);
    ok(&["create", "posix-shm:/x", "--size", "4096"]);
    ok(&["create", "sysv-sem:0x2a", "--value", "1,0"]);
    ok(&["create", "posix-sem:/s", "--value", "3"]);
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).unwrap()
}

#[test]
fn what_there_is_is_listed() {
    isolated(|| {
        assert_eq!(ok(&["ls"]), "");
        make_all();
        let _listener = UnixListener::bind("/dev/shm/listener").unwrap();
        let _socket = UnixDatagram::bind("/dev/shm/socket").unwrap();
        let text = ok(&["ls"]);
        let mut lines = text.lines();
        let heading: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(heading, ["ENDPOINT", "ID", "OWNER", "MODE", "SIZE", "HOLDS"]);
        for (endpoint, words) in [
            ("sysv-msg:0x2a", "1 message, 5 B"),
            ("posix-mq:/jobs", "1 message, 5 B"),
            ("sysv-shm:0x2a", "0 processes attached"),
            ("posix-shm:/x", "not in use"),
            ("sysv-sem:0x2a", "values 1,0"),
            ("posix-sem:/s", "value 3, not in use"),
            ("unix:/dev/shm/listener", "listens"),
            ("unix-dgram:/dev/shm/socket", "receives"),
        ] {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(endpoint));
            let line = line.unwrap_or_else(|| panic!("{endpoint} is missing: {text}"));
            assert!(line.ends_with(words) && line.contains("root"), "{line}");
        }
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(text.contains("1 MiB") && text.contains("640"), "{text}");
        assert_eq!(ok(&["ls", "--noheadings"]).lines().count(), 8);
    });
}

#[test]
fn kinds_choose() {
    isolated(|| {
        make_all();
        let text = ok(&["ls", "--noheadings", "sysv-msg", "posix-sem"]);
        let names: Vec<&str> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(names, ["sysv-msg:0x2a", "posix-sem:/s"]);
        wrong_usage(&[(&["ls", "fifo"], "sysv-msg"), (&["ls", "--json", "--noheadings"], "--noheadings")]);
    });
}

#[test]
fn json_has_numbers() {
    isolated(|| {
        make_all();
        let private = SysvQueue::private().unwrap();
        let listing = json(&["ls", "--json"]);
        let objects = listing["objects"].as_array().unwrap();
        assert_eq!((&listing["schema"], objects.len()), (&1.into(), 7));
        let find = |name: &str| objects.iter().find(|object| object["endpoint"] == name).unwrap();
        let queue = find("sysv-msg:0x2a");
        assert_eq!((&queue["messages"], &queue["bytes"], &queue["uid"]), (&1.into(), &5.into(), &0.into()));
        assert_eq!((&queue["kind"], &queue["mode"]), (&"sysv-msg".into(), &"0600".into()));
        assert_eq!(queue["id"], SysvQueue::open(0x2a).unwrap().id());
        assert_eq!(find("sysv-shm:0x2a")["size_bytes"], 1 << 20);
        assert_eq!(find("sysv-sem:0x2a")["values"], serde_json::json!([1, 0]));
        assert_eq!(find("posix-mq:/jobs")["messages_max"], 10);
        assert_eq!(find("posix-sem:/s")["value"], 3);
        find(&format!("sysv-msg:id={}", private.id()));
    });
}

#[test]
fn what_others_may_not_read_is_listed_too() {
    isolated(|| {
        make_all();
        unprivileged(|| {
            let text = ok(&["ls", "--noheadings"]);
            for endpoint in
                ["sysv-msg:0x2a", "sysv-shm:0x2a", "posix-shm:/x", "sysv-sem:0x2a", "posix-sem:/s"]
            {
                assert!(text.contains(endpoint), "{text}");
            }
            assert!(text.contains("not to be read by this user"), "{text}");
        })
        .assert_ok();
    });
}

#[test]
fn a_list_that_cannot_be_had_is_not_an_empty_one() {
    isolated(|| {
        make_all();
        // In a mount namespace of our own. Root can do without the mount.
        while let Some(mounted) = mqueue_mount() {
            assert!(run(std::process::Command::new("umount").arg(mounted)).status.success());
        }
        assert!(ok(&["ls", "posix-mq"]).contains("posix-mq:/jobs"));
        unprivileged(|| {
            let output = run(&mut ginnel(&["ls"]));
            assert_eq!(output.status.code(), Some(0));
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(
                stderr.contains("not listed: posix-mq") && stderr.contains("mount -t mqueue"),
                "{stderr}"
            );
            assert_eq!(run(&mut ginnel(&["ls", "posix-mq"])).status.code(), Some(1));
            let output = run(&mut ginnel(&["ls", "--json"]));
            let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(listing["notes"].as_array().unwrap().len(), 1);
        })
        .assert_ok();
    });
}

fn mqueue_mount() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .find(|line| line.contains(" mqueue "))
        .map(|line| line.split(' ').nth(1).unwrap().to_string())
}

#[test]
fn a_reader_that_goes_away_is_success() {
    isolated(|| {
        make_all();
        let line = format!("{{ {} ls; echo $? >&2; }} | :", env!("CARGO_BIN_EXE_ginnel"));
        let output = run(std::process::Command::new("sh").args(["-c", &line]));
        assert_eq!(output.stderr, b"0\n");
    });
}
