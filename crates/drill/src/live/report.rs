//! The report of a drill on the live cluster, and what of it is agreed on.

use crate::audit::{Audit, audit};
use crate::engine::run::{since, whole_ms};
use crate::engine::verdict::{MeasuredOn, judge_on};
use crate::engine::{
    Attempts, Check, GapMs, Origin, Report, Requests, RunReport, TimelineEntry, TunnelReport, Verdict,
    WatchItem, phases, spans,
};
use crate::measure::hosts::Period;
use crate::measure::{Kind, Recording, gap};
use crate::scenario::{Limits, Scenario};
use std::time::Instant;
use twinsite_model::drill::SUMMARY_BYTES_MAX;
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{ClusterSpec, Event, FloatingIpName, WallTime};

/// Everything that a report is made of.
pub(super) struct Measured<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) spec: &'a ClusterSpec,
    pub(super) ip: &'a FloatingIpName,
    pub(super) limits: Limits,
    pub(super) began: WallTime,
    pub(super) fault: (Instant, WallTime),
    pub(super) recording: Recording,
    pub(super) journal: Vec<WatchItem>,
    pub(super) actions: Vec<(Instant, String)>,
    pub(super) expectations: Vec<Check>,
    pub(super) broken: Vec<String>,
    pub(super) aborted: bool,
    /// Before the first step, and when all had settled.
    pub(super) owners: (Option<String>, Option<String>),
}

impl Measured<'_> {
    /// The report. The gap covers the way back too: people live through that as well.
    pub(super) fn report(self) -> Report {
        let (fault, fault_wall) = self.fault;
        let journal: Vec<_> =
            self.journal.iter().filter(|item| is_about(&item.event, self.ip)).cloned().collect();
        let observed = Period { from: fault, to: Instant::now() };
        let gap = gap::http(&self.recording.answers, Kind::NewConnection, observed.from, observed.to);
        let mut spans = spans::of_clients(&self.recording, observed, |at| since(fault, at));
        // There are no clients of these kinds here.
        spans.gaps.retain(|gap| gap.clients == "new connections");
        spans.phases = phases::spans(&journal, fault_wall);
        let run = RunReport {
            run: 1,
            gap_ms: GapMs { http: gap.map(|gap| whole_ms(gap.to - gap.from)), ..GapMs::default() },
            phases_ms: phases::of(&spans.phases),
            requests: Requests::from(&self.recording.requests),
            connects: Requests::from(&self.recording.connects),
            attempts: Attempts::of(&self.recording.requests, &self.recording.connects),
            tunnels: TunnelReport::default(),
            answering: None,
            owner_before: self.owners.0.clone(),
            owner_after: self.owners.1.clone(),
            timeline: self.timeline(),
            // They are on other machines.
            logs: Vec::new(),
            machine_stalled_ms: None,
            expectations: self.expectations,
            broken: self.broken,
            aborted: self.aborted,
            spans,
        };
        let audit = audit(&self.recording, &journal, &[], &[], self.fault.0);
        let is_clean = audit.broken().is_empty();
        let on = measured_on(self.spec, self.limits);
        let mut report = judge_on(self.scenario, &on, self.began, vec![run], audit);
        // As in a drill of one's own: what was cut short is judged by its audit alone.
        if self.aborted && is_clean {
            report.verdict = Verdict::Aborted;
        }
        report
    }

    fn timeline(&self) -> Vec<TimelineEntry> {
        let (fault, fault_wall) = self.fault;
        let name = |id| {
            let node = self.spec.node(id);
            node.map_or_else(|| format!("node {id}"), |node| node.name.to_string())
        };
        let entry = |at_ms, source: &'static str, what| TimelineEntry { at_ms, source: source.into(), what };
        let done = self.actions.iter().map(|(at, what)| entry(since(fault, *at), "drill", what.clone()));
        let told = self.journal.iter().filter(|item| is_about(&item.event, self.ip)).filter_map(|item| {
            let at = item.at.0.cast_signed() - fault_wall.0.cast_signed();
            Some(entry(at, "cluster", phases::in_words(&item.event, name)?))
        });
        let answered = phases::who_answered(&self.recording.answers, fault);
        let answered = answered.into_iter().map(|(at, what)| entry(since(fault, at), "clients", what));
        let mut entries: Vec<_> = done.chain(told).chain(answered).collect();
        entries.sort_by_key(|entry| entry.at_ms);
        entries
    }
}

