//! `mq_open(3)`, `mq_close(3)`, `mq_unlink(3)`, `mq_getattr(3)`.

use libc::{O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

use super::{NAME, NEW, count, drain, put, queue, take};
use crate::Errno;
use crate::clause::{Clause, clause};
use crate::help::{ALICE, BOB, as_other, elsewhere, fails};
use crate::home::PosixQueues;

const OPEN: &str = "mq_open(3)";
const UNLINK: &str = "mq_unlink(3)";
const ATTR: &str = "mq_getattr(3)";

pub(super) fn clauses<H: PosixQueues>() -> Vec<Clause<H>> {
    let mut all = names();
    all.extend(opening());
    all.extend(rights());
    all.extend(attributes());
    all
}

fn names<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "same_name", "a name leads every process to the same queue", |h: &H| {
            let mine = queue(h, 2);
            elsewhere(|| put(h, h.mq_open(NAME, O_WRONLY, 0, None).unwrap(), &[(3, "stranger")]));
            assert_eq!(take(h, mine), Ok((3, "stranger".into())));
        }),
        clause(OPEN, "unknown_name", "a name without a queue is ENOENT without O_CREAT", |h: &H| {
            fails(Errno::NOENT, h.mq_open(NAME, O_RDWR, 0, None));
            fails(Errno::NOENT, h.mq_open(NAME, O_RDWR | O_EXCL, 0, None));
        }),
        clause(OPEN, "exclusive", "O_CREAT with O_EXCL is EEXIST where there is a queue", |h: &H| {
            queue(h, 1);
            fails(Errno::EXIST, h.mq_open(NAME, NEW, 0o600, None));
            h.mq_open(NAME, O_CREAT | O_RDWR, 0o600, None).unwrap();
        }),
        clause(OPEN, "no_slash", "a name without a slash in front is EINVAL", |h: &H| {
            fails(Errno::INVAL, h.mq_open("ginnel", O_CREAT | O_RDWR, 0o600, None));
            fails(Errno::INVAL, h.mq_open("", O_CREAT | O_RDWR, 0o600, None));
        }),
        clause(OPEN, "two_slashes", "a name with another slash is EACCES", |h: &H| {
            fails(Errno::ACCESS, h.mq_open("/a/b", O_CREAT | O_RDWR, 0o600, None));
            fails(Errno::ACCESS, h.mq_open("//a", O_CREAT | O_RDWR, 0o600, None));
        }),
        clause(OPEN, "only_slash", "the slash alone is ENOENT", |h: &H| {
            fails(Errno::NOENT, h.mq_open("/", O_CREAT | O_RDWR, 0o600, None));
            fails(Errno::NOENT, h.mq_open("/", O_RDWR, 0, None));
        }),
        clause(OPEN, "dots", "the names of directories are EACCES", |h: &H| {
            fails(Errno::ACCESS, h.mq_open("/.", O_CREAT | O_RDWR, 0o600, None));
            fails(Errno::ACCESS, h.mq_open("/..", O_CREAT | O_RDWR, 0o600, None));
        }),
        clause(OPEN, "long_name", "255 bytes after the slash are a name, 256 are ENAMETOOLONG", |h: &H| {
            let name = format!("/{}", "n".repeat(255));
            h.mq_open(&name, NEW, 0o600, None).unwrap();
            h.mq_unlink(&name).unwrap();
            fails(Errno::NAMETOOLONG, h.mq_open(&format!("{name}n"), NEW, 0o600, None));
        }),
        clause(OPEN, "any_bytes", "every other byte may be in a name", |h: &H| {
            for name in ["/ ", "/.hidden", "/ü\n*?", "/-"] {
                h.mq_open(name, NEW, 0o600, None).unwrap();
                fails(Errno::EXIST, h.mq_open(name, NEW, 0o600, None));
                h.mq_unlink(name).unwrap();
            }
        }),
        clause(UNLINK, "unlink", "unlinking takes the name at once; who has it open goes on", |h: &H| {
            let mine = queue(h, 2);
            put(h, mine, &[(0, "kept")]);
            h.mq_unlink(NAME).unwrap();
            fails(Errno::NOENT, h.mq_open(NAME, O_RDWR, 0, None));
            put(h, mine, &[(0, "more")]);
            assert_eq!(drain(h, mine), "keptmore");
        }),
        clause(UNLINK, "unlink_and_make", "a queue made again under the name is another one", |h: &H| {
            let old = queue(h, 2);
            h.mq_unlink(NAME).unwrap();
            let new = queue(h, 3);
            put(h, old, &[(0, "old")]);
            assert_eq!((count(h, old), count(h, new)), (1, 0));
            assert_eq!(h.mq_getattr(new).unwrap().maxmsg, 3);
        }),
        clause(UNLINK, "unlink_unknown", "a name without a queue is ENOENT", |h: &H| {
            fails(Errno::NOENT, h.mq_unlink(NAME));
            queue(h, 1);
            h.mq_unlink(NAME).unwrap();
            fails(Errno::NOENT, h.mq_unlink(NAME));
        }),
        clause(UNLINK, "unlink_long_name", "a name too long is ENAMETOOLONG", |h: &H| {
            fails(Errno::NAMETOOLONG, h.mq_unlink(&format!("/{}", "n".repeat(256))));
        }),
        clause(UNLINK, "unlink_no_slash", "a name without a slash is EINVAL", |h: &H| {
            queue(h, 1);
            fails(Errno::INVAL, h.mq_unlink("ginnel"));
            h.mq_open(NAME, O_RDWR, 0, None).unwrap();
        }),
        clause(UNLINK, "unlink_gone", "its messages are gone with its last user", |h: &H| {
            let mine = queue(h, 2);
            put(h, mine, &[(0, "gone")]);
            h.mq_unlink(NAME).unwrap();
            h.mq_close(mine).unwrap();
            assert_eq!(count(h, queue(h, 2)), 0);
        }),
        clause("mq_overview(7)", "persistence", "a queue and its messages outlive every process", |h: &H| {
            elsewhere(|| put(h, queue(h, 2), &[(5, "left")]));
            assert_eq!(take(h, h.mq_open(NAME, O_RDONLY, 0, None).unwrap()), Ok((5, "left".into())));
        }),
    ]
}

