//! C programs on the C library's calls: the kernel judges them first, then they run under the drop-in.
#![allow(dead_code, unreachable_pub, reason = "a module of several test programs")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ginnel_testkit::{Objects, run_within, temp_dir};

/// Where the objects are.
pub const NAMESPACE: &str = "/dev/shm/.ginnel-testkit-served";
const LIMIT: Duration = Duration::from_secs(40);

/// Cargo puts it beside the tests.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let library = test.with_file_name("libginnel_preload.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}

/// Makes the namespace of this test.
pub fn make_namespace() {
    ginnel_engine::namespace::Namespace::options().create(true).open(NAMESPACE).expect("a namespace");
}

/// A program under the drop-in.
pub fn served(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library()).env("GINNEL_NAMESPACE", NAMESPACE);
    command
}

#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = run_within(command.current_dir(temp_dir().path()), LIMIT);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    assert!(errors.is_empty(), "{command:?}: {errors}");
    text.into_owned()
}

/// Runs a case of a C program on the kernel's home, which judges the program, and then under the drop-in: both must succeed
/// and print the same, and in the second the kernel must have no object. What was printed.
#[track_caller]
pub fn both(program: &Path, args: &[&str]) -> String {
    make_namespace();
    let none = Objects::snapshot();
    let first = printed(Command::new(program).args(args));
    none.assert_same();
    let second = printed(served(program).args(args));
    none.assert_same();
    assert_eq!(second, first, "{args:?}: under the drop-in, and on the kernel's home");
    second
}
