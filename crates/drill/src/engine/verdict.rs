//! Judging: expectations, limits, audit.

use super::report::{Check, CountReport, LimitReport, Origin, REPORT_VERSION, Report, RunReport, Verdict};
use super::run::whole_ms;
use super::{ClusterStatus, WatchItem};
use crate::audit::{self, Audit};
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
    let is_disturbed = |run: &RunReport| run.is_disturbed(on.profile);
    let mut broken = Broken::default();
    for check in audit.checks().into_iter().filter(|check| !check.holds) {
        let takes_time = check.name == audit::ANNOUNCED;
        broken.note(takes_time && runs.iter().any(is_disturbed), check.line);
    }
    for run in &runs {
        let lines = run.broken.iter().map(|line| format!("run {}: {line}", run.run));
        for line in lines.chain(too_many(limits, run)) {
            broken.note(is_disturbed(run), line);
        }
    }
    // A median says nothing when it may be that of a disturbed run.
    let median_means_nothing = runs.iter().filter(|run| is_disturbed(run)).count() * 2 >= runs.len().max(1);
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
                let line = format!("{}: median {median} ms, limit {} ms", limit.name, limit.limit_ms);
                broken.note(median_means_nothing, line);
            }
            Some(_) => {}
            None => broken.note(median_means_nothing, format!("{}: nothing was measured", limit.name)),
        }
    }
    Report {
        version: REPORT_VERSION,
        origin: on.origin,
        began_ms: began.0,
        scenario: scenario.name().to_owned(),
        description: scenario.description.clone(),
        verdict: match (broken.lines.is_empty(), on.aborted) {
            (false, _) if broken.all_excused => Verdict::Disturbed,
            (false, _) => Verdict::Fail,
            (true, true) => Verdict::Aborted,
            (true, false) => Verdict::Pass,
        },
        profile: on.profile.to_string(),
        store: if on.embedded { "embedded".into() } else { "redis".into() },
        broken: broken.lines,
        limits,
        counts,
        runs,
        audit,
    }
}

/// What did not hold.
struct Broken {
    lines: Vec<String>,
    /// Whether a machine that stood still explains all of it.
    all_excused: bool,
}

impl Default for Broken {
    fn default() -> Self {
        Self { lines: Vec::new(), all_excused: true }
    }
}

impl Broken {
    fn note(&mut self, is_excused: bool, line: String) {
        self.all_excused &= is_excused;
        self.lines.push(line);
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

    /// The verdict on runs with these gaps and stalls of the machine, in milliseconds; 500 are allowed.
    fn judged(runs: &[(u64, u64)], broken: &[&str], audit: Audit) -> Verdict {
        let text = "version = 1\nname = \"x\"\ndescription = \"X.\"\n[[step]]\ndo.kill = { nodes = \"owner\" }\n\
                    [limits]\nhttp_gap = \"500ms\"\n";
        let scenario = Scenario::parse("x.toml", text).unwrap();
        let on = MeasuredOn {
            origin: Origin::Loopback,
            profile: Profile::Lan,
            embedded: true,
            limits: scenario.limits_on(Ground::Loopback),
            aborted: false,
        };
        let run = |(gap, stalled): &(u64, u64)| RunReport {
            gap_ms: super::super::report::GapMs { http: Some(*gap), ..Default::default() },
            broken: broken.iter().map(|line| (*line).to_owned()).collect(),
            machine_stalled_ms: Some(*stalled),
            ..RunReport::default()
        };
        judge_on(&scenario, &on, WallTime(1), runs.iter().map(run).collect(), audit).verdict
    }

    #[test]
    fn a_machine_that_stood_still_excuses_what_came_late() {
        assert_eq!(judged(&[(501, 54)], &[], Audit::clean()), Verdict::Fail);
        assert_eq!(judged(&[(501, 55)], &[], Audit::clean()), Verdict::Disturbed);
        assert_eq!(judged(&[(500, 100)], &[], Audit::clean()), Verdict::Pass, "it held all the same");
        assert_eq!(judged(&[(400, 100)], &["not healed"], Audit::clean()), Verdict::Disturbed);
        assert_eq!(judged(&[(400, 0), (400, 100)], &["not healed"], Audit::clean()), Verdict::Fail);
        let slow = [(501, 100), (501, 0), (501, 0)];
        assert_eq!(judged(&slow, &[], Audit::clean()), Verdict::Fail, "the median is of a machine that ran");
        let wrong = Audit { announced_mismatch_ms: 300, ..Audit::clean() };
        assert_eq!(judged(&[(400, 100)], &[], wrong.clone()), Verdict::Disturbed);
        assert_eq!(judged(&[(400, 0)], &[], wrong), Verdict::Fail);
    }

    #[test]
    fn nothing_excuses_what_must_hold_at_any_speed() {
        let clean = Audit::clean;
        for audit in [
            Audit { dual_answer_ms: 1, ..clean() },
            Audit { stale_epoch_writes: 1, ..clean() },
            Audit { epochs_monotonic: false, ..clean() },
            Audit { split_rooms: 1, ..clean() },
            Audit { two_hosts_ms: Some(1), ..clean() },
            Audit { dark_frames: Some(1), ..clean() },
        ] {
            assert_eq!(judged(&[(501, 5_000)], &[], audit.clone()), Verdict::Fail, "{audit:?}");
        }
    }
}
