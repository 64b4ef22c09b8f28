//! Real programs under the drop-in, unmodified: green, and the kernel's tables empty throughout.
//!
//! `.ci/programs` installs them. `GINNEL_TEST_FULL=1` has them run as long as the measurements do.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{NAMESPACE, library, make_namespace};
use ginnel_engine::namespace::{Kind, Namespace};
use ginnel_testkit::{as_user, isolated_for, kernel_objects, run_ok, run_within, spawn, wait_until};

const LIMIT: Duration = Duration::from_secs(240);

fn is_full() -> bool {
    std::env::var_os("GINNEL_TEST_FULL").is_some()
}

/// A program that `.ci/programs` installs.
#[track_caller]
fn installed(path: &str) -> PathBuf {
    let path = PathBuf::from(path);
    assert!(path.exists(), "{} is not there: run .ci/programs as root, which installs it", path.display());
    path
}

/// What `.ci/programs` has fetched and built.
#[track_caller]
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    installed(&format!("{}/programs/{name}", test.ancestors().nth(3).expect("target").display()))
}

fn on_namespace<'c>(command: &'c mut Command, namespace: &str, library: &Path) -> &'c mut Command {
    command.env("LD_PRELOAD", library).env("GINNEL_NAMESPACE", namespace)
}

fn served(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    on_namespace(&mut command, NAMESPACE, &library());
    command
}

/// What it prints, both streams; it must succeed.
#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = run_within(command, LIMIT);
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The kernel has no object all the while but those of before: System V, POSIX queues, names in `/dev/shm`.
#[track_caller]
fn unseen_by_the_kernel<T>(work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let before = kernel_objects();
    let (done, seen, looks) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut seen, mut looks) = (before.clone(), 0);
            while seen == before && !is_over.load(Ordering::Relaxed) {
                seen = kernel_objects();
                looks += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            (seen, looks)
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        let (seen, looks) = watch.join().expect("it watches");
        (done, seen, looks)
    });
    let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(seen, before, "the kernel's objects are others");
    assert!(looks > 10, "it was over too soon to be watched: {looks}");
    assert_eq!(kernel_objects(), before);
    done
}

#[test]
fn stress_ng_verifies_all_it_does() {
    let program = installed("/usr/bin/stress-ng");
    isolated_for(LIMIT, || {
        make_namespace();
        let time = if is_full() { "10s" } else { "2s" };
        for stressor in ["msg", "mq", "sem-sysv", "shm-sysv", "sem", "shm"] {
            let args = [&format!("--{stressor}"), "2", "--timeout", time, "--verify", "--metrics-brief"];
            let mut command = served(&program);
            let text = unseen_by_the_kernel(|| printed(command.args(args).current_dir("/dev/shm")));
            assert!(text.contains("successful run completed"), "{stressor}: {text}");
            assert!(!text.contains("fail:") && !text.contains("error:"), "{stressor}: {text}");
            let row = text.lines().find(|line| line.split_whitespace().nth(3) == Some(stressor));
            let operations = row.and_then(|row| row.split_whitespace().nth(4)?.parse::<u64>().ok());
            assert!(operations.is_some_and(|count| count > 0), "{stressor} did nothing: {text}");
            println!("stress-ng {stressor}: {} operations", operations.unwrap_or(0));
        }
    });
}

/// The line of unittest that counts, and its verdict: `Ran 104 tests: OK (skipped=1)`.
fn verdict(text: &str) -> String {
    let find = |start: &str| text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    let ran = find("Ran ").unwrap_or_else(|| panic!("no tests ran: {text}"));
    let ran = ran.split(" in ").next().unwrap_or_default().to_owned();
    format!("{ran}: {}", find("OK").unwrap_or_else(|| panic!("they failed: {text}")))
}

fn python_tests(package: &str) {
    let (python, source) = (built("venv/bin/python"), built(package));
    isolated_for(LIMIT, || {
        make_namespace();
        // Away from the sources, so that what is tested is what is installed.
        let place = ginnel_testkit::temp_dir();
        run_ok(Command::new("cp").arg("-r").arg(source.join("tests")).arg(place.path()));
        let suite = |mut command: Command| {
            let args = ["-m", "unittest", "discover"];
            verdict(&printed(
                command.args(args).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(place.path()),
            ))
        };
        let kernels = suite(Command::new(&python));
        let ours = unseen_by_the_kernel(|| suite(served(&python)));
        println!("{package}: {ours}");
        assert_eq!(ours, kernels);
        assert!(!ours.starts_with("Ran 0 "), "{ours}");
    });
}

#[test]
fn the_tests_of_sysv_ipc_pass() {
    python_tests("sysv_ipc-1.2.0");
}

#[test]
fn the_tests_of_posix_ipc_pass() {
    python_tests("posix_ipc-1.3.2");
}

