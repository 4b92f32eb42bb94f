//! The report of a drill, in the words of its JSON.

use super::spans::Spans;
use crate::audit::Audit;
use crate::measure::{Counts, gap};
use crate::process::Log;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use twinsite_machine::DISTURBS;
use twinsite_model::{Profile, Timing};

/// The version of the report's JSON. It grows when something in it changes its meaning or goes away.
pub const REPORT_VERSION: u32 = 1;

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every invariant, limit and expectation held.
    Pass,
    /// Something did not hold; [`Report::broken`] says what.
    Fail,
    /// It was ended before its end and went its way back; what was audited held.
    Aborted,
    /// Something came too late, but the machine that measured stood still meanwhile. What must hold at any speed held.
    Disturbed,
}

impl Verdict {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Aborted => "aborted",
            Self::Disturbed => "disturbed",
        }
    }

    /// Why limits are held against nobody, where they are not.
    pub const fn unjudged(self) -> Option<&'static str> {
        match self {
            Self::Pass | Self::Fail => None,
            Self::Aborted => Some("the drill was aborted"),
            Self::Disturbed => Some("the machine that measured stood still meanwhile"),
        }
    }
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Whether it held.
    pub holds: bool,
    /// What was so, in a line.
    pub line: String,
}

/// On what it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A drill on processes of its own, on the loopback addresses of one machine.
    Loopback,
    /// A drill in a lab: a network namespace for every host.
    Lab,
    /// A drill on a cluster that serves people.
    Live,
    /// No drill: it happened.
    Real,
}

impl Origin {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Lab => "lab",
            Self::Live => "live",
            Self::Real => "real",
        }
    }
}

/// The report of all runs of a scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format, [`REPORT_VERSION`].
    pub version: u32,
    /// On what it was measured.
    pub origin: Origin,
    /// When it began: milliseconds since the Unix epoch, by the clock of whoever measured.
    pub began_ms: u64,
    /// The scenario's name.
    pub scenario: String,
    /// Its one sentence.
    pub description: String,
    /// How it ended.
    pub verdict: Verdict,
    /// The timings: `lan` or `wan`.
    pub profile: String,
    /// The session store: `redis` or `embedded`.
    pub store: Cow<'static, str>,
    /// What did not hold, a line each.
    pub broken: Vec<String>,
    /// The medians over all runs of what has a limit, with the limit, in milliseconds.
    pub limits: Vec<LimitReport>,
    /// The highest of all runs of each count that has a limit, with the limit.
    #[serde(default)]
    pub counts: Vec<CountReport>,
    /// Each run.
    pub runs: Vec<RunReport>,
    /// The audit over all runs.
    pub audit: Audit,
}

/// A limit and what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitReport {
    /// Its name in the scenario.
    pub name: Cow<'static, str>,
    /// The median over all runs, in milliseconds; none if nothing was measured.
    pub median_ms: Option<u64>,
    /// The limit, in milliseconds.
    pub limit_ms: u64,
}

impl LimitReport {
    /// Whether something was measured, and not too much.
    pub fn holds(&self) -> bool {
        self.median_ms.is_some_and(|median| median <= self.limit_ms)
    }
}

/// A limit of a count and what was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountReport {
    /// Its name in the scenario.
    pub name: Cow<'static, str>,
    /// The highest of all runs.
    pub highest: u64,
    /// The limit.
    pub limit: u64,
}

impl CountReport {
    /// Whether it was not too much.
    pub fn holds(&self) -> bool {
        self.highest <= self.limit
    }
}

/// One run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// Its number, from 1.
    pub run: u32,
    /// The longest time without an answer that clients saw, from the fault to the end of the observation.
    pub gap_ms: GapMs,
    /// How long each phase of the first move took.
    pub phases_ms: PhasesMs,
    /// Requests of the keep-alive clients, up to the end of the observation.
    pub requests: Requests,
    /// New connections with one request each, which are not tried again.
    pub connects: Requests,
    /// What clients without patience see: failed attempts of all of these, also those that another attempt hid.
    pub attempts: Attempts,
    /// `WebSockets`.
    pub tunnels: TunnelReport,
    /// Which hosts answered; only in a lab, where each can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<AnsweringReport>,
    /// Who owned the address before.
    pub owner_before: Option<String>,
    /// Who owned it when all had settled.
    pub owner_after: Option<String>,
    /// What the scenario expects, each with what came of it.
    #[serde(default)]
    pub expectations: Vec<Check>,
    /// What did not go as the scenario says.
    pub broken: Vec<String>,
    /// For how long one processor of the machine that measured stood still within the worst half second, in milliseconds;
    /// what is less than 20 counts as nothing. None where it was not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_stalled_ms: Option<u64>,
    /// Whether it was ended before its end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub aborted: bool,
    /// When things were so, for a drawing to scale.
    #[serde(default)]
    pub spans: Spans,
    /// What happened, in order.
    pub timeline: Vec<TimelineEntry>,
    /// What the nodes and guardians wrote last, where it went wrong; an archive keeps each as a file of its own.
    #[serde(skip)]
    pub logs: Vec<Log>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Gaps by kind of client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapMs {
    /// HTTP: the longer of new connections and keep-alive clients; in a lab that of new connections.
    pub http: Option<u64>,
    /// HTTP: no keep-alive client got any answer.
    pub keep_alive: Option<u64>,
    /// WebSocket: no participant got any answer.
    pub websocket: Option<u64>,
}

