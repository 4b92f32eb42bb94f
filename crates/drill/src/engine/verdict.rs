//! Judging: expectations, limits, audit.

use super::report::{Check, CountReport, LimitReport, Origin, REPORT_VERSION, Report, RunReport, Verdict};
use super::run::whole_ms;
use super::{ClusterStatus, WatchItem};
use crate::audit::Audit;
use crate::layout::{Ground, Layout, Store};
use crate::scenario::{Expect, Limits, OwnerExpected, Scenario};
use twinsite_model::{Event, NodeName, Profile, SiteName, WallTime};

/// How often the owner changed.
pub(crate) fn moves(journal: &[WatchItem]) -> u32 {
    let changed = journal.iter().filter(|item| matches!(item.event, Event::OwnerChanged { .. }));
    u32::try_from(changed.count()).unwrap_or(u32::MAX)
}

/// What the scenario expects, each with what came of it.
pub(crate) fn expectations<'a>(
    expect: &Expect,
    site_of: impl Fn(&NodeName) -> Option<&'a SiteName>,
    before: &ClusterStatus,
    after: &ClusterStatus,
    other_site: &SiteName,
    moves: u32,
) -> Vec<Check> {
    let (old, new) = (before.owner.as_ref(), after.owner.as_ref());
    let site = new.and_then(|(node, _)| site_of(node));
    let right = match expect.owner {
        OwnerExpected::Any => new.is_some(),
        OwnerExpected::Unchanged => new.is_some() && new == old,
        OwnerExpected::Changed => new.is_some_and(|(node, _)| old.is_none_or(|(old, _)| old != node)),
        OwnerExpected::AtOtherSite => site == Some(other_site),
        OwnerExpected::NewToken => new.is_some_and(|(_, token)| old.is_none_or(|(_, old)| token > old)),
    };
    let word = |owner: Option<&(NodeName, twinsite_model::Token)>| {
        owner.map_or_else(|| "nobody".to_owned(), |(node, token)| format!("{node} ({token})"))
    };
    let as_expected = if right { "as expected" } else { "not as expected" };
    let owner = format!("the owner is {} after {}, {as_expected}", word(new), word(old));
    let mut checks = vec![Check { name: "owner".into(), holds: right, line: owner }];
    if let Some(max) = expect.moves_max {
        let line = format!("the owner changed {moves} times, at most {max} expected");
        checks.push(Check { name: "moves_max".into(), holds: moves <= max, line });
    }
    let forced = after.generation.0.saturating_sub(before.generation.0);
    checks.push(Check {
        name: "forced_recoveries".into(),
        holds: forced == expect.forced_recoveries,
        line: format!("{forced} forced recoveries, {} expected", expect.forced_recoveries),
    });
    checks
}

/// The report with its verdict.
pub(super) fn judge(
    scenario: &Scenario,
    layout: &Layout,
    began: WallTime,
    runs: Vec<RunReport>,
    audit: Audit,
    aborted: bool,
) -> Report {
    let measured_on = MeasuredOn {
        origin: match layout.ground {
            Ground::Loopback => Origin::Loopback,
            Ground::Lab => Origin::Lab,
        },
        profile: layout.profile,
        embedded: layout.store == Store::Embedded,
        limits: scenario.limits_on(layout.ground),
        aborted,
    };
    judge_on(scenario, &measured_on, began, runs, audit)
}

/// On what a report's numbers were measured, and what they may be there.
pub(crate) struct MeasuredOn {
    pub(crate) origin: Origin,
    pub(crate) profile: Profile,
    pub(crate) embedded: bool,
    pub(crate) limits: Limits,
    /// Whether a person has ended it before its end: then nothing is judged but what was audited.
    pub(crate) aborted: bool,
}

