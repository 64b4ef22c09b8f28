//! How long a send and a receive take in one process: `cargo run --release --example sysv_queue_timing`.

use std::time::Duration;

use ginnel_engine::message::sysv_queue::{Change, SysvQueue};
use ginnel_engine::namespace::Namespace;
use ginnel_engine::wait::Patience;

/// The time that this process has had: others may use the CPUs too.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = Namespace::private()?;
    let id = SysvQueue::get(&home, libc::IPC_PRIVATE, 0o600)?;
    let queue = SysvQueue::open(&home, id)?;
    SysvQueue::set(&home, id, Change { bytes_max: 1 << 32, ..Change::none(&SysvQueue::status(&home, id)?) })?;
    let (payload, mut buffer) = ([7_u8; 64], [0_u8; 64]);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..3 {
        for select in [1, 0, -1] {
            let start = used();
            let rounds = 2_000_000_u32;
            for _ in 0..rounds {
                queue.send(1, &payload, 0, Patience::Endless)?;
                queue.recv(&mut buffer, select, 0, Patience::Endless)?;
            }
            println!(
                "64 B, send and receive type {select}: {:.1} ns",
                (used() - start).as_nanos() as f64 / f64::from(rounds)
            );
        }
    }
    if std::env::args().len() > 1 {
        return Ok(());
    }
    for depth in [10_u64, 100, 1_000, 10_000, 100_000] {
        for kind in 1..=depth {
            queue.send(kind as i64, &payload, 0, Patience::Endless)?;
        }
        for _ in 0..3 {
            let start = used();
            let rounds = 1_000_000_u32;
            for _ in 0..rounds {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let kind = ((random >> 33) % depth + 1) as i64;
                queue.recv(&mut buffer, kind, 0, Patience::Endless)?;
                queue.send(kind, &payload, 0, Patience::Endless)?;
            }
            println!(
                "{depth} deep, receive a random type and send it again: {:.1} ns",
                (used() - start).as_nanos() as f64 / f64::from(rounds)
            );
        }
        while queue.recv(&mut buffer, 0, libc::IPC_NOWAIT, Patience::None).is_ok() {}
    }
    for size in [1024_usize, 8192, 65536, 1 << 20] {
        let (payload, mut buffer) = (vec![7_u8; size], vec![0_u8; size]);
        let rounds = (1_u64 << 31) / (size as u64 + 4096);
        let start = used();
        for _ in 0..rounds {
            queue.send(1, &payload, 0, Patience::Endless)?;
            queue.recv(&mut buffer, 1, 0, Patience::Endless)?;
        }
        println!("{size} B, send and receive: {:.0} ns", (used() - start).as_nanos() as f64 / rounds as f64);
    }
    Ok(())
}
