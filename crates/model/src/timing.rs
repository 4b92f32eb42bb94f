//! The timing of the lease and of elections, and the inequalities between them (design section 5).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// All the durations on which safety and quick recovery rest. Chosen by profile, adjustable one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How often the Raft leader shows that it lives.
    pub heartbeat: Duration,
    /// The lower end of the random part of an election timeout.
    pub election_min: Duration,
    /// The upper end of it, and the voters' lease: a voter that heard a leader refuses others for so long.
    pub election_max: Duration,
    /// How often the owner of a floating IP renews its lease.
    pub renew: Duration,
    /// `L`: how long a grant lasts, from the moment at which the owner sent its renewal.
    pub lease: Duration,
    /// `K`: what kernel ticks, the guardian's waking up and a kill may cost.
    pub slack: Duration,
    /// How long one call at a provider may be under way.
    pub provider_call: Duration,
    /// `r`: the bound on the rate error of any clock in the cluster, in parts per million.
    pub drift_ppm: u32,
}

/// A named set of timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Sites a millisecond apart, and fast recovery wanted.
    Lan,
    /// Sites on a wide-area network; patient enough for a live migration of 2 to 3 s.
    #[default]
    Wan,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        })
    }
}

/// The rate error that no working clock exceeds: 0.1 % is far above what crystals and `adjtimex` slewing
/// (500 ppm) reach together.
const DRIFT_PPM_DEFAULT: u32 = 1_000;

impl Timing {
    /// The timings of a profile.
    pub const fn of(profile: Profile) -> Self {
        let ms = Duration::from_millis;
        match profile {
            Profile::Lan => Self {
                heartbeat: ms(25),
                election_min: ms(80),
                election_max: ms(120),
                renew: ms(25),
                lease: ms(300),
                slack: ms(20),
                provider_call: ms(2_000),
                drift_ppm: DRIFT_PPM_DEFAULT,
            },
            // Heartbeat and voters' lease are as long as a round trip of 0.35 s between the sites asks for, and as short as
            // a lost leader's successor needs to be in time: `lease + 1.5 s` when the owner went with it.
            Profile::Wan => Self {
                heartbeat: ms(350),
                election_min: ms(500),
                election_max: ms(800),
                renew: ms(200),
                lease: ms(3_000),
                slack: ms(100),
                provider_call: ms(10_000),
                drift_ppm: DRIFT_PPM_DEFAULT,
            },
        }
    }

    /// `W = L·(1+r)/(1-r) + K`: how long a leader waits after its last grant (or after its election) until no
    /// clock within the bound can still show a valid lease. Rounded up.
    pub fn wait(&self) -> Duration {
        self.outlast(self.lease)
    }

    /// How long to wait so that a time of this length is over on every clock within the bound. Rounded up.
    pub fn outlast(&self, time: Duration) -> Duration {
        const MILLION: u128 = 1_000_000;
        let drift = u128::from(self.drift_ppm).min(MILLION - 1);
        // No overflow: the longest duration has 94 bits of nanoseconds, and the factor has 21.
        let nanos = (time.as_nanos() * (MILLION + drift)).div_ceil(MILLION - drift);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).saturating_add(self.slack)
    }

    /// What a message between two nodes and its answer may take: openraft gives both together one heartbeat interval
    /// (`HeartbeatWorker::do_run`, `RPCOption::hard_ttl`). Beyond, nobody can lead.
    pub fn round_trip_max(&self) -> Duration {
        self.heartbeat
    }

    /// When the guardian kills a node that shows no life: `L - K` after the last grant's send time.
    pub fn guardian_limit(&self) -> Duration {
        self.lease.saturating_sub(self.slack)
    }

    /// Every inequality that must hold, with the numbers filled in. Printed by `twinsite check --timing`.
    pub fn inequalities(&self) -> Vec<Inequality> {
        let mut all = Vec::new();
        let mut less = |low: Duration, high: Duration, rule: &'static str, why: &'static str| {
            all.push(Inequality { rule, low, high, holds: low < high, why });
        };
        let times = Duration::saturating_mul;
        less(
            times(self.election_max, 2).saturating_add(self.renew).saturating_add(self.slack),
            self.lease,
            "2*election_max + renew + slack < lease",
            "losing the leader must not darken a healthy owner",
        );
        less(
            times(self.heartbeat, 9) / 4,
            self.election_max,
            "9/4*heartbeat < election_max",
            "a heartbeat, the tick by which it may be late, and the longest answer must not cost a leader its followers",
        );
        less(
            self.heartbeat,
            self.election_min,
            "heartbeat < election_min",
            "one late heartbeat must not start an election",
        );
        less(
            self.election_min,
            self.election_max,
            "election_min < election_max",
            "candidates are spread over the difference",
        );
        less(
            times(self.renew, 4),
            self.lease,
            "4*renew < lease",
            "several lost renewals must not cost the lease",
        );
        less(
            times(self.slack, 4),
            self.lease,
            "4*slack < lease",
            "the guardian must not kill a node that is merely busy",
        );
        less(
            Duration::from_millis(5),
            self.slack,
            "5ms < slack",
            "a kernel tick, a wake-up and a kill must fit",
        );
        less(
            Duration::from_millis(4),
            self.heartbeat,
            "4ms < heartbeat",
            "a heartbeat must be longer than a scheduler tick",
        );
        less(
            Duration::ZERO,
            Duration::from_mins(10).saturating_sub(self.lease),
            "lease < 10min",
            "an outage as long as the lease must stay an outage that people accept",
        );
        less(
            Duration::from_micros(u64::from(self.drift_ppm)),
            Duration::from_micros(100_001),
            "drift_ppm <= 100000",
            "a clock that is wrong by more than 10 % is broken",
        );
        all
    }
}

