//! What this node sees, told to whoever leads: at regular times, and at once when something changed that a failover
//! waits for.

use super::Raft;
use super::brain::Brain;
use super::hands::FloatingHands;
use super::quorum::QuorumWatch;
use crate::peer::Peers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use twinsite_controller::report::{REPORT_ROOMS_MAX, report_interval};
use twinsite_controller::{
    AnnouncedView, FloatingIpView, LoadView, NodeReport, OutsideView, StoreView, UpstreamView,
};
use twinsite_health::{Opinion, OutsideAnswer};
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{
    FloatingIpName, Format, Incarnation, NodeId, Profile, Revision, Timing, Token, UpstreamName,
};
use twinsite_proxy::Proxy;
use twinsite_sessions::{Sessions, StoreStatus};

/// A full list of opinions goes with every so many reports.
const FULL_EVERY: u64 = 10;

/// Whether the leader has this node's opinions.
///
/// Every report carries them all until one was taken by the leader of this very term (a new tenure begins knowing
/// nothing). All of them, because one that was overtaken on its way is answered and not used: then the one that overtook
/// it has brought the same.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    /// Grows whenever an opinion changes.
    version: u64,
    /// The leader and term that took them, and in which version.
    by: Option<((NodeId, u64), u64)>,
}

/// Opinions on their way.
struct Sent {
    told: Told,
    tenure: Option<(NodeId, u64)>,
    version: u64,
}

impl Told {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.taken().version += 1;
    }

    fn is_owed(&self, tenure: Option<(NodeId, u64)>) -> bool {
        let taken = self.taken();
        tenure.is_none_or(|tenure| taken.by != Some((tenure, taken.version)))
    }

    /// What to note of opinions that are gathered and sent now.
    fn sending(&self, tenure: Option<(NodeId, u64)>) -> Sent {
        Sent { told: self.clone(), tenure, version: self.taken().version }
    }
}

impl Sent {
    fn taken(self) {
        if let Some(tenure) = self.tenure {
            let mut taken = self.told.taken();
            // An answer of an earlier term, or to earlier opinions, may come late.
            let rank = |by: ((NodeId, u64), u64)| (by.0.1, by.1);
            let given = (tenure, self.version);
            if taken.by.is_none_or(|by| rank(by) <= rank(given)) {
                taken.by = Some(given);
            }
        }
    }
}

/// Where observations are found.
pub struct Sources {
    /// Opinions of upstreams.
    pub upstreams: watch::Receiver<Arc<BTreeMap<UpstreamName, Opinion>>>,
    /// What floating IPs answered from outside.
    pub outside: watch::Receiver<Arc<BTreeMap<FloatingIpName, OutsideAnswer>>>,
    /// What instances were read back to announce.
    pub announced: watch::Receiver<BTreeMap<UpstreamName, Option<IpAddr>>>,
    /// The token under which the announcement was last derived.
    pub announced_token: Arc<Mutex<Token>>,
    /// The floating IPs that this node may hold.
    pub hands: Arc<Mutex<BTreeMap<FloatingIpName, Arc<FloatingHands>>>>,
    /// The places of rooms.
    pub sessions: Sessions,
    /// The data plane; a witness has none.
    pub proxy: Option<Proxy>,
    /// The nodes that answer pings.
    pub peers_heard: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Whether this node is being shut down.
    pub draining: Arc<AtomicBool>,
    /// Told when something changed that should be reported at once.
    pub changed: Arc<Notify>,
}

/// Reports until cancelled.
pub struct Reporter {
    /// This node.
    pub me: NodeId,
    /// This life.
    pub incarnation: Incarnation,
    /// The consensus.
    pub raft: Raft,
    /// This node's own controller, when it leads.
    pub brain: Brain,
    /// The way to whoever else leads.
    pub peers: Peers,
    /// What is known of a quorum.
    pub quorum: QuorumWatch,
    /// Where observations are found.
    pub sources: Sources,
}

