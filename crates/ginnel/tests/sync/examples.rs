//! The example programs, as real processes.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use ginnel::sync::{PosixSemaphore, SysvSemaphores};
use ginnel_testkit::{
    Exit, example, isolated, kernel_objects, run, run_ok, spawn, wait_blocked_in, wait_until,
};

use crate::{Peer, lock_file};

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command.args(arguments);
    command
}

fn turns(arguments: &[&str]) -> Command {
    program("turns", arguments)
}

fn slots(arguments: &[&str]) -> Command {
    program("slots", arguments)
}

fn buffer(arguments: &[&str]) -> Command {
    program("bounded_buffer", arguments)
}

#[test]
fn turns_alternate_whoever_starts_first() {
    isolated(|| {
        for reader_first in [true, false] {
            let reader = || Peer::start(&mut turns(&["read", "0x7a", "3"]));
            let writer = || spawn(&mut turns(&["write", "0x7a", "one", "two", "three"]));
            let (mut reader, writer) = if reader_first {
                let reader = reader();
                wait_blocked_in(reader.process.pid(), libc::SYS_semtimedop);
                (reader, writer())
            } else {
                let writer = writer();
                wait_blocked_in(writer.pid(), libc::SYS_semtimedop);
                (reader(), writer)
            };
            assert_eq!([reader.line(), reader.line(), reader.line()], ["one", "two", "three"]);
            writer.assert_ok();
            reader.process.assert_ok();
            run_ok(&mut turns(&["remove", "0x7a"]));
            assert_eq!(kernel_objects(), "");
        }
    });
}

#[test]
fn a_turn_of_one_who_is_killed_is_taken_again() {
    isolated(|| {
        let forever = |command: &mut Command| spawn(command.env("GINNEL_THINK_MS", "1000000"));
        let killed_in_its_turn = |command: &mut Command| {
            let process = forever(command);
            wait_until("it has its turn", || {
                SysvSemaphores::open(0x7a).is_ok_and(|turns| turns.values().unwrap() == [0, 0])
            });
            process.kill();
            process.wait();
        };
        killed_in_its_turn(&mut turns(&["write", "0x7a", "half"]));
        killed_in_its_turn(&mut turns(&["write", "0x7a", "half again"]));
        run_ok(&mut turns(&["write", "0x7a", "whole"]));
        killed_in_its_turn(turns(&["read", "0x7a", "1"]).stdout(Stdio::null()));
        assert_eq!(run_ok(&mut turns(&["read", "0x7a", "1"])), "whole\n");
        // And the writer's turn it is.
        run_ok(&mut turns(&["write", "0x7a", "next"]));
        let late = spawn(&mut turns(&["write", "0x7a", "too early"]));
        wait_blocked_in(late.pid(), libc::SYS_semtimedop);
        assert_eq!(run_ok(&mut turns(&["read", "0x7a", "1"])), "next\n");
        late.assert_ok();
        run_ok(&mut turns(&["remove", "0x7a"]));
    });
}

#[test]
fn the_bounded_buffer_loses_nothing_and_is_bounded() {
    isolated(|| {
        run_ok(&mut buffer(&["make", "/ring", "4"]));
        let full = spawn(&mut buffer(&["produce", "/ring", "1", "1000"]));
        wait_until("it is full", || run_ok(&mut buffer(&["show", "/ring"])) == "slots 4 empty 0 full 4\n");
        wait_blocked_in(full.pid(), libc::SYS_futex);

        let producer = spawn(&mut buffer(&["produce", "/ring", "1001", "2000"]));
        let consumers: Vec<_> =
            (0..4).map(|_| spawn(buffer(&["consume", "/ring", "500"]).stdout(Stdio::piped()))).collect();
        let mut seen = HashSet::new();
        for consumer in consumers {
            let output = String::from_utf8(consumer.wait_with_output().stdout).unwrap();
            let items: Vec<u64> = output.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(items.len(), 500);
            for producer in [1..=1000_u64, 1001..=2000] {
                let mine: Vec<_> = items.iter().filter(|item| producer.contains(*item)).collect();
                assert!(mine.is_sorted(), "each producer's items are in its order");
            }
            seen.extend(items);
        }
        assert_eq!(seen, (1..=2000).collect());
        full.assert_ok();
        producer.assert_ok();
        assert_eq!(run_ok(&mut buffer(&["show", "/ring"])), "slots 4 empty 4 full 0\n");

        let consumer = spawn(buffer(&["consume", "/ring", "1"]).stdout(Stdio::null()));
        wait_blocked_in(consumer.pid(), libc::SYS_futex);
        run_ok(&mut buffer(&["produce", "/ring", "7", "7"]));
        consumer.assert_ok();
        run_ok(&mut buffer(&["remove", "/ring"]));
        assert_eq!(kernel_objects(), "");
    });
}

