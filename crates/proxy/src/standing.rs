//! How an upstream stands with this node, beside the cluster's verdict: left out for its failures, or getting warm.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use twinsite_model::spec::HealthSpec;

/// Ejections double up to so many times the first.
const EJECT_FACTOR_MAX: u32 = 10;
/// What an upstream gets at least while it is getting warm.
const SHARE_MIN: f64 = 0.05;

static BORN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since this program first asked; never zero.
fn now() -> u64 {
    u64::try_from(BORN.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// Failures in a row, and what follows from them (`health.eject_after`).
#[derive(Debug, Default)]
pub(crate) struct Strikes {
    failures: AtomicU32,
    ejections: AtomicU32,
    out_until: AtomicU64,
}

impl Strikes {
    /// A request failed there. Whether the upstream is left out from now on.
    pub(crate) fn strike(&self, health: &HealthSpec) -> bool {
        if health.eject_after == 0 {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures < health.eject_after || self.is_out() {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        let before = self.ejections.fetch_add(1, Ordering::Relaxed);
        let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX).clamp(1, EJECT_FACTOR_MAX);
        let until = now() + u64::try_from((health.eject_for.0 * factor).as_millis()).unwrap_or(u64::MAX / 2);
        self.out_until.store(until, Ordering::Relaxed);
        true
    }

    /// It answered.
    pub(crate) fn answered(&self) {
        // Read first: a line that nobody writes is every core's.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.ejections.load(Ordering::Relaxed) != 0 && !self.is_out() {
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_out(&self) -> bool {
        let until = self.out_until.load(Ordering::Relaxed);
        until != 0 && now() < until
    }
}

/// Since when an upstream is getting warm, and until when (`health.slow_start`).
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    since: AtomicU64,
    lasts: AtomicU64,
}

impl Warmth {
    /// It is healthy again.
    pub(crate) fn begin(&self, lasts: Duration) {
        self.lasts.store(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX / 2), Ordering::Relaxed);
        self.since.store(now(), Ordering::Relaxed);
    }

    /// The part of its share that it gets, as long as it is less than all.
    pub(crate) fn share(&self) -> Option<f64> {
        let (since, lasts) = (self.since.load(Ordering::Relaxed), self.lasts.load(Ordering::Relaxed));
        if since == 0 || lasts == 0 {
            return None;
        }
        let gone = now().saturating_sub(since);
        (gone < lasts).then(|| (gone as f64 / lasts as f64).max(SHARE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::spec::HumanDuration;

    fn health() -> HealthSpec {
        HealthSpec {
            eject_after: 3,
            eject_for: HumanDuration(Duration::from_millis(100)),
            ..HealthSpec::default()
        }
    }

    #[test]
    fn failures_in_a_row_lead_out_and_answers_in_between_do_not() {
        let strikes = Strikes::default();
        for _ in 0..10 {
            assert!(!strikes.strike(&health()) && !strikes.strike(&health()));
            strikes.answered();
        }
        assert!(!strikes.is_out());
        assert!(!strikes.strike(&health()) && !strikes.strike(&health()) && strikes.strike(&health()));
        assert!(strikes.is_out());
        assert!(!Strikes::default().strike(&HealthSpec::default()), "it is off unless somebody wants it");
    }

    #[test]
    fn it_lasts_longer_each_time_and_not_for_ever() {
        let strikes = Strikes::default();
        for factor in [1, 2, 4, 8, 10, 10] {
            strikes.out_until.store(0, Ordering::Relaxed);
            strikes.failures.store(2, Ordering::Relaxed);
            let begun = now();
            assert!(strikes.strike(&health()));
            let lasts = strikes.out_until.load(Ordering::Relaxed) - begun;
            assert!((100 * factor..100 * factor + 50).contains(&lasts), "{lasts}");
        }
    }

    #[test]
    fn it_gets_warm_slowly_and_then_is_warm() {
        let warmth = Warmth::default();
        assert_eq!(warmth.share(), None);
        warmth.begin(Duration::from_secs(3_600));
        assert!(warmth.share().is_some_and(|share| share < 0.06));
        warmth.begin(Duration::ZERO);
        assert_eq!(warmth.share(), None);
    }
}
