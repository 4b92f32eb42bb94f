//! Standing for election in turn.
//!
//! openraft draws the time that passes between the end of the voters' lease and an election at random, from a range
//! that every node shares in its upper end. That leaves two candidates at once (and a second round) to chance, and
//! the quickest election to luck; both are paid out of a healthy owner's lease. Here every node knows its place in
//! one agreed order instead, and stands as soon as the lease is over and everybody before it has had the time to.
//!
//! A leader that dies slowly, its disk full or its links failing one by one, is heard by some for longer than by others.
//! Their voter's lease refuses whoever stands first, so a node stands again while the silence lasts, ever more seldom.
//!
//! Nothing rests on it: an election so begun asks for a pre-vote, which voters that hear a leader refuse, and
//! openraft's own timer is still there should nobody's turn have led to a leader.

use crate::consensus::Consensus;
use openraft::AsyncRuntime;
use openraft::async_runtime::Select2;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ServerState};
use std::sync::Arc;
use tokio::sync::watch;
use twinsite_model::{NodeId, Timing};

/// The place of a node that has not been told its own: after everybody in a cluster of the usual size. openraft's own
/// timer may come first.
const UNKNOWN: u32 = 4;

/// When this node's turn comes.
#[derive(Clone)]
struct Turn<Instant> {
    me: NodeId,
    /// The order in which nodes stand.
    order: Arc<[NodeId]>,
    /// Who was last heard to lead, and when; nobody, in a life that has heard none.
    heard: Option<(NodeId, Instant)>,
    /// When this node last helped another one to be elected.
    helped: Option<Instant>,
    /// When another one first asked, in the present silence, whether it would be elected.
    asked: Option<Instant>,
}

impl<Instant: openraft::Instant> Turn<Instant> {
    /// How many come before this node: not the leader that is silent now.
    fn place(&self) -> u32 {
        let silent = self.heard.map(|(leader, _)| leader);
        let mut standing = self.order.iter().filter(|node| Some(**node) != silent);
        let place = standing.position(|node| *node == self.me);
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(UNKNOWN)
    }

    /// After the voters' lease; after the heartbeat that may still be on its way to another voter when the leader
    /// ends, and begins that voter's lease later than ours; and after those who come first, by a heartbeat for each of them,
    /// since half of one passed before a question was heard at the other site (15 ms on busy machines with `lan`).
    /// And whoever has helped another one gives it the time to be elected and heard: on a busy machine the next in the
    /// order would unseat a leader whose first heartbeat is still on its way. The same time has whoever asks for pre-votes,
    /// also of a node that still believes in the old leader: others may not, and two that stand at once share the votes
    /// between them. But once in each silence only: whoever is cut off from the others asks again and again.
    /// A node that `stood` in this silence already stands again: after a round trip, since whoever refused it may have heard
    /// the leader a little later, and then ever more seldom, since whoever is cut off would go on for ever.
    fn comes_at(&self, timing: &Timing, stood: Option<Instant>) -> Option<Instant> {
        let (_, heard) = self.heard?;
        let behind = timing.heartbeat * self.place();
        let first = heard + timing.election_max + timing.heartbeat + behind;
        let another = self.helped.max(self.asked.filter(|asked| *asked > heard));
        let after_help = another.map(|another| another + 2 * timing.heartbeat + behind);
        let again = stood.filter(|stood| *stood > heard);
        let again = again.map(|stood| stood + timing.heartbeat.max((stood - heard) / 8));
        Some(first.max(after_help.unwrap_or(first)).max(again.unwrap_or(first)))
    }
}

/// When a leader was last heard, and who comes before this node.
pub(crate) struct Turns<RT: AsyncRuntime>(watch::Sender<Turn<RT::Instant>>);

impl<RT: AsyncRuntime> Turns<RT> {
    pub(crate) fn new(me: NodeId) -> Self {
        Self(watch::Sender::new(Turn { me, order: Arc::default(), heard: None, helped: None, asked: None }))
    }

    /// A leader's message was accepted just now.
    pub(crate) fn heard_leader(&self, leader: NodeId) {
        self.0.send_modify(|turn| turn.heard = Some((leader, openraft::Instant::now())));
    }

    /// Another node asks whether it would be elected.
    pub(crate) fn another_asks(&self) {
        self.0.send_if_modified(|turn| {
            let is_first = turn.asked.is_none_or(|asked| turn.heard.is_some_and(|(_, heard)| asked <= heard));
            if is_first {
                tracing::debug!("another node asks whether it would be elected");
                turn.asked = Some(openraft::Instant::now());
            }
            is_first
        });
    }

