//! What moves the bytes of a measured pipeline from stage to stage, and notes who waits for whom.
//!
//! Between two stages there are two pipes, and a [`Gap`]: it moves by `splice(2)` what the stage before has written to
//! the pipe that the stage after reads. All gaps are worked by one thread, so at any moment it is known of each whether
//! it waits for the stage before (its pipe is empty) or for the one after (its pipe is full).
//!
//! The ends go on as in a plain pipeline. The stage before closes: what is left is moved, then the stage after sees the
//! end. The stage after closes: the gap learns it at once, not only from its next write, so that the very next write of
//! the stage before gets `EPIPE`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ginnel::stream::pipe::try_splice;
use ginnel::stream::pipeline::Tap;
use ginnel::stream::{PipeReader, PipeWriter};
use indicatif::ProgressBar;
use rustix::event::{PollFd, PollFlags};

use crate::failure::Result;
use crate::units;

/// The most that one splice is asked for: all that a pipe can hold.
const MOST: usize = 1 << 20;

/// How often a gap is served before the others get their turn.
const TURNS: usize = 16;

/// How often it is looked whether the stage after a gap has emptied its pipe, which `poll(2)` does not tell.
const TICK: Duration = Duration::from_millis(20);

/// All gaps of a pipeline, and what was measured.
pub(super) struct Relay {
    pub(super) gaps: Vec<Gap>,
    /// For each stage how long others waited for it.
    pub(super) waited_for: Vec<WaitedFor>,
    pub(super) elapsed: Duration,
    started: Instant,
    last: Instant,
    live: ProgressBar,
}

/// How long a stage was the one that had what it needed, and that others waited for.
#[derive(Clone, Copy, Default)]
pub(super) struct WaitedFor {
    /// While another stage ran.
    pub(super) by_others: Duration,
    /// When all others had ended.
    pub(super) alone: Duration,
}

/// The place between two stages.
pub(super) struct Gap {
    ends: Option<(PipeReader, PipeWriter)>,
    waits_for: Side,
    /// The stage after has read all that it was given.
    emptied: bool,
    /// Bytes that the stage before has written.
    pub(super) written: u64,
    /// Bytes that the stage after has read, or may still read.
    pub(super) read: u64,
    pub(super) waited_for_before: Duration,
    pub(super) waited_for_after: Duration,
    /// How long after the start it was over.
    pub(super) ended: Option<Duration>,
}

/// The stage that a gap waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

impl Gap {
    fn new(tap: Tap) -> Gap {
        Gap {
            ends: Some((tap.from, tap.to)),
            waits_for: Side::Before,
            emptied: true,
            written: 0,
            read: 0,
            waited_for_before: Duration::ZERO,
            waited_for_after: Duration::ZERO,
            ended: None,
        }
    }

    fn waits_for(&self, side: Side) -> bool {
        self.ends.is_some() && self.waits_for == side
    }

    /// Whether the stage after can do nothing: it has read all, and there will be more.
    fn starves(&self) -> bool {
        self.waits_for(Side::Before) && self.emptied
    }

    /// Moves what there is to move.
    fn work(&mut self, from: PollFlags, to: PollFlags, elapsed: Duration) -> Result<()> {
        if to.contains(PollFlags::ERR) {
            self.broken(elapsed);
        } else if from.contains(PollFlags::HUP) && !from.contains(PollFlags::IN) {
            self.close(elapsed);
        } else if !(from | to).is_empty() {
            self.splice(elapsed)?;
        }
        self.look();
        Ok(())
    }

