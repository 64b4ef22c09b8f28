//! One row: its runs, each with both homes in random order, and which of them count.

use std::time::Duration;

use crate::cpus::{Cpus, Distance, Meter, line_ns};
use crate::error::{Error, Result};
use crate::home::{Mutex, Queue, Semaphores, kernel, user};
use crate::place::{self, Limits, Place};
use crate::process::end_with;
use crate::report::{Figures, Home, Measured, Outcome, median};
use crate::rows::{Object, Row, Work};
use crate::sleep::{self, Sleeper};
use crate::work::{self, Context, Random};

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many runs are to count.
    pub runs: u64,
    /// How long one measurement goes on: one home, in one run.
    pub time: Duration,
    /// How long a blocked process is watched.
    pub sleep: Duration,
    /// The two CPUs to work on; the first two that this process may use if it is all the same.
    pub cpus: Option<(usize, usize)>,
}

impl Settings {
    /// How many runs are tried to have so many that count.
    pub fn attempts(&self) -> u64 {
        self.runs.saturating_mul(2)
    }
}

const HOMES: [Side; 2] = [Side::Kernel, Side::User];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Kernel,
    User,
}

/// Measures one row, in this process and in forks of it.
///
/// This process must have one thread and nothing else to do: it is moved to other namespaces and CPUs, and ends with
/// `parent`, its parent.
pub fn measure(row: &Row, settings: &Settings, place: Place, parent: u32) -> Outcome {
    match try_measure(row, settings, place, parent) {
        Ok(measured) => Outcome::Measured(Box::new(measured)),
        Err(Error::Failed(reason)) => Outcome::Failed { reason },
        Err(Error::Unavailable(reason)) => Outcome::Unavailable { reason },
    }
}

fn try_measure(row: &Row, settings: &Settings, place: Place, parent: u32) -> Result<Measured> {
    let limits = place::enter();
    end_with(parent)?;
    let cpus = Cpus::choose(settings.cpus)?;
    let context = Context { place, limits, cpus, time: settings.time, sleep: settings.sleep };
    let mut table = Table { runs: Vec::new(), missing: [None, None] };
    let (wanted, attempts) = match row.work {
        // Once, for long, and others do not make a sleeper run.
        Work::Asleep => (1, 1),
        _ => (settings.runs, settings.attempts()),
    };
    for _ in 0..attempts {
        let run = table.run(row, &context)?;
        table.runs.push(run);
        if table.counting().is_some_and(|(_, runs)| runs.len() as u64 >= wanted) {
            break;
        }
    }
    table.result(row, context.limits)
}

/// One run: what was measured, and what speaks against it.
struct Run {
    figures: [Option<Figures>; 2],
    line_ns: Option<f64>,
    distance: Option<Distance>,
    against: Option<String>,
}

struct Table {
    runs: Vec<Run>,
    /// Why a home has no figures at all.
    missing: [Option<String>; 2],
}

