//! The report of something that was no drill.

use super::lookout::{Line, LineKind, Subject};
use crate::cli::events::Names;
use std::time::Duration;
use twinsite_drill::audit::Audit;
use twinsite_drill::engine::{
    GapMs, Origin, PhasesMs, REPORT_VERSION, Report, RunReport, TimelineEntry, Verdict,
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
    let gap = ip(subject).and_then(|ip| longest_silence(ip, lines, zero));
    let run = RunReport {
        run: 1,
        gap_ms: GapMs { http: gap.map(whole_ms), ..GapMs::default() },
        phases_ms: told.phases,
        owner_before: told.owner_before,
        owner_after: told.owner_after,
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
        Some(whole_ms(record.finished?.0.since(record.started)))
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

fn ip(subject: &Subject) -> Option<&FloatingIpName> {
    Some(match subject {
        Subject::Moved(operation) => &operation.ip,
        Subject::Nearly { ip, .. } | Subject::Blocked { ip, .. } => ip,
    })
}

/// The longest time for which this node's probes of the address found nobody, as far as it has ended.
fn longest_silence(ip: &FloatingIpName, lines: &[&Line], zero: WallTime) -> Option<Duration> {
    let (mut since, mut longest) = (None, None);
    for line in lines {
        match &line.kind {
            LineKind::Answers(of, false) if of == ip => since = since.or(Some(line.at)),
            LineKind::Answers(of, true) if of == ip => {
                let silence = since.take().map(|since: WallTime| line.at.since(since));
                longest = longest.max(silence.filter(|_| line.at >= zero));
            }
            _ => {}
        }
    }
    longest
}

fn entry(line: &Line, zero: WallTime) -> TimelineEntry {
    TimelineEntry {
        at_ms: line.at.0.cast_signed() - zero.0.cast_signed(),
        source: line.source.into(),
        what: line.what.clone(),
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
