//! What a blocked process costs: its CPU time and context switches, by the kernel's account.

use std::time::{Duration, Instant};

use crate::error::{Error, Result, ensure};
use crate::home::{Queue, Semaphores};
use crate::message::Message;
use crate::process::Worker;
use crate::report::Figures;
use crate::work::{Context, SMALL, SMALL_BYTES, make_queues, make_semaphores};

/// A process that is blocked. Both homes' are watched at the same time.
pub(crate) struct Sleeper<'a> {
    worker: Worker,
    wake: Box<dyn FnOnce() -> Result<()> + 'a>,
    /// Removed after the process has ended.
    _made: Box<dyn Keep + 'a>,
}

/// Anything that is only to be dropped later.
trait Keep {}
impl<T> Keep for T {}

/// How long a process may spin before it sleeps; one that goes on longer is watched spinning.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// For how long it must have used no CPU to be taken for asleep.
const QUIET: Duration = Duration::from_millis(50);

/// A process that is blocked in a receive.
pub(crate) fn in_queue<'a, Q: Queue + 'a>(context: &'a Context) -> Result<Sleeper<'a>> {
    let made = make_queues::<Q>(context, 1, SMALL)?;
    let worker = Worker::start(|| {
        context.cpus.unpin()?;
        let mut message = Message::new(SMALL_BYTES);
        Q::open(&context.place, 0)?.recv(&mut message, 0)?;
        ensure(message.check() == Some(1), "the sleeper's message came changed")
    })?;
    let wake = || {
        let mut message = Message::new(SMALL_BYTES);
        message.stamp(1, 1);
        Q::open(&context.place, 0)?.send(&message)
    };
    Ok(Sleeper { worker, wake: Box::new(wake), _made: Box::new(made) })
}

/// A process that is blocked in a take.
pub(crate) fn in_semaphore<'a, S: Semaphores + 'a>(context: &'a Context) -> Result<Sleeper<'a>> {
    let made = make_semaphores::<S>(context, [0, 0])?;
    let worker = Worker::start(|| {
        context.cpus.unpin()?;
        S::open(&context.place)?.take(0)
    })?;
    let wake = || S::open(&context.place)?.give(0);
    Ok(Sleeper { worker, wake: Box::new(wake), _made: Box::new(made) })
}

/// Watches the sleepers for as long as `context` says, then wakes each, which must find what it waited for.
pub(crate) fn watch<const N: usize>(
    context: &Context,
    sleepers: [Result<Sleeper<'_>>; N],
) -> [Result<Figures>; N] {
    let deadline = Instant::now() + SETTLES_WITHIN;
    for sleeper in sleepers.iter().flatten() {
        settle(sleeper.worker.pid(), deadline);
    }
    let account = |sleeper: &Result<Sleeper<'_>>| sleeper.as_ref().ok().map(|s| Account::of(s.worker.pid()));
    let before = sleepers.each_ref().map(account);
    let began = Instant::now();
    std::thread::sleep(context.sleep);
    let after = sleepers.each_ref().map(account);
    let blocked_s = began.elapsed().as_secs_f64();
    let mut accounts = before.into_iter().zip(after);
    sleepers.map(|sleeper| {
        let (before, after) = accounts.next().unwrap_or_default();
        let sleeper = sleeper?;
        let nothing = || Error::failed("a sleeper without an account");
        let (before, after) = (before.ok_or_else(nothing)??, after.ok_or_else(nothing)??);
        (sleeper.wake)()?;
        sleeper.worker.finish()?;
        Ok(Figures {
            count: 1,
            cpu_ns: Some((after.cpu_ns - before.cpu_ns) as f64),
            context_switches: Some((after.switches - before.switches) as f64),
            blocked_s: Some(blocked_s),
            ..Figures::default()
        })
    })
}

/// Waits until a process has used no CPU for a while.
fn settle(pid: i32, deadline: Instant) {
    let mut last = None;
    while Instant::now() < deadline {
        let now = Account::of(pid).ok().map(|account| account.cpu_ns);
        // Before its first instruction it has used none either.
        if now.is_some_and(|ns| ns > 0) && now == last {
            return;
        }
        last = now;
        std::thread::sleep(QUIET);
    }
}

/// What the kernel has in its books about a process.
#[derive(Clone, Copy)]
struct Account {
    cpu_ns: u64,
    switches: u64,
}

impl Account {
    fn of(pid: i32) -> Result<Account> {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let cpu_ns = match read("schedstat").ok().and_then(|text| text.split(' ').next()?.parse().ok()) {
            Some(ns) => ns,
            None => ticks(&read("stat")?) * 10_000_000,
        };
        let status = read("status")?;
        let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
        let switches = counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
        Ok(Account { cpu_ns, switches })
    }
}

/// User and system time in `/proc/PID/stat`: the 14th and 15th word, the second being a name in brackets.
fn ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind_name.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_behind_the_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1 0";
        assert_eq!(ticks(stat), 42);
    }
}
