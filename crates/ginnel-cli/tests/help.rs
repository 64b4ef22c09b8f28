//! Help, completions and man pages: every verb has them, with an example.

use std::process::Command;

use ginnel_testkit::{run, run_ok, temp_dir};

fn ginnel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ginnel"));
    command.args(arguments);
    command
}

/// The verbs that `ginnel help` lists.
fn verbs() -> Vec<String> {
    let help = run_ok(&mut ginnel(&["help"]));
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let verb = |line: &str| Some(line.strip_prefix("  ")?.split(' ').next()?.to_string());
    listed.lines().filter_map(verb).filter(|verb| !verb.is_empty() && verb != "help").collect()
}

#[test]
fn every_verb_has_help_with_an_example_of_itself() {
    let verbs = verbs();
    assert!(verbs.len() >= 15, "{verbs:?}");
    for verb in verbs {
        let help = run_ok(&mut ginnel(&["help", &verb]));
        let examples = help.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("no examples: {help}"));
        assert!(examples.contains(&format!("ginnel {verb}")), "{help}");
    }
}

#[test]
fn every_shell_has_completions_that_know_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run_ok(&mut ginnel(&["completions", shell]));
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell} does not know {verb}");
        }
        assert!(!script.contains("__guardian"), "{shell} offers what is not for people");
    }
    let syntax = ["-n", "-c", &run_ok(&mut ginnel(&["completions", "bash"]))].map(String::from);
    assert!(run(Command::new("bash").args(syntax)).status.success());
}

#[test]
fn every_verb_has_a_man_page() {
    let directory = temp_dir();
    let path = directory.path().join("man1");
    run_ok(ginnel(&["man", "--all"]).arg(&path));
    let page = std::fs::read_to_string(path.join("ginnel.1")).unwrap();
    assert!(page.contains(".TH ginnel 1") && page.contains("tour"), "{page}");
    for verb in verbs() {
        let page = std::fs::read_to_string(path.join(format!("ginnel-{verb}.1"))).unwrap();
        assert!(page.contains(&format!(".TH ginnel-{verb} 1")) && page.contains("Examples:"), "{page}");
    }
    let pages = std::fs::read_dir(&path).unwrap().count();
    assert_eq!(pages, verbs().len() + 1);
}

#[test]
fn wrong_words_are_exit_2_with_a_hint() {
    let output = run(&mut ginnel(&["tuor"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("tour"));

    let output = run(&mut ginnel(&["man", "tuor"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("ginnel help"));
}
