//! C programs, the other end of a test: compiled once, kept beside the test binaries.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::child::run_within;
use crate::temp::temp_dir_in;

const FLAGS: [&str; 6] = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"];

/// Compiles a C file with `cc` (warnings are errors) and returns the program's path.
///
/// The program is kept under the directory of the test binary, named after a hash of the file, the headers beside it
/// and the flags, so that it is compiled once. Panics with the compiler's output when it does not compile.
pub fn c_program(source: &Path) -> PathBuf {
    let stem = source.file_stem().expect("a C file's name").to_string_lossy();
    let exe = std::env::current_exe().expect("the test binary's path");
    let cache = exe.parent().expect("the test binary's directory").join("ginnel-c");
    let program = cache.join(format!("{stem}-{:016x}", hash(source)));
    if program.exists() {
        return program;
    }
    std::fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("mkdir {}: {error}", cache.display()));
    // Tests race to this point, each with pid 2 in its own namespace: a directory of one's own, then rename.
    let dir = temp_dir_in(&cache);
    let unfinished = dir.path().join("program");
    let mut cc = Command::new("cc");
    cc.args(FLAGS).arg("-o").arg(&unfinished).arg(source).arg("-lrt");
    let output = run_within(&mut cc, Duration::from_secs(60));
    if !output.status.success() {
        panic!("{cc:?} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    std::fs::rename(&unfinished, &program)
        .unwrap_or_else(|error| panic!("rename to {}: {error}", program.display()));
    program
}

fn hash(source: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    FLAGS.hash(&mut hasher);
    let read =
        |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read(source).hash(&mut hasher);
    let beside =
        source.parent().into_iter().flat_map(std::fs::read_dir).flatten().flatten().map(|entry| entry.path());
    let mut headers: Vec<_> = beside.filter(|path| path.extension().is_some_and(|e| e == "h")).collect();
    headers.sort();
    headers.iter().for_each(|path| (path, read(path)).hash(&mut hasher));
    hasher.finish()
}

/// [`c_program()`] of a path relative to the calling crate's directory: `c_program!("tests/message/sysv_queue.c")`.
#[macro_export]
macro_rules! c_program {
    ($path:literal) => {
        $crate::c_program(::std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))
    };
}

/// The path of a built example of the package under test: `example("mailbox")`.
///
/// `cargo test` builds examples; `cargo test --test NAME` alone does not.
///
/// # Panics
/// When it has not been built.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test binary's path");
    let path = test.ancestors().nth(2).expect("target/debug").join("examples").join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --examples` first", path.display());
    path
}
