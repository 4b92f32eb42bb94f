//! The breaker: so many automatic failovers in a window, then only by hand (design section 5, invariant 7).

use twinsite_model::spec::PolicySpec;
use twinsite_model::{State, WallTime};

/// Automatic failovers that count now.
pub(crate) fn counted(state: &State, policy: &PolicySpec, wall: WallTime) -> usize {
    state.automatic_failovers_within(policy.failover_window.0, wall.max(state.wall))
}

/// Whether the breaker is open, and until when. A policy of zero failovers is an open breaker for ever.
pub(crate) fn open_until(state: &State, policy: &PolicySpec, wall: WallTime) -> Option<WallTime> {
    let max = policy.failovers_max as usize;
    let counted = counted(state, policy, wall);
    if counted < max {
        return None;
    }
    // It closes when the oldest of the newest `max` leaves the window.
    let from = state.automatic_failovers.len().checked_sub(max)?;
    let oldest = state.automatic_failovers.get(from);
    Some(oldest.map_or(WallTime(u64::MAX), |at| at.plus(policy.failover_window.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_opens_at_the_limit_and_closes_when_the_window_has_passed() {
        let policy = PolicySpec::default();
        let mut state = State::default();
        let at = |seconds: u64| WallTime(seconds * 1_000);
        state.automatic_failovers = [at(100), at(200)].into();
        let window = policy.failover_window.0;
        assert_eq!(open_until(&state, &policy, at(300)), Some(at(100).plus(window)));
        assert_eq!(open_until(&state, &policy, at(100).plus(window)), None);
        state.automatic_failovers.clear();
        assert_eq!(open_until(&state, &policy, at(300)), None);
    }

    #[test]
    fn a_wall_clock_that_goes_back_does_not_close_it() {
        let policy = PolicySpec::default();
        let mut state = State { wall: WallTime(10_000_000), ..State::default() };
        state.automatic_failovers = [WallTime(9_000_000), WallTime(9_500_000)].into();
        assert!(open_until(&state, &policy, WallTime(0)).is_some());
        assert!(open_until(&state, &policy, WallTime(0).plus(Duration::from_secs(1))).is_some());
    }

    #[test]
    fn none_allowed_is_always_open() {
        let policy = PolicySpec { failovers_max: 0, ..PolicySpec::default() };
        assert_eq!(open_until(&State::default(), &policy, WallTime(5)), Some(WallTime(u64::MAX)));
    }
}
