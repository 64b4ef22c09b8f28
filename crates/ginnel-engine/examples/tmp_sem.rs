#![allow(unsafe_code, missing_docs)]
use ginnel_engine::namespace::Namespace;
use ginnel_engine::sync::sysv_semaphore::SysvSemaphores;
use ginnel_engine::wait::Patience;
use std::time::Instant;
fn main() {
    let home = Namespace::private().unwrap();
    let id = SysvSemaphores::get(&home, 0, 4, 0o600).unwrap();
    let set = SysvSemaphores::open(&home, id).unwrap();
    set.set_value(0, 1).unwrap();
    let time = |what: &str, n: u32, f: &dyn Fn()| {
        let mut best = f64::MAX;
        for _ in 0..7 {
            let t = Instant::now();
            for _ in 0..n {
                f();
            }
            best = best.min(t.elapsed().as_nanos() as f64 / n as f64);
        }
        println!("{what}: {best:.1} ns");
    };
    let op = |n, o, f: i32| libc::sembuf { sem_num: n, sem_op: o, sem_flg: f as i16 };
    time("pair", 1_000_000, &|| {
        set.operate(std::hint::black_box(&[op(0, -1, 0)]), Patience::Endless).unwrap();
        set.operate(std::hint::black_box(&[op(0, 1, 0)]), Patience::Endless).unwrap();
    });
    time("two ops pair", 1_000_000, &|| {
        set.operate(std::hint::black_box(&[op(0, -1, 0), op(1, 1, 0)]), Patience::Endless).unwrap();
        set.operate(std::hint::black_box(&[op(0, 1, 0), op(1, -1, 0)]), Patience::Endless).unwrap();
    });
    time("undo pair", 1_000_000, &|| {
        set.operate(std::hint::black_box(&[op(0, -1, libc::SEM_UNDO)]), Patience::Endless).unwrap();
        set.operate(std::hint::black_box(&[op(0, 1, libc::SEM_UNDO)]), Patience::Endless).unwrap();
    });
    time("pair beside a stake", 1_000_000, &|| {
        set.operate(std::hint::black_box(&[op(0, -1, 0)]), Patience::Endless).unwrap();
        set.operate(std::hint::black_box(&[op(0, 1, 0)]), Patience::Endless).unwrap();
    });
    let k = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    unsafe { libc::semctl(k, 0, 16, 1) };
    time("kernel pair", 100_000, &|| unsafe {
        libc::semop(k, &mut op(0, -1, 0), 1);
        libc::semop(k, &mut op(0, 1, 0), 1);
    });
    time("kernel undo pair", 100_000, &|| unsafe {
        libc::semop(k, &mut op(0, -1, libc::SEM_UNDO), 1);
        libc::semop(k, &mut op(0, 1, libc::SEM_UNDO), 1);
    });
    let seg = home.open_id(ginnel_engine::namespace::Kind::SysvSemaphores, id).unwrap();
    time("lock pair", 1_000_000, &|| {
        let g = ginnel_engine::lock::Lock::of(&seg).acquire(None).unwrap();
        drop(std::hint::black_box(g));
    });
}