fn opening<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "read_only", "O_RDONLY receives; sending is EBADF", |h: &H| {
            put(h, queue(h, 2), &[(1, "x")]);
            let reader = h.mq_open(NAME, O_RDONLY, 0, None).unwrap();
            fails(Errno::BADF, h.mq_timedsend(reader, b"y", 0, None));
            assert_eq!(take(h, reader), Ok((1, "x".into())));
        }),
        clause(OPEN, "write_only", "O_WRONLY sends; receiving is EBADF", |h: &H| {
            let both = queue(h, 2);
            let writer = h.mq_open(NAME, O_WRONLY, 0, None).unwrap();
            put(h, writer, &[(1, "x")]);
            fails(Errno::BADF, take(h, writer));
            assert_eq!(count(h, both), 1);
        }),
        clause(OPEN, "mode_of_no_kind", "an access mode that there is not is EINVAL", |h: &H| {
            queue(h, 1);
            fails(Errno::INVAL, h.mq_open(NAME, libc::O_ACCMODE, 0, None));
        }),
        clause(OPEN, "limits", "the attributes say how many messages and how long ones", |h: &H| {
            let mine = h.mq_open(NAME, NEW, 0o600, Some((3, 5))).unwrap();
            let attr = h.mq_getattr(mine).unwrap();
            assert_eq!((attr.maxmsg, attr.msgsize, attr.curmsgs, attr.flags), (3, 5, 0, 0));
            put(h, mine, &[(0, "five5"), (0, ""), (0, "x")]);
            fails(Errno::TIMEDOUT, h.mq_timedsend(mine, b"", 0, Some(std::time::Duration::ZERO)));
        }),
        clause(OPEN, "default_limits", "without them there are 10 of 8,192 bytes", |h: &H| {
            let attr = h.mq_getattr(h.mq_open(NAME, NEW, 0o600, None).unwrap()).unwrap();
            assert_eq!((attr.maxmsg, attr.msgsize), (10, 8192));
        }),
        clause(OPEN, "limits_positive", "either of them below 1 is EINVAL, and nothing is made", |h: &H| {
            for limits in [(0, 8), (8, 0), (-1, 8), (8, -1), (i64::MIN, i64::MIN)] {
                fails(Errno::INVAL, h.mq_open(NAME, NEW, 0o600, Some(limits)));
            }
            fails(Errno::NOENT, h.mq_open(NAME, O_RDWR, 0, None));
        }),
        clause(OPEN, "limits_absurd", "so is what no system has", |h: &H| {
            fails(Errno::INVAL, h.mq_open(NAME, NEW, 0o600, Some((i64::MAX, 8))));
            fails(Errno::INVAL, h.mq_open(NAME, NEW, 0o600, Some((8, i64::MAX))));
            fails(Errno::NOENT, h.mq_open(NAME, O_RDWR, 0, None));
        }),
        clause(OPEN, "limits_of_existing", "of an existing queue they are not asked", |h: &H| {
            queue(h, 4);
            let again = h.mq_open(NAME, O_CREAT | O_RDWR, 0o600, Some((9, 99))).unwrap();
            let attr = h.mq_getattr(again).unwrap();
            assert_eq!((attr.maxmsg, attr.msgsize), (4, 16));
        }),
        clause(OPEN, "nonblocking", "O_NONBLOCK belongs to what was opened with it", |h: &H| {
            let waits = queue(h, 1);
            let never = h.mq_open(NAME, O_RDWR | O_NONBLOCK, 0, None).unwrap();
            assert_eq!(h.mq_getattr(never).unwrap().flags, O_NONBLOCK.into());
            assert_eq!(h.mq_getattr(waits).unwrap().flags, 0);
            fails(Errno::AGAIN, h.mq_timedreceive(never, &mut [0; 16], None));
            put(h, waits, &[(0, "x")]);
            fails(Errno::AGAIN, h.mq_timedsend(never, b"y", 0, None));
        }),
        clause(OPEN, "opened_twice", "each opening gives a descriptor of its own", |h: &H| {
            let one = queue(h, 2);
            let two = h.mq_open(NAME, O_RDWR, 0, None).unwrap();
            assert_ne!(one, two);
            h.mq_close(one).unwrap();
            put(h, two, &[(0, "x")]);
        }),
        clause("mq_close(3)", "close", "a closed descriptor is EBADF in every call", |h: &H| {
            let mine = queue(h, 1);
            h.mq_close(mine).unwrap();
            fails(Errno::BADF, h.mq_timedsend(mine, b"x", 0, None));
            fails(Errno::BADF, take(h, mine));
            fails(Errno::BADF, h.mq_getattr(mine));
            fails(Errno::BADF, h.mq_setattr(mine, 0));
            fails(Errno::BADF, h.mq_notify(mine, None));
            fails(Errno::BADF, h.mq_close(mine));
        }),
        clause("mq_close(3)", "close_nothing", "so is one that never was", |h: &H| {
            fails(Errno::BADF, h.mq_close(-1));
            fails(Errno::BADF, h.mq_getattr(-1));
            fails(Errno::BADF, h.mq_timedsend(9999, b"x", 0, None));
        }),
        clause("mq_send(3)", "not_a_queue", "another file's descriptor is EBADF", |h: &H| {
            let (reader, _writer) = std::io::pipe().unwrap();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
            fails(Errno::BADF, h.mq_timedsend(fd, b"x", 0, None));
            fails(Errno::BADF, take(h, fd));
            fails(Errno::BADF, h.mq_getattr(fd));
            fails(Errno::BADF, h.mq_notify(fd, None));
        }),
    ]
}