#[test]
fn perl_makes_its_round_trips() {
    let perl = installed("/usr/bin/perl");
    isolated_for(LIMIT, || {
        make_namespace();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/sysv.pl");
        assert_eq!(printed(Command::new(&perl).arg(script)), "round trips\n");
        assert_eq!(kernel_objects(), "");
        unseen_by_the_kernel(|| {
            for _ in 0..20 {
                assert_eq!(printed(served(&perl).arg(script)), "round trips\n");
            }
        });
    });
}

/// A place for another user, with the library in it: the build's directory may be out of its reach.
struct Place {
    path: PathBuf,
    uid: u32,
    gid: u32,
}

impl Place {
    fn new(name: &str, uid: u32, gid: u32) -> Place {
        let path = PathBuf::from(format!("/dev/shm/.ginnel-testkit-{name}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::copy(library(), path.join("lib.so")).unwrap();
        std::fs::set_permissions(path.join("lib.so"), PermissionsExt::from_mode(0o644)).unwrap();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        Place { path, uid, gid }
    }

    fn namespace(&self) -> String {
        self.path.join("namespace").display().to_string()
    }

    /// In a process of that user, with the namespace made.
    fn within(&self, work: impl FnOnce()) {
        let child = as_user(self.uid, self.gid, || {
            std::env::set_current_dir(&self.path).expect("the place");
            Namespace::options().create(true).open(self.namespace()).expect("a namespace");
            work();
        });
        assert_eq!(child.wait_within(LIMIT), ginnel_testkit::Exit::Code(0));
    }

    fn command(&self, program: impl AsRef<Path>, is_served: bool) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("HOME", &self.path).env("TMPDIR", &self.path).current_dir(&self.path);
        if is_served {
            on_namespace(&mut command, &self.namespace(), &self.path.join("lib.so"));
        }
        command
    }
}

#[test]
fn fakeroot_packs_the_archive_that_it_packs_without() {
    const FILES: usize = 2000;
    let fakeroot = installed("/usr/bin/fakeroot-sysv");
    isolated_for(LIMIT, || {
        let place = Place::new("fakeroot", 1001, 1001);
        let (kernels, ours) = (place.path.join("kernels.tar"), place.path.join("ours.tar"));
        // Each file is somebody else's, with a mode of its own; devices, links.
        let work = "set -e; rm -rf out; mkdir out; tar -C out -xf source.tar; cd out/tree
            for d in *; do chown -R $((1000 + d)):$((2000 + d)) $d; chmod 0$((400 + d % 8)) $d/file-$d; done
            mknod null c 1 3; mkfifo fifo; ln 1/file-1 hard; ln -s 1 soft; chown -h 7:8 soft; chmod u+s 2/file-2
            cd ..; tar --sort=name --mtime=@0 --format=gnu -cf \"$0\" tree";
        let pack = |target: &Path, is_served| {
            let mut command = place.command(&fakeroot, is_served);
            printed(command.arg("sh").arg("-c").arg(work).arg(target));
        };
        place.within(|| {
            for number in 0..FILES {
                let directory = place.path.join(format!("tree/{}", number % 20));
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(directory.join(format!("file-{number}")), format!("{number}\n")).unwrap();
            }
            run_ok(place.command("tar", false).args(["-cf", "source.tar", "tree"]));
            pack(&kernels, false);
        });
        // Its daemon goes a moment after it.
        wait_until("the kernel's objects are gone", || kernel_objects().is_empty());
        unseen_by_the_kernel(|| place.within(|| pack(&ours, true)));
        let list = run_ok(Command::new("tar").arg("-tvf").arg(&ours));
        assert!(list.lines().count() > FILES, "{list}");
        assert!(list.contains("1001/2001") && list.contains("crw-r--r-- root/root"), "{list}");
        let read = |path: &Path| std::fs::read(path).expect("an archive");
        assert!(read(&kernels) == read(&ours), "the archives differ");
    });
}

const PORT: &str = "5499";

/// PostgreSQL as its own user.
struct Postgres<'p> {
    place: &'p Place,
}

impl Postgres<'_> {
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let path = Path::new("/usr/lib/postgresql/15/bin").join(program);
        let mut command = self.place.command(path, true);
        command.args(args).env("PGHOST", &self.place.path).env("PGPORT", PORT).env("PGUSER", "postgres");
        command.env("PGDATABASE", "postgres");
        command
    }

    #[track_caller]
    fn ok(&self, program: &str, args: &[&str]) -> String {
        printed(&mut self.command(program, args))
    }

    fn start(&self) {
        self.ok("pg_ctl", &["-D", "data", "-l", "log", "-w", "-t", "60", "start"]);
    }

    /// The answer to a query, if it has one now.
    fn ask(&self, query: &str) -> Option<String> {
        let output = run_within(&mut self.command("psql", &["-XAtc", query]), LIMIT);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn segments(&self) -> Vec<i32> {
        let namespace = Namespace::open(self.place.namespace()).expect("the namespace");
        let listed = namespace.list(Kind::SysvSegment).expect("its segments");
        listed.iter().map(|segment| segment.id).collect()
    }

    fn postmaster(&self) -> i32 {
        let file = std::fs::read_to_string(self.place.path.join("data/postmaster.pid")).expect("its pid");
        file.lines().next().and_then(|line| line.parse().ok()).expect("a pid")
    }
}

