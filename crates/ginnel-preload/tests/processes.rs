//! What a process has when it forks, becomes another program, closes all that it does not know, or is killed.

mod common;

use ginnel_testkit::{c_program, isolated, isolated_for};

fn case(name: &str) -> String {
    common::both(&c_program!("tests/processes.c"), &[name])
}

#[test]
fn undo_outlives_exec_and_is_applied_after_a_kill() {
    isolated(|| assert_eq!(case("undo"), "undo\n"));
}

#[test]
fn undo_is_not_inherited_by_a_fork() {
    isolated(|| assert_eq!(case("undo_fork"), "undo_fork\n"));
}

#[test]
fn attachments_are_inherited_by_a_fork_and_gone_after_exec() {
    isolated(|| assert_eq!(case("attached"), "attached\n"));
}

#[test]
fn who_closes_all_descriptors_goes_on_using_its_objects() {
    isolated(|| assert_eq!(case("close_all"), "close_all\n"));
}

#[test]
fn a_spawned_program_has_the_same_objects() {
    isolated(|| assert_eq!(case("spawn"), "spawned\n".repeat(5)));
}

#[test]
fn the_child_of_a_vfork_closes_nothing_of_its_parents() {
    isolated(|| assert_eq!(case("vfork"), "vfork\n"));
}

#[test]
fn a_process_with_threads_forks_while_they_are_at_it() {
    isolated_for(std::time::Duration::from_secs(120), || {
        assert_eq!(case("fork_of_threads"), "fork_of_threads\n")
    });
}
