use std::process::Command;
use std::time::{Duration, Instant};

use ginnel::sync::sysv_semaphore_status::Change;
use ginnel::sync::{Operation, SysvSemaphores};
use ginnel::sysv::Key;
use ginnel::{Deadline, Namespace};
use ginnel_testkit::{Objects, c_program, fork, isolated, run_ok, unprivileged, wait_blocked_in, wait_until};

use crate::homes::{in_both_homes, other_objects, wait_blocked};
use crate::{Peer, catch};

const KEY: i32 = 0x5e1;
const SHORT: Duration = Duration::from_millis(20);

fn one(home: &Namespace, value: u16) -> SysvSemaphores {
    let set = SysvSemaphores::private_in(home, 1).unwrap();
    set.set_value(0, value).unwrap();
    set
}

fn peer(words: &[&str]) -> Command {
    let mut command = Command::new(c_program!("tests/sync/sysv_semaphore.c"));
    command.arg(words[0]).arg(KEY.to_string()).args(&words[1..]);
    command
}

#[test]
fn operations_of_one_call_happen_all_or_not_at_all() {
    in_both_homes(|home| {
        let set = SysvSemaphores::private_in(home, 3).unwrap();
        set.set_values(&[2, 0, 0]).unwrap();
        let refused =
            set.try_operate(&[Operation::take(0, 2), Operation::take(1, 1), Operation::wait_zero(2)]);
        assert!(refused.unwrap_err().is_would_block());
        assert_eq!(set.values().unwrap(), [2, 0, 0]);

        set.post(1).unwrap();
        set.operate(&[Operation::take(0, 2), Operation::take(1, 1), Operation::wait_zero(2)]).unwrap();
        assert_eq!(set.values().unwrap(), [0, 0, 0]);
        // In order: what the first gives, the second takes.
        set.operate(&[Operation::add(0, 5), Operation::take(0, 3)]).unwrap();
        assert_eq!(set.value(0).unwrap(), 2);
    });
}

#[test]
fn a_waiter_goes_on_when_it_can() {
    in_both_homes(|home| {
        let set = SysvSemaphores::private_in(home, 2).unwrap();
        let taker = fork(|| set.operate(&[Operation::take(0, 2), Operation::take(1, 1)]).unwrap());
        wait_blocked(home, taker.pid(), libc::SYS_semtimedop);
        assert_eq!((set.waiting(0).unwrap(), set.waiting_zero(0).unwrap()), (1, 0));
        set.operate(&[Operation::add(0, 2)]).unwrap();
        assert!(taker.is_alive(), "only half of what it wants is there");
        assert_eq!(set.waiting(1).unwrap(), 1);
        set.post(1).unwrap();
        taker.assert_ok();
        assert_eq!(set.values().unwrap(), [0, 0]);

        set.set_value(0, 1).unwrap();
        let for_zero = fork(|| set.wait_zero(0).unwrap());
        wait_until("it waits for zero", || set.waiting_zero(0).unwrap() == 1);
        set.wait(0).unwrap();
        for_zero.assert_ok();
    });
}

#[test]
fn each_form_says_would_block_or_timed_out_as_it_must() {
    in_both_homes(|home| {
        let set = one(home, 0);
        assert_eq!(set.try_wait(0).unwrap_err().errno_name(), "EAGAIN");

        let before = Instant::now();
        let late = set.wait_deadline(0, SHORT).unwrap_err();
        assert!(before.elapsed() >= SHORT, "did not return before the deadline");
        assert_eq!((late.errno_name(), late.operation()), ("ETIMEDOUT", "semtimedop"));
        let passed = Instant::now() - SHORT;
        assert_eq!(set.wait_deadline(0, passed).unwrap_err().errno_name(), "ETIMEDOUT");

        // A step that may not wait is not out of time.
        let far = Duration::from_secs(1000);
        let refused = set.operate_deadline(&[Operation::take(0, 1).no_wait()], far).unwrap_err();
        assert_eq!(refused.errno_name(), "EAGAIN");
        assert_eq!(set.operate(&[Operation::take(0, 1).no_wait()]).unwrap_err().errno_name(), "EAGAIN");

        set.post(0).unwrap();
        set.wait_deadline(0, far).unwrap();
        set.post(0).unwrap();
        assert!(set.try_wait_zero(0).unwrap_err().is_would_block());
        assert!(set.wait_zero_deadline(0, SHORT).unwrap_err().is_timed_out());
        set.wait_deadline(0, passed).unwrap();
        set.try_wait_zero(0).unwrap();
    });
}

