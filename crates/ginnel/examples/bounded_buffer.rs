//! Producers and consumers on a ring in POSIX shared memory, with three unnamed semaphores in it: empty, full, mutex.
//!
//!     cargo run --example bounded_buffer -- make /ring 8
//!     cargo run --example bounded_buffer -- produce /ring 1 1000      (as many of these as you like)
//!     cargo run --example bounded_buffer -- consume /ring 1000        (and of these)
//!     cargo run --example bounded_buffer -- show /ring
//!     cargo run --example bounded_buffer -- remove /ring
//!
//! The ring never holds more than its slots: a producer waits for `empty`, a consumer for `full`, and only one of them at
//! a time, by `mutex`, moves an index. POSIX semaphores need no system call unless somebody waits; what they cannot do
//! is give back what a killed process had taken. The example `turns` shows the mechanism that can.

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use ginnel::Result;
use ginnel::memory::{Mapping, PosixShm};
use ginnel::sync::UnnamedSemaphore;

const USAGE: &str = "usage: bounded_buffer make NAME SLOTS | produce NAME FIRST LAST | consume NAME COUNT | show NAME | remove NAME";

/// Where things are in the memory, a cache line each.
const SLOTS: usize = 0;
const HEAD: usize = 64;
const TAIL: usize = 128;
const EMPTY: usize = 192;
const FULL: usize = 256;
const MUTEX: usize = 320;
const ITEMS: usize = 384;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Option<Vec<u64>> = arguments.iter().skip(2).map(|number| number.parse().ok()).collect();
    let outcome = match (&arguments[..], numbers.as_deref()) {
        ([verb, name, ..], Some([slots @ 1..=1_000_000])) if verb == "make" => make(name, *slots),
        ([verb, name, ..], Some([first, last])) if verb == "produce" => produce(name, *first, *last),
        ([verb, name, ..], Some([count])) if verb == "consume" => consume(name, *count),
        ([verb, name], _) if verb == "show" => show(name),
        ([verb, name], _) if verb == "remove" => PosixShm::remove(name),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bounded_buffer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(name: &str, slots: u64) -> Result<()> {
    let memory = PosixShm::options().create_new(true).size(ITEMS as u64 + slots * 8).open(name)?.map()?;
    memory.write_at(SLOTS, slots)?;
    UnnamedSemaphore::in_mapping(&memory, EMPTY, slots as u32)?;
    UnnamedSemaphore::in_mapping(&memory, MUTEX, 1)?;
    UnnamedSemaphore::in_mapping(&memory, FULL, 0)?;
    Ok(())
}

struct Ring<'a> {
    memory: &'a Mapping,
    slots: u64,
    empty: UnnamedSemaphore<'a>,
    full: UnnamedSemaphore<'a>,
    mutex: UnnamedSemaphore<'a>,
}

impl<'a> Ring<'a> {
    fn open(memory: &'a Mapping) -> Result<Ring<'a>> {
        Ok(Ring {
            memory,
            slots: memory.read_at::<u64>(SLOTS)?.max(1),
            empty: UnnamedSemaphore::open_in_mapping(memory, EMPTY)?,
            full: UnnamedSemaphore::open_in_mapping(memory, FULL)?,
            mutex: UnnamedSemaphore::open_in_mapping(memory, MUTEX)?,
        })
    }

    /// The next slot by that index, which moves on. Under the mutex.
    fn next(&self, index: usize) -> Result<usize> {
        let slot = self.memory.atomic_u64(index)?.fetch_add(1, Ordering::Relaxed) % self.slots;
        Ok(ITEMS + slot as usize * 8)
    }

    fn put(&self, item: u64) -> Result<()> {
        self.empty.wait()?;
        {
            let _mutex = self.mutex.acquire()?;
            self.memory.write_at(self.next(TAIL)?, item)?;
        }
        self.full.post()
    }

    fn take(&self) -> Result<u64> {
        self.full.wait()?;
        let item = {
            let _mutex = self.mutex.acquire()?;
            self.memory.read_at(self.next(HEAD)?)?
        };
        self.empty.post()?;
        Ok(item)
    }
}

fn produce(name: &str, first: u64, last: u64) -> Result<()> {
    let memory = PosixShm::open(name)?.map()?;
    let ring = Ring::open(&memory)?;
    (first..=last).try_for_each(|item| ring.put(item))
}

fn consume(name: &str, count: u64) -> Result<()> {
    let memory = PosixShm::open(name)?.map()?;
    let ring = Ring::open(&memory)?;
    for _ in 0..count {
        println!("{}", ring.take()?);
    }
    Ok(())
}

fn show(name: &str) -> Result<()> {
    let memory = PosixShm::open(name)?.map()?;
    let ring = Ring::open(&memory)?;
    println!("slots {} empty {} full {}", ring.slots, ring.empty.value()?, ring.full.value()?);
    Ok(())
}
