//! What a row has to show: figures, ratios, verdicts.

use serde::{Deserialize, Serialize};

use crate::cpus::Distance;
use crate::place::Limits;
use crate::rows::{Figure, Row, Target};

/// How the measuring of a row ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// There are figures.
    Measured(Box<Measured>),
    /// A call failed, or something arrived wrong.
    Failed {
        /// What did.
        reason: String,
    },
    /// Neither home can do it here.
    Unavailable {
        /// Why not.
        reason: String,
    },
}

/// The figures of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The kernel's home.
    pub kernel: Home,
    /// The user-space home.
    pub user: Home,
    /// How many times faster the user-space home is: the ratio of the medians.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The lowest and the highest ratio within one run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_range: Option<[f64; 2]>,
    /// How many runs the figures are the medians of.
    pub runs: u64,
    /// Why other runs were dropped.
    pub dropped: Vec<String>,
    /// No run was left to itself: the figures are those of disturbed ones, and prove nothing.
    pub disturbed: bool,
    /// By what they were disturbed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disturbances: Vec<String>,
    /// What a cache line took there and back between the two CPUs, the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_ns: Option<f64>,
    /// How far from each other the CPUs were in all of these runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<Distance>,
    /// Within which limits the kernel's home was.
    pub limits: Limits,
}

/// One home's figures, or why there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Home {
    /// The medians over the runs.
    Figures(Figures),
    /// None.
    None {
        /// Why.
        unavailable: String,
    },
}

impl Home {
    /// Its figures, if there are any.
    pub fn figures(&self) -> Option<&Figures> {
        match self {
            Home::Figures(figures) => Some(figures),
            Home::None { .. } => None,
        }
    }
}

/// What was measured in one home.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many operations or messages there were, in a run.
    pub count: u64,
    /// Half of the operations took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ns: Option<f64>,
    /// 99 of 100 took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ns: Option<f64>,
    /// 999 of 1000 took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_ns: Option<f64>,
    /// Messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    /// Bytes of payload a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// CPU time while blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<f64>,
    /// Context switches while blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<f64>,
    /// For how long it was blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_s: Option<f64>,
}

impl Figures {
    /// How many times faster than the other this is.
    pub(crate) fn times_faster_than(&self, other: &Figures, figure: Figure) -> Option<f64> {
        let ratio = match figure {
            Figure::Time => other.p50_ns? / self.p50_ns?,
            Figure::Rate => self.messages_per_s? / other.messages_per_s?,
            Figure::Sleep => return None,
        };
        ratio.is_finite().then_some(ratio)
    }

    /// Of each figure the median over the runs.
    pub(crate) fn median(runs: &[Figures]) -> Figures {
        let median = |of: fn(&Figures) -> Option<f64>| median(runs.iter().filter_map(of).collect());
        Figures {
            count: median(|run| Some(run.count as f64)).unwrap_or(0.0) as u64,
            p50_ns: median(|run| run.p50_ns),
            p99_ns: median(|run| run.p99_ns),
            p999_ns: median(|run| run.p999_ns),
            messages_per_s: median(|run| run.messages_per_s),
            bytes_per_s: median(|run| run.bytes_per_s),
            cpu_ns: median(|run| run.cpu_ns),
            context_switches: median(|run| run.context_switches),
            blocked_s: median(|run| run.blocked_s),
        }
    }
}

/// The one in the middle, or what is between the two there.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Whether a row has reached one of its targets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What was to be reached.
    pub target: Target,
    /// As a number: the ratio, or the ns, that was to be reached. None where it needs a row that was not measured.
    pub limit: Option<f64>,
    /// What was reached, in the same unit.
    pub reached: Option<f64>,
    /// Whether that is enough. None: not known, for want of figures or because every run was disturbed.
    pub met: Option<bool>,
}

/// What has become of the row's targets. `other` gives what was measured in the rows that it is compared with.
pub fn verdicts<'a>(
    row: &Row,
    measured: &Measured,
    other: impl Fn(&str) -> Option<&'a Measured>,
) -> Vec<Verdict> {
    let verdict = |target: &Target| {
        let user = measured.user.figures();
        let time = user.and_then(|user| user.p50_ns);
        let (limit, reached) = match *target {
            Target::Ratio { at_least } => (Some(at_least), measured.ratio),
            Target::Line { times } => (measured.line_ns.map(|line| (times * line).max(500.0)), time),
            Target::Within { times, of } => {
                let base = other(of).and_then(|other| other.user.figures()?.p50_ns);
                (base.map(|base| times * base), time)
            }
            Target::CpuNs { at_most } => (Some(at_most), user.and_then(|user| user.cpu_ns)),
        };
        let enough = |(limit, reached): (f64, f64)| match target {
            Target::Ratio { .. } => reached >= limit,
            _ => reached <= limit,
        };
        let met = limit.zip(reached).map(enough).filter(|_| !measured.disturbed);
        Verdict { target: *target, limit, reached, met }
    };
    row.targets.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::rows;

    fn limits() -> Limits {
        Limits {
            private_namespace: true,
            not_raised: None,
            sysv_message_bytes: 0,
            sysv_queue_bytes: 0,
            posix_messages: 0,
            posix_message_bytes: 0,
            posix_bytes: 0,
        }
    }

    fn measured(kernel_ns: f64, user_ns: f64, line_ns: f64, disturbed: bool) -> Measured {
        let figures = |ns| Figures { p50_ns: Some(ns), ..Figures::default() };
        let (kernel, user) = (figures(kernel_ns), figures(user_ns));
        Measured {
            ratio: user.times_faster_than(&kernel, Figure::Time),
            kernel: Home::Figures(kernel),
            user: Home::Figures(user),
            ratio_range: None,
            runs: 1,
            dropped: vec![],
            disturbed,
            disturbances: vec![],
            line_ns: Some(line_ns),
            distance: Some(Distance::of(line_ns)),
            limits: limits(),
        }
    }

    fn met(name: &str, measured: &Measured, base: Option<&Measured>) -> Option<bool> {
        let row = rows().iter().find(|row| row.name == name).unwrap();
        verdicts(row, measured, |_| base).remove(0).met
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn what_is_enough() {
        assert_eq!(met("pair/sysv-queue", &measured(2000.0, 70.0, 120.0, false), None), Some(true));
        assert_eq!(met("pair/sysv-queue", &measured(2000.0, 90.0, 120.0, false), None), Some(false));
        assert_eq!(met("pair/sysv-queue", &measured(2000.0, 70.0, 120.0, true), None), None);
        // Half a microsecond or four times the line, whichever is longer.
        let trip = "trip/two-cores/sysv-queue";
        assert_eq!(met(trip, &measured(50_000.0, 450.0, 52.0, false), None), Some(true));
        assert_eq!(met(trip, &measured(50_000.0, 550.0, 120.0, false), None), Some(false));
        assert_eq!(met(trip, &measured(50_000.0, 1900.0, 485.0, false), None), Some(true));
        let base = measured(1500.0, 100.0, 120.0, false);
        let deep = measured(400_000.0, 199.0, 120.0, false);
        assert_eq!(met("type/100000", &deep, Some(&base)), Some(true));
        assert_eq!(met("type/100000", &deep, None), None);
    }
}
