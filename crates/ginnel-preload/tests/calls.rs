//! Calls by number, from many threads, from libraries that are loaded later, and beside what is not the namespace's.

mod common;

use ginnel_testkit::{c_program, isolated, kernel_objects, run_ok};

fn case(name: &str) -> String {
    common::both(&c_program!("tests/calls.c"), &[name])
}

#[test]
fn calls_by_their_numbers_are_served() {
    isolated(|| assert_eq!(case("syscall"), "syscall\n"));
}

#[test]
fn unnamed_semaphores_are_the_c_librarys() {
    isolated(|| assert_eq!(case("unnamed"), "unnamed\n"));
}

#[test]
fn threads_make_all_calls_at_once() {
    isolated(|| assert_eq!(case("threads"), "threads\n"));
}

/// Python's ctypes looks the functions up in the running process, long after it has started.
#[test]
fn functions_that_are_looked_up_later_are_served() {
    isolated(|| {
        common::make_namespace();
        let script = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Message(ctypes.Structure):
    _fields_ = [('kind', ctypes.c_long), ('text', ctypes.c_char * 16)]
queue = libc.msgget(0x55, 0o1600)
assert queue >= 0
assert libc.msgsnd(queue, ctypes.byref(Message(2, b'late')), 5, 0) == 0
got = Message()
assert libc.msgrcv(queue, ctypes.byref(got), 16, 2, 0) == 5 and got.text == b'late'
libc.sem_open.restype = ctypes.c_void_p
semaphore = ctypes.c_void_p(libc.sem_open(b'/late', 0o100, 0o600, 1))
assert libc.sem_wait(semaphore) == 0 and libc.sem_trywait(semaphore) == -1
assert libc.mq_open(b'/late', 0o102, 0o600, None) >= 0
print(queue)";
        let queue = run_ok(common::served("python3".as_ref()).args(["-c", script]));
        assert_eq!(kernel_objects(), "");
        let mut command = common::served("ipcs".as_ref());
        let listed = run_ok(command.arg("-q"));
        let line = listed.lines().find(|line| line.starts_with("0x00000055")).expect("its queue");
        assert_eq!(line.split_whitespace().nth(1), Some(queue.trim()), "{listed}");
    });
}
