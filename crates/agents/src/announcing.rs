//! Keeps the `announcedIp` of this site's meeting instances right, from what is observed and never from what is
//! intended.

use crate::appoint::AllHands;
use crate::machine::Machine;
use crate::quorum::QuorumWatch;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use twinsite_announce::{Announcement, FloatingObserved, Reconciled, Seen, decide};
use twinsite_consensus::Consensus;
use twinsite_controller::OutsideView;
use twinsite_model::{
    ClusterName, ClusterSpec, Fault, Faults, FloatingIpName, NodeId, SiteName, State, Token,
};

/// How often what is announced is compared with what should be, if nothing happens.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// The way to the meeting instances of this node's site.
pub trait Instances: Send + 'static {
    /// Compares what each of them is told with what it should be, and writes what differs. `None`: it is over with this
    /// process.
    fn deliver(&mut self, wanted: Announcement) -> impl Future<Output = Option<Vec<Reconciled>>> + Send;

    /// What they announce has changed, by whichever node of the site: it is worth reading back at once.
    fn read_soon(&self);
}

/// What floating IPs answer to whoever asks from outside.
pub trait Outside: Send + 'static {
    /// What each answered last, as it counts for this cluster.
    fn answers(&mut self, cluster: &ClusterName) -> BTreeMap<FloatingIpName, OutsideView>;

    /// Ends when one answers otherwise.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// The delivery of announced addresses.
pub struct Announcing<M: Machine, I: Instances, O: Outside> {
    /// This node.
    pub me: NodeId,
    /// The consensus.
    pub raft: Consensus<M>,
    /// What is known of a quorum.
    pub quorum: QuorumWatch,
    /// What this node holds itself.
    pub hands: AllHands,
    /// To whom it is delivered.
    pub instances: I,
    /// What is seen of the addresses.
    pub outside: O,
    /// The token of the last announcement, for reports.
    pub under: Arc<Mutex<Token>>,
    /// Told when something changed that an announcement may follow from.
    pub again: Arc<Notify>,
}

impl<M: Machine, I: Instances, O: Outside> Announcing<M, I, O> {
    /// Delivers until cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            if let Some(wanted) = self.wanted() {
                let Some(done) = self.instances.deliver(wanted).await else { return };
                self.note(&wanted, &done);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.again.notified() => {}
                () = self.outside.changed() => {}
                () = M::sleep(COMPARE_EVERY) => {}
            }
        }
    }

    fn note(&self, wanted: &Announcement, done: &[Reconciled]) {
        let before =
            std::mem::replace(&mut *self.under.lock().unwrap_or_else(PoisonError::into_inner), wanted.token);
        // Another node of this site may deliver it first.
        let mut changed = before != wanted.token;
        for outcome in done {
            match &outcome.result {
                Ok(wrote) => changed |= *wrote,
                Err(error) => {
                    tracing::warn!(upstream = %outcome.upstream, %error, "announcedIp not delivered");
                }
            }
        }
        if changed {
            tracing::info!(address = %wanted.address, token = %wanted.token, "announcedIp is to be");
            self.instances.read_soon();
        }
    }

    /// What the instances of this site should announce, by what is observed now. `None`: nothing can be told.
    fn wanted(&mut self) -> Option<Announcement> {
        let state = self.raft.state();
        let spec = state.spec.as_ref()?;
        let site = spec.site(&spec.node(self.me)?.site)?;
        let cut_off = self.quorum.age::<M>().is_some_and(|age| age > spec.timing().lease);
        let outside = self.outside.answers(&spec.cluster);
        let observed = spec.floating_ips.iter().map(|ip| {
            let held = self.hands.of(&ip.name).and_then(|hands| hands.observe().attached);
            let seen = seen(&state, spec, &site.name, &ip.name, held, outside.get(&ip.name), cut_off);
            FloatingObserved { address: ip.address, seen }
        });
        let address = decide(site.announce, site.announced_ip, &observed.collect::<Vec<_>>())?;
        Some(Announcement { address, token: state.session_token() })
    }
}

