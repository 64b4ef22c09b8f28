//! The stages watched until all have ended: one `poll(2)` for their ends, for signals to us, and for the relay.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ginnel::notify::{Code, Handler, PidFd, Signal};
use ginnel::stream::RunningPipeline;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::relay::Relay;
use crate::failure::{Failure, Result};
use crate::{objects, signals};

/// How a watch ended.
pub(super) enum End {
    All,
    TimedOut,
}

/// The running stages.
pub(super) struct Watch {
    stages: Vec<Stage>,
    signals: Option<Handler>,
    received: Option<Signal>,
}

struct Stage {
    name: String,
    process: PidFd,
}

/// Catches what would end us: the stages go first. What is ignored stays ignored, by the stages too.
///
/// To be called before the stages start: a handler, unlike a mask, is not passed on to them.
pub(super) fn signals() -> Result<Option<Handler>> {
    let caught = signals::unless_ignored(&[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT])?;
    Ok(if caught.is_empty() { None } else { Some(Handler::new(caught)?) })
}

impl Watch {
    pub(super) fn new(running: &RunningPipeline, signals: Option<Handler>) -> Result<Watch> {
        let stages = running.names().into_iter().zip(running.pids());
        let stages = stages.map(|(name, pid)| Ok(Stage { name, process: PidFd::open(pid)? }));
        Ok(Watch { stages: stages.collect::<Result<_>>()?, signals, received: None })
    }

    /// Waits for the end of every stage, with the relay at work meanwhile.
    pub(super) fn until_ended(&mut self, relay: &mut Relay, limit: Option<Duration>) -> Result<End> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        relay.start();
        loop {
            let alive: Vec<_> = self.stages.iter().map(|stage| stage.process.is_alive()).collect();
            if !alive.contains(&true) {
                relay.finish();
                return Ok(End::All);
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(End::TimedOut);
            }
            let left = deadline.map(|deadline| deadline - now);
            let wait = [left, relay.tick()].into_iter().flatten().min();
            let ready = self.poll(relay, &alive, wait)?;
            relay.work(&ready, &alive)?;
            self.pass_on_signals();
        }
    }

    /// What the relay's descriptors are ready for, when something has happened.
    fn poll(&self, relay: &Relay, alive: &[bool], wait: Option<Duration>) -> Result<Vec<PollFlags>> {
        let mut fds = relay.interests();
        let relays = fds.len();
        fds.extend(
            self.signals.iter().map(|signals| PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)),
        );
        let living = self.stages.iter().zip(alive).filter(|(_, alive)| **alive);
        fds.extend(living.map(|(stage, _)| PollFd::from_borrowed_fd(stage.process.as_fd(), PollFlags::IN)));
        let wait = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut fds, wait.as_ref()) {
            Ok(_) => Ok(fds[..relays].iter().map(PollFd::revents).collect()),
            // A signal: its handler has noted it.
            Err(Errno::INTR) => Ok(vec![PollFlags::empty(); relays]),
            Err(errno) => Err(Failure::failed(format!("poll: {errno}"))),
        }
    }

    /// A signal that somebody sent to us is meant for the stages. One from the terminal has reached them already.
    fn pass_on_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        while let Ok(info) = signals.try_wait() {
            self.received.get_or_insert(info.signal);
            if info.code != Code::Kernel {
                self.stages.iter().for_each(|stage| objects::signal_tree(&stage.process, info.signal));
            }
        }
    }

    /// The first signal that was to end us.
    pub(super) fn received(&self) -> Option<Signal> {
        self.received
    }

    /// The stages that have not ended.
    pub(super) fn living(&self) -> Vec<String> {
        let living = self.stages.iter().filter(|stage| stage.process.is_alive());
        living.map(|stage| stage.name.clone()).collect()
    }

    /// Kills what still runs, with all that it has started.
    pub(super) fn kill(&self) {
        for stage in &self.stages {
            objects::kill_tree(&stage.process);
        }
    }
}