fn kill(pid: i32) {
    run_ok(Command::new("kill").args(["-9", &pid.to_string()]));
}

/// Processes of the server's.
fn servers() -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "postgres").count()
}

#[test]
fn postgresql_survives_kills_and_frees_its_old_segment() {
    installed("/usr/lib/postgresql/15/bin/postgres");
    let id =
        |option| run_ok(Command::new("id").args([option, "postgres"])).trim().parse::<u32>().expect("an id");
    let (uid, gid) = (id("-u"), id("-g"));
    isolated_for(LIMIT, || {
        let place = Place::new("postgres", uid, gid);
        unseen_by_the_kernel(|| place.within(|| postgres_works(&Postgres { place: &place })));
    });
}

fn postgres_works(server: &Postgres<'_>) {
    const ACCOUNTS: &str = "select count(*) from pgbench_accounts";
    let directory = server.place.path.display();
    server.ok("initdb", &["-D", "data", "-A", "trust", "-U", "postgres", "--no-sync"]);
    let configuration = format!(
        "shared_memory_type = sysv\ndynamic_shared_memory_type = sysv\nunix_socket_directories = '{directory}'\n\
         listen_addresses = ''\nport = {PORT}\nshared_buffers = 16MB\nmax_connections = 20\n\
         min_parallel_table_scan_size = 0\nparallel_setup_cost = 0\nparallel_tuple_cost = 0\n"
    );
    let file = server.place.path.join("data/postgresql.auto.conf");
    std::fs::write(file, configuration).unwrap();
    server.start();
    assert!(!server.segments().is_empty(), "its memory is elsewhere");
    let time = if is_full() { "30" } else { "5" };
    server.ok("pgbench", &["-i", "-q"]);
    let report = server.ok("pgbench", &["-c", "4", "-j", "2", "-T", time]);
    println!("{}", report.lines().find(|line| line.starts_with("tps")).expect("its report"));
    assert!(report.contains("number of failed transactions: 0 "), "{report}");
    // Parallel workers share dynamic segments, which go when they are done.
    let before = server.segments();
    assert_eq!(
        server
            .ask("set max_parallel_workers_per_gather = 2; select count(*) from pgbench_accounts")
            .as_deref(),
        Some("SET\n100000")
    );
    wait_until("the workers' segments are gone", || server.segments() == before);

    // A backend.
    let mut sleeper = server.command("psql", &["-XAtc", "select pg_sleep(1000)"]);
    let sleeper = spawn(sleeper.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()));
    let backend =
        "select pid from pg_stat_activity where query = 'select pg_sleep(1000)' and state = 'active'";
    let mut pid = None;
    wait_until("it sleeps", || {
        pid = server.ask(backend).and_then(|pid| pid.parse::<i32>().ok());
        pid.is_some()
    });
    kill(pid.expect("its pid"));
    sleeper.wait();
    wait_until("the server is back", || server.ask(ACCOUNTS).as_deref() == Some("100000"));
    let log = std::fs::read_to_string(server.place.path.join("log")).unwrap();
    assert!(log.contains("terminating any other active server processes"), "{log}");

    // The postmaster. Once more: no worker's segment is left.
    let only_its_own = || {
        let mut segments = Vec::new();
        wait_until("it has no more segments than its own", || {
            segments = server.segments();
            segments.len() == before.len()
        });
        segments
    };
    let old = only_its_own();
    kill(server.postmaster());
    wait_until("its processes have noticed", || servers() == 0);
    assert_eq!(server.segments(), old, "nobody was there to remove it");
    server.start();
    assert_eq!(server.ask(ACCOUNTS).as_deref(), Some("100000"));
    let new = only_its_own();
    assert!(new.iter().all(|id| !old.contains(id)), "{old:?}, {new:?}");
    let log = std::fs::read_to_string(server.place.path.join("log")).unwrap();
    assert!(!log.contains("PANIC") && !log.contains("pre-existing shared memory"), "{log}");
    server.ok("pg_ctl", &["-D", "data", "-m", "fast", "-w", "stop"]);
    assert_eq!(server.segments(), Vec::<i32>::new());
}