/// Where an address is. An answer under an older token than the agreed one is on its way out, and tells nothing.
fn seen(
    state: &State,
    spec: &ClusterSpec,
    here: &SiteName,
    ip: &FloatingIpName,
    held: Option<Token>,
    outside: Option<&OutsideView>,
    cut_off: bool,
) -> Seen {
    let owner = state.owner(ip);
    let is_at = |node: NodeId| spec.node(node).is_some_and(|node| node.site == *here);
    let at = |is_here: bool| if is_here { Seen::Here } else { Seen::Elsewhere };
    let is_newest = |token: Token| {
        owner.is_none_or(|owner| token >= owner.token) || Faults::here().has(Fault::OldAnswerCounts)
    };
    if let Some(owner) = owner.filter(|_| Faults::here().has(Fault::AnnounceFromIntention)) {
        return at(is_at(owner.node));
    }
    match (held, outside) {
        (Some(token), _) if is_newest(token) => Seen::Here,
        (None, Some(OutsideView::Answered { node, token })) if is_newest(*token) => at(is_at(*node)),
        // Whoever holds it renews through a quorum. Nobody answers here, and no quorum was heard of for a whole lease:
        // this site is cut off, and whether or not another one holds it by now, this one does not.
        (None, Some(OutsideView::Silent { .. })) if cut_off => Seen::Elsewhere,
        _ => Seen::Nowhere { expected_here: owner.is_some_and(|owner| is_at(owner.node)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::state::{FloatingIpState, Owner};
    use twinsite_model::{Epoch, Incarnation, WallTime};

    #[test]
    fn only_what_answers_as_freshly_as_was_agreed_is_seen() {
        let text = include_str!("../../../deploy/example/cluster.toml");
        let spec = twinsite_model::spec::from_toml(text).unwrap();
        let ip = spec.floating_ips[0].name.clone();
        let node = spec.nodes[0].clone();
        let far = spec.nodes.iter().find(|far| far.site != node.site).unwrap().id;
        let agreed = Token::new(1, 4);
        let owner = Owner {
            node: node.id,
            incarnation: Incarnation(1),
            token: agreed,
            since: WallTime::default(),
            revoked: false,
        };
        let entry = FloatingIpState { epoch: Epoch(4), owner: Some(owner), operation: None };
        let state = State { floating_ips: [(ip.clone(), entry)].into(), ..State::default() };
        let of = |held: Option<Token>, outside: Option<OutsideView>, cut_off| {
            seen(&state, &spec, &node.site, &ip, held, outside.as_ref(), cut_off)
        };
        let answered = |node, epoch| Some(OutsideView::Answered { node, token: Token::new(1, epoch) });
        let silent = || Some(OutsideView::Silent { detail: String::new() });
        let nowhere = Seen::Nowhere { expected_here: true };
        assert_eq!(of(Some(agreed), None, false), Seen::Here);
        assert_eq!(of(Some(Token::new(1, 3)), answered(far, 4), false), nowhere, "held, and on its way out");
        assert_eq!(of(None, answered(node.id, 4), false), Seen::Here);
        assert_eq!(of(None, answered(node.id, 3), false), nowhere);
        assert_eq!(of(None, answered(far, 5), false), Seen::Elsewhere, "newer than is known here");
        assert_eq!(of(None, answered(far, 3), false), nowhere);
        assert_eq!(of(None, silent(), false), nowhere);
        assert_eq!(of(None, silent(), true), Seen::Elsewhere, "a site that is cut off holds nothing");
        assert_eq!(of(None, None, true), nowhere, "never asked");
        let elsewhere = &spec.node(far).unwrap().site;
        let there = seen(&state, &spec, elsewhere, &ip, None, silent().as_ref(), false);
        assert_eq!(there, Seen::Nowhere { expected_here: false });
    }
}
