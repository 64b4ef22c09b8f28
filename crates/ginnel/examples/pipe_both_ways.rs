//! A parent and its child talk over two pipes, one for each direction.
//!
//!     cargo run --example pipe_both_ways -- one two three
//!
//! The parent writes the words, a line each; the child sends each back in capitals; the parent prints what comes. When
//! the parent has closed its end the child reads the end and stops; when the child has stopped the parent does. With
//! `--impatient` the child stops after the first word: the parent's next write is `EPIPE`, which it reports.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

use ginnel::process::fork;
use ginnel::stream::{PipeReader, PipeWriter, pipe};

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let impatient = words.first().is_some_and(|word| word == "--impatient");
    if impatient {
        words.remove(0);
    }
    if words.is_empty() {
        eprintln!("usage: pipe_both_ways [--impatient] WORD...");
        return ExitCode::from(2);
    }
    match talk(&words, impatient) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pipe_both_ways: {error}");
            ExitCode::FAILURE
        }
    }
}

fn talk(words: &[String], impatient: bool) -> std::io::Result<()> {
    let (questions, to_child) = pipe()?;
    let (from_child, answers) = pipe()?;
    let mut parents = Some((to_child, from_child));
    let mut childs = Some((questions, answers));
    let child = fork(|| {
        // The child's copy of the parent's ends goes first: with a writer of its own it would never read the end.
        drop(parents.take());
        let (questions, answers) = childs.take().expect("they are here");
        match shout(questions, answers, if impatient { 1 } else { usize::MAX }) {
            Ok(()) => 0,
            Err(_) => 1,
        }
    })?;
    drop(childs.take());
    let (mut to_child, from_child) = parents.take().expect("they are here");
    let mut answers = BufReader::new(from_child);
    for word in words {
        writeln!(to_child, "{word}")?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? > 0 {
            print!("{answer}");
        }
    }
    drop(to_child);
    let status = child.wait()?;
    println!("the child ended: {status}");
    Ok(())
}

fn shout(questions: PipeReader, mut answers: PipeWriter, lines: usize) -> std::io::Result<()> {
    for line in BufReader::new(questions).lines().take(lines) {
        writeln!(answers, "{}", line?.to_uppercase())?;
    }
    Ok(())
}