fn rights<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(OPEN, "denied", "opening for what the mode does not grant is EACCES", |h: &H| {
            h.mq_open(NAME, NEW, 0o644, None).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.mq_open(NAME, O_RDWR, 0, None));
                fails(Errno::ACCESS, h.mq_open(NAME, O_WRONLY, 0, None));
                h.mq_open(NAME, O_RDONLY, 0, None).unwrap();
            });
        }),
        clause(OPEN, "denied_all", "mode 0600 is for the owner alone", |h: &H| {
            queue(h, 1);
            as_other(BOB, BOB, || {
                for flags in [O_RDWR, O_WRONLY, O_RDONLY] {
                    fails(Errno::ACCESS, h.mq_open(NAME, flags, 0, None));
                }
            });
        }),
        clause(OPEN, "write_permission_alone", "write permission alone lets send", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::empty());
            let mine = h.mq_open(NAME, NEW, 0o622, Some((2, 16))).unwrap();
            as_other(BOB, BOB, || {
                fails(Errno::ACCESS, h.mq_open(NAME, O_RDONLY, 0, None));
                put(h, h.mq_open(NAME, O_WRONLY, 0, None).unwrap(), &[(1, "x")]);
            });
            assert_eq!(take(h, mine), Ok((1, "x".into())));
        }),
        clause(OPEN, "shared", "what the mode grants to everybody another user may do", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::empty());
            let mine = h.mq_open(NAME, NEW, 0o666, Some((2, 16))).unwrap();
            as_other(BOB, BOB, || put(h, h.mq_open(NAME, O_RDWR, 0, None).unwrap(), &[(1, "bob's")]));
            assert_eq!(take(h, mine), Ok((1, "bob's".into())));
        }),
        clause(OPEN, "umask", "the umask takes from the mode", |h: &H| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            h.mq_open(NAME, NEW, 0o666, None).unwrap();
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.mq_open(NAME, O_RDONLY, 0, None)));
        }),
        clause(OPEN, "group_bits", "the group's bits are for the owner's group", |h: &H| {
            as_other(ALICE, ALICE, || {
                rustix::process::umask(rustix::fs::Mode::empty());
                h.mq_open(NAME, NEW, 0o640, None).unwrap();
            });
            as_other(BOB, ALICE, || {
                h.mq_open(NAME, O_RDONLY, 0, None).unwrap();
                fails(Errno::ACCESS, h.mq_open(NAME, O_RDWR, 0, None));
            });
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.mq_open(NAME, O_RDONLY, 0, None)));
        }),
        clause(
            OPEN,
            "checked_when_opened",
            "an open queue stays open to who became another user",
            |h: &H| {
                let mine = queue(h, 1);
                as_other(BOB, BOB, || put(h, mine, &[(1, "inherited")]));
                assert_eq!(take(h, mine), Ok((1, "inherited".into())));
            },
        ),
        clause(UNLINK, "unlink_denied", "unlinking another user's queue is EACCES", |h: &H| {
            as_other(ALICE, ALICE, || {
                rustix::process::umask(rustix::fs::Mode::empty());
                h.mq_open(NAME, NEW, 0o666, None).unwrap();
            });
            as_other(BOB, BOB, || fails(Errno::ACCESS, h.mq_unlink(NAME)));
            h.mq_open(NAME, O_RDWR, 0, None).unwrap();
            as_other(ALICE, ALICE, || h.mq_unlink(NAME).unwrap());
        }),
        clause(OPEN, "many_files", "with no descriptor left it is EMFILE, and nothing is made", |h: &H| {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let full = Rlimit { current: Some(3), maximum: Some(1000) };
            setrlimit(Resource::Nofile, full).unwrap();
            fails(Errno::MFILE, h.mq_open(NAME, NEW, 0o600, None));
            setrlimit(Resource::Nofile, Rlimit { current: Some(1000), ..full }).unwrap();
            fails(Errno::NOENT, h.mq_open(NAME, O_RDWR, 0, None));
        }),
    ]
}

