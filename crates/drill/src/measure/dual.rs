//! Two owners that answer for the floating address at once: what must never be seen.

use super::{Answer, Evidence, Kind};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};
use twinsite_model::{NodeName, Token};

/// What the answers show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dual {
    /// For how long two owners answered; a single such answer counts at least 1 ms.
    pub overlap: Duration,
    /// Up to a few of the answers that should not have been.
    pub evidence: Vec<Evidence>,
    /// Answers that say who gave them under which token. With none, nothing is proven.
    pub traced: u64,
}

const EVIDENCE_MAX: usize = 8;
const OVERLAP_MIN: Duration = Duration::from_millis(1);

struct Tenure {
    node: NodeName,
    first: Instant,
    last: Instant,
}

/// Looks for answers of an owner after a newer one had answered, and for two nodes that answer under one token.
///
/// An answer is stale without doubt when its question was sent after a newer token had been seen. One that was
/// asked before and came later may have waited in this process; it is stale when it came more than `slack` after
/// the newer token, with `slack` above the worst scheduling delay of the measuring process itself.
pub fn find(answers: &[Answer], slack: Duration) -> Dual {
    let mut in_order: Vec<_> = answers.iter().filter(|answer| answer.floating).collect();
    in_order.sort_by_key(|answer| answer.received);
    let mut tenures: BTreeMap<Token, Tenure> = BTreeMap::new();
    let mut dual = Dual::default();
    for answer in in_order {
        let Some(identity) = &answer.identity else { continue };
        let Some(token) = identity.token else { continue };
        dual.traced += 1;
        let newer = tenures.range((Bound::Excluded(token), Bound::Unbounded));
        if let Some((newer, since)) = newer.map(|(newer, tenure)| (*newer, tenure.first)).min_by_key(|n| n.1)
        {
            let late = answer.received.duration_since(since);
            if answer.sent.is_some_and(|sent| sent >= since) || late > slack {
                let what = kind_word(answer.kind);
                let asked = if answer.sent.is_some_and(|sent| sent >= since) { "asked and " } else { "" };
                dual.note(late, answer.received, || {
                    format!(
                        "{} answered under {token} on {what}, {asked}{late:?} after {newer} had",
                        identity.node
                    )
                });
            }
        }
        match tenures.get_mut(&token) {
            None => {
                let tenure =
                    Tenure { node: identity.node.clone(), first: answer.received, last: answer.received };
                tenures.insert(token, tenure);
            }
            Some(tenure) if tenure.node == identity.node => tenure.last = answer.received,
            Some(tenure) => {
                let overlap = answer.received.duration_since(tenure.first);
                let other = tenure.node.clone();
                dual.note(overlap, answer.received, || {
                    format!("{} and {other} both answered under {token}", identity.node)
                });
            }
        }
    }
    dual
}

