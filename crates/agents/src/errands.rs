//! Looks at the provider of a routed address, and goes on the errands that the leader sends this node on.
//!
//! An errand is one call. Before it is made, a quorum confirms that the errand still stands: this node may have been
//! cut off or stood still, and its own copy of the state be old. After [`Errand::within`], counted from before the
//! question, no call is begun and one that is under way is given up, so that whoever recalls the errand and waits
//! knows that there is none.

use crate::machine::Machine;
use crate::peers::Peers;
use crate::report::timing;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use twinsite_consensus::Consensus;
use twinsite_controller::RoutingView;
use twinsite_floating_ip::routed::{RoutedApi, RoutedError};
use twinsite_model::{
    BootTime, Errand, ErrandEnd, ErrandId, Fault, Faults, FloatingIpName, Incarnation, NodeId, State,
};

#[cfg(test)]
mod tests;

/// How often a provider is looked at when nothing is expected of it, as a share of the time that a call may take.
const LOOK_SHARE: u32 = 2;
/// The same while it is expected to change something.
const LOOK_SOON_SHARE: u32 = 8;

/// What this node can say of its errands and of what it saw. Clones share it.
#[derive(Clone, Default)]
pub struct Errands(Arc<Mutex<BTreeMap<FloatingIpName, Said>>>);

/// What is said of one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// What its provider said last, if it answered.
    pub routing: Option<RoutingView>,
    /// The last errand that ended, and how.
    pub errand: Option<(ErrandId, ErrandEnd)>,
}

impl Errands {
    fn all(&self) -> MutexGuard<'_, BTreeMap<FloatingIpName, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said of an address.
    pub fn of(&self, ip: &FloatingIpName) -> Said {
        self.all().get(ip).cloned().unwrap_or_default()
    }

    fn say(&self, ip: &FloatingIpName, change: impl FnOnce(&mut Said)) -> bool {
        let mut all = self.all();
        let said = all.entry(ip.clone()).or_default();
        let before = said.clone();
        change(said);
        *said != before
    }
}

/// Goes on errands for one address, in one life of a node.
pub struct Runner<M: Machine, P: Peers> {
    /// The address.
    pub ip: FloatingIpName,
    /// This node.
    pub me: NodeId,
    /// This life.
    pub incarnation: Incarnation,
    /// The consensus.
    pub raft: Consensus<M>,
    /// The way to whoever leads.
    pub peers: P,
    /// The way to the provider.
    pub api: Arc<dyn RoutedApi>,
    /// Where what is to be reported is put down.
    pub errands: Errands,
    /// Told when there is something new to report.
    pub changed: Arc<Notify>,
}

impl<M: Machine, P: Peers> Runner<M, P> {
    /// Looks and goes until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let (_, mut changes) = self.raft.subscribe();
        loop {
            let state = self.raft.state();
            if let Some(errand) = self.sent_on(&state) {
                let end = self.go(&errand).await;
                tracing::info!(ip = %self.ip, errand = %errand.id, end = end.as_str(), "an errand at the provider");
                self.say(|said| said.errand = Some((errand.id, end)));
                continue;
            }
            // Before anything is agreed nothing follows from a look, and how long one may take is not known either.
            let is_agreed = state.spec.is_some();
            let call = timing(&self.raft).provider_call;
            if is_agreed {
                self.look(&state, call).await;
            }
            let again = call / if self.is_awaited(&state) { LOOK_SOON_SHARE } else { LOOK_SHARE };
            let newer = async {
                // Only what concerns the errands of this address brings the next look forward.
                let is_as_before = |now: &State| {
                    now.spec.is_some() == is_agreed && self.standing(now) == self.standing(&state)
                };
                while is_as_before(&self.raft.state()) {
                    if changes.next().await.is_err() {
                        changes = self.raft.subscribe().1;
                    }
                    if self.raft.status().borrow().stopped.is_some() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = newer => {}
                () = M::sleep(again) => {}
            }
        }
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        if self.errands.say(&self.ip, change) {
            self.changed.notify_one();
        }
    }