fn attributes<H: PosixQueues>() -> Vec<Clause<H>> {
    vec![
        clause(ATTR, "getattr", "mq_curmsgs counts what is in the queue", |h: &H| {
            let mine = queue(h, 3);
            put(h, mine, &[(0, "a"), (9, "b")]);
            assert_eq!(count(h, mine), 2);
            take(h, mine).unwrap();
            assert_eq!(count(h, mine), 1);
            assert_eq!(h.mq_getattr(mine).unwrap().maxmsg, 3);
        }),
        clause(ATTR, "setattr", "mq_setattr sets O_NONBLOCK and gives what was before", |h: &H| {
            let mine = queue(h, 1);
            put(h, mine, &[(0, "x")]);
            let old = h.mq_setattr(mine, O_NONBLOCK.into()).unwrap();
            assert_eq!((old.flags, old.maxmsg, old.msgsize, old.curmsgs), (0, 1, 16, 1));
            fails(Errno::AGAIN, h.mq_timedsend(mine, b"y", 0, None));
            assert_eq!(h.mq_setattr(mine, 0).unwrap().flags, O_NONBLOCK.into());
            assert_eq!(h.mq_getattr(mine).unwrap().flags, 0);
        }),
        clause(ATTR, "setattr_other_flags", "any other flag is EINVAL", |h: &H| {
            let mine = queue(h, 1);
            fails(Errno::INVAL, h.mq_setattr(mine, 1));
            fails(Errno::INVAL, h.mq_setattr(mine, (O_NONBLOCK | O_RDWR).into()));
            fails(Errno::INVAL, h.mq_setattr(mine, -1));
            assert_eq!(h.mq_getattr(mine).unwrap().flags, 0);
        }),
        clause(
            ATTR,
            "setattr_is_the_openings",
            "it is set for all who share the opening, and for no other",
            |h: &H| {
                let mine = queue(h, 1);
                let other = h.mq_open(NAME, O_RDWR, 0, None).unwrap();
                elsewhere(|| _ = h.mq_setattr(mine, O_NONBLOCK.into()).unwrap());
                assert_eq!(h.mq_getattr(mine).unwrap().flags, O_NONBLOCK.into());
                assert_eq!(h.mq_getattr(other).unwrap().flags, 0);
            },
        ),
    ]
}
