//! `ginnel chat`: two terminals talk over two FIFOs.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};

use crate::args;
use crate::failure::{Context, Failure, Result};
use crate::guardian::Guardian;
use crate::talk::conversation::{self, Screen};
use crate::talk::{Seat, Side};

/// How long a side that leaves tries to get rid of its last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// Talk with another terminal over two FIFOs, either side first.
///
/// With --name the two FIFOs are NAME.a and NAME.b; they are made if they are not there, and removed when the last one
/// leaves. With two paths this side reads the first and writes the second. Whoever comes first waits for the other and
/// may type already; either may leave (Ctrl-D, Ctrl-C, even killed) and return. From a pipe or a file, each line is said,
/// and when all are said and heard this side leaves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ginnel chat --name /tmp/talk                 # in two terminals
  ginnel chat /tmp/from-you /tmp/from-me       # and with the two swapped in the other terminal
  uptime | ginnel chat --name /tmp/talk        # say one thing to whoever is there, or comes
  cat /tmp/talk.a                              # plain programs can take part: what side a says")]
pub(crate) struct Args {
    /// The FIFO to read from.
    #[arg(required_unless_present = "name", requires = "output")]
    input: Option<PathBuf>,
    /// The FIFO to write to.
    output: Option<PathBuf>,
    /// Use the FIFOs NAME.a and NAME.b, and take the side that is free.
    #[arg(long, conflicts_with_all = ["input", "output"])]
    name: Option<PathBuf>,
    /// Permission bits of FIFOs that are made, less those of the umask.
    #[arg(long, default_value = "600", value_parser = args::mode)]
    mode: u32,
}

pub(crate) fn run(args: Args) -> Result {
    let seat = match (&args.name, &args.input, &args.output) {
        (Some(name), _, _) => Seat::named(name),
        (None, Some(input), Some(output)) if input == output => {
            return Err(Failure::usage("chat: one FIFO is to read and another one to write"));
        }
        (None, Some(input), Some(output)) => Seat::of(input, output),
        _ => return Err(Failure::usage("chat: give --name NAME, or the FIFO to read and the FIFO to write")),
    };
    let mut guardian = Guardian::start()?;
    guardian.wait_until_ready()?;
    guardian.adopt_seat(&seat)?;
    let side = seat.take(args.mode, args.name.is_some())?;
    let outcome = match io::stdin().is_terminal() && io::stdout().is_terminal() {
        true => by_keyboard(side, &seat),
        false => by_lines(side, &seat),
    };
    // The threads still have the FIFOs open: the guardian waits for this process's end, not the other way round.
    std::mem::forget(guardian);
    outcome
}

/// With a line editor; what comes in appears above the line that is being typed.
fn by_keyboard(side: Side, seat: &Seat) -> Result {
    let failed = |error: ReadlineError| Failure::failed(format!("the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(failed)?;
    let printer = editor.create_external_printer().map_err(failed)?;
    let side = Arc::new(side);
    let speaker = conversation::start(side.clone(), Arc::new(Terminal(Mutex::new(printer))));
    let ended = loop {
        match editor.readline("> ") {
            Ok(line) => {
                // A history that cannot be kept is no reason to end a conversation.
                let _ = editor.add_history_entry(&line);
                speaker.say(&line);
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => break Ok(()),
            Err(error) => break Err(failed(error)),
        }
    };
    let kept = speaker.end(false).recv_timeout(FAREWELL);
    side.leave(seat)?;
    match kept {
        Ok(0) => {}
        Ok(kept) => eprintln!("ginnel: nobody was there for {kept} of your lines"),
        Err(_) => eprintln!("ginnel: the other side does not read; your last lines may be lost"),
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// Without a terminal: lines in, lines out, notices on standard error.
fn by_lines(side: Side, seat: &Seat) -> Result {
    let side = Arc::new(side);
    let speaker = conversation::start(side.clone(), Arc::new(Plain));
    for line in io::stdin().lock().split(b'\n') {
        speaker.say(&String::from_utf8_lossy(&line.context("standard input")?));
    }
    // What was said before the other side came is still to be delivered.
    let _ = speaker.end(true).recv();
    side.leave(seat)?;
    Ok(ExitCode::SUCCESS)
}

/// A terminal with a line that is being edited.
struct Terminal<P>(Mutex<P>);

impl<P: ExternalPrinter> Terminal<P> {
    fn print(&self, line: String) {
        // A terminal that is gone ends the editor too.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).print(line);
    }
}

impl<P: ExternalPrinter + Send + 'static> Screen for Terminal<P> {
    fn said(&self, line: &[u8]) {
        self.print(format!("< {}\n", harmless(&String::from_utf8_lossy(line))));
    }

    fn notice(&self, what: &str) {
        self.print(format!("* {what}\n"));
    }
}

struct Plain;

impl Screen for Plain {
    fn said(&self, line: &[u8]) {
        let mut out = io::stdout().lock();
        let written = out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        if written.is_err() {
            // Whoever read it has gone, and what would be heard from now on is for nobody.
            std::process::exit(0);
        }
    }

    fn notice(&self, what: &str) {
        eprintln!("* {what}");
    }
}

/// Control characters spelled out: a line from another user must not command this terminal.
fn harmless(line: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && c != '\t';
    match line.contains(is_harmful) {
        false => line.into(),
        true => line
            .chars()
            .map(|c| if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() })
            .collect::<String>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_does_not_command_the_terminal() {
        assert_eq!(harmless("caf\u{e9}\tau lait"), "caf\u{e9}\tau lait");
        assert_eq!(harmless("\x1b[2Jgone\r"), "\\u{1b}[2Jgone\\r");
    }
}
