//! Keeps the `announcedIp` of this site's meeting instances right, from what is observed and never from what is
//! intended.

use crate::appoint::AllHands;
use crate::errands::Errands;
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
use twinsite_controller::{OutsideView, RoutingView};
use twinsite_model::spec::FloatingIpSpec;
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
    /// Where providers route what they route.
    pub errands: Errands,
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

    fn wanted(&mut self) -> Option<Announcement> {
        let state = self.raft.state();
        let spec = state.spec.as_ref()?;
        let seen = Sight {
            held: |ip: &FloatingIpName| self.hands.of(ip).and_then(|hands| hands.observe().attached),
            outside: self.outside.answers(&spec.cluster),
            routing: |ip: &FloatingIpName| self.errands.of(ip).routing,
            cut_off: self.quorum.age::<M>().is_some_and(|age| age > spec.timing().lease),
        };
        wanted(&state, self.me, &seen)
    }
}

/// What this node sees of the addresses.
struct Sight<H, R> {
    /// The token under which it answers for an address itself.
    held: H,
    outside: BTreeMap<FloatingIpName, OutsideView>,
    /// Where an address is routed, by its provider's own word.
    routing: R,
    /// Whether no quorum was heard of for a whole lease.
    cut_off: bool,
}

/// What the instances of a node's site should announce, by what is observed now. `None`: nothing can be told.
fn wanted(
    state: &State,
    me: NodeId,
    sight: &Sight<impl Fn(&FloatingIpName) -> Option<Token>, impl Fn(&FloatingIpName) -> Option<RoutingView>>,
) -> Option<Announcement> {
    let spec = state.spec.as_ref()?;
    let site = spec.site(&spec.node(me)?.site)?;
    let observed = spec.floating_ips.iter().map(|ip| {
        let seen = seen(state, spec, &site.name, ip, sight);
        FloatingObserved { address: ip.address, seen }
    });
    let address = decide(site.announce, site.announced_ip, &observed.collect::<Vec<_>>())?;
    Some(Announcement { address, token: state.session_token() })
}

