//! Running the command with the library that cargo has built beside the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ginnel_testkit::{c_program, run, run_ok};

/// Where a user's namespaces are.
pub(crate) const PLACE: &str = "/dev/shm/ginnel-0";

pub(crate) fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let library = test.with_file_name("libginnel_preload.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}

pub(crate) fn ginnel(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ginnel"));
    command.args(args).env("GINNEL_LIBRARY", library());
    for variable in ["GINNEL_NAMESPACE", "LD_PRELOAD"] {
        command.env_remove(variable);
    }
    command
}

/// Succeeds; its standard output.
#[track_caller]
pub(crate) fn ok(args: &[&str]) -> String {
    run_ok(&mut ginnel(args))
}

/// `ginnel run --namespace jobs -- ...`, which succeeds.
#[track_caller]
pub(crate) fn inside(command: &[&str]) -> String {
    ok(&[&["run", "--namespace", "jobs", "--"], command].concat())
}

/// Ends with that exit code, and says all of these words in one line of standard error, and nothing else.
#[track_caller]
pub(crate) fn fails(code: i32, command: &mut Command, words: &[&str]) {
    let Output { status, stdout, stderr } = run(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{command:?}: {stdout}{stderr}");
    assert!(stdout.is_empty() && stderr.starts_with("ginnel: "), "{command:?}: {stdout}{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{command:?} lacks {word:?}: {stderr}");
    }
}

/// The C program that uses an object of each kind.
pub(crate) fn objects() -> String {
    text(&c_program!("tests/run/objects.c"))
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// The user's namespaces.
pub(crate) fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir(PLACE).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
