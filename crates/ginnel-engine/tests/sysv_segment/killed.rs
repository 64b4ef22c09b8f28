//! Processes killed anywhere in an attach or a detach.

use super::*;

/// Kills a process before and after each system call of `work`, or at every so many instructions, one process per kill:
/// how many.
fn kill_everywhere(
    every: Option<usize>,
    prepare: impl Fn() -> i32,
    work: impl Fn(i32),
    check: impl Fn(i32, usize),
) -> usize {
    for at in (0..).step_by(every.unwrap_or(1)) {
        let id = prepare();
        let stepped = Stepped::start(|| work(id));
        let inside = (0..at).all(|_| if every.is_some() { stepped.step() } else { stepped.step_call() });
        stepped.kill();
        check(id, at);
        if !inside {
            return at;
        }
    }
    unreachable!("the test's own deadline comes first")
}

#[test]
fn killed_anywhere_in_an_attach_or_a_detach_nothing_stays_attached() {
    isolated(|| attach_and_be_killed(None));
}

#[test]
fn killed_at_any_instruction_of_an_attach_or_a_detach_nothing_stays_attached() {
    isolated_for(common::limit(), || attach_and_be_killed(Some(common::stride_or(4999))));
}

fn attach_and_be_killed(every: Option<usize>) {
    {
        let home = home();
        let before = pages_used();
        // Warmed up: what is done once a process is not this test's business.
        let warm = SysvSegment::get(&home, IPC_PRIVATE, 4096, 0o600).unwrap();
        SysvSegment::detach(SysvSegment::attach(&home, warm, 0, 0).unwrap()).unwrap();
        SysvSegment::remove(&home, warm).unwrap();
        let kills = kill_everywhere(
            every,
            || SysvSegment::get(&home, 7, 4096, IPC_CREAT | 0o600).unwrap(),
            |id| {
                let address = SysvSegment::attach(&home, id, 0, 0).unwrap();
                SysvSegment::remove(&home, id).unwrap();
                SysvSegment::detach(address).unwrap();
            },
            |id, at| {
                match SysvSegment::status(&home, id) {
                    Ok(status) => assert_eq!((status.attached, status.mode), (0, 0o600), "killed at {at}"),
                    Err(errno) => assert_eq!(errno, Errno::INVAL, "killed at {at}"),
                }
                match SysvSegment::remove(&home, id) {
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(errno) => panic!("{errno}"),
                }
                assert_eq!(SysvSegment::get(&home, 7, 0, 0), Err(Errno::NOENT));
                assert_eq!(home.list(Kind::SysvSegment).unwrap(), []);
                assert_eq!(pages_used(), before);
            },
        );
        println!("{kills} kills");
        let how = if every.is_some() { "" } else { " (by system call)" };
        crate::common::crash(&format!("shmat, IPC_RMID, shmdt{how}"));
        assert!(kills > if every.is_some() { 3 } else { 50 });
    }
}
