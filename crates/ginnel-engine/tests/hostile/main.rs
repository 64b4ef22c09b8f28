//! Every kind of object that lives in a file, overwritten word by word and bit by bit while two processes work with it,
//! opened from files that are something else, and with a process stopped in the middle of a call.
//!
//! Each call gives a result or an errno by its deadline; nobody gets a signal, nobody hangs, and the object beside it works.
#![allow(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;
mod fuzz;
mod region;
mod stopped;
mod zoo;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Random, limit, number, stride_or};
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_testkit::{Child, Exit, fork, isolated_for, wait_until};
use region::Which;
use zoo::{KINDS, Place};

const VICTIM: i32 = 7;
const BESIDE: i32 = 8;
const STOP: usize = 0;
const ROUNDS: usize = 1;

fn home() -> Namespace {
    Namespace::options().create(true).open_named("hostile").unwrap()
}

/// The offsets of all 8-byte words of the pages that have anything in them.
fn words(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    let pages = bytes.chunks(4096).zip(0_u64..).filter(|(page, _)| page.iter().any(|byte| *byte != 0));
    pages.flat_map(|(page, nth)| (0..page.len() as u64 / 8).map(move |word| nth * 4096 + word * 8)).collect()
}

/// Two processes that work with it until [`STOP`]; one has it open all the time, the other opens it again and again.
fn two_at_work(victim: Place<'_>) -> [Child; 2] {
    [STOP, ROUNDS, ROUNDS + 1].into_iter().for_each(|index| number(index).store(0, Ordering::SeqCst));
    let children = [0, 1].map(|which| {
        fork(move || {
            let mut last = 0;
            while last < 2 {
                let mut left = if which == 0 { u64::MAX } else { 1 };
                victim.work(|| {
                    number(ROUNDS + which).fetch_add(1, Ordering::SeqCst);
                    left -= 1;
                    last += number(STOP).load(Ordering::SeqCst);
                    left > 0 && last < 3
                });
                // One that cannot be opened has no rounds.
                last += number(STOP).load(Ordering::SeqCst);
            }
        })
    });
    wait_until("both are at work", || (0..2).all(|which| number(ROUNDS + which).load(Ordering::SeqCst) > 1));
    children
}

fn end(children: [Child; 2], at: &str) {
    number(STOP).store(1, Ordering::SeqCst);
    for child in children {
        assert_eq!(child.wait_within(Duration::from_secs(20)), Exit::Code(0), "{at}");
    }
}

fn every_word(kind: Kind) {
    let home = home();
    let [victim, beside] = [VICTIM, BESIDE].map(|key| Place { home: &home, kind, key });
    beside.make().unwrap();
    drain(beside);
    let mut random = Random(kind as u64 + 1);
    victim.make().unwrap();
    let file = victim.file();
    let all = words(&file);
    victim.remove(&file, "before");
    let (every, mut tried) = (stride_or(173), 0);
    for offset in all.into_iter().step_by(every) {
        for value in [0, u64::MAX, random.below(u64::MAX >> 33) << 32 | random.below(u64::MAX >> 33)] {
            let at = format!("{kind:?}, {value:#x} at {offset:#x}");
            victim.make().unwrap_or_else(|errno| panic!("made again before {at}: {errno}"));
            let path = victim.file();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let children = two_at_work(victim);
            file.write_all_at(&value.to_ne_bytes(), offset).unwrap();
            end(children, &at);
            beside.assert_works(&at);
            victim.remove(&path, &at);
            tried += 1;
        }
    }
    common::tried(&format!("{kind:?}, two at work, one beside it"), tried);
}

fn drain(beside: Place<'_>) {
    // What `make` puts in would be in the way.
    if beside.kind == Kind::PosixQueue {
        let name = beside.name();
        let queue = ginnel_engine::message::posix_queue::PosixQueue::open(
            beside.home,
            name.as_bytes(),
            libc::O_RDWR,
            0,
            None,
        );
        let queue = queue.unwrap();
        while queue.receive(&mut [0; 1 << 15], ginnel_engine::wait::Patience::None).is_ok() {}
    }
}