/// The longest lease that any leader may ever have granted, and the wait that outlasts it. A leader does not know
/// what its predecessors granted, nor by which specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LeaseBound {
    /// The longest `L`.
    pub lease: Duration,
    /// The longest `W`.
    pub wait: Duration,
}

impl LeaseBound {
    /// What may be granted by one set of timings. Bounded by what the encoding holds, 584 years.
    pub fn of(timing: &Timing) -> Self {
        let max = Duration::from_nanos(u64::MAX);
        Self { lease: timing.lease.min(max), wait: timing.wait().min(max) }
    }

    /// What may be granted by either: each duration the longer of the two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { lease: self.lease.max(other.lease), wait: self.wait.max(other.wait) }
    }
}

/// One rule between two durations, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inequality {
    /// The rule, in the names of the configuration.
    pub rule: &'static str,
    /// The side that must be smaller, computed.
    pub low: Duration,
    /// The side that must be larger, computed.
    pub high: Duration,
    /// Whether it holds.
    pub holds: bool,
    /// What goes wrong when it does not.
    pub why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_profiles_hold_their_inequalities() {
        for profile in [Profile::Lan, Profile::Wan] {
            for rule in Timing::of(profile).inequalities() {
                assert!(rule.holds, "{profile}: {rule:?}");
            }
        }
    }

    #[test]
    fn the_wait_outlasts_the_lease_on_the_worst_clocks() {
        let timing = Timing::of(Profile::Wan);
        let r = f64::from(timing.drift_ppm) / 1e6;
        // The owner's clock is slow: its lease lasts L/(1-r) of true time. The leader's is fast: it waits W/(1+r).
        let owner_holds = timing.lease.as_secs_f64() / (1.0 - r);
        let leader_waits = timing.wait().as_secs_f64() / (1.0 + r);
        assert!(leader_waits > owner_holds);
        assert!(leader_waits - owner_holds >= timing.slack.as_secs_f64() / (1.0 + r) - 1e-9);
    }

    #[test]
    fn no_duration_is_too_long_to_be_judged() {
        let max = Duration::MAX;
        let timing = Timing {
            heartbeat: max,
            election_min: max,
            election_max: max,
            renew: max,
            lease: max,
            slack: max,
            provider_call: max,
            drift_ppm: u32::MAX,
        };
        assert!(timing.inequalities().iter().any(|rule| !rule.holds));
        assert_eq!(timing.wait(), max);
        assert_eq!(LeaseBound::of(&timing).wait, Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_short_lease_breaks_a_named_rule() {
        let timing = Timing { lease: Duration::from_millis(200), ..Timing::of(Profile::Lan) };
        let broken: Vec<_> = timing.inequalities().into_iter().filter(|r| !r.holds).collect();
        assert_eq!(broken[0].rule, "2*election_max + renew + slack < lease");
    }
}