#[test]
fn errors_of_operations_name_the_limit() {
    in_both_homes(|home| {
        let set = SysvSemaphores::private_in(home, 2).unwrap();
        let error = |operations: &[Operation]| set.try_operate(operations).unwrap_err();

        let missing = error(&[Operation::add(2, 1)]);
        assert_eq!(missing.errno_name(), "EFBIG");
        assert!(missing.hint().unwrap().contains("no semaphore 2: the set has 2"), "{missing}");

        let many = error(&vec![Operation::add(0, 1); 501]);
        assert_eq!(many.errno_name(), "E2BIG");
        let limit =
            if home.is_kernel() { "SEMOPM, the 3rd number of kernel.sem" } else { "semopm of /dev/shm/" };
        assert!(many.hint().unwrap().contains(limit), "{many}");

        set.set_value(0, 32767).unwrap();
        for high in [error(&[Operation::add(0, 1)]), error(&[Operation::add(1, 40000)])] {
            assert_eq!(high.errno_name(), "ERANGE");
            assert!(high.hint().unwrap().contains("32767"), "{high}");
        }
        assert_eq!(set.set_value(0, 32768).unwrap_err().errno_name(), "ERANGE");
        assert_eq!(set.set_values(&[1, 32768]).unwrap_err().errno_name(), "ERANGE");

        for zero in [Operation::add(1, 0), Operation::take(1, 0)] {
            assert!(error(&[zero]).hint().unwrap().contains("0 units"));
        }
        assert_eq!(error(&[]).errno_name(), "EINVAL");
        assert_eq!(set.value(2).unwrap_err().errno_name(), "EINVAL");
        assert!(set.value(2).unwrap_err().hint().unwrap().contains("the set has 2"));
        assert_eq!(set.set_values(&[1, 2, 3]).unwrap_err().errno_name(), "EINVAL");
        assert_eq!(set.values().unwrap(), [32767, 0], "nothing was changed by any of these");
    });
}

#[test]
fn opening_says_what_is_wrong() {
    in_both_homes(|home| {
        assert!(SysvSemaphores::open_in(home, KEY).unwrap_err().is_not_found());
        let empty = SysvSemaphores::options().namespace(home).create(true).open(KEY).unwrap_err();
        assert!(empty.hint().unwrap().contains("at least 1"), "{empty}");

        let set = SysvSemaphores::create_in(home, KEY, 2).unwrap();
        assert_eq!(SysvSemaphores::create_in(home, KEY, 2).unwrap().id(), set.id());
        let again =
            SysvSemaphores::options().namespace(home).create_new(true).count(2).open(KEY).unwrap_err();
        assert!(again.is_already_exists());
        let larger = SysvSemaphores::create_in(home, KEY, 3).unwrap_err();
        assert_eq!(larger.errno_name(), "EINVAL");
        assert!(larger.hint().unwrap().contains("fewer than 3"), "{larger}");

        set.remove().unwrap();
        let gone = set.post(0).unwrap_err();
        assert!(gone.is_removed() && gone.errno_name() == "EINVAL", "{gone}");
        assert!(set.status().unwrap_err().is_removed());
        assert!(set.remove().unwrap_err().is_removed());
    });
}

#[test]
fn the_limits_that_are_hit_are_named() {
    isolated(|| {
        std::fs::write("/proc/sys/kernel/sem", "10 20 30 4").unwrap();
        let limits = SysvSemaphores::limits().unwrap();
        assert_eq!(
            (limits.per_set_max, limits.semaphores_max, limits.operations_max, limits.sets_max),
            (10, 20, 30, 4)
        );
        let large = SysvSemaphores::private(11).unwrap_err();
        assert_eq!(large.errno_name(), "EINVAL");
        assert!(large.hint().unwrap().contains("SEMMSL, the 1st number"), "{large}");

        let held = [10, 9].map(|count| SysvSemaphores::private(count).unwrap());
        let full = SysvSemaphores::private(2).unwrap_err();
        assert_eq!(full.errno_name(), "ENOSPC");
        assert!(full.hint().unwrap().contains("SEMMNS, the 2nd number"), "{full}");
        drop(held);

        let held: Vec<_> = (0..4).map(|_| SysvSemaphores::private(1).unwrap()).collect();
        assert_eq!(SysvSemaphores::limits().unwrap().sets, 4);
        let full = SysvSemaphores::private(1).unwrap_err();
        assert!(full.hint().unwrap().contains("SEMMNI, the 4th number"), "{full}");
        drop(held);
        assert_eq!(SysvSemaphores::limits().unwrap().semaphores, 0);
    });
}

