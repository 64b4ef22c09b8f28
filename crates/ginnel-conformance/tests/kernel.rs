//! Every clause, asked of the kernel's home: it is the oracle, so a clause that is not green here judges nobody.

use std::time::Duration;

use ginnel_conformance::clause::run;
use ginnel_conformance::kernel::{Kernel, c_calls, limits};
use ginnel_conformance::{memory, message, sync};
use ginnel_testkit::isolated_for;

const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn sysv_messages() {
    isolated_for(LIMIT, || run::<Kernel>("System V messages", message::sysv_queue::clauses()));
}

#[test]
fn sysv_semaphores() {
    isolated_for(LIMIT, || run::<Kernel>("System V semaphores", sync::sysv_semaphore::clauses()));
}

#[test]
fn sysv_memory() {
    isolated_for(LIMIT, || run::<Kernel>("System V shared memory", memory::sysv_segment::clauses()));
}

#[test]
fn posix_queues() {
    isolated_for(LIMIT, || run::<Kernel>("POSIX queues", message::posix_queue::clauses()));
}

#[test]
fn descriptors_of_posix_queues() {
    isolated_for(LIMIT, || run::<Kernel>("POSIX queues' descriptors", message::posix_queue::descriptors()));
}

#[test]
fn posix_semaphores() {
    isolated_for(LIMIT, || run::<Kernel>("POSIX semaphores", sync::posix_semaphore::clauses()));
}

#[test]
fn posix_memory() {
    isolated_for(LIMIT, || run::<Kernel>("POSIX shared memory", memory::posix_shm::clauses()));
}

#[test]
fn the_kernels_limits() {
    isolated_for(LIMIT, || run::<Kernel>("Limits of the kernel's own", limits()));
}

#[test]
fn what_only_c_can_break() {
    isolated_for(LIMIT, || run::<Kernel>("C calls", c_calls()));
}
