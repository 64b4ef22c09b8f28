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

/// Types that are `pub` in the source and not in the library: nobody can name them.
const UNREACHABLE: [(&str, &str); 2] = [
    ("crates/ginnel/src/memory/mapping.rs", "Sealed"),
    // A macro's: the words of the model.
    ("crates/ginnel-engine/src/primitive/model.rs", ""),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The crates' sources, as paths from the root; a crate that is not there has none.
fn sources(crates: &[&str]) -> Vec<String> {
    let mut directories: Vec<_> = crates.iter().map(|name| format!("crates/{name}/src")).collect();
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root().join(&directory)).into_iter().flatten() {
            let entry = entry.unwrap();
            let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if path.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The name of the type that a line of source begins to define, if it is a public one.
fn public_type(line: &str) -> Option<&str> {
    let item = line.trim_start().strip_prefix("pub ")?;
    let item = item.strip_prefix("unsafe ").unwrap_or(item);
    let keywords = ["struct ", "enum ", "union ", "trait ", "type "];
    let rest = keywords.iter().find_map(|keyword| item.strip_prefix(keyword))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Whether what comes directly before an item, its doc comment and its attributes, has a block of Rust.
fn has_example(before: &[&str]) -> bool {
    let belongs =
        |line: &&str| line.starts_with("///") || !(line.is_empty() || line.ends_with(['{', '}', ';']));
    let mut docs: Vec<_> = before.iter().rev().map(|line| line.trim()).take_while(belongs).collect();
    docs.reverse();
    let fences = docs.iter().filter_map(|line| line.strip_prefix("///")?.trim_start().strip_prefix("```"));
    // Every other one closes a block.
    fences.step_by(2).any(|language| !["text", "ignore", "console", "c"].contains(&language))
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
fn every_public_type_has_an_example() {
    let (mut types, mut without) = (Vec::new(), Vec::new());
    for path in sources(&["ginnel", "ginnel-inspect", "ginnel-engine"]) {
        let text = read(&path);
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(name) = public_type(line) else { continue };
            types.push((path.clone(), name.to_string()));
            if !has_example(&lines[..number]) && !UNREACHABLE.contains(&(path.as_str(), name)) {
                without.push(format!("{path}:{}: {name}", number + 1));
            }
        }
    }
    assert!(without.is_empty(), "no example in the documentation of\n{}", without.join("\n"));
    for (path, name) in UNREACHABLE {
        assert!(types.contains(&(path.into(), name.into())), "{path}: {name} is no longer there");
    }
    assert!(types.len() > 100, "only {} public types were found", types.len());
}

#[test]
fn what_counts_as_an_example() {
    let example = ["/// A lock.", "///", "/// ```", "/// let it = 1;", "/// ```", "#[derive(Debug)]"];
    assert!(has_example(&example));
    assert!(has_example(&["/// ```no_run", "/// ```"]));
    assert!(!has_example(&["/// A lock.", "#[derive(", "    Debug,", ")]"]));
    assert!(!has_example(&["/// ```text", "/// ```"]));
    assert!(!has_example(&["/// ```", "/// ```", "pub struct Before;"]), "another item's");
    assert!(!has_example(&["/// ```", "/// ```", "", "/// A lock."]), "another item's");
    assert_eq!(public_type("    pub struct Lock<'a> {"), Some("Lock"));
    assert_eq!(public_type("pub type Result<T> = Other<T>;"), Some("Result"));
    assert_eq!(public_type("pub(crate) struct Lock;"), None);
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