/// Phases of a move; all empty when nothing moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhasesMs {
    /// From the fault to the decision.
    pub detect: Option<u64>,
    /// Planned moves: emptying the old owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<u64>,
    /// Until the old owner cannot act.
    pub fence: Option<u64>,
    /// Giving the token to the target.
    pub r#move: Option<u64>,
    /// Until the target is seen to hold the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<u64>,
    /// Until the instances announce the right address.
    pub announce: Option<u64>,
    /// Until the address is seen from outside.
    pub verify: Option<u64>,
}

/// How requests ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// With an answer.
    pub ok: u64,
    /// Without.
    pub failed: u64,
    /// Among those with an answer: after a second attempt or a wait.
    pub retried: u64,
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
}

impl From<&Counts> for Requests {
    fn from(counts: &Counts) -> Self {
        let failures = counts.failed.iter().map(|(failure, count)| (failure.to_string(), *count));
        Self {
            ok: counts.ok,
            failed: counts.failures(),
            retried: counts.retried,
            failures: failures.collect(),
        }
    }
}

/// Failed attempts of HTTP clients, whether or not the client tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Nobody listened, or nobody was there.
    pub refused: u64,
    /// Somebody listened, and no good answer came: reset, broken off, too late, or a server error.
    pub broken: u64,
    /// The broken ones by client and reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub broken_by: BTreeMap<String, u64>,
}

impl Attempts {
    /// Those of the keep-alive clients and of the new connections together.
    pub fn of(requests: &Counts, connects: &Counts) -> Self {
        let mut attempts = Self { refused: requests.refused() + connects.refused(), ..Self::default() };
        for (client, counts) in [("browser", requests), ("new connection", connects)] {
            for (failure, count) in counts.broken() {
                attempts.broken += count;
                *attempts.broken_by.entry(format!("{client}: {failure}")).or_default() += count;
            }
        }
        attempts
    }
}

/// `WebSockets` lost and won back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Lost.
    pub lost: usize,
    /// Of these participants, how many had a new one.
    pub back: usize,
    /// The longest time that one participant was without.
    pub longest_ms: u64,
}

impl From<gap::Tunnels> for TunnelReport {
    fn from(tunnels: gap::Tunnels) -> Self {
        Self { lost: tunnels.lost, back: tunnels.back, longest_ms: super::run::whole_ms(tunnels.longest) }
    }
}

/// Which hosts of a lab answered for the floating address, each asked all the time; see `measure::hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweringReport {
    /// For how long two hosts answered at once, all together, way back included: proven. Must be 0.
    pub two_hosts_ms: u64,
    /// The same, without a pause.
    pub two_hosts_longest_ms: u64,
    /// For how long no host answered, from the fault to the end of the observation, without a pause.
    pub nobody_ms: u64,
    /// The same, all together.
    pub nobody_total_ms: u64,
    /// Times in which a dark host sent something with the address. Must be 0.
    pub dark_frames: u64,
    /// How often each host was asked: microseconds from one probe to the next, on average.
    pub probed_every_us: u64,
    /// The longest time from one probe to the next: nothing shorter can be promised to have been seen.
    pub probes_apart_max_ms: u64,
    /// Each host.
    pub hosts: Vec<HostReport>,
}

/// What one host answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The node that lives there.
    pub node: String,
    /// Probes to it.
    pub probes: u64,
    /// Answers from it.
    pub answers: u64,
    /// From its first answer in a row to its last, in milliseconds since the first step.
    pub answered: Vec<(i64, i64)>,
}

/// One line of what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// Milliseconds since the first step.
    pub at_ms: i64,
    /// Who says so: `drill`, `cluster`, `clients` or `probes`.
    pub source: Cow<'static, str>,
    /// What happened.
    pub what: String,
}

/// For how long a machine must stand still within half a second to disturb what is measured with these timings: nodes
/// begin to stand for election `election_min` after a heartbeat, of which one interval passes in any case.
pub(crate) fn disturbs(profile: Profile) -> Duration {
    let timing = Timing::of(profile);
    DISTURBS.min(timing.election_min.saturating_sub(timing.heartbeat))
}

impl RunReport {
    /// Whether the machine that measured stood still for so long that its milliseconds mean nothing.
    pub fn is_disturbed(&self, profile: Profile) -> bool {
        self.machine_stalled_ms.is_some_and(|ms| Duration::from_millis(ms) >= disturbs(profile))
    }
}

impl Report {
    /// Whether clients were on it and an audit was made: of what nobody planned there is only what nodes saw.
    pub fn is_audited(&self) -> bool {
        self.origin != Origin::Real
    }

    /// Whether every invariant, limit and expectation held.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Pass
    }

    /// The report as JSON, for machines.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}
