//! Standing for election in turn.
//!
//! openraft draws the time that passes between the end of the voters' lease and an election at random, from a range
//! that every node shares in its upper end. That leaves two candidates at once (and a second round) to chance, and
//! the quickest election to luck; both are paid out of a healthy owner's lease. Here every node knows its place in
//! one agreed order instead, and stands as soon as the lease is over and everybody before it has had the time to.
//!
//! Nothing rests on it: an election so begun asks for a pre-vote, which voters that hear a leader refuse, and
//! openraft's own timer is still there should nobody's turn have led to a leader.

use crate::consensus::Consensus;
use openraft::AsyncRuntime;
use openraft::async_runtime::Select2;
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
    fn comes_at(self, timing: &Timing) -> Option<Instant> {
        let behind = timing.heartbeat / 2 * self.place;
        let silence = self.heard? + timing.election_max + timing.heartbeat + behind;
        Some(self.helped.map_or(silence, |helped| silence.max(helped + 2 * timing.heartbeat + behind)))
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

    /// Stands for election once for each silence.
    pub(crate) async fn stand_in_turn(self) {
        let mut changes = self.shared.turns.0.subscribe();
        while self.shared.published.stopped().is_none() {
            let turn = *changes.borrow_and_update();
            let silence = async {
                match turn.comes_at(&self.shared.options.timing) {
                    Some(at) => RT::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            match RT::select2(changes.changed(), silence).await {
                Select2::First(Ok(())) => {}
                Select2::First(Err(_)) => return,
                Select2::Second(()) => {
                    if !self.shared.is_leader() && self.raft.trigger().elect(true).await.is_err() {
                        return;
                    }
                    if changes.wait_for(|now| now.heard > turn.heard).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
