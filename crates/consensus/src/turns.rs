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
use tokio::sync::watch;
use twinsite_model::Timing;

/// The place of a node that has not been told its own: after everybody in a cluster of the usual size. openraft's own
/// timer may come first.
const UNKNOWN: u32 = 4;

/// When this node's turn comes.
#[derive(Clone, Copy)]
struct Turn<Instant> {
    /// When a leader was last heard; never, in a life that has heard none.
    heard: Option<Instant>,
    /// When this node last helped another one to be elected.
    helped: Option<Instant>,
    place: u32,
}

impl<Instant: openraft::Instant> Turn<Instant> {
    /// After the voters' lease; after the heartbeat that may still be on its way to another voter when the leader
    /// ends, and begins that voter's lease later than ours; and after those who come first.
    /// And whoever has helped another one gives it the time to be elected and heard: on a busy machine the next in the
    /// order would unseat a leader whose first heartbeat is still on its way.
    /// A node that `stood` in this silence already stands again: after a round trip, since whoever refused it may have heard
    /// the leader a little later, and then ever more seldom, since whoever is cut off would go on for ever.
    fn comes_at(self, timing: &Timing, stood: Option<Instant>) -> Option<Instant> {
        let heard = self.heard?;
        let behind = timing.heartbeat / 2 * self.place;
        let first = heard + timing.election_max + timing.heartbeat + behind;
        let after_help = self.helped.map(|helped| helped + 2 * timing.heartbeat + behind);
        let again = stood.filter(|stood| *stood > heard);
        let again = again.map(|stood| stood + timing.heartbeat.max((stood - heard) / 8));
        Some(first.max(after_help.unwrap_or(first)).max(again.unwrap_or(first)))
    }
}

/// When a leader was last heard, and this node's place in the order.
pub(crate) struct Turns<RT: AsyncRuntime>(watch::Sender<Turn<RT::Instant>>);

impl<RT: AsyncRuntime> Turns<RT> {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Turn { heard: None, helped: None, place: UNKNOWN }))
    }

    /// A leader's message was accepted just now.
    pub(crate) fn heard_leader(&self) {
        self.0.send_modify(|turn| turn.heard = Some(openraft::Instant::now()));
    }

    /// Another node is being elected, with this one's help.
    pub(crate) fn helps_another(&self) {
        self.0.send_modify(|turn| turn.helped = Some(openraft::Instant::now()));
    }
}

impl<RT: AsyncRuntime> Consensus<RT> {
    /// This node's place among those that may lead, 0 for the first. A preference: any node may still come to lead.
    pub fn set_election_turn(&self, place: u32) {
        self.shared.turns.0.send_if_modified(|turn| std::mem::replace(&mut turn.place, place) != place);
    }

    /// Stands for election when the turn comes, and again while no leader is heard.
    pub(crate) async fn stand_in_turn(self) {
        let timing = &self.shared.options.timing;
        let mut changes = self.shared.turns.0.subscribe();
        let mut stood = None;
        while self.shared.published.stopped().is_none() {
            let turn = *changes.borrow_and_update();
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
                    if self.may_stand() && self.raft.trigger().elect(true).await.is_err() {
                        return;
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

    #[test]
    fn a_turn_comes_again_ever_more_seldom_until_a_leader_is_heard() {
        let timing = Timing::of(Profile::Lan);
        let heard = Instant::now();
        let ms = Duration::from_millis;
        let turn = Turn { heard: Some(heard), helped: None, place: 1 };
        let comes = |turn: Turn<Instant>, stood: Option<Duration>| {
            turn.comes_at(&timing, stood.map(|stood| heard + stood)).unwrap() - heard
        };
        let first = timing.election_max + timing.heartbeat * 3 / 2;
        assert_eq!(comes(turn, None), first);
        assert_eq!(comes(turn, Some(first)), first + timing.heartbeat);
        assert_eq!(comes(turn, Some(ms(400))), ms(450));
        assert_eq!(comes(turn, Some(ms(40_000))), ms(45_000));

        let helps = Turn { helped: Some(heard + ms(390)), ..turn };
        assert_eq!(comes(helps, Some(ms(340))), ms(390) + timing.heartbeat * 5 / 2);
        // What it stood for in an earlier silence is over.
        let later = Turn { heard: Some(heard + ms(1_000)), ..turn };
        assert_eq!(comes(later, Some(ms(990))), ms(1_000) + first);
        assert_eq!(Turn { heard: None, ..turn }.comes_at(&timing, None), None);
    }
}
