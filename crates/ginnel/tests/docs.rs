//! The documents say what is there: every path exists, and every mechanism is in the README's table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Public modules that serve the mechanisms of their family and are none themselves.
const SUPPORT: [&str; 7] = [
    "memory/mapping",
    "memory/view",
    "notify/disposition",
    "notify/handler",
    "notify/siginfo",
    "notify/signal_set",
    "sync/sysv_semaphore_status",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The second column of the README's table of mechanisms.
fn modules_of_readme() -> BTreeSet<String> {
    let readme = read("README.md");
    let table = readme.split("## Every mechanism").nth(1).expect("the README has the table");
    let module =
        |line: &str| Some(line.split('|').nth(2)?.trim().strip_prefix('`')?.strip_suffix('`')?.to_string());
    table.lines().filter(|line| line.starts_with('|')).filter_map(module).collect()
}

#[test]
fn every_mechanism_is_in_the_readme_and_every_one_there_exists() {
    let mut modules = BTreeSet::new();
    for family in ["stream", "message", "memory", "sync", "notify"] {
        for line in read(format!("crates/ginnel/src/{family}/mod.rs")).lines() {
            if let Some(name) = line.strip_prefix("pub mod ") {
                modules.insert(format!("{family}/{}", name.trim_end_matches(';')));
            }
        }
    }
    let support: BTreeSet<String> = SUPPORT.iter().map(ToString::to_string).collect();
    assert!(support.is_subset(&modules), "no longer there: {:?}", support.difference(&modules));
    let mechanisms: BTreeSet<String> = modules.difference(&support).cloned().collect();
    assert_eq!(modules_of_readme(), mechanisms);
}

#[test]
fn every_mechanism_has_its_tests_where_the_law_of_paths_says() {
    for module in modules_of_readme() {
        let path = root().join(format!("crates/ginnel/tests/{module}.rs"));
        assert!(path.exists(), "{} is missing", path.display());
    }
}

#[test]
fn the_codemap_names_what_exists() {
    let text = read("ARCHITECTURE.md");
    assert!(text.lines().count() < 400, "ARCHITECTURE.md has {} lines", text.lines().count());
    let mut base = PathBuf::new();
    let mut checked = 0;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### `") {
            base = root().join(heading.split('`').next().unwrap());
            assert!(base.exists(), "{}", base.display());
        } else if line.starts_with("## ") {
            base = PathBuf::new();
        } else if let Some(cell) = line.strip_prefix("| `").filter(|_| base.exists()) {
            let first_column = cell.split('|').next().unwrap();
            for path in first_column.split('`').step_by(2) {
                if path.contains(['{', '<']) {
                    continue;
                }
                assert!(base.join(path).exists(), "{} is not there: {path}", base.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "only {checked} paths of the codemap were found");
}

#[test]
fn the_endpoint_notation_is_in_the_readme() {
    let readme = read("README.md");
    for (scheme, ..) in ginnel::Endpoint::schemes() {
        assert!(readme.contains(&format!("`{scheme}:")), "{scheme}: is not in the README");
    }
}
