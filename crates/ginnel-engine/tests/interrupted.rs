//! Signal handlers and the System V calls, which end with `EINTR` after any of them: `signal(7)`, "never restarted".
#![allow(unsafe_code)]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Random, number};
use ginnel_engine::lock::Lock;
use ginnel_engine::message::sysv_queue::{Change, SysvQueue};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::wait::Patience;
use ginnel_engine::{Errno, Result};
use ginnel_testkit::{Exit, blocked_in, fork, isolated, wait_blocked_in, wait_until};
use libc::{IPC_PRIVATE, SA_RESTART, SA_SIGINFO, SYS_futex_waitv, sembuf};

/// An empty queue, a full one, and a set whose first semaphore is 0 and whose second is 1.
struct Objects {
    empty: SysvQueue,
    full: SysvQueue,
    set: SysvSemaphores,
}

fn objects() -> Objects {
    let home = Namespace::private().unwrap();
    let queue = || SysvQueue::get(&home, IPC_PRIVATE, 0o600).unwrap();
    let full = queue();
    let status = SysvQueue::status(&home, full).unwrap();
    SysvQueue::set(&home, full, Change { bytes_max: 1, ..Change::none(&status) }).unwrap();
    let set = SysvSemaphores::get(&home, IPC_PRIVATE, 2, 0o600).unwrap();
    let objects = Objects {
        empty: SysvQueue::open(&home, queue()).unwrap(),
        full: SysvQueue::open(&home, full).unwrap(),
        set: SysvSemaphores::open(&home, set).unwrap(),
    };
    objects.full.send(1, b"x", 0, Patience::None).unwrap();
    objects.set.set_values(&[0, 1]).unwrap();
    objects
}

fn op(sem_num: u16, sem_op: i16) -> sembuf {
    sembuf { sem_num, sem_op, sem_flg: 0 }
}