impl Dual {
    fn note(&mut self, overlap: Duration, at: Instant, line: impl FnOnce() -> String) {
        self.overlap = self.overlap.max(overlap).max(OVERLAP_MIN);
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(Evidence { at, line: line() });
        }
    }
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::NewConnection => "a new connection",
        Kind::KeepAlive => "an old connection",
        Kind::Tunnel => "a tunnel",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SLACK: Duration = Duration::from_millis(20);

    struct Clock(Instant);

    impl Clock {
        fn answer(&self, kind: Kind, node: &str, epoch: u64, sent: Option<u32>, received: u32) -> Answer {
            Answer {
                kind,
                sent: sent.map(|ms| self.0 + ms * MS),
                received: self.0 + received * MS,
                identity: Some(Identity { node: node.parse().unwrap(), token: Some(Token::new(1, epoch)) }),
                floating: true,
            }
        }
    }

    #[test]
    fn an_orderly_change_shows_nothing() {
        let clock = Clock(Instant::now());
        let seen = [
            clock.answer(Kind::NewConnection, "gra-1", 1, Some(0), 1),
            clock.answer(Kind::NewConnection, "sbg-1", 2, Some(300), 301),
            // Sent to the old owner, answered by it, and read by this process a little late.
            clock.answer(Kind::KeepAlive, "gra-1", 1, Some(299), 305),
        ];
        let dual = find(&seen, SLACK);
        assert_eq!((dual.overlap, dual.traced), (Duration::ZERO, 3), "{:?}", dual.evidence);
    }

    #[test]
    fn an_old_owner_that_answers_what_was_asked_after_the_change_is_seen() {
        let clock = Clock(Instant::now());
        for kind in [Kind::NewConnection, Kind::KeepAlive, Kind::Tunnel] {
            let seen = [
                clock.answer(Kind::NewConnection, "gra-1", 1, Some(0), 1),
                clock.answer(Kind::NewConnection, "sbg-1", 2, Some(300), 301),
                clock.answer(kind, "gra-1", 1, Some(302), 303),
            ];
            assert_eq!(find(&seen, SLACK).overlap, 2 * MS, "{kind:?}");
        }
    }

    #[test]
    fn a_thawed_owner_that_answers_an_old_question_is_seen() {
        let clock = Clock(Instant::now());
        let seen = [
            clock.answer(Kind::NewConnection, "sbg-1", 2, Some(300), 301),
            clock.answer(Kind::KeepAlive, "gra-1", 1, Some(10), 900),
            clock.answer(Kind::Tunnel, "gra-1", 1, None, 1_301),
        ];
        assert_eq!(find(&seen, SLACK).overlap, 1_000 * MS);
    }

    #[test]
    fn two_nodes_under_one_token_are_seen() {
        let clock = Clock(Instant::now());
        let seen = [
            clock.answer(Kind::NewConnection, "gra-1", 1, Some(0), 1),
            clock.answer(Kind::NewConnection, "sbg-1", 1, Some(5), 6),
        ];
        assert_eq!(find(&seen, SLACK).overlap, 5 * MS);
    }

    #[test]
    fn answers_through_a_nodes_own_address_are_no_owners() {
        let clock = Clock(Instant::now());
        let seen = [
            clock.answer(Kind::NewConnection, "sbg-1", 2, Some(0), 1),
            Answer { floating: false, ..clock.answer(Kind::KeepAlive, "gra-1", 1, Some(50), 51) },
        ];
        assert_eq!(find(&seen, SLACK).overlap, Duration::ZERO);
    }

    #[test]
    fn answers_that_do_not_say_who_gave_them_prove_nothing() {
        let clock = Clock(Instant::now());
        let answer = clock.answer(Kind::KeepAlive, "gra-1", 1, Some(0), 1);
        assert_eq!(find(&[Answer { identity: None, ..answer }], SLACK).traced, 0);
    }

    proptest::proptest! {
        /// Owners that follow one another, with a dark time of at least 1 ms between them, show nothing, however
        /// late this process reads (within the slack); one answer of an earlier owner after that always shows.
        #[test]
        fn tenures_that_do_not_overlap_show_nothing_and_any_stale_answer_shows(
            tenures in proptest::collection::vec((1_u32..200, 1_u32..100), 2..6),
            lateness in proptest::collection::vec(0_u32..20, 1..40),
            stale in 0_usize..5,
        ) {
            let clock = Clock(Instant::now());
            let mut seen = Vec::new();
            let mut now = 0;
            let mut late = lateness.iter().cycle();
            for (epoch, (length, dark)) in (1_u64..).zip(&tenures) {
                let node = if epoch.is_multiple_of(2) { "sbg-1" } else { "gra-1" };
                for sent in (now..now + length).step_by(7) {
                    let received = sent + late.next().copied().unwrap_or_default();
                    seen.push(clock.answer(Kind::NewConnection, node, epoch, Some(sent), received));
                }
                now += length + dark;
            }
            proptest::prop_assert_eq!(find(&seen, SLACK).overlap, Duration::ZERO);
            let epoch = (stale % (tenures.len() - 1)) as u64 + 1;
            let node = if epoch.is_multiple_of(2) { "sbg-1" } else { "gra-1" };
            seen.push(clock.answer(Kind::KeepAlive, node, epoch, Some(now + 100), now + 101));
            proptest::prop_assert!(find(&seen, SLACK).overlap > Duration::ZERO);
        }
    }
}
