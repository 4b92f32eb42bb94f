//! The audit that every drill ends with, whatever it was about: what must never have happened.

mod store;

pub use store::StoreFollower;

use crate::engine::run::since;
use crate::engine::{Check, WatchItem};
use crate::measure::announced::{self, Settled};
use crate::measure::hosts::Answering;
use crate::measure::{Evidence, Recording, dual, holders, kernel, rooms};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use twinsite_model::{Event, Token};

/// The check that needs a machine that runs: an announcement follows the address in its time.
pub const ANNOUNCED: &str = "announced-address";
/// What two things at the same time may differ by because a process is scheduled late, at least.
const SLACK_MIN: Duration = Duration::from_millis(50);

/// The results, in the words of the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// For how long two owners answered at once, or listened at once, or in a lab let the address through at once.
    /// Must be 0.
    pub dual_answer_ms: u64,
    /// Writes that the session store accepted under an older token than an earlier one. Must be 0.
    pub stale_epoch_writes: u64,
    /// Whether tokens only grew.
    pub epochs_monotonic: bool,
    /// Rooms that were on two instances at once. Must be 0.
    pub split_rooms: u64,
    /// For how long an instance announced a wrong address although nothing was moving. Must be 0.
    pub announced_mismatch_ms: u64,
    /// For how long two hosts of a lab answered probes at once, proven; none where no host can be asked. Must be 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_hosts_ms: Option<u64>,
    /// Times in which a dark host of a lab sent something with the floating address. Must be 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dark_frames: Option<u64>,
    /// What was seen, a line each, for people.
    pub evidence: Vec<String>,
}

impl Audit {
    /// The audit of nothing yet.
    pub fn clean() -> Self {
        Self { epochs_monotonic: true, ..Self::default() }
    }

    /// Takes the results of a further run in.
    pub fn merge(&mut self, other: Self) {
        self.dual_answer_ms = self.dual_answer_ms.max(other.dual_answer_ms);
        self.stale_epoch_writes += other.stale_epoch_writes;
        self.epochs_monotonic &= other.epochs_monotonic;
        self.split_rooms += other.split_rooms;
        self.announced_mismatch_ms = self.announced_mismatch_ms.max(other.announced_mismatch_ms);
        self.two_hosts_ms = self.two_hosts_ms.max(other.two_hosts_ms);
        self.dark_frames = self.dark_frames.max(other.dark_frames);
        self.evidence.extend(other.evidence);
    }

    /// Takes in which hosts of a lab answered; `zero` is when the report's first step began.
    pub fn take_hosts(&mut self, answering: &Answering, zero: Instant) {
        // As above: what is not proven counts as broken.
        self.two_hosts_ms = Some(ceil_ms(answering.two_hosts.total).max(u64::from(answering.unproven)));
        self.dark_frames = Some(answering.dark_frames);
        if answering.unproven {
            let line = "probes to the hosts were not answered, or there was too much to keep";
            self.evidence.push(line.to_owned());
        }
        self.evidence.extend(answering.evidence.iter().map(|evidence| dated(evidence, zero)));
    }

    /// Each thing that must hold.
    pub fn checks(&self) -> Vec<Check> {
        let must = |name: &'static str, holds: bool, line: String| Check { name: name.into(), holds, line };
        let none = |name, count: u64, line: String| must(name, count == 0, line);
        let mut checks = vec![
            none(
                "dual-answer",
                self.dual_answer_ms,
                format!("two owners answered at once for {} ms", self.dual_answer_ms),
            ),
            none(
                "stale-writes",
                self.stale_epoch_writes,
                format!("the store accepted {} writes under an old token", self.stale_epoch_writes),
            ),
            must(
                "tokens-grow",
                self.epochs_monotonic,
                if self.epochs_monotonic { "tokens only grew" } else { "a token did not grow" }.to_owned(),
            ),
            none(
                "rooms-unsplit",
                self.split_rooms,
                format!("{} rooms were on two instances at once", self.split_rooms),
            ),
            none(
                ANNOUNCED,
                self.announced_mismatch_ms,
                format!("a wrong address was announced for {} ms", self.announced_mismatch_ms),
            ),
        ];
        checks.extend(
            self.two_hosts_ms
                .map(|ms| none("two-hosts", ms, format!("two hosts answered probes at once for {ms} ms"))),
        );
        checks.extend(self.dark_frames.map(|times| {
            let line = format!("{times} times a dark host sent something with the floating address");
            none("dark-frames", times, line)
        }));
        checks
    }

