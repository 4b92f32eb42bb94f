//! What this node sees: probes, what was read back, what it holds and serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};
use twinsite_agents::{AllHands, Changed, Observations};
use twinsite_controller::report::REPORT_ROOMS_MAX;
use twinsite_controller::{
    AnnouncedView, FloatingIpView, LoadView, NodeReport, OutsideView, StoreView, UpstreamView,
};
use twinsite_health::{Opinion, OutsideAnswer};
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{FloatingIpName, Format, Incarnation, NodeId, Revision, State, Token, UpstreamName};
use twinsite_proxy::Proxy;
use twinsite_sessions::{Sessions, StoreStatus};

/// Where observations are found.
pub struct Sources {
    /// This node.
    pub me: NodeId,
    /// This life.
    pub incarnation: Incarnation,
    /// Opinions of upstreams.
    pub upstreams: watch::Receiver<Arc<BTreeMap<UpstreamName, Opinion>>>,
    /// What floating IPs answered from outside.
    pub outside: watch::Receiver<Arc<BTreeMap<FloatingIpName, OutsideAnswer>>>,
    /// What instances were read back to announce.
    pub announced: watch::Receiver<BTreeMap<UpstreamName, Option<IpAddr>>>,
    /// The token under which the announcement was last derived.
    pub announced_token: Arc<Mutex<Token>>,
    /// The floating IPs that this node may hold.
    pub hands: AllHands,
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

impl Observations for Sources {
    fn report(&self, state: &State, seq: u64, full: bool) -> NodeReport {
        let embedded =
            state.spec.as_ref().is_none_or(|spec| spec.sessions.store == SessionStoreKind::Embedded);
        let load = self.proxy.as_ref().map(|proxy| (proxy.load(), proxy.live_rooms()));
        let rooms: BTreeSet<_> =
            load.iter().flat_map(|(_, rooms)| rooms.iter().map(|(room, _)| *room)).collect();
        let peers_heard = self.peers_heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        NodeReport {
            node: self.me,
            incarnation: self.incarnation,
            seq,
            format_max: Format::NEWEST,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: Revision(state.revision.0),
            not_ready: self.not_ready(state),
            draining: self.draining.load(Ordering::Relaxed),
            store: self.store(),
            peers_heard,
            upstreams: full.then(|| self.upstreams()),
            floating_ips: self.floating_ips(state),
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

    async fn changed(&mut self) -> Changed {
        tokio::select! {
            Ok(()) = self.upstreams.changed() => Changed::Opinions,
            () = self.changed.notified() => Changed::Rest,
            Ok(()) = self.outside.changed() => Changed::Rest,
            Ok(()) = self.announced.changed() => Changed::Rest,
        }
    }
}

/// What of an answer is told to others.
pub fn outside_view(answer: OutsideAnswer) -> OutsideView {
    match answer {
        OutsideAnswer::Answered { node, token, .. } => OutsideView::Answered { node, token },
        OutsideAnswer::Silent { detail } => OutsideView::Silent { detail },
    }
}

impl Sources {
    fn not_ready(&self, state: &State) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        if self.upstreams.borrow().is_empty() {
            return Some("no upstream has been probed yet".to_owned());
        }
        let mut ips = state.spec.iter().flat_map(|spec| &spec.floating_ips);
        if !ips.any(|ip| !ip.tls_ports.is_empty()) {
            return None;
        }
        let certificates = proxy.certificates();
        certificates.nobody_because().map(|why| format!("it has no certificate: {why}"))
    }

    fn store(&self) -> StoreView {
        let status = *self.sessions.store_status().borrow();
        match status {
            StoreStatus::Up { role: twinsite_sessions::Role::Embedded, .. } => StoreView::Embedded,
            StoreStatus::Up { .. } => StoreView::Reachable,
            StoreStatus::Down { why, .. } => StoreView::Unreachable { detail: why.to_string() },
        }
    }

    fn upstreams(&self) -> Vec<UpstreamView> {
        let opinions = self.upstreams.borrow();
        let views = opinions.iter().map(|(upstream, opinion)| UpstreamView {
            upstream: upstream.clone(),
            healthy: opinion.healthy,
            detail: opinion.detail.clone(),
        });
        views.collect()
    }

    fn floating_ips(&self, state: &State) -> BTreeMap<FloatingIpName, FloatingIpView> {
        let mut views: BTreeMap<FloatingIpName, FloatingIpView> = BTreeMap::new();
        for (ip, answer) in self.outside.borrow().iter() {
            let ours =
                state.spec.as_ref().map_or_else(|| answer.clone(), |spec| answer.for_cluster(&spec.cluster));
            views.entry(ip.clone()).or_default().outside = Some(outside_view(ours));
        }
        for (ip, hands) in self.hands.now().iter() {
            let view = views.entry(ip.clone()).or_default();
            let seen = hands.observe();
            (view.held, view.stranger) = (seen.attached, seen.stranger);
            view.drained = hands.drained();
        }
        views
    }

    fn announced(&self) -> Vec<AnnouncedView> {
        let token = *self.announced_token.lock().unwrap_or_else(PoisonError::into_inner);
        let announced = self.announced.borrow();
        let views = announced.iter().filter_map(|(upstream, address)| {
            Some(AnnouncedView { upstream: upstream.clone(), address: (*address)?, token })
        });
        views.collect()
    }
}
