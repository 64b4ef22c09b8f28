//! Every clause, asked of the user-space home; and its deliberate differences, asserted in both directions.

use std::time::Duration;

use ginnel_conformance::clause::{assert_fails_there, run, run_with_differences};
use ginnel_conformance::kernel::Kernel;
use ginnel_conformance::user::{User, differences};
use ginnel_conformance::{memory, message, sync};
use ginnel_testkit::isolated_for;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn no_difference_holds_in_the_kernel() {
    isolated_for(LIMIT, || {
        assert_fails_there::<Kernel>(differences::sysv_messages());
        assert_fails_there::<Kernel>(differences::sysv_semaphores());
        assert_fails_there::<Kernel>(differences::sysv_memory());
        assert_fails_there::<Kernel>(differences::posix_queues());
        assert_fails_there::<Kernel>(differences::posix_semaphores());
    });
}

#[test]
fn sysv_semaphores() {
    isolated_for(LIMIT, || {
        let (clauses, differences) = (sync::sysv_semaphore::clauses(), differences::sysv_semaphores());
        run_with_differences::<User>("System V semaphores", clauses, differences);
    });
}

#[test]
fn sysv_memory() {
    isolated_for(LIMIT, || {
        let (clauses, differences) = (memory::sysv_segment::clauses(), differences::sysv_memory());
        run_with_differences::<User>("System V shared memory", clauses, differences);
    });
}

#[test]
fn posix_memory() {
    isolated_for(LIMIT, || run::<User>("POSIX shared memory", memory::posix_shm::clauses()));
}

#[test]
fn sysv_messages() {
    isolated_for(LIMIT, || {
        let (clauses, differences) = (message::sysv_queue::clauses(), differences::sysv_messages());
        run_with_differences::<User>("System V messages", clauses, differences);
    });
}

#[test]
fn posix_queues() {
    isolated_for(LIMIT, || {
        let (clauses, differences) = (message::posix_queue::clauses(), differences::posix_queues());
        run_with_differences::<User>("POSIX queues", clauses, differences);
    });
}

#[test]
fn posix_semaphores() {
    isolated_for(LIMIT, || {
        let (clauses, differences) = (sync::posix_semaphore::clauses(), differences::posix_semaphores());
        run_with_differences::<User>("POSIX semaphores", clauses, differences);
    });
}
