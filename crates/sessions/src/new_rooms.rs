//! How fast rooms may come into being.
//!
//! Anyone can name a room in a request, and each new one costs a write to the store (in the embedded store an fsynced
//! command of the whole cluster) and a place in every node's memory. So each node creates them at a bounded rate.
//! Rooms that exist are never held up.

use crate::runtime::Moment;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// New rooms of one node: a burst, then a steady rate.
#[derive(Debug)]
pub(crate) struct NewRooms {
    /// What one room uses up.
    each: Duration,
    /// How far ahead of the clock the use may be.
    ahead_max: Duration,
    /// Up to when everything is used up; in the past: nothing is.
    used_until: Mutex<Moment>,
}

impl NewRooms {
    pub(crate) fn new(burst: u32, per_second: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { each, ahead_max: each * burst.max(1), used_until: Mutex::default() }
    }

    /// The right to create one room. `None`: too many were created lately.
    pub(crate) fn admit(&self, now: Moment) -> Option<Admitted<'_>> {
        let mut used_until = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*used_until).max(now) + self.each;
        if next > now + self.ahead_max {
            metrics::counter!("twinsite_sessions_new_rooms_refused_total").increment(1);
            return None;
        }
        *used_until = next;
        Some(Admitted { counted_in: Some(self) })
    }
}

/// The right to place a room. A counted one is given back if it is dropped unused.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    counted_in: Option<&'a NewRooms>,
}

impl Admitted<'_> {
    /// For a room that exists.
    pub(crate) const fn uncounted() -> Self {
        Self { counted_in: None }
    }

    /// The room was created.
    pub(crate) fn spend(mut self) {
        self.counted_in = None;
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(all) = self.counted_in {
            let mut used_until = all.used_until.lock().unwrap_or_else(PoisonError::into_inner);
            used_until.0 = used_until.0.saturating_sub(all.each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Moment = Moment(Duration::from_secs(100));

    #[test]
    fn a_burst_passes_and_what_is_not_used_is_given_back() {
        let rooms = NewRooms::new(3, 1);
        for _ in 0..10 {
            assert!(rooms.admit(BEGUN).is_some(), "given back each time");
        }
        for _ in 0..3 {
            rooms.admit(BEGUN).unwrap().spend();
        }
        assert!(rooms.admit(BEGUN).is_none());
    }

    #[test]
    fn the_right_comes_back_with_time() {
        let rooms = NewRooms::new(1, 50);
        rooms.admit(BEGUN).unwrap().spend();
        assert!(rooms.admit(BEGUN + Duration::from_millis(19)).is_none());
        rooms.admit(BEGUN + Duration::from_millis(20)).unwrap().spend();
        assert!(rooms.admit(BEGUN + Duration::from_millis(39)).is_none(), "one at a time");
    }
}