#[test]
fn a_removal_wakes_the_waiters() {
    in_both_homes(|home| {
        let set = one(home, 0);
        let waiter = fork(|| {
            let error = set.wait_deadline(0, Duration::from_secs(100)).unwrap_err();
            assert!(error.is_removed() && error.errno_name() == "EIDRM", "{error}");
        });
        wait_blocked(home, waiter.pid(), libc::SYS_semtimedop);
        set.remove().unwrap();
        waiter.assert_ok();
    });
}

#[test]
fn a_signal_handler_ends_the_wait_even_with_sa_restart() {
    in_both_homes(|home| {
        let set = one(home, 0);
        for deadline in [Deadline::NEVER, Duration::from_secs(100).into()] {
            let waiter = fork(|| {
                // A futex's wait goes on after such a handler, and ours is one.
                catch(libc::SIGUSR1, if home.is_kernel() { libc::SA_RESTART } else { 0 });
                assert!(set.wait_deadline(0, deadline).unwrap_err().is_interrupted());
            });
            wait_blocked(home, waiter.pid(), libc::SYS_semtimedop);
            waiter.signal(libc::SIGUSR1);
            waiter.assert_ok();
        }
        assert_eq!(set.waiting(0).unwrap(), 0);
    });
}

#[test]
fn a_killed_holders_units_come_back_only_with_undo() {
    in_both_homes(|home| {
        let set = SysvSemaphores::private_in(home, 2).unwrap();
        set.set_values(&[5, 5]).unwrap();
        let holder = fork(|| {
            let _permit = set.acquire(&[(0, 2), (1, 3)]).unwrap();
            set.wait(1).unwrap();
            loop {
                std::thread::park();
            }
        });
        wait_until("it holds all three", || set.values().unwrap() == [3, 1]);
        holder.kill();
        holder.wait();
        assert_eq!(set.values().unwrap(), [5, 4], "the permit came back, the plain wait did not");
    });
}

#[test]
fn setting_a_value_clears_the_undo() {
    in_both_homes(|home| {
        let set = one(home, 5);
        let (reader, writer) = std::io::pipe().unwrap();
        let holder = fork(|| {
            std::mem::forget(set.acquire(&[(0, 2)]).unwrap());
            std::io::Read::read(&mut &reader, &mut [0]).unwrap();
        });
        wait_until("it holds them", || set.value(0).unwrap() == 3);
        set.set_value(0, 7).unwrap();
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        holder.assert_ok();
        assert_eq!(set.value(0).unwrap(), 7);
    });
}

#[test]
fn a_forked_copy_of_a_permit_or_of_a_handle_gives_nothing_back() {
    in_both_homes(|home| {
        let set = one(home, 3);
        let permit = set.acquire(&[(0, 2)]).unwrap();
        fork(|| {
            let stolen = SysvSemaphores::from_id_in(home, set.id());
            // The closure's captures are references: the copies are dropped here by hand.
            // SAFETY: the copies are dropped once in this process, which ends by _exit.
            unsafe {
                drop(std::ptr::read(&raw const permit));
                drop(std::ptr::read(&raw const set));
            }
            assert_eq!(stolen.value(0).unwrap(), 1);
        })
        .assert_ok();
        assert_eq!(set.value(0).unwrap(), 1);
        permit.release().unwrap();
        assert_eq!(set.value(0).unwrap(), 3);
    });
}

#[test]
fn a_private_set_goes_with_its_handle_unless_kept() {
    in_both_homes(|home| {
        let before = Objects::snapshot();
        drop(SysvSemaphores::private_in(home, 4).unwrap());
        before.assert_same();
        let mut set = SysvSemaphores::private_in(home, 1).unwrap();
        set.keep();
        let id = set.id();
        drop(set);
        SysvSemaphores::from_id_in(home, id).remove().unwrap();
        before.assert_same();
    });
}

