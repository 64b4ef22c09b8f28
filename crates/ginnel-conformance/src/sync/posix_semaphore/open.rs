//! `sem_open(3)`, `sem_close(3)`, `sem_unlink(3)`.

use libc::{O_CREAT, O_EXCL, O_RDWR};

use super::{NAME, semaphore, value};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, exec_sleeper, fails, wait_exec};
use crate::home::PosixSemaphores;

const OPEN: &str = "sem_open(3)";
const UNLINK: &str = "sem_unlink(3)";
const NEW: i32 = O_CREAT | O_EXCL;

fn no_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

pub(super) fn clauses<H: PosixSemaphores>() -> Vec<Clause<H>> {
    let mut all = names();
    all.extend(rights());
    all
}

fn names<H: PosixSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "same_name", "a name leads every process to the same semaphore", |h: &H| {
            let mine = semaphore(h, 3);
            elsewhere(|| {
                let own = h.sem_open(NAME, 0, 0, 0).unwrap();
                assert_eq!(value(h, own), 3);
                h.sem_post(own).unwrap();
            });
            assert_eq!(value(h, mine), 4);
        }),
        clause(OPEN, "unknown_name", "a name without a semaphore is ENOENT without O_CREAT", |h: &H| {
            fails(Errno::NOENT, h.sem_open(NAME, 0, 0, 0));
            fails(Errno::NOENT, h.sem_open(NAME, O_EXCL, 0o600, 1));
        }),
        clause(OPEN, "exclusive", "O_CREAT with O_EXCL is EEXIST where there is one", |h: &H| {
            semaphore(h, 1);
            fails(Errno::EXIST, h.sem_open(NAME, NEW, 0o600, 1));
        }),
        clause(
            OPEN,
            "existing_keeps_its_value",
            "of an existing one mode and value are not asked",
            |h: &H| {
                semaphore(h, 5);
                let again = h.sem_open(NAME, O_CREAT, 0o666, 9).unwrap();
                assert_eq!(value(h, again), 5);
            },
        ),
        clause(OPEN, "first_value", "a new one has the value asked for", |h: &H| {
            for (number, first) in [0, 1, 77, i32::MAX as u32].into_iter().enumerate() {
                let made = h.sem_open(&format!("/value{number}"), NEW, 0o600, first).unwrap();
                assert_eq!(value(h, made) as u32, first);
            }
        }),
        clause(
            OPEN,
            "value_too_high",
            "a value above SEM_VALUE_MAX is EINVAL, and nothing is made",
            |h: &H| {
                fails(Errno::INVAL, h.sem_open(NAME, NEW, 0o600, i32::MAX as u32 + 1));
                fails(Errno::INVAL, h.sem_open(NAME, NEW, 0o600, u32::MAX));
                fails(Errno::NOENT, h.sem_open(NAME, 0, 0, 0));
            },
        ),
        clause(OPEN, "value_of_existing", "of an existing one not even that is asked", |h: &H| {
            semaphore(h, 2);
            assert_eq!(value(h, h.sem_open(NAME, O_CREAT, 0o600, u32::MAX).unwrap()), 2);
        }),
        clause(OPEN, "only_slash", "the slash alone is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.sem_open("/", NEW, 0o600, 1));
            fails(Errno::INVAL, h.sem_open("", NEW, 0o600, 1));
        }),
        clause(OPEN, "second_slash", "a name with another slash is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.sem_open("/a/b", NEW, 0o600, 1));
            fails(Errno::INVAL, h.sem_open("/a/", 0, 0, 0));
        }),
        clause(
            OPEN,
            "slash_or_not",
            "a slash in front, or several, or none: it is the same name",
            |h: &H| {
                semaphore(h, 6);
                assert_eq!(value(h, h.sem_open("ginnel", 0, 0, 0).unwrap()), 6);
                assert_eq!(value(h, h.sem_open("//ginnel", 0, 0, 0).unwrap()), 6);
            },
        ),
        clause(OPEN, "long_name", "251 bytes after the slash are a name, 252 are ENAMETOOLONG", |h: &H| {
            let name = |len| format!("/{}", "n".repeat(len));
            h.sem_open(&name(251), NEW, 0o600, 1).unwrap();
            for len in [252, 255] {
                fails(Errno::NAMETOOLONG, h.sem_open(&name(len), NEW, 0o600, 1));
                fails(Errno::NAMETOOLONG, h.sem_open(&name(len), 0, 0, 0));
            }
        }),
        clause(OPEN, "opened_twice", "a process that opens it again has the same one", |h: &H| {
            let one = semaphore(h, 1);
            let two = h.sem_open(NAME, 0, 0, 0).unwrap();
            h.sem_post(two).unwrap();
            assert_eq!((value(h, one), value(h, two)), (2, 2));
            h.sem_close(two).unwrap();
            h.sem_post(one).unwrap();
            assert_eq!(value(h, one), 3);
        }),
        clause(OPEN, "flags_not_asked", "other flags say nothing", |h: &H| {
            semaphore(h, 1);
            let own = h.sem_open(NAME, O_RDWR, 0, 0).unwrap();
            h.sem_trywait(own).unwrap();
        }),
        clause(
            "sem_close(3)",
            "close_and_open",
            "a closed one keeps its value for who opens it next",
            |h: &H| {
                let mine = semaphore(h, 1);
                h.sem_post(mine).unwrap();
                h.sem_close(mine).unwrap();
                assert_eq!(value(h, h.sem_open(NAME, 0, 0, 0).unwrap()), 2);
            },
        ),
        clause("sem_overview(7)", "persistence", "it outlives every process", |h: &H| {
            elsewhere(|| h.sem_post(semaphore(h, 1)).unwrap());
            assert_eq!(value(h, h.sem_open(NAME, 0, 0, 0).unwrap()), 2);
        }),
        clause(UNLINK, "unlink", "unlinking takes the name at once; who has it open goes on", |h: &H| {
            let mine = semaphore(h, 1);
            h.sem_unlink(NAME).unwrap();
            fails(Errno::NOENT, h.sem_open(NAME, 0, 0, 0));
            h.sem_wait(mine).unwrap();
            h.sem_post(mine).unwrap();
            assert_eq!(value(h, mine), 1);
        }),
        clause(UNLINK, "unlink_and_make", "one made again under the name is another one", |h: &H| {
            let old = semaphore(h, 1);
            h.sem_unlink(NAME).unwrap();
            let new = semaphore(h, 9);
            h.sem_post(old).unwrap();
            assert_eq!((value(h, old), value(h, new)), (2, 9));
        }),
        clause(UNLINK, "unlink_unknown", "a name without a semaphore is ENOENT", |h: &H| {
            fails(Errno::NOENT, h.sem_unlink(NAME));
            semaphore(h, 1);
            h.sem_unlink(NAME).unwrap();
            fails(Errno::NOENT, h.sem_unlink(NAME));
        }),
        clause(UNLINK, "unlink_long_name", "a name too long is ENAMETOOLONG", |h: &H| {
            fails(Errno::NAMETOOLONG, h.sem_unlink(&format!("/{}", "n".repeat(252))));
        }),
        clause(UNLINK, "unlink_malformed", "a name that is none is ENOENT", |h: &H| {
            fails(Errno::NOENT, h.sem_unlink("/"));
            fails(Errno::NOENT, h.sem_unlink("/a/b"));
        }),
        clause(OPEN, "raced", "of many that make it exclusively one succeeds", |h: &H| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    ginnel_testkit::fork(|| match h.sem_open(NAME, NEW, 0o600, 10) {
                        Ok(own) => h.sem_post(own).unwrap(),
                        Err(errno) => assert_eq!(errno, Errno::EXIST),
                    })
                })
                .collect();
            racers.into_iter().for_each(|racer| racer.assert_ok());
            assert_eq!(value(h, h.sem_open(NAME, 0, 0, 0).unwrap()), 11);
        }),
        clause(OPEN, "raced_to_make_or_open", "of many that make or open it all have the same", |h: &H| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    ginnel_testkit::fork(|| {
                        h.sem_post(h.sem_open(NAME, O_CREAT, 0o600, 10).unwrap()).unwrap();
                    })
                })
                .collect();
            racers.into_iter().for_each(|racer| racer.assert_ok());
            assert_eq!(value(h, h.sem_open(NAME, 0, 0, 0).unwrap()), 18);
        }),
    ]
}

