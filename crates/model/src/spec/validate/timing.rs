//! The timings of the lease and of elections.

use super::{Findings, MINUTE, MS};
use crate::spec::{ClusterSpec, HumanDuration};

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    let before = findings.0.len();
    let over = &spec.timing;
    let durations = [
        ("timing.heartbeat", over.heartbeat),
        ("timing.election_min", over.election_min),
        ("timing.election_max", over.election_max),
        ("timing.renew", over.renew),
        ("timing.lease", over.lease),
        ("timing.slack", over.slack),
        ("timing.provider_call", over.provider_call),
    ];
    for (key, duration) in durations {
        if let Some(duration) = duration {
            findings.duration(key, duration, MS..=10 * MINUTE);
        }
    }
    if let Some(drift) = over.drift_ppm {
        findings.number("timing.drift_ppm", drift.into(), 1..=100_000);
    }
    if findings.0.len() > before {
        return; // the sums below would be of numbers that make no sense
    }
    for rule in spec.timing().inequalities().into_iter().filter(|rule| !rule.holds) {
        let (low, high) = (HumanDuration(rule.low), HumanDuration(rule.high));
        findings.add(
            "timing",
            format!("`{}` does not hold: {low} is not below {high}; {}", rule.rule, rule.why),
            format!("change one of them, or remove [timing] to use the values of profile `{}`", spec.profile),
        );
    }
}