fn flipped_bits(kind: Kind) {
    let home = home();
    let [victim, beside] = [VICTIM, BESIDE].map(|key| Place { home: &home, kind, key });
    beside.make().unwrap();
    drain(beside);
    let mut random = Random(77 + kind as u64);
    let rounds = if stride_or(2) == 1 { 400 } else { 4 };
    let mut flips = 0;
    for round in 0..rounds {
        let at = format!("{kind:?}, round {round} of bits");
        victim.make().unwrap_or_else(|errno| panic!("made again before {at}: {errno}"));
        let path = victim.file();
        let (words, file) =
            (words(&path), std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap());
        let children = two_at_work(victim);
        for _ in 0..1 + random.below(12) {
            let offset = words[random.below(words.len() as u64) as usize] + random.below(8);
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << random.below(8)], offset).unwrap();
            std::thread::sleep(Duration::from_micros(random.below(300)));
            flips += 1;
        }
        end(children, &at);
        beside.assert_works(&at);
        victim.remove(&path, &at);
    }
    common::tried(&format!("{kind:?}, bits flipped, two at work"), flips);
}

macro_rules! each_kind {
    ($($name:ident: $body:expr, $index:expr;)*) => {
        $(#[test]
        fn $name() {
            isolated_for(limit(), || $body(KINDS[$index]));
        })*
    };
}

each_kind! {
    words_of_a_sysv_queue_overwritten: every_word, 0;
    words_of_a_sysv_set_overwritten: every_word, 1;
    words_of_a_sysv_segment_overwritten: every_word, 2;
    words_of_a_posix_queue_overwritten: every_word, 3;
    words_of_a_posix_semaphore_overwritten: every_word, 4;
    bits_of_a_sysv_queue_flipped: flipped_bits, 0;
    bits_of_a_sysv_set_flipped: flipped_bits, 1;
    bits_of_a_sysv_segment_flipped: flipped_bits, 2;
    bits_of_a_posix_queue_flipped: flipped_bits, 3;
    bits_of_a_posix_semaphore_flipped: flipped_bits, 4;
    any_file_opened_as_a_sysv_queue: fuzz::opened, 0;
    any_file_opened_as_a_sysv_set: fuzz::opened, 1;
    any_file_opened_as_a_sysv_segment: fuzz::opened, 2;
    any_file_opened_as_a_posix_queue: fuzz::opened, 3;
    any_file_opened_as_a_posix_semaphore: fuzz::opened, 4;
    stopped_in_a_sysv_queue: stopped::anywhere, 0;
    stopped_in_a_sysv_set: stopped::anywhere, 1;
    stopped_in_a_sysv_segment: stopped::anywhere, 2;
    stopped_in_a_posix_queue: stopped::anywhere, 3;
    stopped_in_a_posix_semaphore: stopped::anywhere, 4;
}

macro_rules! each_of_a_region {
    ($($name:ident: $body:expr;)*) => {
        $(#[test]
        fn $name() {
            isolated_for(limit(), || $body);
        })*
    };
}

each_of_a_region! {
    words_of_a_mutex_overwritten: region::every_word(Which::Mutex);
    words_of_a_condvar_overwritten: region::every_word(Which::Condvar);
    words_of_a_rwlock_overwritten: region::every_word(Which::RwLock);
    words_of_a_barrier_overwritten: region::every_word(Which::Barrier);
    bits_of_a_mutex_flipped: region::flipped_bits(Which::Mutex);
    bits_of_a_condvar_flipped: region::flipped_bits(Which::Condvar);
    bits_of_a_rwlock_flipped: region::flipped_bits(Which::RwLock);
    bits_of_a_barrier_flipped: region::flipped_bits(Which::Barrier);
    stopped_in_a_condvar: stopped::in_a_condvar();
    stopped_in_a_barrier: stopped::in_a_barrier();
}
