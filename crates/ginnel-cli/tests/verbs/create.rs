//! `ginnel create`.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use ginnel::memory::SysvSegment;
use ginnel::message::{PosixQueue, SysvQueue};
use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use ginnel_testkit::{isolated, kernel_objects, run, unprivileged};

use crate::support::{fails, failures, ginnel, json_lines, ok, wrong_usage};

#[test]
fn every_kind_that_exists_by_itself() {
    isolated(|| {
        assert_eq!(ok(&["create", "fifo:/dev/shm/a", "--mode", "0666"]), "fifo:/dev/shm/a\n");
        let fifo = std::fs::metadata("/dev/shm/a").unwrap();
        assert!(fifo.file_type().is_fifo());
        assert_eq!(fifo.mode() & 0o777, 0o666, "whatever the umask is");

        ok(&["create", "sysv-msg:0x2a", "--mode", "640", "--bytes-max", "4KiB"]);
        let status = SysvQueue::open(0x2a).unwrap().status().unwrap();
        assert_eq!((status.permissions.mode, status.bytes_max), (0o640, 4096));

        ok(&["create", "posix-mq:/jobs", "--messages", "3", "--message-size", "1KiB"]);
        let status = PosixQueue::open("/jobs").unwrap().status().unwrap();
        assert_eq!((status.messages_max, status.message_bytes_max), (3, 1024));

        ok(&["create", "sysv-shm:0x2a", "--size", "1MiB"]);
        assert_eq!(SysvSegment::open(0x2a).unwrap().status().unwrap().size_bytes, 1 << 20);
        ok(&["create", "posix-shm:/x", "--size", "100"]);
        assert_eq!(std::fs::metadata("/dev/shm/x").unwrap().len(), 100);
        ok(&["create", "file:/dev/shm/f", "--size", "100", "--mode", "644"]);
        assert_eq!(std::fs::metadata("/dev/shm/f").unwrap().mode() & 0o777, 0o644);

        let values = |key: i32| SysvSemaphores::open(key).unwrap().values().unwrap();
        ok(&["create", "sysv-sem:1"]);
        ok(&["create", "sysv-sem:2", "--value", "1,0,7"]);
        ok(&["create", "sysv-sem:3", "--semaphores", "3", "--value", "2"]);
        assert_eq!((values(1), values(2), values(3)), (vec![0], vec![1, 0, 7], vec![2, 2, 2]));
        ok(&["create", "posix-sem:/s", "--value", "3"]);
        assert_eq!(PosixSemaphore::open("/s").unwrap().value().unwrap(), 3);
    });
}

#[test]
fn the_id_is_printed() {
    isolated(|| {
        let id = SysvQueue::create(0x2b).unwrap().id();
        let text = ok(&["create", "sysv-msg:0x2b", "--exist-ok"]);
        assert_eq!(text, format!("sysv-msg:0x2b  id={id}\n"));
        let made = json_lines(&ok(&["create", "sysv-sem:7", "--json"])).remove(0);
        let id = SysvSemaphores::open(7).unwrap().id();
        assert_eq!(made, serde_json::json!({"endpoint": "sysv-sem:0x7", "id": id, "existed": false}));
        // Without a key, the id is the name.
        for kind in ["sysv-msg", "sysv-sem", "sysv-shm"] {
            let size: &[&str] = if kind == "sysv-shm" { &["--size", "1"] } else { &[] };
            let text = ok(&[&["create", &format!("{kind}:0")], size].concat());
            assert!(text.starts_with(&format!("{kind}:id=")), "{text}");
            ok(&["rm", "--yes", text.trim_end()]);
        }
    });
}

#[test]
fn an_existing_one_is_an_error_or_stays_as_it_is() {
    isolated(|| {
        let endpoints = [
            "fifo:/dev/shm/a",
            "sysv-msg:0x2a",
            "posix-mq:/jobs",
            "sysv-shm:0x2a",
            "posix-shm:/x",
            "file:/dev/shm/f",
            "sysv-sem:0x2a",
            "posix-sem:/s",
        ];
        for endpoint in endpoints {
            let is_memory =
                ["-shm", "file"].iter().any(|kind| endpoint.contains(kind) && !endpoint.contains("fifo"));
            let size: &[&str] = if is_memory { &["--size", "64"] } else { &[] };
            let args = [&["create", endpoint], size].concat();
            ok(&args);
            let before = kernel_objects();
            let stderr = fails(1, &args);
            assert!(stderr.contains("EEXIST") && stderr.contains("--exist-ok"), "{stderr}");
            let made = json_lines(&ok(&[&args[..], &["--exist-ok", "--json"]].concat())).remove(0);
            assert_eq!(made["existed"], true);
            assert_eq!(before, kernel_objects());
        }
        failures(&[(&["create", "sysv-shm:0x2a", "--size", "1MiB", "--exist-ok"], &["EINVAL"])]);
    });
}

