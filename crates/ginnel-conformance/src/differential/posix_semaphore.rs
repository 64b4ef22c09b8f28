//! Named POSIX semaphores.

use std::time::Duration;

use libc::{O_CREAT, O_EXCL};

use super::{Kind, Op, Outcome, Rng, Shared, outcome};
use crate::home::PosixSemaphores;
use crate::{Errno, Result};

const OPEN: i64 = 0;
const CLOSE: i64 = 1;
const UNLINK: i64 = 2;
const POST: i64 = 3;
const WAIT: i64 = 4;
const TRY: i64 = 5;
const TIMED: i64 = 6;
const CLOCK: i64 = 7;
const NAMES: i64 = 3;
const OPENINGS: i64 = 4;

/// What a process has open.
#[derive(Debug, Default)]
pub struct Semaphores {
    open: [Option<usize>; OPENINGS as usize],
}

fn name(number: i64) -> String {
    format!("/difference{number}")
}

impl Semaphores {
    fn semaphore(&self, op: &Op) -> Result<usize> {
        self.open[op.args[0] as usize].ok_or(Errno::NODEV)
    }

    fn try_act<H: PosixSemaphores>(&mut self, h: &H, op: &Op) -> Result<Outcome> {
        let [place, first, second, third, ..] = op.args;
        let done = |()| Vec::new();
        match op.verb {
            OPEN => {
                if let Some(old) = self.open[place as usize].take() {
                    h.sem_close(old)?;
                }
                let semaphore = h.sem_open(&name(first), second as i32, 0o600, third as u32)?;
                self.open[place as usize] = Some(semaphore);
                Ok(vec![h.sem_getvalue(semaphore)?.into()])
            }
            CLOSE => {
                let semaphore = self.semaphore(op)?;
                self.open[place as usize] = None;
                h.sem_close(semaphore).map(done)
            }
            UNLINK => h.sem_unlink(&name(first)).map(done),
            POST => h.sem_post(self.semaphore(op)?).map(done),
            WAIT => h.sem_wait(self.semaphore(op)?).map(done),
            TRY => h.sem_trywait(self.semaphore(op)?).map(done),
            TIMED => h.sem_timedwait(self.semaphore(op)?, Duration::ZERO).map(done),
            _ => h.sem_clockwait(self.semaphore(op)?, Duration::ZERO).map(done),
        }
    }

    fn one<H: PosixSemaphores>(h: &H, name: &str) -> Result<Outcome> {
        let semaphore = h.sem_open(name, 0, 0, 0)?;
        let value = h.sem_getvalue(semaphore)?;
        h.sem_close(semaphore)?;
        Ok(vec![value.into()])
    }
}

impl<H: PosixSemaphores> Kind<H> for Semaphores {
    const NAME: &'static str = "POSIX semaphores";

    fn choose(rng: &mut Rng) -> Op {
        let place = rng.range(0, OPENINGS - 1);
        let (verb, first, second, third) = match rng.below(100) {
            0..8 => {
                let make = rng.pick(&[0, O_CREAT, O_CREAT, O_CREAT | O_EXCL]);
                let value =
                    if rng.one_in(20) { i64::from(i32::MAX) + rng.range(0, 1) } else { rng.range(0, 3) };
                (OPEN, rng.range(0, NAMES - 1), make.into(), value)
            }
            8..10 => (CLOSE, 0, 0, 0),
            10..11 => (UNLINK, rng.range(0, NAMES - 1), 0, 0),
            11..52 => (POST, 0, 0, 0),
            52..70 => (WAIT, 0, 0, 0),
            70..88 => (TRY, 0, 0, 0),
            88..94 => (TIMED, 0, 0, 0),
            _ => (CLOCK, 0, 0, 0),
        };
        Op { verb, args: [place, first, second, third, 0, 0] }
    }

    fn calm(mut op: Op) -> Op {
        if op.verb == WAIT {
            op.verb = TRY;
        }
        op
    }

    fn instead(op: &Op, waiting: &[Op]) -> Option<Op> {
        let order_matters = op.verb == WAIT && !waiting.is_empty() && !H::SEMAPHORES_IN_TURN;
        order_matters.then(|| <Semaphores as Kind<H>>::calm(*op))
    }

    fn act(&mut self, home: &H, _shared: &mut Shared, op: &Op) -> Outcome {
        outcome(self.try_act(home, op))
    }

    fn state(&mut self, home: &H, _shared: &Shared, deep: bool, op: &Op) -> Outcome {
        if !deep {
            return match self.open[op.args[0] as usize] {
                Some(semaphore) => outcome(home.sem_getvalue(semaphore).map(|value| vec![value.into()])),
                None => Vec::new(),
            };
        }
        (0..NAMES).flat_map(|number| outcome(Semaphores::one(home, &name(number)))).collect()
    }

    fn show(op: &Op) -> String {
        let [place, first, second, third, ..] = op.args;
        match op.verb {
            OPEN => format!("s{place} = sem_open({}, {second:#o}, value {third})", name(first)),
            CLOSE => format!("sem_close(s{place})"),
            UNLINK => format!("sem_unlink({})", name(first)),
            POST => format!("sem_post(s{place})"),
            WAIT => format!("sem_wait(s{place})"),
            TRY => format!("sem_trywait(s{place})"),
            TIMED => format!("sem_timedwait(s{place}, now)"),
            _ => format!("sem_clockwait(s{place}, now)"),
        }
    }
}