impl Reporter {
    /// Reports until cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut status = self.raft.status();
        let mut seq = 0;
        let told = Told::default();
        loop {
            let timing = self.timing();
            seq += 1;
            let (leader, tenure) = {
                let status = status.borrow_and_update();
                (status.leader, status.leader.map(|leader| (leader, status.term)))
            };
            let full = told.is_owed(tenure) || seq % FULL_EVERY == 0;
            // Noted before they are gathered: what changes in between is owed again.
            let sent = full.then(|| told.sending(tenure));
            self.send(leader, self.report(seq, full), sent, &timing);
            self.quorum.refresh(&self.raft, &timing);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(report_interval(&timing)) => {}
                () = self.sources.changed.notified() => {}
                Ok(()) = self.sources.upstreams.changed() => told.changed(),
                Ok(()) = self.sources.outside.changed() => {}
                Ok(()) = self.sources.announced.changed() => {}
                () = leader_changes(&mut status, leader) => {}
            }
        }
    }

    fn timing(&self) -> Timing {
        timing(&self.raft)
    }

    /// `full`: what to note when a report with all opinions was taken.
    fn send(&self, leader: Option<NodeId>, report: NodeReport, full: Option<Sent>, timing: &Timing) {
        let Some(leader) = leader else { return };
        if leader == self.me {
            if let (Ok(()), Some(full)) = (self.brain.report(report), full) {
                full.taken();
            }
            return;
        }
        let (peers, quorum, within) = (self.peers.clone(), self.quorum.clone(), timing.lease);
        tokio::spawn(async move {
            let Ok(heard) = peers.report(leader, report, within).await else { return };
            if heard.has_quorum {
                quorum.heard();
            }
            if let Some(full) = full.filter(|_| heard.leads) {
                full.taken();
            }
        });
    }

    fn report(&self, seq: u64, full: bool) -> NodeReport {
        let sources = &self.sources;
        let state = self.raft.state();
        let embedded =
            state.spec.as_ref().is_none_or(|spec| spec.sessions.store == SessionStoreKind::Embedded);
        let load = sources.proxy.as_ref().map(|proxy| (proxy.load(), proxy.live_rooms()));
        let rooms: BTreeSet<_> =
            load.iter().flat_map(|(_, rooms)| rooms.iter().map(|(room, _)| *room)).collect();
        let peers_heard = sources.peers_heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        NodeReport {
            node: self.me,
            incarnation: self.incarnation,
            seq,
            format_max: Format::NEWEST,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: Revision(state.revision.0),
            not_ready: self.not_ready(),
            draining: sources.draining.load(Ordering::Relaxed),
            store: self.store(),
            peers_heard,
            upstreams: full.then(|| self.upstreams()),
            floating_ips: self.floating_ips(),
            announced: self.announced(),
            load: LoadView {
                rooms: u32::try_from(rooms.len()).unwrap_or(u32::MAX),
                tunnels: load.as_ref().map_or(0, |(load, _)| load.tunnels),
            },
            rooms_in_use: if embedded && full {
                rooms.into_iter().take(REPORT_ROOMS_MAX).collect()
            } else {
                Vec::new()
            },
        }
    }

    fn not_ready(&self) -> Option<String> {
        let nothing_known = self.sources.proxy.is_some() && self.sources.upstreams.borrow().is_empty();
        nothing_known.then(|| "no upstream has been probed yet".to_owned())
    }

    fn store(&self) -> StoreView {
        let status = *self.sources.sessions.store_status().borrow();
        match status {
            StoreStatus::Up { role: twinsite_sessions::Role::Embedded, .. } => StoreView::Embedded,
            StoreStatus::Up { .. } => StoreView::Reachable,
            StoreStatus::Down { why, .. } => StoreView::Unreachable { detail: why.to_string() },
        }
    }

    fn upstreams(&self) -> Vec<UpstreamView> {
        let opinions = self.sources.upstreams.borrow();
        let views = opinions.iter().map(|(upstream, opinion)| UpstreamView {
            upstream: upstream.clone(),
            healthy: opinion.healthy,
            detail: opinion.detail.clone(),
        });
        views.collect()
    }

    fn floating_ips(&self) -> BTreeMap<FloatingIpName, FloatingIpView> {
        let mut views: BTreeMap<FloatingIpName, FloatingIpView> = BTreeMap::new();
        let state = self.raft.state();
        for (ip, answer) in self.sources.outside.borrow().iter() {
            let ours =
                state.spec.as_ref().map_or_else(|| answer.clone(), |spec| answer.for_cluster(&spec.cluster));
            views.entry(ip.clone()).or_default().outside = Some(match ours {
                OutsideAnswer::Answered { node, token, .. } => OutsideView::Answered { node, token },
                OutsideAnswer::Silent { detail } => OutsideView::Silent { detail },
            });
        }
        for (ip, hands) in self.sources.hands.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let view = views.entry(ip.clone()).or_default();
            view.held = hands.observe().attached;
            view.drained = hands.drained();
        }
        views
    }

    fn announced(&self) -> Vec<AnnouncedView> {
        let token = *self.sources.announced_token.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = self.sources.announced.borrow();
        let views = announced.iter().filter_map(|(upstream, address)| {
            Some(AnnouncedView { upstream: upstream.clone(), address: (*address)?, token })
        });
        views.collect()
    }
}

async fn leader_changes(status: &mut watch::Receiver<twinsite_consensus::RaftStatus>, from: Option<NodeId>) {
    if status.wait_for(|status| status.leader != from).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The timing in force, or the default one before there is a specification.
pub fn timing(raft: &Raft) -> Timing {
    let state = raft.state();
    state.spec.as_ref().map_or_else(|| Timing::of(Profile::default()), |spec| spec.timing())
}

/// Pings every other node, so that everybody knows whom it could lead.
pub async fn listen_to_peers(
    raft: Raft,
    peers: Peers,
    heard: Arc<Mutex<BTreeSet<NodeId>>>,
    stop: CancellationToken,
) {
    loop {
        let every = (timing(&raft).lease / 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let others = peers.others();
        for node in &others {
            let (peers, heard, node) = (peers.clone(), Arc::clone(&heard), *node);
            tokio::spawn(async move {
                let answered = peers.ping(node, every).await.is_ok();
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if answered {
                    heard.insert(node);
                } else {
                    heard.remove(&node);
                }
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).retain(|node| others.contains(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opinions_are_owed_until_the_leader_of_this_term_took_the_newest() {
        let told = Told::default();
        let (first, second) = (Some((NodeId(1), 5)), Some((NodeId(1), 6)));
        assert!(told.is_owed(first));
        drop(told.sending(first));
        assert!(told.is_owed(first), "lost on its way");
        told.sending(first).taken();
        assert!(!told.is_owed(first));

        let late = told.sending(first);
        told.changed();
        late.taken();
        assert!(told.is_owed(first), "what was taken is older than the change");
        told.sending(first).taken();
        assert!(!told.is_owed(first));

        assert!(told.is_owed(second), "the same node's new tenure knows nothing");
        let late = told.sending(first);
        told.sending(second).taken();
        late.taken();
        assert!(!told.is_owed(second), "a late answer of the term before changes nothing");
        assert!(told.is_owed(None), "nobody leads");
    }
}
