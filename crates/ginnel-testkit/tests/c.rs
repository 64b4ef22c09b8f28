//! C programs compile, once, and say why when they do not.

use std::panic::catch_unwind;
use std::process::Command;

use ginnel_testkit::{c_program, isolated, run, temp_dir};

#[test]
fn a_program_compiles_once_and_runs() {
    let program = c_program!("tests/hello.c");
    let made = program.metadata().unwrap().modified().unwrap();
    assert_eq!(program, c_program!("tests/hello.c"));
    assert_eq!(made, program.metadata().unwrap().modified().unwrap());
    let output = run(Command::new(program).arg("world"));
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"hello world\n"[..]));
}

#[test]
fn a_program_compiles_under_isolation() {
    isolated(|| {
        let dir = temp_dir();
        let source = dir.path().join("inside.c");
        // Different in every run, so that it is compiled here and now.
        let number = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        std::fs::write(&source, format!("// {number}\nint main(void) {{ return 3; }}\n")).unwrap();
        let program = c_program(&source);
        assert_eq!(run(&mut Command::new(&program)).status.code(), Some(3));
        std::fs::remove_file(program).unwrap();
    });
}

#[test]
fn a_changed_source_is_another_program() {
    let dir = temp_dir();
    let source = dir.path().join("changed.c");
    let program = |text: &str| {
        std::fs::write(&source, text).unwrap();
        c_program(&source)
    };
    let (one, two) = (program("int main(void) { return 1; }\n"), program("int main(void) { return 2; }\n"));
    assert_eq!(run(&mut Command::new(one)).status.code(), Some(1));
    assert_eq!(run(&mut Command::new(two)).status.code(), Some(2));
}

#[test]
fn the_compilers_words_are_in_the_panic() {
    let dir = temp_dir();
    let source = dir.path().join("wrong.c");
    std::fs::write(&source, "int main(void) { int unused; return 0; }\n").unwrap();
    let panic = catch_unwind(|| c_program(&source)).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("unused variable"), "{message}");
}
