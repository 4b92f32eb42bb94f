//! How long an address will be away, foretold: from the ledger of past moves where it has enough of them, and from the
//! timings where it has not.

use crate::view::View;
use std::time::Duration;
use twinsite_model::Ledger;
use twinsite_model::ledger::{Spread, Way};

/// How long something will take, and on what that rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// About so long.
    pub about: Duration,
    /// On so many past moves, by their median; on the timings alone if 0.
    pub moves: u32,
}

impl Prediction {
    /// What the timings allow at most when all goes well.
    pub(crate) const fn by_timings(about: Duration) -> Self {
        Self { about, moves: 0 }
    }

    fn measured(spread: Spread, beside: Duration) -> Self {
        Self { about: spread.median + beside, moves: u32::try_from(spread.count).unwrap_or(u32::MAX) }
    }
}

/// The owner's process crashes, and its guardian says so.
pub(crate) fn after_crash(view: &View<'_>, ledger: &Ledger) -> Prediction {
    match ledger.handover(Way::Released) {
        Some(handover) => Prediction::measured(handover, Duration::ZERO),
        None => Prediction::by_timings(4 * view.timing.heartbeat),
    }
}

/// The owner's host falls silent: every lease of it is waited out, whatever past moves took.
pub(crate) fn after_silence(view: &View<'_>, ledger: &Ledger) -> Prediction {
    match ledger.arrival() {
        Some(arrival) => Prediction::measured(arrival, view.timing.wait()),
        None => Prediction::by_timings(view.timing.wait() + 4 * view.timing.heartbeat),
    }
}

/// A planned move; `by_timings` is what its plan allows at most.
pub(crate) fn planned(ledger: &Ledger, by_timings: Duration) -> Prediction {
    match ledger.handover(Way::Planned) {
        Some(handover) => Prediction::measured(handover, Duration::ZERO),
        None => Prediction::by_timings(by_timings),
    }
}