    /// Another node is being elected, with this one's help.
    pub(crate) fn helps_another(&self) {
        self.0.send_modify(|turn| turn.helped = Some(openraft::Instant::now()));
    }
}

impl<RT: AsyncRuntime> Consensus<RT> {
    /// The order in which nodes stand for election. A preference: any node may still come to lead.
    pub fn set_election_order(&self, order: &[NodeId]) {
        self.shared.turns.0.send_if_modified(|turn| {
            let is_other = *turn.order != *order;
            if is_other {
                turn.order = order.into();
            }
            is_other
        });
    }

    /// Stands for election when the turn comes, and again while no leader is heard.
    pub(crate) async fn stand_in_turn(self) {
        let timing = &self.shared.options.timing;
        let mut changes = self.shared.turns.0.subscribe();
        let mut stood = None;
        while self.shared.published.stopped().is_none() {
            let turn = changes.borrow_and_update().clone();
            let silence = async {
                match turn.comes_at(timing, stood) {
                    Some(at) => RT::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            match RT::select2(changes.changed(), silence).await {
                Select2::First(Ok(())) => {}
                Select2::First(Err(_)) => return,
                Select2::Second(()) => {
                    if self.may_stand() {
                        tracing::debug!(
                            place = turn.place(),
                            "this node's turn to stand for election has come"
                        );
                        if self.raft.trigger().elect(true).await.is_err() {
                            return;
                        }
                    }
                    stood = Some(RT::Instant::now());
                }
            }
        }
    }

    /// A leader has nothing to stand for; and who was granted its pre-votes is a candidate, whose votes are on their way
    /// to disks: another round would begin again with all of it.
    fn may_stand(&self) -> bool {
        let state = self.raft.server_metrics().borrow_watched().state;
        !matches!(state, ServerState::Leader | ServerState::Candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokioRuntime;
    use std::time::Duration;
    use twinsite_model::Profile;

    type Instant = <TokioRuntime as AsyncRuntime>::Instant;

    #[tokio::test]
    async fn the_first_question_of_each_silence_counts() {
        let turns = Turns::<TokioRuntime>::new(NodeId(1));
        let asked = || {
            turns.another_asks();
            turns.0.borrow().asked.unwrap()
        };
        let first = asked();
        assert_eq!(asked(), first, "who is cut off asks again and again");
        turns.heard_leader(NodeId(2));
        let second = asked();
        assert!(second > first, "another silence");
        assert_eq!(asked(), second);
    }

    #[test]
    fn a_turn_comes_again_ever_more_seldom_until_a_leader_is_heard() {
        let timing = Timing::of(Profile::Lan);
        let heard = Instant::now();
        let ms = Duration::from_millis;
        let (leader, order) = (NodeId(3), [3, 2, 1].map(NodeId).into());
        let turn = Turn { me: NodeId(1), order, heard: Some((leader, heard)), helped: None, asked: None };
        let comes = |turn: &Turn<Instant>, stood: Option<Duration>| {
            turn.comes_at(&timing, stood.map(|stood| heard + stood)).unwrap() - heard
        };
        // Second of the two that are left.
        let first = timing.election_max + timing.heartbeat * 2;
        assert_eq!(turn.place(), 1);
        assert_eq!(Turn { order: Arc::default(), ..turn.clone() }.place(), UNKNOWN);
        assert_eq!(comes(&turn, None), first);
        assert_eq!(comes(&turn, Some(first)), first + timing.heartbeat);
        assert_eq!(comes(&turn, Some(ms(400))), ms(450));
        assert_eq!(comes(&turn, Some(ms(40_000))), ms(45_000));

        let helps = Turn { helped: Some(heard + ms(390)), ..turn.clone() };
        assert_eq!(comes(&helps, Some(ms(340))), ms(390) + timing.heartbeat * 3);
        let asked = Turn { asked: Some(heard + ms(160)), ..turn.clone() };
        assert_eq!(comes(&asked, None), ms(160) + timing.heartbeat * 3);
        let before = Turn { heard: Some((leader, heard + ms(200))), ..asked };
        assert_eq!(comes(&before, None), ms(200) + first, "asked in an earlier silence");
        // What it stood for in an earlier silence is over.
        let later = Turn { heard: Some((leader, heard + ms(1_000))), ..turn.clone() };
        assert_eq!(comes(&later, Some(ms(990))), ms(1_000) + first);
        assert_eq!(Turn { heard: None, ..turn }.comes_at(&timing, None), None);
    }
}