#[test]
fn a_turn_is_passed_on_or_comes_back_but_never_both() {
    in_both_homes(|home| {
        let turns = SysvSemaphores::private_in(home, 2).unwrap();
        turns.set_values(&[1, 0]).unwrap();
        // Killed while it holds its turn: its own turn again.
        let holder = fork(|| {
            let _turn = turns.acquire(&[(0, 1)]).unwrap();
            loop {
                std::thread::park();
            }
        });
        wait_until("it holds the turn", || turns.values().unwrap() == [0, 0]);
        holder.kill();
        holder.wait();
        assert_eq!(turns.values().unwrap(), [1, 0]);
        // Ended after it passed the turn on: nothing comes back, nothing is taken back.
        fork(|| turns.acquire(&[(0, 1)]).unwrap().pass_on(&[(1, 1)]).unwrap()).assert_ok();
        assert_eq!(turns.values().unwrap(), [0, 1]);
        // Refused: the units are given back.
        turns.set_value(0, 32767).unwrap();
        let turn = turns.acquire(&[(1, 1)]).unwrap();
        assert_eq!(turn.pass_on(&[(0, 1)]).unwrap_err().errno_name(), "ERANGE");
        assert_eq!(turns.values().unwrap(), [32767, 1]);
    });
}

#[test]
fn whoever_makes_the_set_everybody_sees_its_values() {
    in_both_homes(|home| {
        for round in 0..20 {
            let key = KEY + round;
            let (reader, writer) = std::io::pipe().unwrap();
            let children: Vec<_> = (0..8)
                .map(|_| {
                    fork(|| {
                        // All start when the parent writes.
                        std::io::Read::read(&mut &reader, &mut [0]).unwrap();
                        let set =
                            SysvSemaphores::create_with_in(home, key, &[8, 0], Deadline::NEVER).unwrap();
                        set.try_operate(&[Operation::take(0, 1), Operation::add(1, 1)]).unwrap();
                    })
                })
                .collect();
            std::io::Write::write_all(&mut &writer, &[0; 8]).unwrap();
            children.into_iter().for_each(|child| child.assert_ok());
            let set = SysvSemaphores::open_in(home, key).unwrap();
            assert_eq!(set.values().unwrap(), [0, 8]);
            // Used up, and not made anew.
            let set = SysvSemaphores::create_with_in(home, key, &[8, 0], Deadline::NOW).unwrap();
            assert_eq!(set.values().unwrap(), [0, 8]);
        }
        for values in [&[0, 0][..], &[0, 7], &[1; 600]] {
            let set = SysvSemaphores::options().namespace(home).create_new(true);
            let set = set.open_with(KEY - 1, values, Deadline::NOW).unwrap();
            assert_eq!(set.values().unwrap(), values);
            assert!(set.status().unwrap().last_operation.is_some());
            set.remove().unwrap();
        }
    });
}

#[test]
fn a_set_whose_maker_gives_no_values_is_waited_for_with_an_end() {
    in_both_homes(|home| {
        let made = SysvSemaphores::create_in(home, KEY, 1).unwrap();
        let now = SysvSemaphores::create_with_in(home, KEY, &[1], Deadline::NOW).unwrap_err();
        assert!(now.is_would_block());
        let late = SysvSemaphores::create_with_in(home, KEY, &[1], SHORT).unwrap_err();
        assert!(late.is_timed_out(), "{late}");
        let remedy = match home.path() {
            None => format!("ipcrm -s {}", made.id()),
            Some(path) => format!("ginnel rm --namespace {} sysv-sem:id={}", path.display(), made.id()),
        };
        assert!(late.hint().unwrap().contains(&remedy), "{late}");

        let waiter = fork(|| {
            let set = SysvSemaphores::create_with_in(home, KEY, &[1], Deadline::NEVER).unwrap();
            assert_eq!(set.value(0).unwrap(), 4);
        });
        wait_blocked_in(waiter.pid(), libc::SYS_clock_nanosleep);
        made.set_value(0, 3).unwrap();
        made.post(0).unwrap();
        waiter.assert_ok();
        made.remove().unwrap();

        // A maker that cannot give its values leaves nothing behind.
        let refused = SysvSemaphores::create_with_in(home, KEY, &[40000], Deadline::NEVER).unwrap_err();
        assert_eq!(refused.errno_name(), "ERANGE");
        assert_eq!(other_objects(), "");
    });
}