    /// What is broken, a line each.
    pub fn broken(&self) -> Vec<String> {
        self.checks().into_iter().filter(|check| !check.holds).map(|check| check.line).collect()
    }
}

/// Audits one run, given what clients saw, the cluster's journal, the tokens of the store's writes in their order,
/// and when nothing was moving. Evidence is dated from `zero`, as everything in the report is.
pub fn audit(
    recording: &Recording,
    journal: &[WatchItem],
    writes: &[Token],
    settled: &[Settled],
    zero: Instant,
) -> Audit {
    let slack = SLACK_MIN + recording.lag;
    let mut evidence = Vec::new();

    let dual = dual::find(&recording.answers, slack);
    evidence.extend(dual.evidence.iter().map(|evidence| dated(evidence, zero)));
    let listened = kernel::doubly_owned(&recording.listeners);
    if !listened.is_zero() {
        evidence.push(format!("two processes listened on the floating address for {listened:?}"));
    }
    let (held, lines) = holders::doubly_answered(&recording.holders);
    evidence.extend(lines.iter().take(8).map(|evidence| dated(evidence, zero)));
    if dual.traced == 0 {
        evidence.push("no answer said who gave it, so nothing is proven".to_owned());
    }
    if recording.overflow {
        evidence.push("the recording was too long to be kept whole, so nothing is proven".to_owned());
    }
    // What cannot be proven is not passed over: it counts as broken, visibly.
    let unproven = u64::from(dual.traced == 0 || recording.overflow);

    let embedded: Vec<_> = journal.iter().filter_map(|item| pinned_under(&item.event)).collect();
    let stale_epoch_writes = stale(writes) + stale(&embedded);
    let owners: Vec<_> = journal.iter().filter_map(|item| owned_under(&item.event)).collect();
    let epochs_monotonic = owners.windows(2).all(|pair| pair[0] < pair[1]);
    if !epochs_monotonic {
        let tokens: Vec<_> = owners.iter().map(Token::to_string).collect();
        evidence.push(format!("tokens in their order: {}", tokens.join(", ")));
    }

    let splits = rooms::splits(&recording.tunnels, slack);
    evidence.extend(splits.iter().take(8).map(|split| of_split(split, zero)));
    let (mismatch, line) = announced::mismatch(&recording.announced, settled);
    evidence.extend(line);

    Audit {
        dual_answer_ms: ceil_ms(dual.overlap.max(listened).max(held)).max(unproven),
        stale_epoch_writes,
        epochs_monotonic,
        split_rooms: splits.len() as u64,
        announced_mismatch_ms: ceil_ms(mismatch),
        two_hosts_ms: None,
        dark_frames: None,
        evidence,
    }
}

/// With the time at which it was seen, as the timeline has it.
fn dated(Evidence { at, line }: &Evidence, zero: Instant) -> String {
    format!("{:+} ms: {line}", since(zero, *at))
}

/// Who met a room where, and when.
fn of_split(split: &rooms::Split, zero: Instant) -> String {
    let met = |place: &rooms::Place| {
        let (from, to) = (since(zero, place.from), since(zero, place.to));
        format!("participant {} on {} ({from:+} to {to:+} ms)", place.participant, place.instance)
    };
    let [first, second] = split.places.each_ref().map(met);
    format!("room {}: {first}, {second}", split.room)
}

/// Writes whose token is older than that of some earlier write.
fn stale(tokens: &[Token]) -> u64 {
    let mut highest = Token::default();
    let mut stale = 0;
    for token in tokens {
        stale += u64::from(*token < highest);
        highest = highest.max(*token);
    }
    stale
}

fn owned_under(event: &Event) -> Option<Token> {
    if let Event::OwnerChanged { owner, .. } = event { Some(owner.token) } else { None }
}

fn pinned_under(event: &Event) -> Option<Token> {
    if let Event::RoomPinned { token, .. } = event { Some(*token) } else { None }
}

/// Whole milliseconds, rounded up: what is not nothing must not look like it.
pub(crate) fn ceil_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