fn rights<H: PosixSemaphores>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "denied", "opening without read and write permission is EACCES", |h: &H| {
            no_umask();
            semaphore(h, 1);
            h.sem_open("/readable", NEW, 0o644, 1).unwrap();
            h.sem_open("/writable", NEW, 0o622, 1).unwrap();
            as_other(BOB, BOB, || {
                for name in [NAME, "/readable", "/writable"] {
                    fails(Errno::ACCESS, h.sem_open(name, 0, 0, 0));
                }
            });
        }),
        clause(OPEN, "shared", "with both, another user waits and posts", |h: &H| {
            no_umask();
            let mine = h.sem_open(NAME, NEW, 0o666, 1).unwrap();
            as_other(BOB, BOB, || {
                let own = h.sem_open(NAME, 0, 0, 0).unwrap();
                h.sem_wait(own).unwrap();
                h.sem_post(own).unwrap();
                h.sem_post(own).unwrap();
            });
            assert_eq!(value(h, mine), 2);
        }),
        clause(OPEN, "umask", "the umask takes from the mode", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            h.sem_open(NAME, NEW, 0o666, 1).unwrap();
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.sem_open(NAME, 0, 0, 0)));
        }),
        clause(OPEN, "group_bits", "the group's bits are for the owner's group", |h: &H| {
            as_other(ALICE, ALICE, || {
                no_umask();
                h.sem_open(NAME, NEW, 0o660, 1).unwrap();
            });
            as_other(BOB, ALICE, || h.sem_post(h.sem_open(NAME, 0, 0, 0).unwrap()).unwrap());
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.sem_open(NAME, 0, 0, 0)));
        }),
        clause(UNLINK, "unlink_denied", "unlinking another user's is EACCES", |h: &H| {
            as_other(ALICE, ALICE, || {
                no_umask();
                h.sem_open(NAME, NEW, 0o666, 1).unwrap();
            });
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.sem_unlink(NAME)));
            h.sem_open(NAME, 0, 0, 0).unwrap();
            as_other(ALICE, ALICE, || h.sem_unlink(NAME).unwrap());
        }),
        clause("sem_overview(7)", "forked", "a fork inherits it open", |h: &H| {
            let mine = semaphore(h, 0);
            elsewhere(|| {
                h.sem_post(mine).unwrap();
                h.sem_close(mine).unwrap();
            });
            h.sem_wait(mine).unwrap();
        }),
        clause("sem_close(3)", "executed", "exec closes it, and changes no value", |h: &H| {
            let mine = semaphore(h, 1);
            let child = ginnel_testkit::fork(|| {
                h.sem_wait(mine).unwrap();
                exec_sleeper();
            });
            wait_exec(child.pid());
            assert_eq!(value(h, mine), 0);
            child.kill();
            child.wait();
            assert_eq!(value(h, mine), 0, "what a dead process took stays taken");
        }),
        clause(OPEN, "many_files", "with no descriptor left it is EMFILE, and nothing is made", |h: &H| {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let full = Rlimit { current: Some(3), maximum: Some(1000) };
            setrlimit(Resource::Nofile, full).unwrap();
            fails(Errno::MFILE, h.sem_open(NAME, NEW, 0o600, 1));
            setrlimit(Resource::Nofile, Rlimit { current: Some(1000), ..full }).unwrap();
            fails(Errno::NOENT, h.sem_open(NAME, 0, 0, 0));
        }),
    ]
}