#[test]
fn in_the_kernels_home_each_call_has_its_permission() {
    isolated(|| {
        let set = SysvSemaphores::options().create(true).mode(0o604).count(1).open(KEY).unwrap();
        unprivileged(|| {
            let set = SysvSemaphores::open(KEY).unwrap();
            assert_eq!(set.value(0).unwrap(), 0);
            set.wait_zero(0).unwrap();
            assert_eq!(set.post(0).unwrap_err().errno_name(), "EACCES");
            assert_eq!(set.set_value(0, 1).unwrap_err().errno_name(), "EACCES");
            assert_eq!(set.remove().unwrap_err().errno_name(), "EPERM");
            let refused = set.set(Change { mode: Some(0o777), ..Change::default() }).unwrap_err();
            assert!(refused.is_permission_denied() && refused.hint().is_some());
        })
        .assert_ok();
        set.set(Change { mode: Some(0o602), ..Change::default() }).unwrap();
        unprivileged(|| {
            let set = SysvSemaphores::open(KEY).unwrap();
            set.post(0).unwrap();
            assert_eq!(set.value(0).unwrap_err().errno_name(), "EACCES");
            assert_eq!(set.try_wait_zero(0).unwrap_err().errno_name(), "EACCES");
            // Anybody may see that it is there, and whose.
            let listed = SysvSemaphores::list().unwrap();
            assert_eq!(listed[0].status.permissions.mode, 0o602);
        })
        .assert_ok();
        set.set(Change { uid: Some(65534), gid: Some(65534), mode: Some(0o600) }).unwrap();
        let permissions = set.status().unwrap().permissions;
        assert_eq!((permissions.uid, permissions.gid, permissions.creator_uid), (65534, 65534, 0));
        unprivileged(|| SysvSemaphores::open(KEY).unwrap().remove().unwrap()).assert_ok();
    });
}

#[test]
fn in_a_user_space_home_to_use_is_to_read_and_to_write() {
    isolated(|| {
        let home = Namespace::options().create(true).mode(0o1777).at("/dev/shm/home").unwrap();
        let options = SysvSemaphores::options().namespace(&home).create(true).count(1);
        let set = options.mode(0o604).open(KEY).unwrap();
        for (mode, may_look) in [(0o604, true), (0o602, false)] {
            set.set(Change { mode: Some(mode), ..Change::default() }).unwrap();
            unprivileged(|| {
                let set = SysvSemaphores::open_in(&home, KEY).unwrap();
                for refused in
                    [set.post(0), set.try_wait_zero(0), set.value(0).map(drop), set.set_value(0, 1)]
                {
                    let refused = refused.unwrap_err();
                    assert_eq!(refused.errno_name(), "EACCES");
                    assert!(refused.hint().unwrap().contains("read and write"), "{refused}");
                }
                assert_eq!(set.status().is_ok(), may_look);
                assert_eq!(SysvSemaphores::list_in(&home).unwrap().len(), usize::from(may_look));
                assert_eq!(set.remove().unwrap_err().errno_name(), "EPERM");
                let refused = set.set(Change { mode: Some(0o777), ..Change::default() }).unwrap_err();
                assert!(refused.is_permission_denied() && refused.hint().is_some());
            })
            .assert_ok();
        }
        set.set(Change { mode: Some(0o606), ..Change::default() }).unwrap();
        unprivileged(|| SysvSemaphores::open_in(&home, KEY).unwrap().post(0).unwrap()).assert_ok();
        assert_eq!(set.value(0).unwrap(), 1);
        set.set(Change { uid: Some(65534), gid: Some(65534), mode: Some(0o600) }).unwrap();
        let permissions = set.status().unwrap().permissions;
        assert_eq!((permissions.uid, permissions.gid, permissions.creator_uid), (65534, 65534, 0));
        unprivileged(|| SysvSemaphores::open_in(&home, KEY).unwrap().remove().unwrap()).assert_ok();
    });
}

#[test]
fn a_program_in_c_is_the_other_end() {
    isolated(|| {
        run_ok(&mut peer(&["make", "3", "0"]));
        let set = SysvSemaphores::open(KEY).unwrap();
        assert_eq!(set.values().unwrap(), [3, 0]);

        // C waits for us.
        let mut waiter = Peer::start(&mut peer(&["op", "0:-3", "1:-1"]));
        wait_until("it waits", || set.waiting(1).unwrap() == 1);
        set.post(1).unwrap();
        assert_eq!(waiter.line(), "done");
        assert_eq!(set.last_pid(0).unwrap(), waiter.process.pid());

        // We wait for C.
        let ours = fork(|| set.wait(0).unwrap());
        wait_blocked_in(ours.pid(), libc::SYS_semtimedop);
        run_ok(&mut peer(&["op", "0:2"]));
        ours.assert_ok();

        // C holds with undo and is killed.
        let holder = Peer::holding(&mut peer(&["hold", "0:-1u"]));
        assert!(set.try_wait(0).unwrap_err().is_would_block());
        holder.process.kill();
        set.wait_deadline(0, Duration::from_secs(15)).unwrap();

        // We hold and C sees it.
        set.post(0).unwrap();
        let permit = set.acquire(&[(0, 1)]).unwrap();
        assert_eq!(run_ok(&mut peer(&["value", "0"])), "0\n");
        drop(permit);
        assert_eq!(run_ok(&mut peer(&["value", "0"])), "1\n");
        set.remove().unwrap();
    });
}

