//! Time as the pure code sees it: always given, never read.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since the Unix epoch on the leader's wall clock. For people, expiries and windows; never for
/// safety (design section 5). Commands carry it, and the state clamps it so that it never goes back: see
/// [`crate::State::wall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub u64);

impl WallTime {
    /// The time `later` than this one.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it has been since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Dates have four digits for the year; what lies beyond them (`u64::MAX` stands for "never") has none.
        if self.0 >= YEAR_10000_MS {
            return f.pad("after the year 9999");
        }
        let at = std::time::UNIX_EPOCH + Duration::from_millis(self.0);
        write!(f, "{}", humantime::format_rfc3339_millis(at))
    }
}

/// The first instant of the year 10000, which RFC 3339 cannot write.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// A point on the clock of one machine that counts through suspend (`CLOCK_BOOTTIME`). Points of different
/// machines have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// How long it has been since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(WallTime(YEAR_10000_MS - 1).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(WallTime(YEAR_10000_MS).to_string(), "after the year 9999");
        assert_eq!(WallTime(u64::MAX).to_string(), "after the year 9999");
    }

    #[test]
    fn sums_end_at_the_ends_of_time() {
        assert_eq!(WallTime(5).plus(Duration::MAX), WallTime(u64::MAX));
        assert_eq!(BootTime(Duration::MAX) + Duration::MAX, BootTime(Duration::MAX));
        assert_eq!(BootTime::default() - Duration::MAX, BootTime::default());
    }
}