#[test]
fn what_means_nothing_is_refused_with_what_does() {
    isolated(|| {
        wrong_usage(&[
            (&["create", "unix:/a"], "ginnel recv --create"),
            (&["create", "udp:a:1"], "ginnel recv --create"),
            (&["create", "lock:/a"], "ginnel lock"),
            (&["create", "signal:1"], "started by its command"),
            (&["create", "sysv-msg:id=3"], "the kernel chooses ids"),
            (&["create", "file:/a#1+1", "--size", "1"], "file:/a"),
            (&["create", "posix-shm:/a"], "--size"),
            (&["create", "fifo:/a", "--size", "1"], "--size is for memory"),
            (&["create", "posix-sem:/a", "--semaphores", "2"], "--semaphores is for sysv-sem"),
            (&["create", "posix-sem:/a", "--value", "1,2"], "one --value"),
            (&["create", "sysv-sem:1", "--value", "32768"], "32767 is the most"),
            (&["create", "sysv-sem:1", "--semaphores", "3", "--value", "1,2"], "2 values for 3 semaphores"),
            (&["create", "sysv-msg:1", "--messages", "2"], "--bytes-max"),
            (&["create", "posix-mq:/a", "--bytes-max", "2"], "--messages"),
            (&["create", "fifo:/a", "--mode", "999"], "octal"),
            (&["create", "posix-shm:/a", "--size", "much"], "a size is"),
        ]);
        assert_eq!(kernel_objects(), "");
    });
}

#[test]
fn limits_are_named() {
    isolated(|| {
        std::fs::write("/proc/sys/kernel/msgmni", "1").unwrap();
        std::fs::write("/proc/sys/kernel/shmmni", "1").unwrap();
        std::fs::write("/proc/sys/kernel/sem", "32000 1024000000 500 1").unwrap();
        std::fs::write("/proc/sys/fs/mqueue/queues_max", "1").unwrap();
        ok(&["create", "sysv-msg:1"]);
        ok(&["create", "sysv-shm:1", "--size", "1"]);
        ok(&["create", "sysv-sem:1"]);
        failures(&[
            (&["create", "sysv-msg:2"], &["ENOSPC", "kernel.msgmni is 1"]),
            (&["create", "sysv-shm:2", "--size", "1"], &["ENOSPC", "kernel.shmmni is 1"]),
            (&["create", "sysv-sem:2"], &["ENOSPC", "kernel.sem"]),
            (&["create", "posix-mq:/a", "--messages", "1000"], &["EINVAL", "fs.mqueue.msg_max"]),
            (&["create", "posix-mq:/a", "--message-size", "1GiB"], &["EINVAL", "fs.mqueue.msgsize_max"]),
            (&["create", "posix-shm:/huge", "--size", "100TiB"], &["posix-shm:/huge", "ENOSPC"]),
            (&["create", "file:/dev/shm/huge", "--size", "100TiB"], &["file:/dev/shm/huge", "ENOSPC"]),
        ]);
        // What failed half-way has left nothing.
        let objects = kernel_objects();
        assert!(!objects.contains("huge") && !objects.contains("posix-mq"), "{objects}");
    });
}

#[test]
fn a_queue_that_cannot_be_as_large_is_not_made() {
    isolated(|| {
        unprivileged(|| {
            let stderr = fails(1, &["create", "sysv-msg:0x2a", "--bytes-max", "1GiB"]);
            assert!(stderr.contains("EPERM") && stderr.contains("kernel.msgmnb"), "{stderr}");
            let stderr = fails(1, &["create", "fifo:/root/a"]);
            assert!(stderr.contains("EACCES"), "{stderr}");
        })
        .assert_ok();
        assert_eq!(kernel_objects(), "");
        let nowhere = run(&mut ginnel(&["create", "fifo:/nowhere/a"]));
        assert_eq!(nowhere.status.code(), Some(1));
        let stderr = String::from_utf8(nowhere.stderr).unwrap();
        assert!(stderr.contains("ENOENT") && stderr.contains("directory"), "{stderr}");
    });
}
