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
use std::sync::{Arc, Mutex, PoisonError};
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
        let mut told: Option<NodeId> = None;
        let mut upstreams_changed = true;
        loop {
            let timing = self.timing();
            seq += 1;
            let leader = status.borrow_and_update().leader;
            let full = upstreams_changed || leader != told || seq % FULL_EVERY == 0;
            upstreams_changed = false;
            self.send(leader, self.report(seq, full), &timing);
            told = leader;
            self.quorum.refresh(&self.raft, &timing);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(report_interval(&timing)) => {}
                () = self.sources.changed.notified() => {}
                Ok(()) = self.sources.upstreams.changed() => upstreams_changed = true,
                Ok(()) = self.sources.outside.changed() => {}
                Ok(()) = self.sources.announced.changed() => {}
                () = leader_changes(&mut status, leader) => {}
            }
        }
    }

    fn timing(&self) -> Timing {
        timing(&self.raft)
    }

    fn send(&self, leader: Option<NodeId>, report: NodeReport, timing: &Timing) {
        let Some(leader) = leader else { return };
        if leader == self.me {
            let _busy = self.brain.report(report); // the next one says the same
            return;
        }
        let (peers, quorum, within) = (self.peers.clone(), self.quorum.clone(), timing.lease);
        tokio::spawn(async move {
            if let Ok(heard) = peers.report(leader, report, within).await
                && heard.has_quorum
            {
                quorum.heard();
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
        for (ip, answer) in self.sources.outside.borrow().iter() {
            views.entry(ip.clone()).or_default().outside = Some(match answer {
                OutsideAnswer::Answered { node, token, .. } => {
                    OutsideView::Answered { node: *node, token: *token }
                }
                OutsideAnswer::Silent { detail } => OutsideView::Silent { detail: detail.clone() },
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