impl Table {
    fn run(&mut self, row: &Row, context: &Context) -> Result<Run> {
        let before = line_ns(&context.cpus)?;
        let meter = Meter::read(&context.cpus, row.is_everywhere())?;
        let mut outcomes = [const { None }; 2];
        if row.work == Work::Asleep {
            outcomes = asleep(row, context).map(Some);
        } else {
            let first = Random::new().below(2) as usize;
            for index in [first, 1 - first] {
                if self.missing[index].is_none() {
                    outcomes[index] = Some(measure_once(row, HOMES[index], context));
                }
            }
        }
        let mut figures = [const { None }; 2];
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                None => {}
                Some(Ok(got)) => figures[index] = Some(got),
                Some(Err(Error::Unavailable(why))) => self.missing[index] = Some(why),
                Some(Err(Error::Failed(why))) => {
                    let side = if HOMES[index] == Side::Kernel { "kernel" } else { "user space" };
                    return Err(Error::Failed(format!("{side}: {why}")));
                }
            }
        }
        if let [Some(kernel), Some(user)] = &self.missing {
            return Err(Error::Unavailable(format!("kernel: {kernel}; user space: {user}")));
        }
        let after_meter = Meter::read(&context.cpus, row.is_everywhere())?;
        let after = line_ns(&context.cpus)?;
        let line_ns = before.zip(after).map(|(before, after)| (before + after) / 2.0);
        let distances = [before, after].map(|ns| ns.map(Distance::of));
        let against = match distances {
            [Some(was), Some(is)] if was != is => Some(format!("the host moved the CPUs: {was}, then {is}")),
            // Whoever else runs does not make a sleeper use the CPU.
            _ if row.work == Work::Asleep => None,
            _ => after_meter.disturbed_since(&meter, row.is_alone()),
        };
        Ok(Run { figures, line_ns, distance: distances[0], against })
    }

    /// The undisturbed runs of the class that most of them have.
    fn counting(&self) -> Option<(Option<Distance>, Vec<&Run>)> {
        most_frequent(self.runs.iter().filter(|run| run.against.is_none()))
    }

    fn result(self, row: &Row, limits: Limits) -> Result<Measured> {
        let clean = self.counting();
        let disturbed = clean.is_none();
        let (distance, runs) = clean
            .or_else(|| most_frequent(self.runs.iter()))
            .ok_or_else(|| Error::failed("there was no run"))?;
        let dropped = self.runs.iter().filter(|run| !runs.iter().any(|kept| std::ptr::eq(*kept, *run)));
        let dropped = dropped.map(|run| match (&run.against, run.distance) {
            (Some(why), _) => why.clone(),
            (None, Some(distance)) => format!("the CPUs were {distance} in this run"),
            (None, None) => String::new(),
        });
        let disturbances = runs.iter().filter_map(|run| run.against.clone()).collect();
        let of = |index: usize| -> Vec<Figures> {
            runs.iter().filter_map(|run| run.figures[index].clone()).collect()
        };
        let home = |index: usize| match &self.missing[index] {
            Some(why) => Home::None { unavailable: why.clone() },
            None => Home::Figures(Figures::median(&of(index))),
        };
        let (kernel, user) = (home(0), home(1));
        let figure = row.figure();
        let ratio = match (kernel.figures(), user.figures()) {
            (Some(kernel), Some(user)) => user.times_faster_than(kernel, figure),
            _ => None,
        };
        let ratios = runs.iter().filter_map(|run| match &run.figures {
            [Some(kernel), Some(user)] => user.times_faster_than(kernel, figure),
            _ => None,
        });
        let range = ratios.map(|ratio| [ratio, ratio]);
        let ratio_range = range.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]);
        Ok(Measured {
            ratio,
            ratio_range,
            runs: runs.len() as u64,
            line_ns: median(runs.iter().filter_map(|run| run.line_ns).collect()),
            dropped: dropped.collect(),
            kernel,
            user,
            disturbed,
            disturbances,
            distance,
            limits,
        })
    }
}

fn most_frequent<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<(Option<Distance>, Vec<&'a Run>)> {
    let mut classes: Vec<(Option<Distance>, Vec<&Run>)> = Vec::new();
    for run in runs {
        match classes.iter_mut().find(|(distance, _)| *distance == run.distance) {
            Some((_, same)) => same.push(run),
            None => classes.push((run.distance, vec![run])),
        }
    }
    classes.into_iter().max_by_key(|(_, runs)| runs.len())
}

fn measure_once(row: &Row, side: Side, context: &Context) -> Result<Figures> {
    match (row.object, side) {
        (Object::SysvQueue, Side::Kernel) => queue::<kernel::SysvQueue>(row, context),
        (Object::SysvQueue, Side::User) => queue::<user::SysvQueue>(row, context),
        (Object::PosixQueue, Side::Kernel) => queue::<kernel::PosixQueue>(row, context),
        (Object::PosixQueue, Side::User) => queue::<user::PosixQueue>(row, context),
        (Object::SysvSemaphores, Side::Kernel) => semaphores::<kernel::SysvSemaphores<false>>(row, context),
        (Object::SysvSemaphores, Side::User) => semaphores::<user::SysvSemaphores<false>>(row, context),
        (Object::SysvSemaphoresUndo, Side::Kernel) => {
            semaphores::<kernel::SysvSemaphores<true>>(row, context)
        }
        (Object::SysvSemaphoresUndo, Side::User) => semaphores::<user::SysvSemaphores<true>>(row, context),
        (Object::PosixSemaphores, Side::Kernel) => semaphores::<kernel::PosixSemaphores>(row, context),
        (Object::PosixSemaphores, Side::User) => semaphores::<user::PosixSemaphores>(row, context),
        (Object::Mutex, Side::Kernel) => mutex::<kernel::RobustMutex>(row, context),
        (Object::Mutex, Side::User) => mutex::<user::RobustMutex>(row, context),
    }
}

