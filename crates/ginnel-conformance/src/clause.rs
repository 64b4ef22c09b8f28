//! A clause of a man page, and the runner.
//!
//! The runner gives each clause a process and an empty home of its own, and a deadline: a clause that fails, hangs or
//! crashes names itself, and all others are asked all the same. With `GINNEL_CLAUSE=word` only the clauses whose name or
//! page has that word.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ginnel_testkit::{Exit, fork};

use crate::home::Home;

/// How long a clause may take, its processes included: longer than any wait in it, which then says what it waited for.
const LIMIT: Duration = Duration::from_secs(30);
/// How long one that is expected to fail may take.
const SHORT_LIMIT: Duration = Duration::from_secs(3);

/// One promise of a man page, asked of a home. It holds if `ask` returns.
#[derive(Debug)]
pub struct Clause<H> {
    /// `msgop(2)`.
    pub page: &'static str,
    /// Unique in its mechanism.
    pub name: &'static str,
    /// The promise.
    pub says: &'static str,
    /// Sets up, acts, checks.
    pub ask: fn(&H),
}

/// A line of a table of clauses.
pub fn clause<H>(page: &'static str, name: &'static str, says: &'static str, ask: fn(&H)) -> Clause<H> {
    Clause { page, name, says, ask }
}

/// Where a home is meant to differ from the man pages' clause of that name.
#[derive(Debug)]
pub struct Difference<H> {
    /// The clause that does not hold.
    pub clause: &'static str,
    /// Why that is right.
    pub reason: &'static str,
    /// What holds instead, and does not in the kernel's home.
    pub instead: fn(&H),
}

/// Asks all clauses, and panics at the end with the names of those that do not hold.
///
/// Prints a line a clause, and a summary: `System V messages, kernel: 58 clauses green`.
pub fn run<H: Home>(title: &str, clauses: Vec<Clause<H>>) {
    run_with_differences(title, clauses, Vec::new());
}

/// As [`run`], where some clauses are not to hold: something else is.
pub fn run_with_differences<H: Home>(title: &str, clauses: Vec<Clause<H>>, differences: Vec<Difference<H>>) {
    let mut names = std::collections::HashSet::new();
    for clause in &clauses {
        assert!(names.insert(clause.name), "two clauses of the name {}", clause.name);
    }
    for difference in &differences {
        assert!(names.contains(difference.clause), "a difference from no clause: {}", difference.clause);
    }
    let wanted = std::env::var("GINNEL_CLAUSE").unwrap_or_default();
    let (mut green, mut differ, mut failed) = (0, 0, Vec::new());
    for clause in clauses {
        if !clause.name.contains(&wanted) && !clause.page.contains(&wanted) {
            continue;
        }
        let difference = differences.iter().find(|difference| difference.clause == clause.name);
        let verdict = match difference {
            None => holds::<H>(clause.ask),
            Some(difference) => {
                holds::<H>(difference.instead).and_then(|()| match quietly::<H>(clause.ask) {
                    Ok(()) => Err("the clause holds, and is listed as a difference".to_owned()),
                    Err(_) => Ok(()),
                })
            }
        };
        let word = match (&verdict, difference) {
            (Ok(()), None) => "ok",
            (Ok(()), Some(_)) => "differs",
            (Err(_), _) => "FAILED",
        };
        println!("{word:7} {:15} {}: {}", clause.page, clause.name, clause.says);
        match verdict {
            Ok(()) if difference.is_some() => {
                println!("        on purpose: {}", difference.map_or("", |difference| difference.reason));
                differ += 1;
            }
            Ok(()) => green += 1,
            Err(why) => {
                println!("        {why}");
                failed.push(format!("{} {} ({})", clause.page, clause.name, clause.says));
            }
        }
    }
    let on_purpose = if differ > 0 { format!(", {differ} differ on purpose") } else { String::new() };
    println!("{title}, {}: {green} clauses green{on_purpose}", H::NAME);
    assert!(failed.is_empty(), "{title}, {}: {} failed:\n{}", H::NAME, failed.len(), failed.join("\n"));
}

/// Whether it holds in a fresh home, in a process of its own.
fn holds<H: Home>(ask: fn(&H)) -> Result<(), String> {
    judge(LIMIT, || ask(&H::fresh()))
}

/// As `holds`, for a clause that is expected to fail: what it says of that is not printed.
fn quietly<H: Home>(ask: fn(&H)) -> Result<(), String> {
    // One that waits for what does not come has failed, however long it would go on.
    judge(SHORT_LIMIT, || {
        std::panic::set_hook(Box::new(|_| {}));
        ask(&H::fresh());
    })
}

fn judge(limit: Duration, ask: impl FnOnce()) -> Result<(), String> {
    let process = fork(ask);
    // Its deadline is a panic that says where it hangs; whatever it has started dies with it.
    match catch_unwind(AssertUnwindSafe(|| process.wait_within(limit))) {
        Ok(Exit::Code(0)) => Ok(()),
        Ok(exit) => Err(format!("its process ended with {exit:?}")),
        Err(_) => Err(format!("it did not end within {limit:?}")),
    }
}

/// That what a difference says holds instead does not hold in the home it differs from.
pub fn assert_fails_there<H: Home>(differences: Vec<Difference<H>>) {
    for difference in differences {
        let verdict = quietly::<H>(difference.instead);
        assert!(verdict.is_err(), "{}: holds in the {} too: no difference", difference.clause, H::NAME);
    }
}