/// Where an address is. An answer under an older token than the agreed one is on its way out, and tells nothing.
fn seen(
    state: &State,
    spec: &ClusterSpec,
    here: &SiteName,
    ip: &FloatingIpSpec,
    sight: &Sight<impl Fn(&FloatingIpName) -> Option<Token>, impl Fn(&FloatingIpName) -> Option<RoutingView>>,
) -> Seen {
    let (is_routed, ip) = (ip.provider.is_routed(), &ip.name);
    let owner = state.owner(ip);
    let is_at = |node: NodeId| spec.node(node).is_some_and(|node| node.site == *here);
    let at = |is_here: bool| if is_here { Seen::Here } else { Seen::Elsewhere };
    let is_newest = |token: Token| {
        owner.is_none_or(|owner| token >= owner.token) || Faults::here().has(Fault::OldAnswerCounts)
    };
    if let Some(owner) = owner.filter(|_| Faults::here().has(Fault::AnnounceFromIntention)) {
        return at(is_at(owner.node));
    }
    let nowhere = Seen::Nowhere { expected_here: owner.is_some_and(|owner| is_at(owner.node)) };
    if is_routed {
        // Every candidate has the address, so who holds it, or reaches itself there, says nothing: packets go where
        // the provider sends them.
        let to = (sight.routing)(ip).and_then(|routing| routing.to);
        return to.map_or(nowhere, |node| at(is_at(node)));
    }
    match ((sight.held)(ip), sight.outside.get(ip)) {
        (Some(token), _) if is_newest(token) => Seen::Here,
        (None, Some(OutsideView::Answered { node, token })) if is_newest(*token) => at(is_at(*node)),
        // Whoever holds it renews through a quorum. Nobody answers here, and no quorum was heard of for a whole lease:
        // this site is cut off, and whether or not another one holds it by now, this one does not.
        (None, Some(OutsideView::Silent { .. })) if sight.cut_off => Seen::Elsewhere,
        _ => nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_announce::{There, compare};
    use twinsite_model::spec::{AnnounceMode, ProviderKind};
    use twinsite_model::state::{FloatingIpState, Owner};
    use twinsite_model::{Epoch, ErrandId, Incarnation, WallTime};

    /// Two addresses, `public` and `second`, which sites announce where they are.
    fn spec() -> ClusterSpec {
        let text = include_str!("../../../deploy/example/cluster.toml");
        let mut spec = twinsite_model::spec::from_toml(text).unwrap();
        let mut second = spec.floating_ips[0].clone();
        (second.name, second.address) = ("second".parse().unwrap(), "203.0.113.99".parse().unwrap());
        spec.floating_ips.truncate(1);
        spec.floating_ips.push(second);
        for site in spec.sites.iter_mut().filter(|site| !site.witness) {
            site.announce = AnnounceMode::Floating;
        }
        spec
    }

    fn owned(spec: &ClusterSpec, moves: u64, owners: &[(NodeId, u64)]) -> State {
        let entries = spec.floating_ips.iter().zip(owners).map(|(ip, (node, epoch))| {
            let owner = Owner {
                node: *node,
                incarnation: Incarnation(1),
                token: Token::new(1, *epoch),
                since: WallTime::default(),
                revoked: false,
            };
            let entry =
                FloatingIpState { epoch: Epoch(*epoch), owner: Some(owner), ..FloatingIpState::default() };
            (ip.name.clone(), entry)
        });
        State {
            spec: Some(Arc::new(spec.clone())),
            moves: Epoch(moves),
            floating_ips: entries.collect(),
            ..State::default()
        }
    }

    fn answered(node: NodeId, epoch: u64) -> OutsideView {
        OutsideView::Answered { node, token: Token::new(1, epoch) }
    }

    fn silent() -> OutsideView {
        OutsideView::Silent { detail: String::new() }
    }

    /// A node here and one at another site.
    fn here_and_far(spec: &ClusterSpec) -> (NodeId, NodeId) {
        let here = &spec.nodes[0];
        let may = |far: &&twinsite_model::spec::NodeSpec| far.site != here.site && far.kind.may_own();
        (here.id, spec.nodes.iter().find(may).unwrap().id)
    }

    #[test]
    fn only_what_answers_as_freshly_as_was_agreed_is_seen() {
        let spec = spec();
        let (here, far) = here_and_far(&spec);
        let (site, ip) = (&spec.node(here).unwrap().site, &spec.floating_ips[0]);
        let state = owned(&spec, 4, &[(here, 4)]);
        let at = |site: &SiteName, held: Option<u64>, outside: Option<OutsideView>, cut_off| {
            let held = |_: &FloatingIpName| held.map(|epoch| Token::new(1, epoch));
            let outside = outside.map(|outside| (ip.name.clone(), outside)).into_iter().collect();
            seen(
                &state,
                &spec,
                site,
                ip,
                &Sight { held, outside, routing: |_: &FloatingIpName| None, cut_off },
            )
        };
        let of = |held, outside, cut_off| at(site, held, outside, cut_off);
        let nowhere = Seen::Nowhere { expected_here: true };
        assert_eq!(of(Some(4), None, false), Seen::Here);
        assert_eq!(of(Some(3), Some(answered(far, 4)), false), nowhere, "held, and on its way out");
        assert_eq!(of(None, Some(answered(here, 4)), false), Seen::Here);
        assert_eq!(of(None, Some(answered(here, 3)), false), nowhere);
        assert_eq!(of(None, Some(answered(far, 5)), false), Seen::Elsewhere, "newer than is known here");
        assert_eq!(of(None, Some(answered(far, 3)), false), nowhere);
        assert_eq!(of(None, Some(silent()), false), nowhere);
        assert_eq!(of(None, Some(silent()), true), Seen::Elsewhere, "a site that is cut off holds nothing");
        assert_eq!(of(None, None, true), nowhere, "never asked");
        let elsewhere = &spec.node(far).unwrap().site;
        assert_eq!(at(elsewhere, None, Some(silent()), false), Seen::Nowhere { expected_here: false });
    }

    /// The owner may hold it long before its provider routes it there.
    #[test]
    fn a_routed_address_is_where_its_provider_says() {
        let mut spec = spec();
        spec.floating_ips[0].provider = ProviderKind::Ovh;
        spec.floating_ips[0].interface = None;
        let (here, far) = here_and_far(&spec);
        let (site, ip) = (&spec.node(here).unwrap().site, &spec.floating_ips[0]);
        let state = owned(&spec, 4, &[(here, 4)]);
        let of = |to: Option<NodeId>| {
            let held = |_: &FloatingIpName| Some(Token::new(1, 4));
            let routing = |_: &FloatingIpName| Some(RoutingView { to, busy: false, after: ErrandId(1) });
            let outside = BTreeMap::from([(ip.name.clone(), answered(here, 4))]);
            seen(&state, &spec, site, ip, &Sight { held, outside, routing, cut_off: false })
        };
        assert_eq!(of(Some(here)), Seen::Here);
        assert_eq!(of(Some(far)), Seen::Elsewhere, "whoever holds it");
        assert_eq!(of(None), Seen::Nowhere { expected_here: true });
    }

    /// The tokens of two addresses cannot be compared: one that moved seldom must not wait for one that moved often.
    #[test]
    fn the_announcement_of_one_address_is_newer_than_that_of_another_before_it() {
        let spec = spec();
        let (here, far) = here_and_far(&spec);
        let of = |state: &State, public: OutsideView, second: OutsideView| {
            let names = spec.floating_ips.iter().map(|ip| ip.name.clone());
            let outside = names.zip([public, second]).collect();
            let (held, routing) = (|_: &FloatingIpName| None, |_: &FloatingIpName| None);
            wanted(state, here, &Sight { held, outside, routing, cut_off: false })
        };
        let before =
            of(&owned(&spec, 11, &[(far, 9), (far, 2)]), answered(far, 9), answered(far, 2)).unwrap();
        assert_eq!(Some(before.address), spec.site(&spec.nodes[0].site).unwrap().announced_ip);
        let there = There { address: Some(before.address), token: Some(before.token) };

        let moved = owned(&spec, 12, &[(far, 9), (here, 3)]);
        let after = of(&moved, silent(), answered(here, 3)).unwrap();
        assert_eq!(after.address, spec.floating_ips[1].address);
        assert!(compare(there, &after).unwrap().address, "and the other one's silence does not keep it back");
        assert!(compare(There { address: Some(after.address), token: Some(after.token) }, &before).is_err());
    }
}
