//! Programs that cannot be reached, or not be started: named, with what to do, before anything is made.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ginnel_testkit::{as_user, isolated, run_ok, temp_dir};

use crate::support::{PLACE, fails, ginnel, library, objects, text};

fn file(path: &Path, content: &[u8], mode: u32) -> String {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    text(path)
}

/// An ELF header of that class and machine.
fn header(class: u8, machine: u16) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    header[16] = 2;
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header
}

#[track_caller]
fn refused(code: i32, program: &str, words: &[&str]) {
    for options in [&["--private"][..], &["--namespace", "jobs"], &[]] {
        let args = [&["run"], options, &["--", program]].concat();
        fails(code, &mut ginnel(&args), &[&[program], words].concat());
    }
    assert!(!Path::new(PLACE).exists(), "something was made");
}

fn linked(directory: &Path, name: &str, option: &str) -> String {
    let source = directory.join("program.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let program = directory.join(name);
    run_ok(Command::new("cc").arg(option).arg("-o").arg(&program).arg(&source));
    text(&program)
}

#[test]
fn a_static_program_is_named_with_what_to_do() {
    isolated(|| {
        let directory = temp_dir();
        for option in ["-static", "-static-pie"] {
            let program = linked(directory.path(), &option[1..], option);
            refused(126, &program, &["statically linked", "--supervise", "link it dynamically"]);
            // Found along PATH too.
            let mut command = ginnel(&["run", "--private", "--", &option[1..]]);
            fails(126, command.env("PATH", directory.path()), &[&program, "statically linked"]);
            // As what a script is interpreted by, also behind another script.
            let script = directory.path().join("script");
            let script = file(&script, format!("#! {program} -x\n").as_bytes(), 0o755);
            let outer = file(&directory.path().join("outer"), format!("#!{script}\n").as_bytes(), 0o755);
            for script in [script, outer] {
                let mut command = ginnel(&["run", "--private", "--", &script]);
                fails(126, &mut command, &[&program, "statically linked"]);
            }
        }
        assert!(!Path::new(PLACE).exists(), "something was made");
    });
}

#[test]
fn a_program_for_another_machine_is_named() {
    const RISCV: u16 = 243;
    const I386: u16 = 3;
    isolated(|| {
        let directory = temp_dir();
        let old = file(&directory.path().join("old"), &header(1, I386), 0o755);
        refused(126, &old, &["32-bit", "--supervise"]);
        let foreign = file(&directory.path().join("foreign"), &header(2, RISCV), 0o755);
        refused(126, &foreign, &["another kind of processor"]);
    });
}

#[test]
fn a_program_that_gains_privileges_is_named() {
    isolated(|| {
        let directory = temp_dir();
        let program = directory.path().join("gains");
        let ours = text(&program);
        for (owner, group, mode) in [(65534, 65534, 0o4755), (0, 65534, 0o2755)] {
            std::fs::copy(objects(), &program).unwrap();
            std::os::unix::fs::chown(&program, Some(owner), Some(group)).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
            refused(126, &ours, &["-id", "the dynamic linker drops the library", "run it without"]);
        }
        // Nothing is gained where the file's owner runs it.
        std::os::unix::fs::chown(&program, Some(0), Some(0)).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o6755)).unwrap();
        run_ok(&mut ginnel(&["run", "--private", "--", &ours, "put", "sysv-msg", "1", "x"]));
    });
}

#[test]
fn another_user_is_refused_roots_program() {
    isolated(|| {
        // Where any user can reach them.
        let place = Path::new("/dev/shm/.ginnel-testkit-bin");
        std::fs::create_dir(place).unwrap();
        std::fs::set_permissions(place, PermissionsExt::from_mode(0o755)).unwrap();
        let copies = [("ginnel", env!("CARGO_BIN_EXE_ginnel").into(), 0o755), ("lib.so", library(), 0o755)];
        for (name, from, mode) in copies.into_iter().chain([("gains", objects().into(), 0o4755)]) {
            std::fs::copy(from, place.join(name)).unwrap();
            std::fs::set_permissions(place.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::copy(objects(), place.join("plain")).unwrap();
        as_user(1001, 1001, || {
            let command = |program: &str| {
                let mut command = Command::new(place.join("ginnel"));
                command.args(["run", "--private", "--"]).arg(place.join(program));
                command.env("GINNEL_LIBRARY", place.join("lib.so")).current_dir("/");
                command
            };
            fails(126, &mut command("gains"), &["gains", "set-user-id", "run it without"]);
            assert!(!Path::new("/dev/shm/ginnel-1001").exists(), "something was made");
            run_ok(command("plain").args(["put", "sysv-msg", "1", "x"]));
        })
        .assert_ok();
    });
}

#[test]
fn what_is_no_program_has_the_exit_codes_of_a_shell() {
    isolated(|| {
        let directory = temp_dir();
        let plain = file(&directory.path().join("plain"), b"text", 0o644);
        refused(126, &plain, &["no program"]);
        refused(126, &text(directory.path()), &["no program"]);
        refused(127, &text(&directory.path().join("none")), &["no such program"]);
        refused(127, "ginnel-has-no-such-program", &["no such program"]);
        // What only the kernel finds out.
        let lost = file(&directory.path().join("lost"), b"#!/nowhere/sh\n", 0o755);
        let mut command = ginnel(&["run", "--private", "--", &lost]);
        fails(127, &mut command, &[&lost]);
    });
}

#[test]
fn what_fails_before_the_program_is_125() {
    isolated(|| {
        let directory = temp_dir();
        let run = |options: &[&str]| ginnel(&[&["run"], options, &["--", "echo", "ran"]].concat());
        fails(
            125,
            run(&["--private"]).env("GINNEL_LIBRARY", "/nowhere/lib.so"),
            &["GINNEL_LIBRARY", "/nowhere"],
        );
        fails(125, &mut run(&["--namespace", "/etc"]), &["/etc", "memory file system"]);
        fails(125, &mut run(&["--namespace", ".hidden"]), &["1 to 200 bytes"]);
        // The dynamic linker would take such a path apart, and run the program unserved.
        for name in ["a b", "a:b"] {
            let place = directory.path().join(name);
            std::fs::create_dir(&place).unwrap();
            let copy = place.join("lib.so");
            std::fs::copy(library(), &copy).unwrap();
            fails(125, run(&["--private"]).env("GINNEL_LIBRARY", &copy), &[&text(&copy), "space or a colon"]);
        }
        // No words for it: the kernel's home needs no drop-in.
        let output = ginnel_testkit::run(&mut run(&["--namespace", "kernel"]));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    });
}