fn queue<Q: Queue>(row: &Row, context: &Context) -> Result<Figures> {
    match row.work {
        Work::Pair => work::queue_pair::<Q>(context, row.batch()),
        Work::Trip(cores) => work::queue_trips::<Q>(context, cores, false),
        Work::Think => work::queue_trips::<Q>(context, crate::rows::Cores::Two, true),
        Work::Flow { bytes } => work::flow::<Q>(context, bytes),
        Work::Crowd => work::crowd::<Q>(context),
        Work::ByType { depth } => work::by_type::<Q>(context, depth, row.batch()),
        Work::Asleep => Err(no_such_work()),
    }
}

fn semaphores<S: Semaphores>(row: &Row, context: &Context) -> Result<Figures> {
    match row.work {
        Work::Pair => work::semaphore_pair::<S>(context, row.batch()),
        Work::Trip(cores) => work::semaphore_trips::<S>(context, cores),
        _ => Err(no_such_work()),
    }
}

fn mutex<M: Mutex>(row: &Row, context: &Context) -> Result<Figures> {
    match row.work {
        Work::Pair => work::mutex_pair::<M>(context, row.batch()),
        _ => Err(no_such_work()),
    }
}

/// Both homes at the same time: the sleepers do not disturb each other.
fn asleep(row: &Row, context: &Context) -> [Result<Figures>; 2] {
    fn queues<'a, K: Queue + 'a, U: Queue + 'a>(context: &'a Context) -> [Result<Sleeper<'a>>; 2] {
        [sleep::in_queue::<K>(context), sleep::in_queue::<U>(context)]
    }
    let sleepers = match row.object {
        Object::SysvQueue => queues::<kernel::SysvQueue, user::SysvQueue>(context),
        Object::PosixQueue => queues::<kernel::PosixQueue, user::PosixQueue>(context),
        Object::SysvSemaphores => [
            sleep::in_semaphore::<kernel::SysvSemaphores<false>>(context),
            sleep::in_semaphore::<user::SysvSemaphores<false>>(context),
        ],
        _ => [Err(no_such_work()), Err(no_such_work())],
    };
    sleep::watch(context, sleepers)
}

fn no_such_work() -> Error {
    Error::failed("this object has no such row")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kernel_ns: f64, user_ns: f64, line_ns: f64, against: Option<&str>) -> Run {
        let figures = |ns| Some(Figures { p50_ns: Some(ns), ..Figures::default() });
        Run {
            figures: [figures(kernel_ns), figures(user_ns)],
            line_ns: Some(line_ns),
            distance: Some(Distance::of(line_ns)),
            against: against.map(String::from),
        }
    }

    fn result(runs: Vec<Run>) -> Measured {
        let limits = Limits {
            private_namespace: true,
            not_raised: None,
            sysv_message_bytes: 0,
            sysv_queue_bytes: 0,
            posix_messages: 0,
            posix_message_bytes: 0,
            posix_bytes: 0,
        };
        Table { runs, missing: [None, None] }.result(&crate::rows()[0], limits).unwrap()
    }

    #[test]
    fn runs_of_the_same_class_count_and_others_are_named() {
        let measured = result(vec![
            run(2000.0, 100.0, 120.0, None),
            run(2000.0, 10.0, 485.0, None),
            run(2000.0, 200.0, 110.0, None),
            run(2000.0, 1.0, 120.0, Some("others used the CPUs for 100 ms")),
        ]);
        assert_eq!((measured.runs, measured.disturbed, measured.distance), (2, false, Some(Distance::Near)));
        assert_eq!((measured.ratio, measured.ratio_range), (Some(2000.0 / 150.0), Some([10.0, 20.0])));
        assert_eq!(measured.dropped, ["the CPUs were far in this run", "others used the CPUs for 100 ms"]);
    }

    #[test]
    fn without_a_run_that_counts_it_is_said() {
        let measured = result(vec![run(2000.0, 100.0, 120.0, Some("the host moved the CPUs"))]);
        assert!(measured.disturbed && measured.runs == 1 && measured.dropped.is_empty());
    }
}
