//! What is said: a thread that listens, a thread that speaks, and the one that has the keyboard.
//!
//! Opening order never matters. Each side has its reading end open before it looks for the other's: so when the listener
//! sees a writer come, the speaker's open succeeds, and the other side sees us in turn. A line that finds nobody is kept
//! until somebody is there. A side that is gone is noticed by the end of its FIFO; its lines wait until it is back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ginnel::Deadline;
use ginnel::stream::{ByteRead, ByteWrite, FifoReader, FifoWriter};

use super::Side;

const LOOK: Duration = Duration::from_millis(250);

/// Where what happens is shown.
pub(crate) trait Screen: Send + Sync + 'static {
    /// A line of the other side's, without its end.
    fn said(&self, line: &[u8]);
    /// Something that happened.
    fn notice(&self, what: &str);
}

/// What the speaker is told.
enum Word {
    Line(Vec<u8>),
    /// The other side has come: what was kept can go.
    Here,
    /// Nothing more will be said: how many lines could not be delivered is asked for, at once or when all are.
    Last {
        patient: bool,
        kept: Sender<usize>,
    },
}

/// The way to the speaker.
#[derive(Clone)]
pub(crate) struct Speaker(Sender<Word>);

impl Speaker {
    /// Says a line, when somebody listens.
    pub(crate) fn say(&self, line: &str) {
        // A speaker that has ended was told the last word.
        let _ = self.0.send(Word::Line(format!("{line}\n").into_bytes()));
    }

    /// Ends the speaker: gives the number of lines that nobody took, once it is known.
    pub(crate) fn end(&self, patient: bool) -> Receiver<usize> {
        let (kept, answer) = channel();
        let _ = self.0.send(Word::Last { patient, kept });
        answer
    }
}

/// Starts both threads.
pub(crate) fn start(side: Arc<Side>, screen: Arc<dyn Screen>) -> Speaker {
    let (words, told) = channel();
    let speaker = Speaker(words);
    let (here, shown, listens) = (speaker.clone(), screen.clone(), side.clone());
    std::thread::spawn(move || {
        if let Err(error) = listen(&listens.input, &here, &*shown) {
            shown.notice(&format!("nothing can be heard any more: {error}"));
        }
    });
    std::thread::spawn(move || Voice { side, writer: None, kept: VecDeque::new() }.speak(&told, &*screen));
    speaker
}

fn listen(input: &FifoReader, speaker: &Speaker, screen: &dyn Screen) -> ginnel::Result<()> {
    loop {
        // The kernel tells of a writer that comes, and not of one that came, wrote and left just before this call: so look
        // again now and then.
        match input.wait_for_writer_deadline(LOOK) {
            Err(error) if error.is_interrupted() || error.is_timed_out() => continue,
            outcome => outcome?,
        }
        // Before the notice: who reads it may answer.
        let _ = speaker.0.send(Word::Here);
        screen.notice("the other side is here");
        hear_out(input, screen)?;
        screen.notice("the other side has left");
    }
}

/// Shows what comes, until the last writer is gone.
fn hear_out(input: &FifoReader, screen: &dyn Screen) -> ginnel::Result<()> {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    loop {
        let len = match input.read_deadline(&mut buffer, Deadline::NEVER) {
            Err(error) if error.is_interrupted() => continue,
            outcome => outcome?,
        };
        if len == 0 {
            break;
        }
        for byte in &buffer[..len] {
            match byte {
                b'\n' => screen.said(&std::mem::take(&mut line)),
                byte => line.push(*byte),
            }
        }
    }
    // It was killed in the middle of a line, or never ends its lines.
    if !line.is_empty() {
        screen.said(&line);
    }
    Ok(())
}

/// The speaker's thread.
struct Voice {
    side: Arc<Side>,
    writer: Option<FifoWriter>,
    kept: VecDeque<Vec<u8>>,
}

impl Voice {
    fn speak(mut self, told: &Receiver<Word>, screen: &dyn Screen) {
        let mut last: Option<Sender<usize>> = None;
        // The other side may be there already, and waits to see us.
        let mut outcome = self.deliver();
        loop {
            if let Err(error) = outcome {
                screen.notice(&format!("what you say cannot be delivered: {error}"));
            }
            if let Some(asks) = last.take_if(|_| self.kept.is_empty()) {
                let _ = asks.send(0);
                return;
            }
            let Ok(word) = told.recv() else { return };
            match word {
                Word::Here => outcome = self.deliver(),
                Word::Line(line) => {
                    let had_none = self.kept.is_empty();
                    self.kept.push_back(line);
                    outcome = self.deliver();
                    if had_none && !self.kept.is_empty() && outcome.is_ok() {
                        screen.notice("nobody is there; what you say is kept until somebody is");
                    }
                }
                Word::Last { patient, kept } => {
                    outcome = self.deliver();
                    if !patient {
                        let _ = kept.send(self.kept.len());
                        return;
                    }
                    last = Some(kept);
                }
            }
        }
    }

    /// Says what is kept, as far as somebody listens.
    fn deliver(&mut self) -> ginnel::Result<()> {
        loop {
            if self.writer.is_none() {
                self.writer = match self.side.output.try_open_writer() {
                    Ok(writer) => Some(writer),
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(error),
                };
            }
            let (Some(writer), Some(line)) = (&self.writer, self.kept.front()) else { return Ok(()) };
            match writer.write_all_deadline(line, Deadline::NEVER) {
                Ok(()) => {
                    self.kept.pop_front();
                }
                // It is gone. Whoever comes next gets the whole line.
                Err(short) if short.error.is_disconnected() => self.writer = None,
                Err(short) if short.error.is_interrupted() && short.done == 0 => {}
                Err(short) => return Err(short.error),
            }
        }
    }
}
