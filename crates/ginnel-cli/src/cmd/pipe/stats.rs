//! What a relay has measured, as a table and as JSON, and who holds the others up.

use std::time::Duration;

use ginnel::stream::pipeline::PipelineStatus;
use serde::Serialize;

use super::StageEnd;
use super::relay::{Gap, Relay, WaitedFor};
use crate::{output, units};

/// A stage is named only if it was waited for this many times as long as any other,
const CLEARLY: u32 = 2;
/// for this part of the whole time,
const PART: u32 = 4;
/// and for longer than a process takes to start.
const NOTICEABLE: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct Report {
    schema: u32,
    elapsed_ns: u64,
    stages: Vec<StageReport>,
    /// Who holds the others up, if anybody clearly does.
    holds_up: Option<HoldsUp>,
}

/// Null where there is no relay: at the outer ends.
#[derive(Serialize)]
struct StageReport {
    #[serde(flatten)]
    end: StageEnd,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    bytes_in_per_s: Option<f64>,
    bytes_out_per_s: Option<f64>,
    waited_for_input_ns: Option<u64>,
    waited_for_output_ns: Option<u64>,
    /// How long the others waited for it, while it waited for nobody.
    others_waited_ns: u64,
    /// How long it ran when all others had ended.
    alone_ns: u64,
}

#[derive(Serialize)]
struct HoldsUp {
    /// Its number, from 1.
    stage: usize,
    command: String,
    others_waited_ns: u64,
    alone_ns: u64,
}

impl Relay {
    /// The stage that the others waited for, if there is a clear answer.
    fn holds_up(&self) -> Option<usize> {
        let total = |stage: &usize| {
            let WaitedFor { by_others, alone } = self.waited_for[*stage];
            by_others + alone
        };
        let slowest = (0..self.waited_for.len()).max_by_key(total)?;
        let most = total(&slowest);
        let next =
            (0..self.waited_for.len()).filter(|stage| *stage != slowest).map(|stage| total(&stage)).max()?;
        (most >= NOTICEABLE && most >= next * CLEARLY && most >= self.elapsed / PART).then_some(slowest)
    }

    /// One JSON object.
    pub(super) fn json(&self, status: &PipelineStatus) -> String {
        let holds_up = self.holds_up().map(|stage| HoldsUp {
            stage: stage + 1,
            command: status.stages[stage].command.clone(),
            others_waited_ns: nanoseconds(self.waited_for[stage].by_others),
            alone_ns: nanoseconds(self.waited_for[stage].alone),
        });
        let stages = status.stages.iter().enumerate().map(|(stage, end)| {
            let (before, after) = self.around(stage);
            StageReport {
                end: end.into(),
                bytes_in: before.map(|gap| gap.read),
                bytes_out: after.map(|gap| gap.written),
                bytes_in_per_s: before.map(|gap| self.rate(gap, gap.read)),
                bytes_out_per_s: after.map(|gap| self.rate(gap, gap.written)),
                waited_for_input_ns: before.map(|gap| nanoseconds(gap.waited_for_before)),
                waited_for_output_ns: after.map(|gap| nanoseconds(gap.waited_for_after)),
                others_waited_ns: nanoseconds(self.waited_for[stage].by_others),
                alone_ns: nanoseconds(self.waited_for[stage].alone),
            }
        });
        let report =
            Report { schema: 1, elapsed_ns: nanoseconds(self.elapsed), stages: stages.collect(), holds_up };
        serde_json::to_string_pretty(&report).unwrap_or_default()
    }

    /// A line for each stage, and the sentence below.
    pub(super) fn text(&self, status: &PipelineStatus) -> String {
        let header = ["STAGE", "COMMAND", "BYTES IN", "BYTES OUT", "RATE", "WAITED FOR INPUT", "FOR OUTPUT"];
        let mut table = output::table(&header, &[0, 2, 3, 4, 5, 6]);
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        for (stage, end) in status.stages.iter().enumerate() {
            let (before, after) = self.around(stage);
            let flow = after.map(|gap| (gap, gap.written)).or(before.map(|gap| (gap, gap.read)));
            table.add_row([
                (stage + 1).to_string(),
                shorten(&end.command),
                cell(before.map(|gap| gap.read.to_string())),
                cell(after.map(|gap| gap.written.to_string())),
                cell(flow.map(|(gap, bytes)| format!("{}/s", units::bytes(self.rate(gap, bytes))))),
                cell(before.map(|gap| units::nanoseconds(nanoseconds(gap.waited_for_before)))),
                cell(after.map(|gap| units::nanoseconds(nanoseconds(gap.waited_for_after)))),
            ]);
        }
        format!("{}\n\n{}\n", output::trim_lines(&table.to_string()), self.sentence(status))
    }

    fn sentence(&self, status: &PipelineStatus) -> String {
        let Some(stage) = self.holds_up() else {
            return "No stage holds the others up.".into();
        };
        let name = name(status, stage);
        let WaitedFor { by_others, alone } = self.waited_for[stage];
        let time = |time| units::nanoseconds(nanoseconds(time));
        if by_others >= alone {
            format!("{name} holds the others up: they waited {} for it.", time(by_others))
        } else {
            format!("{name} holds the pipeline up: it ran {} longer than the others.", time(alone))
        }
    }

    /// The gaps before and after a stage.
    fn around(&self, stage: usize) -> (Option<&Gap>, Option<&Gap>) {
        (stage.checked_sub(1).and_then(|gap| self.gaps.get(gap)), self.gaps.get(stage))
    }

    /// Bytes a second, until the gap was over.
    fn rate(&self, gap: &Gap, bytes: u64) -> f64 {
        let seconds = gap.ended.unwrap_or(self.elapsed).as_secs_f64();
        if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 }
    }
}

/// The program's name, and the stage's number where two have the same.
fn name(status: &PipelineStatus, stage: usize) -> String {
    let program = |stage: usize| {
        let command = &status.stages[stage].command;
        let program = command.split(' ').next().unwrap_or(command);
        program.rsplit('/').next().unwrap_or(program).to_string()
    };
    let own = program(stage);
    let alone = (0..status.stages.len()).filter(|other| program(*other) == own).count() == 1;
    if alone { own } else { format!("{own} (stage {})", stage + 1) }
}

/// A command on one line of a table.
fn shorten(command: &str) -> String {
    const MOST: usize = 36;
    let line: String = command.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST - 3).chain("...".chars()).collect()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