fn measured_on(spec: &ClusterSpec, limits: Limits) -> MeasuredOn {
    MeasuredOn {
        origin: Origin::Live,
        profile: spec.profile,
        embedded: spec.sessions.store == SessionStoreKind::Embedded,
        limits,
        aborted: false,
    }
}

/// Whether an event is about this address, or about none.
fn is_about(event: &Event, ip: &FloatingIpName) -> bool {
    match event {
        Event::OperationBegan { ip: of, .. }
        | Event::Retargeted { ip: of, .. }
        | Event::StepStarted { ip: of, .. }
        | Event::StepFinished { ip: of, .. }
        | Event::Fenced { ip: of, .. }
        | Event::OwnerChanged { ip: of, .. }
        | Event::OperationEnded { ip: of, .. }
        | Event::ErrandSent { ip: of, .. }
        | Event::ErrandRecalled { ip: of, .. }
        | Event::ErrandEnded { ip: of, .. } => of == ip,
        _ => true,
    }
}

/// The end of a drill that never came to its first look.
pub(super) fn not_begun(
    scenario: &Scenario,
    spec: &ClusterSpec,
    began: WallTime,
    why: &str,
) -> super::Finished {
    let mut report =
        judge_on(scenario, &measured_on(spec, Limits::default()), began, Vec::new(), Audit::clean());
    report.broken.insert(0, format!("broken off: {why}"));
    report.verdict = Verdict::Aborted;
    super::Finished { outcome: twinsite_model::DrillOutcome::Aborted, report }
}

/// The report as the cluster keeps it: JSON without spaces, within the bound. What does not fit is left out of the middle
/// of the timeline, which says so.
pub fn summary(report: &Report) -> String {
    let mut report = report.clone();
    let mut left_out = 0_u64;
    loop {
        // A report has nothing that JSON cannot say.
        let json = serde_json::to_string(&report).unwrap_or_default();
        if json.len() <= SUMMARY_BYTES_MAX {
            return json;
        }
        let longest =
            report.runs.iter_mut().map(|run| &mut run.timeline).max_by_key(|timeline| timeline.len());
        let Some(timeline) = longest.filter(|timeline| timeline.len() > 2) else {
            return short_of(report);
        };
        let middle = timeline.len() / 2;
        let half = (timeline.len() / 4).max(1);
        let removed: Vec<_> = timeline.drain(middle - half..middle).collect();
        // The line that stands for others is none of them.
        let lines = removed.iter().filter(|entry| entry.source != LEFT_OUT).count() as u64;
        // Only that note was left in the middle: it is not the timeline that is too long.
        if lines == 0 {
            return short_of(report);
        }
        left_out += lines;
        timeline.retain(|entry| entry.source != LEFT_OUT);
        let at_ms = removed.first().map_or(0, |entry| entry.at_ms);
        let what = format!("{left_out} lines are left out here");
        timeline.insert(
            (middle - half).min(timeline.len()),
            TimelineEntry { at_ms, source: LEFT_OUT.into(), what },
        );
    }
}

/// Who says in a timeline that lines are left out.
const LEFT_OUT: &str = "report";

/// Long lines of findings, cut off one after the other.
fn short_of(mut report: Report) -> String {
    let lines = 8;
    report.broken.truncate(lines);
    report.audit.evidence.truncate(lines);
    for run in &mut report.runs {
        run.broken.truncate(lines);
        run.timeline.clear();
    }
    let evidence = report.audit.evidence.iter_mut();
    let broken = report.runs.iter_mut().flat_map(|run| &mut run.broken);
    for line in report.broken.iter_mut().chain(evidence).chain(broken) {
        *line = line.chars().take(200).collect();
    }
    let json = serde_json::to_string(&report).unwrap_or_default();
    if json.len() <= SUMMARY_BYTES_MAX { json } else { String::new() }
}
