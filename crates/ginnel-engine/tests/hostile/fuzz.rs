//! Files that are not what they should be, opened as each kind of object and used: cut off, too long, of another kind, with
//! headers and words at random. It knows the structure: every case begins with a whole object. `GINNEL_FUZZ` says how many
//! cases, `GINNEL_SEED` which; in-process and with seeds, as cargo-fuzz needs a nightly compiler.

use std::time::Duration;

use ginnel_engine::namespace::Kind;
use ginnel_testkit::{Exit, fork};

use crate::common::Random;
use crate::zoo::{KINDS, Place};
use crate::{BESIDE, VICTIM, drain, home};

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

fn value(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => random.below(256),
        4 => random.below(1 << 24) & !7,
        _ => random.below(1 << 31) << 33 | random.below(1 << 31) << 2,
    }
}

fn overwrite(bytes: &mut [u8], random: &mut Random, end: usize) {
    let words = bytes.len().min(end) / 8;
    if words > 0 {
        let at = 8 * random.below(words as u64) as usize;
        bytes[at..at + 8].copy_from_slice(&value(random).to_ne_bytes());
    }
}

/// What is done to the file, in words, and how long it is made.
fn deface(bytes: &mut Vec<u8>, random: &mut Random, others: &[Vec<u8>]) -> (&'static str, u64) {
    let len = bytes.len() as u64;
    match random.below(9) {
        0 => ("cut off", random.below(len + 1)),
        1 => ("cut off at a page", random.below(len / 4096 + 1) * 4096),
        2 => {
            let limit = 2 << random.below(30);
            ("too long", len + random.below(limit))
        }
        3 => {
            *bytes = others[random.below(others.len() as u64) as usize].clone();
            ("of another kind", bytes.len() as u64)
        }
        4 => {
            (0..1 + random.below(4)).for_each(|_| overwrite(bytes, random, 0x80));
            ("other words of identity", len)
        }
        5 => {
            (0..1 + random.below(40)).for_each(|_| overwrite(bytes, random, 0x1000));
            ("another header", len)
        }
        6 => {
            (0..1 + random.below(100)).for_each(|_| overwrite(bytes, random, 0x1800));
            ("other words of the object", len)
        }
        7 => {
            (0..1 + random.below(1000)).for_each(|_| overwrite(bytes, random, usize::MAX));
            ("other words anywhere", len)
        }
        _ => {
            let from = random.below(3) as usize * 8;
            bytes.iter_mut().skip(from).for_each(|byte| *byte = random.below(256) as u8);
            ("noise", len)
        }
    }
}

pub(crate) fn opened(kind: Kind) {
    let home = home();
    let [victim, beside] = [VICTIM, BESIDE].map(|key| Place { home: &home, kind, key });
    let others: Vec<Vec<u8>> = KINDS
        .into_iter()
        .filter(|other| *other != kind)
        .map(|kind| {
            let other = Place { home: &home, kind, key: VICTIM };
            other.make().unwrap();
            let file = other.file();
            let bytes = std::fs::read(&file).unwrap();
            other.remove(&file, "before");
            bytes
        })
        .collect();
    beside.make().unwrap();
    drain(beside);
    let seed = asked("GINNEL_SEED", 1);
    let mut random = Random(seed.wrapping_mul(31) + kind as u64);
    let cases = asked("GINNEL_FUZZ", 60);
    for case in 0..cases {
        victim.make().unwrap_or_else(|errno| panic!("made again before case {case}: {errno}"));
        let path = victim.file();
        let mut bytes = std::fs::read(&path).unwrap();
        let (what, len) = deface(&mut bytes, &mut random, &others);
        let file = std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        file.set_len(len).unwrap();
        let at = format!("{kind:?}, seed {seed}, case {case}: {what}");
        let user = fork(|| {
            let mut rounds = 0;
            victim.work(|| {
                rounds += 1;
                rounds < 4
            });
        });
        assert_eq!(user.wait_within(Duration::from_secs(20)), Exit::Code(0), "{at}");
        beside.assert_works(&at);
        victim.remove(&path, &at);
    }
    println!("fuzz: {kind:?}: {cases} files opened, 0 violations");
}
