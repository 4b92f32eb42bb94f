//! What an exercise's report says, as `cargo xtask test` takes it.
//!
//! A whole cluster with its clients on a machine of two processors, which may belong to others at times, is late now and
//! then, and what depends on being in time comes out otherwise. What must never happen is not among it: two owners, a split
//! room, a stale write fail at once. Everything else is tried again, and has failed if it is so each time. How long a gap is
//! says the median of many runs with nothing beside them, which `cargo xtask accept` takes: a limit that is broken here, and
//! by no more than [`SLOW_MAX`], is told and held against nobody.

use crate::run::{TaskError, describe};
use serde::Deserialize;
use std::process::{Command, Stdio};

/// A limit that is broken by more than this factor is broken on a busy machine too.
const SLOW_MAX: u64 = 3;
/// The exit code of a drill on a machine that stood still meanwhile.
pub const CODE_DISTURBED: i32 = 5;
/// How many lines about what was seen are quoted.
const EVIDENCE_MAX: usize = 12;

/// How a run ended that is not held against anybody.
#[derive(Debug, PartialEq, Eq)]
pub enum Held {
    /// Within all limits.
    Whole,
    /// Beyond some that are about time: which.
    Slowly(String),
}

/// What is read of the report of `twinsite demo --exercise NAME --json`.
#[derive(Deserialize)]
struct Report {
    broken: Vec<String>,
    limits: Vec<Limit>,
    audit: Audit,
}

#[derive(Deserialize)]
struct Limit {
    name: String,
    median_ms: Option<u64>,
    #[serde(rename = "limit_ms")]
    max_ms: u64,
}

#[derive(Deserialize)]
struct Audit {
    dual_answer_ms: u64,
    stale_epoch_writes: u64,
    epochs_monotonic: bool,
    split_rooms: u64,
    two_hosts_ms: Option<u64>,
    dark_frames: Option<u64>,
    evidence: Vec<String>,
}

/// Runs an exercise that prints its report as JSON.
pub fn run_judging(command: &mut Command) -> Result<Held, TaskError> {
    let program = describe(command);
    let start = |source| TaskError::Start { program: program.clone(), source };
    let ended = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(start)?;
    let report: Option<Report> = serde_json::from_slice(&ended.stdout).ok();
    if ended.status.success() {
        return Ok(Held::Whole);
    }
    let mut said = format!("`{program}` ended with {}", ended.status);
    if let Some(report) = &report {
        let evidence = report.audit.evidence.iter().take(EVIDENCE_MAX);
        for line in report.broken.iter().chain(evidence) {
            said.push_str("\n            ");
            said.push_str(line);
        }
    }
    match report {
        _ if ended.status.code() == Some(CODE_DISTURBED) => Err(TaskError::Disturbed(said)),
        Some(report) if report.audit.is_safe() => match report.slowly() {
            Some(limits) => Ok(Held::Slowly(limits)),
            None => Err(TaskError::Late(said)),
        },
        _ => Err(TaskError::Failed(said)),
    }
}

impl Audit {
    /// Whether nothing happened that must not happen at any speed.
    fn is_safe(&self) -> bool {
        let none = |seen: Option<u64>| seen.unwrap_or(0) == 0;
        let is_written_in_order = self.stale_epoch_writes == 0 && self.epochs_monotonic;
        let is_one_owner = self.dual_answer_ms == 0 && none(self.two_hosts_ms) && none(self.dark_frames);
        is_one_owner && is_written_in_order && self.split_rooms == 0
    }
}

impl Report {
    /// The limits that are broken, with what was measured.
    fn late(&self) -> impl Iterator<Item = (&Limit, u64)> {
        let broken = |limit: &Limit| limit.median_ms.filter(|median| *median > limit.max_ms);
        self.limits.iter().filter_map(move |limit| Some((limit, broken(limit)?)))
    }

    /// The broken limits, if there is nothing else, and none of them is out of all proportion.
    fn slowly(&self) -> Option<String> {
        let in_proportion = self.late().all(|(limit, median)| median <= limit.max_ms * SLOW_MAX);
        let words =
            self.late().map(|(limit, median)| format!("{} {median} ms of {}", limit.name, limit.max_ms));
        let words: Vec<_> = words.collect();
        (in_proportion && words.len() == self.broken.len()).then(|| words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(median_ms: u64, broken: &[&str], audit: &str) -> Report {
        let json = format!(
            r#"{{"broken": {broken:?}, "limits": [{{"name": "http_gap", "median_ms": {median_ms}, "limit_ms": 520}}],
                "audit": {{"dual_answer_ms": 0, "stale_epoch_writes": 0, "epochs_monotonic": true, "split_rooms": 0,
                "evidence": []{audit}}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn only_times_are_excused_and_only_in_proportion() {
        let late = "http_gap: median 567 ms, limit 520 ms";
        assert_eq!(report(567, &[late], "").slowly().unwrap(), "http_gap 567 ms of 520");
        assert_eq!(report(1_561, &["http_gap: median 1561 ms, limit 520 ms"], "").slowly(), None);
        let announced = report(567, &[late, "a wrong address was announced for 153 ms"], "");
        assert_eq!(announced.slowly(), None, "it is tried again");
    }

    #[test]
    fn what_must_never_happen_is_not_tried_again() {
        let is_safe = |audit: &str| report(400, &[], audit).audit.is_safe();
        assert!(is_safe(""));
        assert!(is_safe(r#", "two_hosts_ms": 0, "dark_frames": 0"#));
        assert!(!is_safe(r#", "two_hosts_ms": 1"#));
        assert!(!is_safe(r#", "dark_frames": 1"#));
        let mut split = report(400, &[], "").audit;
        split.split_rooms = 1;
        assert!(!split.is_safe());
    }
}
