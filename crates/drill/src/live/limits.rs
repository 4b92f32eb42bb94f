//! Limits that end a drill while it runs, and how long a drill may last.

use super::cluster::Seen;
use crate::scenario::{Action, Limits, Scenario, Step};
use std::time::Duration;
use twinsite_model::Timing;
use twinsite_model::spec::HumanDuration;

/// How long the way back may take beyond what the scenario gives it, and everything may be late, in all.
const MARGIN: Duration = Duration::from_secs(30);
/// What each step is counted with at least, so that a bounded time is a bounded number of them.
const STEP_MIN: Duration = Duration::from_millis(100);
/// How long handing over the leadership may take.
pub(super) const LEAD_MAX: Duration = Duration::from_secs(15);
/// How long the cluster may take to begin what it is asked for.
pub(super) const ASK_MAX: Duration = Duration::from_secs(10);
/// How long is looked at the cluster in peace before the first step.
pub(super) const BEFORE: Duration = Duration::from_secs(1);
/// How long the floating address may take to answer before the first step.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The first limit that is exceeded, in words. What a scenario says of the median of runs counts here for the one run
/// that there is.
pub(super) fn exceeded(limits: &Limits, timing: &Timing, seen: &Seen) -> Option<String> {
    if let Some(limit) = limits.http_gap.as_ref().map(|limit| limit.in_timing(timing))
        && seen.gap > limit
    {
        let (gap, limit) = (seen.gap.as_millis(), limit.as_millis());
        return Some(format!("nobody answered for {gap} ms, and limits.http_gap is {limit} ms"));
    }
    let counts = [
        ("failed_requests", limits.failed_requests, seen.given_up),
        ("refused_attempts", limits.refused_attempts, seen.refused),
        ("broken_attempts", limits.broken_attempts, seen.broken),
    ];
    counts.into_iter().find_map(|(name, limit, count)| {
        let limit = limit.filter(|limit| count > *limit)?;
        Some(format!("{count} {} so far, and limits.{name} is {limit}", name.replace('_', " ")))
    })
}

/// How long the steps, the settling and the observation take at most.
pub(super) fn steps_at_most(scenario: &Scenario, timing: &Timing) -> Duration {
    let steps = scenario
        .steps()
        .map(|step| step_at_most(step, timing))
        .fold(Duration::ZERO, Duration::saturating_add);
    let observed = scenario.observe.settle.in_timing(timing).saturating_add(scenario.observe.hold.0);
    (BEFORE + ANSWER_MAX).saturating_add(steps).saturating_add(observed)
}

fn step_at_most(step: &Step, timing: &Timing) -> Duration {
    let action = match &step.action {
        Action::Wait(wait) => wait.within.in_timing(timing),
        Action::Lead(_) => ASK_MAX + LEAD_MAX,
        Action::Repeat(repeat) => {
            let once = repeat.steps.iter().map(|step| step_at_most(step, timing));
            let once = once.fold(Duration::ZERO, Duration::saturating_add);
            once.max(repeat.every.in_timing(timing)).saturating_mul(repeat.times)
        }
        _ => ASK_MAX,
    };
    step.after.in_timing(timing).saturating_add(action.max(STEP_MIN))
}

/// How long a drill may last, way back included. The cluster allows no more than two hours.
pub fn lasts_at_most(scenario: &Scenario, timing: &Timing) -> HumanDuration {
    let back = scenario.way_back.within.in_timing(timing).saturating_add(MARGIN);
    let all = steps_at_most(scenario, timing).saturating_add(back);
    // Whole seconds: it is read by people.
    HumanDuration(Duration::from_secs(all.as_secs().saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::builtin;
    use twinsite_model::Profile;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_limit_that_is_exceeded_is_named() {
        let scenario = builtin("switchover-and-back").unwrap().scenario().unwrap();
        let timing = Timing::of(Profile::Lan);
        let seen = Seen { gap: 150 * MS, refused: 90, ..Seen::default() };
        assert_eq!(exceeded(&scenario.limits, &timing, &seen), None, "refused attempts have no limit there");
        let late = Seen { gap: 151 * MS, ..seen.clone() };
        assert!(exceeded(&scenario.limits, &timing, &late).unwrap().contains("limits.http_gap is 150 ms"));
        let lost = Seen { given_up: 1, ..seen.clone() };
        assert!(exceeded(&scenario.limits, &timing, &lost).unwrap().contains("limits.failed_requests is 0"));
        let broken = Seen { broken: 1, ..seen };
        assert!(exceeded(&scenario.limits, &timing, &broken).unwrap().contains("broken_attempts"));
    }

    #[test]
    fn a_drills_time_is_the_sum_of_all_that_it_may_wait_for() {
        let timing = Timing::of(Profile::Lan);
        let lasts = |name: &str| lasts_at_most(&builtin(name).unwrap().scenario().unwrap(), &timing).0;
        // Three moves and waits of a minute in all, settling, and a way back.
        let there_and_back = lasts("switchover-and-back");
        assert!(there_and_back > Duration::from_secs(120), "{there_and_back:?}");
        assert!(there_and_back < Duration::from_mins(5), "{there_and_back:?}");
        assert!(lasts("leader-handover") < there_and_back + Duration::from_mins(1));
    }
}
