//! Which layers end an address when its holder does not.

use super::LIT_AT_MOST;
use super::firewall::Moment;
use super::presence::rest;
use crate::clock::Lease;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// With less than this left of the lease the address is not lit anew: the kernel counts in ticks of up to ten milliseconds.
const LAST: Duration = Duration::from_millis(20);
/// A time on the wall clock that never comes.
const NEVER: u64 = u64::MAX;

/// One layer of the dead-man.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The timeout of the element in the packet filter's set.
    Element,
    /// The deadline on the wall clock.
    Deadline,
    /// The lifetime of the address.
    Lifetime,
}

/// The layers that are there. All of them, but in the tests that prove each one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layers {
    element: bool,
    deadline: bool,
    lifetime: bool,
}

impl Layers {
    pub(super) const ALL: Self = Self { element: true, deadline: true, lifetime: true };

    pub(super) fn only(layers: &[Layer]) -> Self {
        let has = |layer| layers.contains(&layer);
        Self { element: has(Layer::Element), deadline: has(Layer::Deadline), lifetime: has(Layer::Lifetime) }
    }

    /// For how long an address may be lit now; none when its lease is over, or as good as over.
    pub(super) fn moment(self, lease: &Lease) -> Option<Moment> {
        // The wall clock first: if this process stands still between the two, the deadline comes too early.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rest = rest(lease);
        let deadline = || u64::try_from((wall + rest).as_nanos()).unwrap_or(NEVER);
        (rest >= LAST).then(|| Moment {
            timeout: self.element.then_some(rest.min(LIT_AT_MOST)),
            deadline: if self.deadline { deadline() } else { NEVER },
        })
    }

    /// How long the address may be on its interface, with this left of the lease; none for ever.
    pub(super) fn lifetime(self, rest: Duration) -> Option<Duration> {
        self.lifetime.then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::boot_now;
    use twinsite_model::Token;

    #[test]
    fn each_layer_ends_with_the_lease_and_the_element_sooner() {
        let lease = Lease::new(Token::new(1, 1), boot_now() + Duration::from_secs(2));
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let moment = Layers::ALL.moment(&lease).unwrap();
        assert_eq!(moment.timeout, Some(LIT_AT_MOST));
        assert!((now..=now + 2_100_000_000).contains(&moment.deadline), "{}", moment.deadline - now);
        assert_eq!(Layers::ALL.lifetime(LAST), Some(LAST));

        let one = |layer| Layers::only(&[layer]).moment(&lease).unwrap();
        assert_eq!((one(Layer::Element).timeout, one(Layer::Element).deadline), (Some(LIT_AT_MOST), NEVER));
        assert!(one(Layer::Deadline).deadline < NEVER && one(Layer::Deadline).timeout.is_none());
        assert_eq!((one(Layer::Lifetime).timeout, one(Layer::Lifetime).deadline), (None, NEVER));
        assert_eq!(Layers::only(&[Layer::Element, Layer::Deadline]).lifetime(LAST), None);

        lease.end();
        assert!(Layers::ALL.moment(&lease).is_none());
    }
}