    /// The errand that this life is to go on, and has not gone on yet.
    fn sent_on(&self, state: &State) -> Option<Errand> {
        let errand = state.floating_ips.get(&self.ip)?.errand.as_ref()?;
        let mine = (errand.by, errand.incarnation) == (self.me, self.incarnation);
        let gone = self.errands.of(&self.ip).errand.is_some_and(|(last, _)| last >= errand.id);
        (mine && !gone).then(|| errand.clone())
    }

    /// How the errands of the address stand.
    fn standing(&self, state: &State) -> (ErrandId, Option<ErrandId>, Option<NodeId>) {
        let entry = state.floating_ips.get(&self.ip);
        let errand = entry.and_then(|entry| entry.errand.as_ref()).map(|errand| errand.id);
        let owner = entry.and_then(|entry| entry.owner.as_ref()).map(|owner| owner.node);
        (entry.map_or(ErrandId(0), |entry| entry.errands), errand, owner)
    }

    /// Whether the provider is about to change something, or to be asked to.
    fn is_awaited(&self, state: &State) -> bool {
        let Some(entry) = state.floating_ips.get(&self.ip) else { return false };
        let owner = entry.owner.as_ref().map(|owner| owner.node);
        let seen = self.errands.of(&self.ip).routing;
        entry.errand.is_some() || seen.is_none_or(|seen| seen.busy || seen.to != owner)
    }

    async fn look(&self, state: &State, within: Duration) {
        let (errands, under_way, _) = self.standing(state);
        // What is seen during an errand says nothing about what comes of it.
        let after = if under_way.is_some() { ErrandId(errands.0.saturating_sub(1)) } else { errands };
        let seen = match M::timeout(within, self.api.routing()).await {
            Ok(Ok(routing)) => Some(RoutingView { to: routing.to, busy: routing.busy, after }),
            Ok(Err(error)) => {
                tracing::debug!(ip = %self.ip, %error, "the provider was not seen");
                None
            }
            Err(_) => None,
        };
        self.say(|said| said.routing = seen);
    }

    /// One call, if the errand still stands.
    async fn go(&self, errand: &Errand) -> ErrandEnd {
        let until = M::boot_now() + errand.within;
        if !Faults::here().has(Fault::ErrandWithoutRecheck) && !self.still_stands(errand, until).await {
            return ErrandEnd::NotMade;
        }
        let until =
            if Faults::here().has(Fault::ErrandWithoutEnd) { until + 20 * errand.within } else { until };
        let rest = until.since(M::boot_now());
        if rest.is_zero() {
            return ErrandEnd::NotMade;
        }
        match M::timeout(rest, self.api.route(errand, until)).await {
            Ok(Ok(())) => ErrandEnd::Accepted,
            Ok(Err(error @ RoutedError::Refused(_))) => {
                tracing::warn!(ip = %self.ip, errand = %errand.id, %error, "an errand at the provider");
                ErrandEnd::Refused
            }
            Ok(Err(error @ RoutedError::Unanswered(_))) => {
                tracing::warn!(ip = %self.ip, errand = %errand.id, %error, "an errand at the provider");
                ErrandEnd::Unanswered
            }
            Err(_) => ErrandEnd::Unanswered,
        }
    }

    /// Whether, through a quorum that is asked now, the errand stands and the owner is whom it is for.
    async fn still_stands(&self, errand: &Errand, until: BootTime) -> bool {
        let rest = || until.since(M::boot_now());
        let Some(leader) = self.raft.status().borrow().leader else { return false };
        let index = if leader == self.me {
            self.raft.read_index().await.ok()
        } else {
            self.peers.read_index(leader, rest()).await.ok()
        };
        let Some(index) = index else { return false };
        if self.raft.wait_applied(index, rest()).await.is_err() {
            return false;
        }
        let state = self.raft.state();
        let Some(entry) = state.floating_ips.get(&self.ip) else { return false };
        let known = entry.errand.as_ref().is_some_and(|known| known.id == errand.id && !known.recalled);
        let owned = entry.owner.as_ref().is_some_and(|owner| owner.token == errand.token && !owner.revoked);
        known && owned
    }
}