#[test]
fn slots_of_a_killed_holder_come_back() {
    isolated(|| {
        run_ok(&mut slots(&["make", "0x51", "5", "2"]));
        let show = || run_ok(&mut slots(&["show", "0x51"]));
        let holder = Peer::holding(&mut slots(&["take", "0x51", "0:3", "1:1"]));
        assert_eq!(show(), "0: 2 free, 0 waiting\n1: 1 free, 0 waiting\n");
        // Wants more than there is of the first, and takes nothing of the second meanwhile.
        let mut waiter = Peer::start(&mut slots(&["take", "0x51", "0:4", "1:1"]));
        wait_blocked_in(waiter.process.pid(), libc::SYS_semtimedop);
        assert_eq!(show(), "0: 2 free, 1 waiting\n1: 1 free, 0 waiting\n");
        holder.process.kill();
        assert_eq!(waiter.line(), "held");
        assert_eq!(show(), "0: 1 free, 0 waiting\n1: 1 free, 0 waiting\n");
        waiter.end();
        assert_eq!(show(), "0: 5 free, 0 waiting\n1: 2 free, 0 waiting\n");
        run_ok(&mut slots(&["remove", "0x51"]));
        let gone = run(&mut slots(&["show", "0x51"]));
        assert_eq!(Exit::from(gone.status), Exit::Code(1));
        assert!(String::from_utf8_lossy(&gone.stderr).contains("sysv-sem:0x51: semget"));
        assert_eq!(Exit::from(run(&mut slots(&["fly"])).status), Exit::Code(2));
    });
}

#[test]
fn posix_slots_named_and_unnamed() {
    isolated(|| {
        let mut first = Peer::start(&mut slots(&["named", "/slots", "2"]));
        assert_eq!(first.line(), "held, 1 left");
        let mut second = Peer::start(&mut slots(&["named", "/slots", "2"]));
        assert_eq!(second.line(), "held, 0 left");
        let mut third = Peer::start(&mut slots(&["named", "/slots", "2"]));
        wait_blocked_in(third.process.pid(), libc::SYS_futex);
        first.end();
        assert_eq!(third.line(), "held, 0 left");
        second.process.kill();
        third.end();
        assert_eq!(PosixSemaphore::open("/slots").unwrap().value().unwrap(), 1, "the killed one's is lost");
        PosixSemaphore::remove("/slots").unwrap();

        let said = run_ok(&mut slots(&["unnamed", "2", "6"]));
        assert!(said == "6 children, 2 at a time at the most\n" || said.contains(", 1 at"), "{said}");
    });
}

#[test]
fn ranges_of_a_file_and_a_deadlock() {
    isolated(|| {
        let (_directory, path) = lock_file();
        let path = path.to_str().unwrap();
        let readers = [(); 2].map(|()| {
            let mut reader = Peer::start(&mut slots(&["lock", path, "shared", "0..20"]));
            assert_eq!(reader.line(), "locked 0..20");
            reader
        });
        let mut first = Peer::start(&mut slots(&["lock", path, "exclusive", "0..10", "10..20"]));
        assert!(first.line().starts_with("waits: "));
        wait_blocked_in(first.process.pid(), libc::SYS_fcntl);
        readers.into_iter().for_each(Peer::end);
        assert_eq!(first.line(), "locked 0..10");

        let mut second = Peer::start(&mut slots(&["lock", path, "exclusive", "10..20", "0..10"]));
        assert_eq!(second.line(), "locked 10..20");
        first.enter();
        assert_eq!(first.line(), format!("waits: [{}] has 10..20 Exclusive", second.process.pid()));
        wait_blocked_in(first.process.pid(), libc::SYS_fcntl);
        second.enter();
        assert_eq!(second.line(), format!("waits: [{}] has 0..10 Exclusive", first.process.pid()));
        assert_eq!(second.process.wait(), Exit::Code(1), "EDEADLK");
        assert_eq!(first.line(), "locked 10..20");
        first.enter();
        first.process.assert_ok();
    });
}
