//! A POSIX queue's number is a descriptor: waited for with others, duplicated, inherited, closed, used again.

mod common;

use ginnel_testkit::{c_program, isolated};

fn holds(case: &str) {
    isolated(|| assert_eq!(common::both(&c_program!("tests/descriptors.c"), &[case]), format!("{case}\n")));
}

#[test]
fn epoll_waits_on_two_queues_and_a_pipe_at_once() {
    holds("epoll");
}

#[test]
fn poll_and_select_tell_what_is_ready() {
    holds("poll");
}

#[test]
fn duplicates_are_the_same_description() {
    holds("dup");
}

#[test]
fn blocking_is_asked_of_the_descriptor() {
    holds("nonblock");
}

#[test]
fn a_fork_has_its_parents_queues() {
    holds("fork");
}

#[test]
fn an_executed_program_has_those_that_are_not_closed_on_exec() {
    holds("exec");
}

#[test]
fn a_closed_queues_number_is_used_again() {
    holds("reuse");
}
