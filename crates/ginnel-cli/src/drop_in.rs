//! The drop-in for unmodified programs: where its library is, and which programs it can reach.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};

const LIBRARY: &str = "libginnel_preload.so";
/// Names the library where it is not beside this program.
pub(crate) const LIBRARY_VARIABLE: &str = "GINNEL_LIBRARY";
/// The dynamic linker's variable.
pub(crate) const PRELOAD: &str = "LD_PRELOAD";

/// The library: beside this program, or where it is when both are installed under one prefix.
pub(crate) fn library() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => can_be_listed(std::path::absolute(&path).context(path.display())?),
            false => {
                Err(Failure::failed(format!("{LIBRARY_VARIABLE}={}: there is no such file", path.display())))
            }
        };
    }
    let program = std::env::current_exe().context("finding this program")?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = [
        beside.join(LIBRARY),
        beside.join("../lib").join(LIBRARY),
        beside.join("../lib/ginnel").join(LIBRARY),
    ];
    let found = places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Failure::failed(format!(
            "{LIBRARY} is not in {} nor in its ../lib: `cargo build --release` builds both, or name it with {LIBRARY_VARIABLE}",
            beside.display()
        ))
    })?;
    can_be_listed(found)
}

/// The dynamic linker takes a list apart at these, and goes on without what it does not find.
fn can_be_listed(library: PathBuf) -> Result<PathBuf> {
    match library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b' ')) {
        false => Ok(library),
        true => Err(Failure::failed(format!(
            "{}: {PRELOAD} cannot name a library whose path has a space or a colon; put it elsewhere and name it with \
             {LIBRARY_VARIABLE}",
            library.display()
        ))),
    }
}

/// What is to be in `LD_PRELOAD`: the library before what is there already.
pub(crate) fn preload(library: &Path) -> OsString {
    let mut value = library.as_os_str().to_owned();
    let before = std::env::var_os(PRELOAD).unwrap_or_default();
    let is_there =
        before.as_bytes().split(|byte| matches!(byte, b':' | b' ')).any(|path| path == value.as_bytes());
    match is_there {
        true => before,
        false => {
            if !before.is_empty() {
                value.push(":");
                value.push(before);
            }
            value
        }
    }
}

/// Why a program cannot be reached, and what to try.
///
/// # Errors
/// A failure that says it, with the exit code of a shell: 127 for a program that is not there.
pub(crate) fn check(program: &OsStr) -> Reached<PathBuf> {
    let path = find(program)?;
    check_file(&path, 0)?;
    Ok(path)
}

pub(crate) type Reached<T> = std::result::Result<T, Unreachable>;

/// A program that is not started, and why.
pub(crate) struct Unreachable {
    pub(crate) why: String,
    pub(crate) code: u8,
}

impl Unreachable {
    fn new(code: u8, why: String) -> Unreachable {
        Unreachable { why, code }
    }
}

/// As the shell looks for it.
fn find(program: &OsStr) -> Reached<PathBuf> {
    let missing =
        || Unreachable::new(127, format!("{}: there is no such program", program.to_string_lossy()));
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return match path.metadata() {
            Err(_) => Err(missing()),
            Ok(_) if is_program(&path) => Ok(path),
            Ok(_) => Err(Unreachable::new(126, format!("{}: it is no program", path.display()))),
        };
    }
    let places = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&places)
        .map(|place| place.join(program))
        .find(|path| is_program(path))
        .ok_or_else(missing)
}

/// How many interpreters of interpreters.
const DEPTH_MAX: u32 = 4;

fn check_file(path: &Path, depth: u32) -> Reached<()> {
    let refused = |why: &str| Err(Unreachable::new(126, format!("{}: {why}", path.display())));
    let read = |error: std::io::Error| Unreachable::new(126, format!("{}: {error}", path.display()));
    // What cannot be read can be run, and is not looked into.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let status = file.metadata().map_err(read)?;
    if let Some(what) = gains(&file, &status) {
        return refused(&format!(
            "it {what}: the dynamic linker drops the library for it; run it without, or as its owner"
        ));
    }
    let mut start = [0; 64];
    let len = (&file).read(&mut start).map_err(read)?;
    if start.starts_with(b"#!") {
        let mut line = Vec::new();
        let _ = BufReader::new(File::open(path).map_err(read)?).read_until(b'\n', &mut line);
        let interpreter = line[2..].split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
        return match interpreter {
            Some(interpreter) if depth < DEPTH_MAX => {
                check_file(Path::new(OsStr::from_bytes(interpreter)), depth + 1)
            }
            _ => Ok(()),
        };
    }
    if len < start.len() || !start.starts_with(b"\x7fELF") {
        return Ok(());
    }
    const CLASS_64: u8 = 2;
    if start[4] != CLASS_64 {
        return refused("it is a 32-bit program, and the library is not; use --supervise");
    }
    if machine(&start) != machine_of_this_program() {
        return refused("it is for another kind of processor than the library");
    }
    if !has_interpreter(&file, &start).map_err(read)? {
        return refused(
            "it is statically linked, so no library can serve its calls; use --supervise, or link it dynamically",
        );
    }
    Ok(())
}

/// Why the kernel would start it with more rights than the caller has.
fn gains(file: &File, status: &Metadata) -> Option<&'static str> {
    const SET_USER_ID: u32 = 0o4000;
    /// Without the group's right to execute, the bit means something else.
    const SET_GROUP_ID: u32 = 0o2010;
    let user = rustix::process::geteuid();
    if status.mode() & SET_USER_ID != 0 && status.uid() != user.as_raw() {
        return Some("is set-user-id");
    }
    if status.mode() & SET_GROUP_ID == SET_GROUP_ID && status.gid() != rustix::process::getegid().as_raw() {
        return Some("is set-group-id");
    }
    // Root has them all.
    let none: &mut [u8] = &mut [];
    let capable = !user.is_root() && rustix::fs::fgetxattr(file, "security.capability", none).is_ok();
    capable.then_some("has capabilities (setcap)")
}

fn machine(start: &[u8; 64]) -> u16 {
    u16::from_le_bytes([start[18], start[19]])
}

fn machine_of_this_program() -> u16 {
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 }
}

/// Whether the dynamic linker starts it: `PT_INTERP`.
fn has_interpreter(file: &File, start: &[u8; 64]) -> std::io::Result<bool> {
    const INTERPRETER: u32 = 3;
    const ENTRIES_MAX: u16 = 1024;
    let word = |at: usize| u16::from_le_bytes([start[at], start[at + 1]]);
    let offset = u64::from_le_bytes(start[32..40].try_into().unwrap_or_default());
    let (size, count) = (u64::from(word(54)), word(56).min(ENTRIES_MAX));
    for index in 0..u64::from(count) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, offset.saturating_add(index * size))?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(true);
        }
    }
    Ok(false)
}