#[test]
fn undo_survives_exec() {
    isolated(|| {
        let set = SysvSemaphores::create_with(KEY, &[3], Deadline::NEVER).unwrap();
        let child = fork(|| {
            use std::os::unix::process::CommandExt;
            std::mem::forget(set.acquire(&[(0, 2)]).unwrap());
            panic!("{}", peer(&["value", "0"]).exec());
        });
        child.assert_ok();
        assert_eq!(set.value(0).unwrap(), 3);
    });
}

#[test]
fn ipcs_ipcmk_and_ipcrm_agree() {
    isolated(|| {
        let made = run_ok(Command::new("ipcmk").args(["-S", "3", "-p", "0640"]));
        let id: i32 = made.trim().rsplit(' ').next().unwrap().parse().unwrap();
        let set = SysvSemaphores::options().create(true).mode(0o606).count(2).open(KEY).unwrap();

        let listed = SysvSemaphores::list().unwrap();
        assert_eq!(listed.iter().map(|listed| listed.id).collect::<Vec<_>>(), [id, set.id()]);
        assert_eq!((listed[0].status.count, listed[0].status.permissions.mode), (3, 0o640));
        assert_eq!(listed[1].status, set.status().unwrap());

        let ipcs = run_ok(Command::new("ipcs").arg("-s"));
        for set in &listed {
            let key = format!("0x{:08x}", set.status.permissions.key.raw());
            let line = ipcs.lines().find(|line| line.starts_with(&key)).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let expected = [
                key.clone(),
                set.id.to_string(),
                "root".into(),
                format!("{:o}", set.status.permissions.mode),
                set.status.count.to_string(),
            ];
            assert_eq!(words, expected);
        }
        run_ok(Command::new("ipcrm").args(["-s", &id.to_string()]));
        assert!(SysvSemaphores::from_id(id).value(0).unwrap_err().is_removed());
        assert_eq!(SysvSemaphores::list().unwrap().len(), 1);
        set.remove().unwrap();
        assert_eq!(SysvSemaphores::list().unwrap(), []);
        assert!(SysvSemaphores::open(Key::new(KEY)).unwrap_err().is_not_found());
    });
}

#[cfg(feature = "tokio")]
#[test]
fn async_forms_wait_and_lose_nothing_when_dropped() {
    use ginnel::tokio::Polled;
    in_both_homes(|home| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let set = Polled::new(one(home, 0));
            assert!(tokio::time::timeout(SHORT, set.wait(0)).await.is_err());
            let (permit, posted) = tokio::join!(set.acquire(&[(0, 2)]), async {
                tokio::task::yield_now().await;
                set.get_ref().operate(&[Operation::add(0, 2)])
            });
            posted.unwrap();
            set.wait_zero(0).await.unwrap();
            drop(permit.unwrap());
            set.operate(&[Operation::take(0, 2)]).await.unwrap();
            assert_eq!(set.get_ref().value(0).unwrap(), 0);
        });
    });
}

#[test]
fn the_maker_of_a_private_set_may_use_it() {
    in_both_homes(|home| {
        unprivileged(|| {
            let set = SysvSemaphores::private_in(home, 1).unwrap();
            set.post(0).unwrap();
            assert_eq!(set.value(0).unwrap(), 1);
        })
        .assert_ok();
    });
}

#[test]
fn an_owner_may_change_what_its_mode_does_not_let_him_read() {
    in_both_homes(|home| {
        unprivileged(|| {
            let set = SysvSemaphores::private_in(home, 1).unwrap();
            set.set(Change { mode: Some(0o200), ..Change::default() }).unwrap();
            assert_eq!(set.status().unwrap_err().errno_name(), "EACCES");
            set.set(Change { mode: Some(0o640), ..Change::default() }).unwrap();
            let permissions = set.status().unwrap().permissions;
            assert_eq!((permissions.mode, permissions.uid), (0o640, permissions.creator_uid));
        })
        .assert_ok();
    });
}
