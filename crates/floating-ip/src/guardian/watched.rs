//! One node's process, as its guardian knows it: what it holds, and when it must be ended.

use super::{Held, Holding};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twinsite_model::{BootTime, FloatingIpName, Token};

/// What a process holds and when it last showed life.
#[derive(Debug, Default)]
pub(super) struct Watched {
    held: BTreeMap<FloatingIpName, Hold>,
    alive_at: BootTime,
    /// Not judged before: it may not have found its guardian again.
    spared_until: BootTime,
    /// Ended if it was not heard by then, whatever is known of what it holds: some of it may never have been read.
    heard_by: Option<BootTime>,
    /// What it has said on the present line that it holds, until it has said all of it.
    said: Option<BTreeSet<FloatingIpName>>,
}

#[derive(Debug)]
struct Hold {
    holding: Holding,
    until: BootTime,
    slack: Duration,
}

impl Watched {
    /// What an earlier guardian knew of a process that has not been heard yet.
    pub(super) fn recorded(held: Vec<Held>, now: BootTime, spared: Duration, patience: Duration) -> Self {
        let heard_by = Some(now + patience);
        let mut watched = Self { alive_at: now, spared_until: now + spared, heard_by, ..Self::default() };
        for (holding, until, slack) in held {
            watched.holding(holding, until, slack);
        }
        watched
    }

    /// It speaks on a new line, and will say first what it holds.
    pub(super) fn speaks_anew(&mut self) {
        self.heard_by = None;
        self.said = Some(BTreeSet::new());
    }

    /// It has said all that it holds: what it did not name it has let go while nobody listened.
    pub(super) fn complete(&mut self) {
        if let Some(said) = self.said.take() {
            self.held.retain(|ip, _| said.contains(ip));
        }
        self.spared_until = BootTime::default();
    }

    /// It showed life.
    pub(super) fn alive(&mut self, now: BootTime) {
        self.alive_at = now;
    }

    /// It holds an address until then. Of the same token only a later end counts.
    pub(super) fn holding(&mut self, holding: Holding, until: BootTime, slack: Duration) {
        if let Some(said) = &mut self.said {
            said.insert(holding.ip.clone());
        }
        match self.held.get_mut(&holding.ip) {
            Some(held) if held.holding.token == holding.token => {
                held.holding.addresses = holding.addresses;
                held.until = held.until.max(until);
                held.slack = slack;
            }
            Some(held) if held.holding.token > holding.token => {}
            _ => drop(self.held.insert(holding.ip.clone(), Hold { holding, until, slack })),
        }
    }

    /// It has let an address go.
    pub(super) fn released(&mut self, ip: &FloatingIpName, token: Token) {
        self.held.retain(|name, held| name != ip || held.holding.token > token);
    }

    /// Whether it must be ended now: its lease is about to end and it shows no life, or its lease has ended and it
    /// still holds the address.
    pub(super) fn must_end(&self, now: BootTime) -> bool {
        let unheard = self.heard_by.is_some_and(|by| now >= by);
        let judged = now >= self.spared_until;
        unheard
            || judged
                && self.held.values().any(|held| {
                    let silent = now.since(self.alive_at) >= held.slack / 2;
                    let ending = now + held.slack >= held.until;
                    let over = now >= held.until + held.slack / 2;
                    (silent && ending) || over
                })
    }

    /// How long nothing can become due; none while nothing is held.
    pub(super) fn quiet_for(&self, now: BootTime) -> Option<Duration> {
        let quiet = |held: &Hold| {
            let to_ending = held.until.since(now + held.slack);
            // While the end is near, life is looked at again and again.
            if to_ending.is_zero() { held.slack / 8 } else { to_ending.min(held.slack) }
        };
        let unheard = self.heard_by.map(|by| by.since(now).max(Duration::from_millis(1)));
        self.held.values().map(quiet).chain(unheard).min()
    }

    /// What it holds, and how long.
    pub(super) fn held(&self) -> Vec<Held> {
        self.held.values().map(|held| (held.holding.clone(), held.until, held.slack)).collect()
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
            interface: None,
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
    fn who_was_only_read_about_is_spared_for_a_moment_and_corrects_what_was_read() {
        let held = vec![(holding(2), at(100), SLACK)];
        let recorded =
            |held| Watched::recorded(held, at(1_000), Duration::from_millis(200), Duration::from_secs(1));
        let mut watched = recorded(held.clone());
        assert!(!watched.must_end(at(1_199)));
        assert!(watched.must_end(at(1_200)));
        watched.speaks_anew();
        watched.complete();
        assert!(!watched.must_end(at(1_200)), "it let go while nobody listened");

        let mut watched = recorded(held);
        watched.speaks_anew();
        watched.holding(holding(2), at(2_000), SLACK);
        watched.complete();
        assert!(!watched.must_end(at(1_900)));
        assert!(watched.must_end(at(2_010)));
        assert_eq!(watched.held(), [(holding(2), at(2_000), SLACK)]);

        let unheard = recorded(Vec::new());
        assert!(!unheard.must_end(at(1_999)));
        assert!(unheard.must_end(at(2_000)), "it hangs, and what it holds may never have been read");
        assert_eq!(unheard.quiet_for(at(1_400)), Some(Duration::from_millis(600)));
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
