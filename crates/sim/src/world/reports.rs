//! What each node tells the leader.

use super::{World, place};
use crate::clock::nanos;
use crate::event::{Packet, Timer};
use std::collections::{BTreeMap, BTreeSet};
use twinsite_controller::report::report_interval;
use twinsite_controller::{
    AnnouncedView, FloatingIpView, LoadView, NodeReport, OutsideView, StoreView, UpstreamView,
};
use twinsite_model::spec::{AnnounceMode, SessionStoreKind};
use twinsite_model::{Format, Step, Token};

/// A full list of opinions goes with every so many reports.
const FULL_EVERY: u64 = 10;

impl World {
    /// Something changed that a failover waits for.
    pub(super) fn report_soon(&mut self, node: usize) {
        let delay = self.rng.u64(10_000..300_000);
        self.set_timer(node, Timer::Report, self.now + delay);
    }

    /// Reports, and sets the time of the next report.
    pub(super) fn report(&mut self, node: usize) {
        let host = &self.hosts[node];
        let timing = host.state.spec.as_ref().map_or(self.timing(), |spec| spec.timing());
        self.set_timer(node, Timer::Report, self.now + nanos(report_interval(&timing)));
        let Some(leader) = self.known_leader(node) else { return };
        let Some(process) = &mut self.hosts[node].process else { return };
        process.reports += 1;
        let full = process.reported_to != Some(leader) || process.reports % FULL_EVERY == 0;
        process.reported_to = Some(leader);
        process.report_at_once = false;
        if let Some(report) = self.observe(node, full) {
            self.send(node, leader, Packet::Report(report));
        }
    }

    /// What a node observes now.
    fn observe(&mut self, node: usize, full: bool) -> Option<NodeReport> {
        let noisy = self.chance(self.scenario.noise);
        let changed = self.chance(0.2);
        let floating_ips = self.floating_ip_views(node);
        let announced = self.announced_views(node);
        let host = &self.hosts[node];
        let process = host.process.as_ref()?;
        let redis =
            host.state.spec.as_ref().is_some_and(|spec| spec.sessions.store == SessionStoreKind::Redis);
        let store = match (redis, noisy) {
            (false, _) => StoreView::Embedded,
            (true, false) => StoreView::Reachable,
            (true, true) => StoreView::Unreachable { detail: "timed out".to_owned() },
        };
        let upstreams = (host.kind.serves() && (full || changed)).then(|| {
            let spec = &self.scenario.spec;
            let view = |(place, upstream): (usize, &twinsite_model::spec::UpstreamSpec)| UpstreamView {
                upstream: upstream.name.clone(),
                healthy: self.upstreams[place] != noisy,
                detail: String::new(),
            };
            spec.upstreams.iter().enumerate().map(view).collect()
        });
        let heard = |other: &usize| {
            *other != node
                && self.hosts[*other].is_running()
                && self.passes(*other, node)
                && self.passes(node, *other)
        };
        let peers_heard: BTreeSet<_> =
            (0..self.hosts.len()).filter(heard).map(|other| self.hosts[other].id).collect();
        Some(NodeReport {
            node: host.id,
            incarnation: process.incarnation,
            seq: process.reports,
            format_max: Format::NEWEST,
            version: String::new(),
            applied: host.state.revision,
            not_ready: None,
            draining: process.leaving.is_some(),
            store,
            peers_heard,
            upstreams,
            floating_ips,
            announced,
            rooms_in_use: Vec::new(),
            load: LoadView::default(),
        })
    }

    fn floating_ip_views(&mut self, node: usize) -> BTreeMap<twinsite_model::FloatingIpName, FloatingIpView> {
        let now = self.now;
        let mut views = BTreeMap::new();
        for ip in 0..self.ips.len() {
            let outside = Some(self.seen_from(node, ip));
            let held = self.hosts[node].answers(now, ip);
            let drained = self.drained(node, ip);
            views.insert(
                self.ips[ip].clone(),
                FloatingIpView { held, drained, outside, ..FloatingIpView::default() },
            );
        }
        views
    }

    /// What a request through the address is answered by.
    fn seen_from(&self, node: usize, ip: usize) -> OutsideView {
        let holder =
            (0..self.hosts.len()).find_map(|other| Some((other, self.hosts[other].answers(self.now, ip)?)));
        match holder {
            Some((other, token)) if self.passes(node, other) && self.passes(other, node) => {
                OutsideView::Answered { node: self.hosts[other].id, token }
            }
            _ => OutsideView::Silent { detail: String::new() },
        }
    }

    /// The token under which nothing runs here any more: a while after the journal asked for that.
    fn drained(&mut self, node: usize, ip: usize) -> Option<Token> {
        let now = self.now;
        let host = &mut self.hosts[node];
        let operation = host.state.floating_ips.get(&self.ips[ip])?.operation.as_ref()?;
        let from = operation.from.as_ref()?;
        if operation.current() != Some(Step::Drain) || place(from.node) != Some(node) {
            return None;
        }
        let seat = &mut host.process.as_mut()?.seats[ip];
        if seat.drains_since.is_none_or(|(token, _)| token != from.token) {
            let takes = self.rng.u64(0..400_000_000);
            seat.drains_since = Some((from.token, now + takes));
        }
        seat.drains_since.filter(|(_, done)| now >= *done).map(|(token, _)| token)
    }

    /// What the instances of this node's site were read back to announce, and the token from which this node would
    /// derive it now.
    fn announced_views(&self, node: usize) -> Vec<AnnouncedView> {
        let host = &self.hosts[node];
        let Some(spec) = &host.state.spec else { return Vec::new() };
        let Some(site) = spec.site(&host.site).filter(|site| !site.witness) else { return Vec::new() };
        let owned = spec.floating_ips.iter().find(|ip| host.state.owner_site(&ip.name) == Some(&site.name));
        let address = match (site.announce, owned) {
            (AnnounceMode::Floating, Some(ip)) => Some(ip.address),
            _ => site.announced_ip,
        };
        let Some(address) = address else { return Vec::new() };
        let token = host.state.session_token();
        let here = spec.upstreams.iter().filter(|upstream| upstream.site == site.name);
        here.map(|upstream| AnnouncedView { upstream: upstream.name.clone(), address, token }).collect()
    }
}
