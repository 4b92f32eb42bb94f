//! The report of something that was no drill.

use super::lookout::{Line, LineKind, Subject};
use crate::cli::events::Names;
use std::collections::BTreeMap;
use twinsite_drill::audit::Audit;
use twinsite_drill::engine::{
    GapMs, GapSpan, NodeSpans, Origin, PhaseSpan, PhasesMs, REPORT_VERSION, Report, RunReport, Spans,
    TimelineEntry, Verdict,
};
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{FloatingIpName, Operation, Outcome, Profile, State, Step, WallTime};

/// What this node knows of it. `zero` is when it began, by this node's clock.
pub(super) fn of(subject: &Subject, lines: &[&Line], zero: WallTime, state: &State, names: &Names) -> Report {
    let told = match subject {
        Subject::Moved(operation) => moved(operation, names),
        Subject::Nearly { ip, owner, silent_for, lease } => Told {
            title: "near-failover",
            description: format!(
                "{ip}: {} was silent for {} ms and is back; after {} ms it would have been replaced",
                names.name(*owner),
                silent_for.as_millis(),
                lease.as_millis()
            ),
            ..Told::default()
        },
        Subject::Blocked { ip, reason, why } => Told {
            title: "blocked-failover",
            description: format!("{ip} should move ({reason}), and something forbids it"),
            broken: why.clone(),
            ..Told::default()
        },
    };
    let answers = answers(ip(subject), lines);
    let silence = longest_silence(&answers, zero);
    let end = lines.last().map_or(zero, |line| line.at);
    let run = RunReport {
        run: 1,
        gap_ms: GapMs { http: silence.map(|(from, to)| to.0.saturating_sub(from.0)), ..GapMs::default() },
        phases_ms: told.phases,
        owner_before: told.owner_before,
        owner_after: told.owner_after,
        spans: spans(subject, &answers, silence, (zero, end)),
        timeline: lines.iter().map(|line| entry(line, zero)).collect(),
        ..RunReport::default()
    };
    let spec = state.spec.as_ref();
    let embedded = spec.is_none_or(|spec| spec.sessions.store == SessionStoreKind::Embedded);
    Report {
        version: REPORT_VERSION,
        origin: Origin::Real,
        began_ms: zero.0,
        scenario: told.title.to_owned(),
        description: told.description,
        verdict: if told.broken.is_empty() { Verdict::Pass } else { Verdict::Fail },
        profile: spec.map_or_else(Profile::default, |spec| spec.profile).to_string(),
        store: if embedded { "embedded".into() } else { "redis".into() },
        broken: told.broken,
        limits: Vec::new(),
        counts: Vec::new(),
        runs: vec![run],
        audit: Audit { evidence: told.evidence, ..Audit::clean() },
    }
}

/// What differs from subject to subject.
#[derive(Default)]
struct Told {
    title: &'static str,
    description: String,
    broken: Vec<String>,
    phases: PhasesMs,
    owner_before: Option<String>,
    owner_after: Option<String>,
    evidence: Vec<String>,
}

fn moved(operation: &Operation, names: &Names) -> Told {
    let (from, to) = (operation.from.as_ref(), names.name(operation.target));
    let description = format!(
        "{}: {} -> {to} by {}, because {}",
        operation.ip,
        from.map_or_else(|| "nobody".to_owned(), |owner| names.name(owner.node)),
        if operation.by.is_empty() { "the cluster" } else { &operation.by },
        operation.reason.as_str()
    );
    let broken = match operation.ended {
        Some((_, Outcome::Verified)) => None,
        Some((_, Outcome::Unverified)) => Some("nobody saw the address answer under its new token"),
        Some((_, Outcome::Aborted)) => Some("it was called off"),
        None => Some("it has not ended"),
    };
    let details = operation.steps.iter().filter(|record| !record.detail.is_empty());
    let details = details.map(|record| format!("{}: {}", record.step, record.detail));
    Told {
        title: operation.kind.as_str(),
        description,
        broken: broken.map(str::to_owned).into_iter().collect(),
        phases: phases(operation),
        owner_before: from.map(|owner| format!("{} ({})", names.name(owner.node), owner.token)),
        owner_after: operation.token.map(|token| format!("{to} ({token})")),
        evidence: operation.evidence.iter().cloned().chain(details).collect(),
    }
}

