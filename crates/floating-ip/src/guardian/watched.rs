//! One node's process, as its guardian knows it: what it holds, and when it must be ended.

use super::Holding;
use std::collections::BTreeMap;
use std::time::Duration;
use twinsite_model::{BootTime, FloatingIpName, Token};

/// What a process holds and when it last showed life.
#[derive(Debug, Default)]
pub(super) struct Watched {
    held: BTreeMap<FloatingIpName, Held>,
    alive_at: BootTime,
}

#[derive(Debug)]
struct Held {
    holding: Holding,
    until: BootTime,
    slack: Duration,
}

impl Watched {
    /// It showed life.
    pub(super) fn alive(&mut self, now: BootTime) {
        self.alive_at = now;
    }

    /// It holds an address until then. Of the same token only a later end counts.
    pub(super) fn holding(&mut self, holding: Holding, until: BootTime, slack: Duration) {
        match self.held.get_mut(&holding.ip) {
            Some(held) if held.holding.token == holding.token => {
                held.until = held.until.max(until);
                held.slack = slack;
            }
            Some(held) if held.holding.token > holding.token => {}
            _ => drop(self.held.insert(holding.ip.clone(), Held { holding, until, slack })),
        }
    }

    /// It has let an address go.
    pub(super) fn released(&mut self, ip: &FloatingIpName, token: Token) {
        self.held.retain(|name, held| name != ip || held.holding.token > token);
    }

    /// Whether it must be ended now: its lease is about to end and it shows no life, or its lease has ended and it
    /// still holds the address.
    pub(super) fn must_end(&self, now: BootTime) -> bool {
        self.held.values().any(|held| {
            let silent = now.since(self.alive_at) >= held.slack / 2;
            let ending = now + held.slack >= held.until;
            let over = now >= held.until + held.slack / 2;
            (silent && ending) || over
        })
    }

    /// How long nothing can become due; none while nothing is held.
    pub(super) fn quiet_for(&self, now: BootTime) -> Option<Duration> {
        let quiet = |held: &Held| {
            let to_ending = held.until.since(now + held.slack);
            // While the end is near, life is looked at again and again.
            if to_ending.is_zero() { held.slack / 8 } else { to_ending.min(held.slack) }
        };
        self.held.values().map(quiet).min()
    }

    /// What it held when it ended.
    pub(super) fn into_held(self) -> Vec<Holding> {
        self.held.into_values().map(|held| held.holding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    fn holding(epoch: u64) -> Holding {
        Holding {
            ip: FloatingIpName::new("public").unwrap(),
            addresses: Vec::new(),
            token: Token::new(1, epoch),
        }
    }

    const SLACK: Duration = Duration::from_millis(20);

    #[test]
    fn a_silent_holder_is_ended_before_its_lease_ends_and_a_living_one_gets_all_of_it() {
        let mut watched = Watched::default();
        watched.holding(holding(1), at(1_000), SLACK);
        watched.alive(at(900));
        assert!(!watched.must_end(at(979)), "silent for long, but the lease runs");
        assert!(watched.must_end(at(980)));
        watched.alive(at(975));
        assert!(!watched.must_end(at(980)));
        watched.alive(at(1_005));
        assert!(!watched.must_end(at(1_009)));
        assert!(watched.must_end(at(1_010)), "half a slack after the end nothing excuses a holder");
    }

    #[test]
    fn a_renewal_moves_the_end_and_a_release_ends_the_watch() {
        let mut watched = Watched::default();
        watched.holding(holding(2), at(1_000), SLACK);
        watched.holding(holding(2), at(1_500), SLACK);
        watched.holding(holding(2), at(900), SLACK);
        watched.holding(holding(1), at(100), SLACK);
        assert!(!watched.must_end(at(1_400)), "neither an older end nor an older token counts");
        watched.released(&holding(1).ip, Token::new(1, 1));
        assert!(watched.must_end(at(1_600)), "the release of an older token does not let the newer go");
        watched.released(&holding(2).ip, Token::new(1, 2));
        assert!(!watched.must_end(at(1_600)));
        assert_eq!(watched.quiet_for(at(1_600)), None);
    }

    #[test]
    fn it_looks_often_when_the_end_is_near() {
        let mut watched = Watched::default();
        watched.holding(holding(1), at(1_000), SLACK);
        assert_eq!(watched.quiet_for(at(0)), Some(SLACK));
        assert_eq!(watched.quiet_for(at(975)), Some(Duration::from_millis(5)));
        assert!(watched.quiet_for(at(985)).unwrap() < Duration::from_millis(5));
    }
}