/// The report with its verdict, wherever it was measured.
pub(crate) fn judge_on(
    scenario: &Scenario,
    on: &MeasuredOn,
    began: WallTime,
    runs: Vec<RunReport>,
    audit: Audit,
) -> Report {
    let limits = &on.limits;
    let counts = counts(limits, &runs);
    let mut broken = audit.broken();
    for run in &runs {
        broken.extend(run.broken.iter().map(|line| format!("run {}: {line}", run.run)));
        broken.extend(too_many(limits, run));
    }
    let limits: Vec<_> = limits
        .durations(on.profile)
        .into_iter()
        .map(|(name, limit)| {
            let measured = runs.iter().map(|run| measured(run, name)).collect();
            LimitReport { name: name.into(), median_ms: median(measured), limit_ms: whole_ms(limit) }
        })
        .collect();
    // Of a drill that was cut short the medians are shown, and held against nobody.
    for limit in limits.iter().filter(|_| !on.aborted) {
        match limit.median_ms {
            Some(median) if median > limit.limit_ms => {
                broken.push(format!("{}: median {median} ms, limit {} ms", limit.name, limit.limit_ms));
            }
            Some(_) => {}
            None => broken.push(format!("{}: nothing was measured", limit.name)),
        }
    }
    Report {
        version: REPORT_VERSION,
        origin: on.origin,
        began_ms: began.0,
        scenario: scenario.name().to_owned(),
        description: scenario.description.clone(),
        verdict: match (broken.is_empty(), on.aborted) {
            (false, _) => Verdict::Fail,
            (true, true) => Verdict::Aborted,
            (true, false) => Verdict::Pass,
        },
        profile: on.profile.to_string(),
        store: if on.embedded { "embedded".into() } else { "redis".into() },
        broken,
        limits,
        counts,
        runs,
        audit,
    }
}

/// Each count that has a limit, with the highest of all runs.
fn counts(limits: &Limits, runs: &[RunReport]) -> Vec<CountReport> {
    let lost = |run: &RunReport| u64::try_from(run.tunnels.lost).unwrap_or(u64::MAX);
    let highest = |count: fn(&RunReport) -> u64| runs.iter().map(count).max();
    [
        ("failed_requests", limits.failed_requests, highest(|run| run.requests.failed)),
        ("refused_attempts", limits.refused_attempts, highest(|run| run.attempts.refused)),
        ("broken_attempts", limits.broken_attempts, highest(|run| run.attempts.broken)),
        ("tunnels_lost", limits.tunnels_lost, runs.iter().map(lost).max()),
    ]
    .into_iter()
    .filter_map(|(name, limit, highest)| {
        Some(CountReport { name: name.into(), highest: highest?, limit: limit? })
    })
    .collect()
}

/// Counts of one run that are above their limits, a line each.
fn too_many(limits: &Limits, run: &RunReport) -> Vec<String> {
    let lost = u64::try_from(run.tunnels.lost).unwrap_or(u64::MAX);
    let by = run.attempts.broken_by.iter().map(|(by, count)| format!("{count} {by}"));
    let broken = format!("attempts got no good answer ({})", by.collect::<Vec<_>>().join(", "));
    let counts = [
        (limits.failed_requests, run.requests.failed, "requests failed"),
        (limits.refused_attempts, run.attempts.refused, "attempts found nobody"),
        (limits.broken_attempts, run.attempts.broken, broken.as_str()),
        (limits.tunnels_lost, lost, "WebSockets lost"),
    ];
    let above = counts
        .into_iter()
        .filter_map(|(max, count, what)| Some((max.filter(|max| count > *max)?, count, what)));
    above
        .map(|(max, count, what)| format!("run {}: {count} {what}, at most {max} allowed", run.run))
        .collect()
}

fn measured(run: &RunReport, limit: &str) -> Option<u64> {
    match limit {
        "http_gap" => run.gap_ms.http,
        "keep_alive_gap" => run.gap_ms.keep_alive,
        "websocket_gap" => run.gap_ms.websocket,
        "tunnels_back" => Some(run.tunnels.longest_ms),
        "detect" => run.phases_ms.detect,
        "fence" => run.phases_ms.fence,
        _ => None,
    }
}

/// The middle value, the higher of two; none unless every run has one.
fn median(values: Vec<Option<u64>>) -> Option<u64> {
    let mut values = values.into_iter().collect::<Option<Vec<_>>>()?;
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_needs_every_run() {
        assert_eq!(median(vec![Some(3), Some(1), Some(2)]), Some(2));
        assert_eq!(median(vec![Some(1), Some(2)]), Some(2));
        assert_eq!(median(vec![Some(1), None]), None);
        assert_eq!(median(vec![]), None);
    }
}