    fn splice(&mut self, elapsed: Duration) -> Result<()> {
        for _ in 0..TURNS {
            let Some((from, to)) = &self.ends else { return Ok(()) };
            match try_splice(from, to, MOST) {
                Ok(0) => self.close(elapsed),
                Ok(bytes) => {
                    self.written += bytes as u64;
                    self.read += bytes as u64;
                }
                Err(error) if error.is_would_block() => return Ok(()),
                Err(error) if error.is_disconnected() => self.broken(elapsed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Who is waited for now, and whether the stage after has anything left.
    fn look(&mut self) {
        if let Some((from, to)) = &self.ends {
            self.waits_for = if unread(from) == 0 { Side::Before } else { Side::After };
            self.emptied = unread(to) == 0;
        }
    }

    /// The stage before has closed, and all it wrote has been moved.
    fn close(&mut self, elapsed: Duration) {
        self.ends = None;
        self.ended.get_or_insert(elapsed);
    }

    /// The stage after has closed. What lies in the two pipes was written, and will not be read.
    fn broken(&mut self, elapsed: Duration) {
        if let Some((from, to)) = &self.ends {
            self.written += unread(from);
            self.read = self.read.saturating_sub(unread(to));
        }
        self.close(elapsed);
    }
}

/// How many bytes lie in a pipe, seen from either end.
fn unread(end: impl AsFd) -> u64 {
    // It cannot fail for a pipe.
    rustix::io::ioctl_fionread(end).unwrap_or(0)
}

impl Relay {
    pub(super) fn new(taps: Vec<Tap>, stages: usize) -> Relay {
        let now = Instant::now();
        let measured = taps.len() + 1 == stages;
        // A live line among what the pipeline itself writes to the terminal would spoil both.
        let quiet = !measured || rustix::termios::isatty(rustix::stdio::stdout());
        Relay {
            gaps: taps.into_iter().map(Gap::new).collect(),
            waited_for: vec![WaitedFor::default(); if measured { stages } else { 0 }],
            elapsed: Duration::ZERO,
            started: now,
            last: now,
            live: if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() },
        }
    }

    pub(super) fn start(&mut self) {
        self.started = Instant::now();
        self.last = self.started;
    }

    /// After how long to look again though nothing has happened.
    pub(super) fn tick(&self) -> Option<Duration> {
        (!self.waited_for.is_empty()).then_some(TICK)
    }

    /// What to wait for: two descriptors for each gap that is not over.
    ///
    /// Of the side that is not waited for only a failure is of interest: that the stage after has gone.
    pub(super) fn interests(&self) -> Vec<PollFd<'_>> {
        let open = self.gaps.iter().filter_map(|gap| Some((gap.waits_for, gap.ends.as_ref()?)));
        open.flat_map(|(side, (from, to))| match side {
            Side::Before => [PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::empty())],
            // `from` would tell again and again that its writer has closed.
            Side::After => [PollFd::new(to, PollFlags::OUT), PollFd::new(to, PollFlags::empty())],
        })
        .collect()
    }

    /// Accounts for the time since it was last called, then moves what can be moved.
    ///
    /// `ready` is what came of [`interests`](Relay::interests); `alive` says of each stage whether it ran meanwhile.
    pub(super) fn work(&mut self, ready: &[PollFlags], alive: &[bool]) -> Result<()> {
        self.account(alive);
        let elapsed = self.elapsed;
        let open = self.gaps.iter_mut().filter(|gap| gap.ends.is_some());
        for (gap, ready) in open.zip(ready.chunks(2)) {
            match gap.waits_for {
                Side::Before => gap.work(ready[0], ready[1], elapsed)?,
                Side::After => gap.work(PollFlags::empty(), ready[0] | ready[1], elapsed)?,
            }
        }
        if !self.live.is_hidden() {
            self.live.set_message(self.live_line());
            self.live.tick();
        }
        Ok(())
    }

    fn account(&mut self, alive: &[bool]) {
        let now = Instant::now();
        let since = now - self.last;
        (self.last, self.elapsed) = (now, now - self.started);
        for gap in self.gaps.iter_mut().filter(|gap| gap.ends.is_some()) {
            match gap.waits_for {
                Side::Before => gap.waited_for_before += since,
                Side::After => gap.waited_for_after += since,
            }
        }
        let running = alive.iter().filter(|alive| **alive).count();
        if self.waited_for.is_empty() {
            return;
        }
        for (stage, alive) in alive.iter().enumerate() {
            if *alive && self.is_waited_for(stage) {
                let waited = &mut self.waited_for[stage];
                *(if running > 1 { &mut waited.by_others } else { &mut waited.alone }) += since;
            }
        }
    }

    /// Whether somebody waits for this stage, and it for nobody. Whoever started the pipeline waits for the last.
    fn is_waited_for(&self, stage: usize) -> bool {
        let before = stage.checked_sub(1).map(|gap| &self.gaps[gap]);
        let after = self.gaps.get(stage);
        let waits = before.is_some_and(Gap::starves) || after.is_some_and(|gap| gap.waits_for(Side::After));
        let is_waited_for = before.is_some_and(|gap| gap.waits_for(Side::After))
            || after.is_none_or(|gap| gap.waits_for(Side::Before));
        is_waited_for && !waits
    }

    /// All stages have ended: moves nothing more, since nobody is left to read it.
    pub(super) fn finish(&mut self) {
        self.elapsed = self.started.elapsed();
        self.live.finish_and_clear();
        let elapsed = self.elapsed;
        self.gaps.iter_mut().for_each(|gap| gap.broken(elapsed));
    }

    /// The bytes after each stage so far, and the stage that is waited for.
    fn live_line(&self) -> String {
        let gaps: Vec<_> = self.gaps.iter().map(|gap| units::bytes(gap.written as f64)).collect();
        let waited_for = (0..self.waited_for.len()).find(|&stage| self.is_waited_for(stage));
        let stage = waited_for.map_or(String::new(), |stage| format!("   waiting for stage {}", stage + 1));
        format!("{:.1} s   | {} |{stage}", self.elapsed.as_secs_f64(), gaps.join(" | "))
    }
}
