//! True time, and what the clock of one machine makes of it.

use std::time::Duration;
use twinsite_model::{BootTime, WallTime};

/// True time in nanoseconds since the beginning of a simulation. No part of the cluster ever sees it.
pub(crate) type TrueTime = u64;

const MILLION: u128 = 1_000_000;
/// The wall clock at the beginning of every simulation.
const WALL_START: u64 = 1_800_000_000_000;

/// Nanoseconds of a duration.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clocks of one machine.
#[derive(Debug, Clone)]
pub(crate) struct HostClock {
    /// Since when the present rate holds, and what had been counted then.
    since: TrueTime,
    counted: u64,
    /// How much faster than true time it runs, in parts per million.
    rate_ppm: i32,
    /// What the boot clock did not count, because the whole guest stood still.
    missed: u64,
    /// What it showed when the guest began to stand still.
    still: Option<u64>,
    /// How wrong the wall clock is, in milliseconds.
    wall_error: i64,
}

impl HostClock {
    /// A clock that shows `start` now.
    pub(crate) fn new(start: u64, rate_ppm: i32) -> Self {
        Self { since: 0, counted: start, rate_ppm, missed: 0, still: None, wall_error: 0 }
    }

    fn rate(&self) -> u128 {
        (1_000_000 + i64::from(self.rate_ppm)).unsigned_abs().into()
    }

    /// What it would show had it never stood still: the measure of how long a lease lasts for everybody else.
    pub(crate) fn undisturbed(&self, now: TrueTime) -> u64 {
        let passed = u128::from(now.abs_diff(self.since)) * self.rate() / MILLION;
        // A stand-still may have begun before the rate was last changed; the present rate is near enough for its length.
        if now >= self.since { self.counted + passed as u64 } else { self.counted - passed as u64 }
    }

    /// What it shows.
    pub(crate) fn boot(&self, now: TrueTime) -> BootTime {
        BootTime(Duration::from_nanos(self.undisturbed(now) - self.missed))
    }

    /// The first true time at which it shows `at`; now, if that has passed.
    pub(crate) fn when(&self, now: TrueTime, at: BootTime) -> TrueTime {
        let wanted = nanos(at.0).saturating_add(self.missed);
        if wanted <= self.counted {
            return now;
        }
        let passed = (u128::from(wanted - self.counted) * MILLION).div_ceil(self.rate());
        self.since.saturating_add(passed as u64).max(now)
    }

    /// Runs at another rate from now on.
    pub(crate) fn set_rate(&mut self, now: TrueTime, rate_ppm: i32) {
        self.counted = self.undisturbed(now);
        self.since = now;
        self.rate_ppm = rate_ppm;
    }

    /// The guest stands still from now on, and its boot clock with it.
    pub(crate) fn stand_still(&mut self, now: TrueTime) {
        self.still = Some(self.undisturbed(now) - self.missed);
    }

    /// Whether it stands still.
    pub(crate) const fn is_still(&self) -> bool {
        self.still.is_some()
    }

    /// The guest goes on, and its boot clock shows what it showed before, whatever became of its rate meanwhile. Says
    /// what the clock has missed.
    pub(crate) fn go_on(&mut self, now: TrueTime) -> Duration {
        let Some(shown) = self.still.take() else { return Duration::ZERO };
        let gap = self.undisturbed(now) - self.missed - shown;
        self.missed += gap;
        Duration::from_nanos(gap)
    }

    /// The wall clock, which people and NTP set as they like.
    pub(crate) fn wall(&self, now: TrueTime) -> WallTime {
        WallTime((WALL_START + now / 1_000_000).saturating_add_signed(self.wall_error))
    }

    /// The wall clock is set wrong by so many milliseconds, or right by zero.
    pub(crate) fn set_wall_error(&mut self, milliseconds: i64) {
        self.wall_error = milliseconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_when_it_is_said_to_be_and_not_before() {
        let mut clock = HostClock::new(5_000, 99_999);
        clock.set_rate(1_000_003, -100_000);
        for ahead in [1, 7, 1_000, 320_000_000] {
            let at = clock.boot(1_000_003) + Duration::from_nanos(ahead);
            let when = clock.when(1_000_003, at);
            assert!(clock.boot(when) >= at);
            assert!(clock.boot(when - 1) < at);
        }
    }

    #[test]
    fn a_guest_that_stood_still_misses_time() {
        let mut clock = HostClock::new(0, 0);
        clock.stand_still(1_000);
        assert_eq!(clock.go_on(4_000), Duration::from_nanos(3_000));
        assert_eq!(clock.boot(5_000), BootTime(Duration::from_nanos(2_000)));
        assert_eq!(clock.undisturbed(5_000), 5_000);
    }

    #[test]
    fn a_clock_whose_rate_changes_while_it_stands_still_does_not_go_back() {
        let mut clock = HostClock::new(0, 500);
        clock.stand_still(1_000_000);
        let shown = clock.boot(1_000_000);
        clock.set_rate(2_000_000, -500);
        clock.set_rate(3_000_000, 900);
        clock.go_on(4_000_000);
        assert_eq!(clock.boot(4_000_000), shown);
    }
}