type Call = (&'static str, fn(&Objects, Patience) -> Result<()>);

/// Calls that are blocked.
const CALLS: [Call; 4] = [
    ("msgrcv", |objects, patience| objects.empty.recv(&mut [0; 64], 0, 0, patience).map(drop)),
    ("msgsnd", |objects, patience| objects.full.send(1, b"y", 0, patience)),
    ("semop", |objects, patience| objects.set.operate(&[op(0, -1)], patience)),
    ("semop of two", |objects, patience| objects.set.operate(&[op(0, -1), op(1, -1)], patience)),
];

fn later() -> Patience {
    Patience::Until(Instant::now() + Duration::from_secs(1000))
}

// What the test's processes tell each other.
const THREAD: usize = 0;
const HANDLED: usize = 1;
const ENDED: usize = 2;
const GOT: usize = 3;

extern "C" fn plain(_: i32) {
    number(HANDLED).fetch_add(1, Ordering::SeqCst);
}

extern "C" fn informed(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives the handler what was sent.
    assert_eq!(unsafe { (*info).si_signo }, libc::SIGUSR1);
    number(HANDLED).fetch_add(1, Ordering::SeqCst);
}

extern "C" fn deep(signal: i32) {
    let mut stack = [0_u8; 1 << 18];
    stack.fill(std::hint::black_box(signal as u8));
    std::hint::black_box(&stack);
    number(HANDLED).fetch_add(1, Ordering::SeqCst);
}

fn handlers() -> [(usize, i32); 3] {
    [
        (plain as *const () as usize, 0),
        (informed as *const () as usize, SA_SIGINFO),
        (deep as *const () as usize, 0),
    ]
}

fn catch(handler: usize, flags: i32) {
    // SAFETY: all zeroes is a valid sigaction; the handlers add to an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
}

fn tell_thread() {
    // SAFETY: the call takes no pointers.
    number(THREAD).store(unsafe { libc::gettid() } as u64, Ordering::SeqCst);
}

fn thread() -> i32 {
    wait_until("it has begun", || number(THREAD).load(Ordering::SeqCst) != 0);
    number(THREAD).load(Ordering::SeqCst) as i32
}

fn signal(process: i32, thread: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
}

/// That a handler ends the call, in the main thread or in another, in which `begin` is run first.
fn is_ended(objects: &Objects, call: Call, flags: i32, patience: fn() -> Patience, begin: fn(), main: bool) {
    for (handler, how) in handlers() {
        for index in [THREAD, HANDLED] {
            number(index).store(0, Ordering::SeqCst);
        }
        let child = fork(|| {
            catch(handler, flags | how);
            let work = || {
                begin();
                tell_thread();
                assert_eq!(call.1(objects, patience()), Err(Errno::INTR), "{}, {flags:#x}, {how:#x}", call.0);
            };
            if main {
                work();
            } else {
                std::thread::scope(|scope| scope.spawn(work).join().unwrap());
            }
        });
        let thread = thread();
        wait_blocked_in(thread, SYS_futex_waitv);
        signal(child.pid(), thread);
        child.assert_ok();
        assert_eq!(number(HANDLED).load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_handler_ends_a_blocked_call() {
    isolated(|| {
        let objects = objects();
        for call in CALLS {
            is_ended(&objects, call, 0, || Patience::Endless, || (), true);
            is_ended(&objects, call, 0, later, || (), false);
        }
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_handler_with_restart_ends_a_blocked_call_too() {
    isolated(|| {
        let objects = objects();
        for call in CALLS {
            for patience in [|| Patience::Endless, later] {
                for main in [true, false] {
                    is_ended(&objects, call, SA_RESTART, patience, || (), main);
                }
            }
        }
        // As if nobody had waited.
        assert_eq!(objects.set.waiting(0), Ok(0));
        assert_eq!(objects.full.recv(&mut [0; 8], 0, 0, Patience::None), Ok((1, 1)));
        assert_eq!(objects.full.recv(&mut [0; 8], 0, 0, Patience::None), Err(Errno::NOMSG));
    });
}

/// Has the thread's frames grow by AMX's tiles, if the processor has them and the kernel grants them.
#[cfg(target_arch = "x86_64")]
fn use_tiles() {
    const ASK_FOR: libc::c_long = 0x1023;
    const TILES: libc::c_long = 18;
    #[repr(align(64))]
    struct Shape([u8; 64]);
    let mut shape = Shape([0; 64]);
    // Palette 1; the first tile has one row of 64 bytes.
    (shape.0[0], shape.0[16], shape.0[48]) = (1, 64, 1);
    // SAFETY: who is granted the tiles may set them up, and they are nobody else's.
    unsafe {
        if libc::syscall(libc::SYS_arch_prctl, ASK_FOR, TILES) == 0 {
            std::arch::asm!("ldtilecfg [{}]", "tilezero tmm0", in(reg) &raw const shape);
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn so_it_does_in_a_thread_that_uses_all_that_the_processor_has() {
    isolated(|| {
        let objects = objects();
        for main in [true, false] {
            is_ended(&objects, CALLS[0], SA_RESTART, || Patience::Endless, use_tiles, main);
        }
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_thousand_handlers_at_any_moment_and_no_call_outlives_one_that_it_slept_through() {
    isolated(|| {
        for (call, release) in [
            (CALLS[0], (|objects| objects.empty.send(1, b"z", 0, Patience::Endless)) as fn(&Objects) -> _),
            (CALLS[2], |objects| objects.set.operate(&[op(0, 1)], Patience::Endless)),
        ] {
            let objects = objects();
            for index in [THREAD, HANDLED, ENDED, GOT] {
                number(index).store(0, Ordering::SeqCst);
            }
            let child = fork(|| {
                catch(plain as *const () as usize, SA_RESTART);
                tell_thread();
                for round in 0_u32.. {
                    let patience = if round.is_multiple_of(2) { Patience::Endless } else { later() };
                    match call.1(&objects, patience) {
                        Ok(()) => {
                            number(GOT).fetch_add(1, Ordering::SeqCst);
                        }
                        outcome => assert_eq!(outcome, Err(Errno::INTR), "{}", call.0),
                    }
                    number(ENDED).fetch_add(1, Ordering::SeqCst);
                }
            });
            let pid = thread();
            let (mut random, mut slept_through, mut given) = (Random(7), 0, 0);
            for round in 0..1000 {
                let ended = number(ENDED).load(Ordering::SeqCst);
                let has_ended = || number(ENDED).load(Ordering::SeqCst) != ended;
                for _ in 0..random.below(20_000) {
                    std::hint::spin_loop();
                }
                if round % 10 == 9 {
                    release(&objects).unwrap();
                    given += 1;
                }
                signal(pid, pid);
                // Before it slept: not blocked yet.
                wait_until("the call ends or sleeps", || has_ended() || blocked_in(pid, SYS_futex_waitv));
                if !has_ended() {
                    slept_through += 1;
                    signal(pid, pid);
                    wait_until("the call ends", has_ended);
                }
            }
            println!("{}: {slept_through} of 1000 handlers ran before the sleep", call.0);
            wait_until("it has all", || number(GOT).load(Ordering::SeqCst) == given);
            common::killed(child);
        }
    });
}

#[test]
fn a_call_that_must_not_block_ends_though_signals_keep_coming_while_the_lock_is_held() {
    isolated(|| {
        let objects = objects();
        let guard = Lock::of(objects.empty.segment()).acquire(None).unwrap();
        let child = fork(|| {
            // SAFETY: all zeroes is a valid sigaction; the handler adds to an atomic; the call reads what it is given.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = plain as *const () as usize;
                action.sa_flags = SA_RESTART;
                assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
                let often = libc::timeval { tv_sec: 0, tv_usec: 30_000 };
                let timer = libc::itimerval { it_interval: often, it_value: often };
                assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
            }
            let got = objects.empty.recv(&mut [0; 64], 0, libc::IPC_NOWAIT, Patience::Endless);
            assert_eq!(got, Err(Errno::NOMSG));
        });
        assert_eq!(child.wait_within(Duration::from_secs(10)), Exit::Code(0));
        drop(guard);
    });
}
