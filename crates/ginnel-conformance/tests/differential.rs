//! Two homes, the same random operations, every result compared.
//!
//! `GINNEL_SEED` replays; `GINNEL_OPERATIONS` (in one process) and `GINNEL_LOCKSTEP` (with several) lengthen: `just
//! differential`.

use std::time::{Duration, Instant};

use ginnel_conformance::differential::{
    Difference, Kind, Messages, Queues, Segments, Semaphores, Sets, lockstep, stretch,
};
use ginnel_conformance::home::Home;
use ginnel_conformance::kernel::Kernel;
use ginnel_testkit::{Exit, fork, isolated_for};

const WORKERS: usize = 4;
/// How many operations CI does in one process, and how many with several.
const SHORT: u64 = 20_000;
const SHORT_LOCKSTEP: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// A seed, and how many operations.
fn asked(name: &str, short: u64) -> (u64, u64) {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let clock = since.map_or(1, |time| time.as_millis()) as u64;
    (number("GINNEL_SEED").unwrap_or(clock % 1_000_000), number(name).unwrap_or(short))
}

fn limit() -> Duration {
    let asked = number("GINNEL_OPERATIONS").or(number("GINNEL_LOCKSTEP"));
    Duration::from_secs(asked.map_or(300, |_| 100_000))
}

/// In a process with a single thread: a notice is a signal to the process, and no other thread must have it.
fn alone(act: impl FnOnce()) {
    assert_eq!(fork(act).wait_within(limit()), Exit::Code(0));
}

fn report<A: Home, B: Home, K: Kind<A>>(
    how: &str,
    (seed, count): (u64, u64),
    run: impl FnOnce() -> Result<(), Box<Difference>>,
) {
    let start = Instant::now();
    if let Err(difference) = run() {
        panic!("{difference}");
    }
    let (name, time) = (K::NAME, start.elapsed().as_secs_f64());
    println!(
        "{name}, {} and {}, {how}: {count} operations of seed {seed}, no difference, {time:.1} s",
        A::NAME,
        B::NAME
    );
}

fn in_one_process<A: Home, B: Home, K: Kind<A> + Kind<B>>(a: &A, b: &B) {
    let asked = asked("GINNEL_OPERATIONS", SHORT);
    report::<A, B, K>("one process", asked, || stretch::<K, A, B>(a, b, asked.0, asked.1));
}

fn in_lockstep<A: Home, B: Home, K: Kind<A> + Kind<B>>(a: &A, b: &B) {
    let asked = asked("GINNEL_LOCKSTEP", SHORT_LOCKSTEP);
    let how = format!("{WORKERS} processes in lockstep");
    report::<A, B, K>(&how, asked, || lockstep::<K, A, B>(a, b, asked.0, asked.1, WORKERS));
}

/// The harness sees no difference where there is none: the kernel against itself.
mod kernel_and_kernel {
    use super::*;

    fn both<K: Kind<Kernel>>() {
        alone(|| in_one_process::<Kernel, Kernel, K>(&Kernel::apart(1), &Kernel::apart(2)));
        alone(|| in_lockstep::<Kernel, Kernel, K>(&Kernel::apart(3), &Kernel::apart(4)));
    }

    #[test]
    fn sysv_queues() {
        isolated_for(limit(), both::<Messages>);
    }

    #[test]
    fn sysv_semaphores() {
        isolated_for(limit(), both::<Sets>);
    }

    #[test]
    fn sysv_memory() {
        isolated_for(limit(), both::<Segments>);
    }

    #[test]
    fn posix_queues() {
        isolated_for(limit(), both::<Queues>);
    }

    #[test]
    fn posix_semaphores() {
        isolated_for(limit(), both::<Semaphores>);
    }
}

/// It does see one where there is one: a home that is wrong in a way that only some operations show.
mod kernel_and_a_faulty_one {
    use ginnel_conformance::Result;
    use ginnel_conformance::home::{Owner, QueueStatus, SysvMessages};

    use super::*;

    /// Receives a type above the lowest, now and then.
    struct Faulty(Kernel);

    impl Home for Faulty {
        const NAME: &'static str = "faulty";

        fn fresh() -> Faulty {
            Faulty(Kernel::fresh())
        }
    }

    impl SysvMessages for Faulty {
        const MESSAGE_BYTES_MAX: usize = 8192;

        fn msgget(&self, key: i32, flags: i32) -> Result<i32> {
            self.0.msgget(key, flags)
        }

        fn msgsnd(&self, id: i32, mtype: i64, text: &[u8], flags: i32) -> Result<()> {
            self.0.msgsnd(id, mtype, text, flags)
        }

        fn msgrcv(&self, id: i32, text: &mut [u8], mtype: i64, flags: i32) -> Result<(i64, usize)> {
            self.0.msgrcv(id, text, if mtype == -5 { -4 } else { mtype }, flags)
        }

        fn msg_status(&self, id: i32) -> Result<QueueStatus> {
            self.0.msg_status(id)
        }

        fn msg_set(&self, id: i32, owner: Owner, qbytes: u64) -> Result<()> {
            self.0.msg_set(id, owner, qbytes)
        }

        fn msg_remove(&self, id: i32) -> Result<()> {
            self.0.msg_remove(id)
        }
    }

    #[test]
    fn is_found_with_its_replay() {
        isolated_for(limit(), || {
            alone(|| {
                let found =
                    stretch::<Messages, _, _>(&Kernel::apart(1), &Faulty(Kernel::apart(2)), 7, 100_000);
                let first = found.expect_err("it is faulty");
                let text = first.to_string();
                assert!(text.contains("GINNEL_SEED=7") && text.contains("msgrcv"), "{text}");
                let again = stretch::<Messages, _, _>(
                    &Kernel::apart(3),
                    &Faulty(Kernel::apart(4)),
                    7,
                    first.step + 1,
                );
                assert_eq!(again.expect_err("it is faulty").to_string(), text, "the replay is the same");
            });
            alone(|| {
                let (a, b) = (Kernel::apart(5), Faulty(Kernel::apart(6)));
                let found = lockstep::<Messages, _, _>(&a, &b, 7, 100_000, WORKERS);
                let text = found.expect_err("it is faulty").to_string();
                assert!(text.contains("GINNEL_SEED=7"), "{text}");
            });
        });
    }
}

/// The user-space home is the kernel's equal.
mod kernel_and_user_space {
    use ginnel_conformance::user::User;

    use super::*;

    fn both<K: Kind<Kernel> + Kind<User>>() {
        alone(|| in_one_process::<Kernel, User, K>(&Kernel::apart(1), &User::as_narrow_as_the_kernel()));
        alone(|| in_lockstep::<Kernel, User, K>(&Kernel::apart(2), &User::as_narrow_as_the_kernel()));
    }

    #[test]
    fn sysv_semaphores() {
        isolated_for(limit(), both::<Sets>);
    }

    #[test]
    fn sysv_memory() {
        isolated_for(limit(), both::<Segments>);
    }

    #[test]
    fn sysv_queues() {
        isolated_for(limit(), both::<Messages>);
    }

    #[test]
    fn posix_queues() {
        isolated_for(limit(), both::<Queues>);
    }

    #[test]
    fn posix_semaphores() {
        isolated_for(limit(), both::<Semaphores>);
    }
}