/// How long each step took, as the journal has it.
fn phases(operation: &Operation) -> PhasesMs {
    let of_step = |step| {
        let record = operation.step(step)?;
        let (finished, _) = record.finished?;
        Some(finished.0.saturating_sub(record.started.0))
    };
    PhasesMs {
        detect: None,
        drain: of_step(Step::Drain),
        fence: of_step(Step::Fence),
        r#move: of_step(Step::Move),
        observe: of_step(Step::Observe),
        announce: of_step(Step::Announce),
        verify: of_step(Step::Verify),
    }
}

fn ip(subject: &Subject) -> &FloatingIpName {
    match subject {
        Subject::Moved(operation) => &operation.ip,
        Subject::Nearly { ip, .. } | Subject::Blocked { ip, .. } => ip,
    }
}

/// Who answered this node's probes of the address, one after the other: since when, and who.
fn answers<'a>(ip: &FloatingIpName, lines: &[&'a Line]) -> Vec<(WallTime, Option<&'a str>)> {
    let answers = lines.iter().filter_map(|line| match &line.kind {
        LineKind::Answers(of, node) if of == ip => Some((line.at, node.as_deref())),
        _ => None,
    });
    answers.collect()
}

/// The longest time for which nobody answered, of those that ended after the beginning.
fn longest_silence(answers: &[(WallTime, Option<&str>)], zero: WallTime) -> Option<(WallTime, WallTime)> {
    let pairs = answers.windows(2).filter_map(|pair| {
        let [(from, None), (to, Some(_))] = pair else { return None };
        (*to >= zero).then_some((*from, *to))
    });
    pairs.max_by_key(|(from, to)| to.since(*from))
}

/// What a drawing to scale needs.
fn spans(
    subject: &Subject,
    answers: &[(WallTime, Option<&str>)],
    silence: Option<(WallTime, WallTime)>,
    (zero, end): (WallTime, WallTime),
) -> Spans {
    let since = |at: WallTime| since(at, zero);
    let mut nodes: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    let ends = answers.iter().skip(1).map(|(at, _)| *at).chain([end]);
    for ((from, node), to) in answers.iter().zip(ends) {
        if let Some(node) = node {
            nodes.entry(node).or_default().push((since(*from), since(to)));
        }
    }
    let phases = match subject {
        Subject::Moved(operation) => phase_spans(operation),
        Subject::Nearly { .. } | Subject::Blocked { .. } => Vec::new(),
    };
    let gap = silence.map(|(from, to)| GapSpan {
        clients: "this node's probes".into(),
        from_ms: since(from),
        to_ms: since(to),
    });
    Spans {
        observed_ms: since(end),
        phases,
        gaps: gap.into_iter().collect(),
        nodes: nodes
            .into_iter()
            .map(|(node, answered)| NodeSpans { node: node.to_owned(), answered })
            .collect(),
    }
}

/// Each step since the decision. The journal's times are of the leader's clock, and so is the decision's.
fn phase_spans(operation: &Operation) -> Vec<PhaseSpan> {
    let Some(zero) = operation.steps.first().map(|record| record.started) else { return Vec::new() };
    let spans = operation.steps.iter().filter(|record| record.step != Step::Decide).filter_map(|record| {
        let (finished, _) = record.finished?;
        let (from_ms, to_ms) = (since(record.started, zero), since(finished, zero));
        Some(PhaseSpan { of_move: 1, phase: record.step.as_str().into(), from_ms, to_ms })
    });
    spans.collect()
}

/// Milliseconds since the beginning.
fn since(at: WallTime, zero: WallTime) -> i64 {
    at.0.cast_signed().saturating_sub(zero.0.cast_signed())
}

fn entry(line: &Line, zero: WallTime) -> TimelineEntry {
    TimelineEntry { at_ms: since(line.at, zero), source: line.source.into(), what: line.what.clone() }
}
