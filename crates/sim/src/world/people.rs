//! What people want, and when: moves, aborts, pauses, drains, other timings, other nodes.

use super::World;
use crate::event::{Event, Work};
use std::sync::Arc;
use std::time::Duration;
use twinsite_controller::{MoveKind, MoveRequest, MoveTarget, OperatorAction, OperatorRequest};
use twinsite_model::spec::TimingOverrides;
use twinsite_model::{ClusterSpec, NodeId, RequestId, SafetyRule, UpstreamName};

impl World {
    /// Somebody wants something, and later something else.
    pub(super) fn people(&mut self) {
        if self.healed.is_some() {
            return;
        }
        if let Some(pause) = self.scenario.people {
            let pause = pause.draw(&mut self.rng);
            self.agenda.put(self.now + pause, Event::People);
        }
        let Some(node) = self.some_leader() else { return };
        if let Some(action) = self.wish(node) {
            let number = self.rng.u32(0..40);
            let request = if self.rng.bool() { RequestId::new(format!("wish-{number}")) } else { None };
            let revision = self.hosts[node].state.revision;
            let expected_revision = (self.rng.f64() < 0.1).then_some(revision);
            self.ask(node, OperatorRequest { by: "ada".to_owned(), request, expected_revision, action });
        }
        self.look_around(node);
    }

    /// Somebody who says that it leads; it may be wrong.
    fn some_leader(&mut self) -> Option<usize> {
        let leading: Vec<_> = (0..self.hosts.len())
            .filter(|node| self.hosts[*node].is_running() && self.hosts[*node].raft.leads().is_some())
            .collect();
        (!leading.is_empty()).then(|| leading[self.rng.usize(0..leading.len())])
    }

    pub(super) fn ask(&mut self, node: usize, request: OperatorRequest) {
        let delay = self.rng.u64(1_000..1_000_000);
        self.later(node, delay, Work::Operator(Box::new(request)));
    }

    fn wish(&mut self, node: usize) -> Option<OperatorAction> {
        let ip = self.ips[self.rng.usize(0..self.ips.len())].clone();
        let upstream = self.rng.usize(0..self.upstreams.len());
        Some(match self.rng.u32(0..100) {
            0..45 => OperatorAction::Move(self.wanted_move(ip)),
            45..58 => OperatorAction::Abort { ip, detail: "changed my mind".to_owned() },
            58..66 => OperatorAction::Pause {
                duration: Some(Duration::from_millis(self.rng.u64(1..2_000))),
                reason: "work".to_owned(),
            },
            66..72 => OperatorAction::Resume,
            72..80 => OperatorAction::SetDrain {
                upstream: self.upstream_name(upstream),
                draining: self.rng.bool(),
                within: None,
            },
            80..84 => OperatorAction::ResetBreaker,
            84..94 => OperatorAction::ApplySpec(Arc::new(self.other_spec(node)?)),
            94..98 => {
                let mut spec = self.hosts[node].state.spec.as_ref()?.nodes.first()?.clone();
                spec.api.set_port(self.rng.u16(7_000..8_000));
                OperatorAction::PutNode(spec)
            }
            _ => {
                let gone = NodeId(self.rng.u64(1..=4));
                let already = self.retired.is_some_and(|retired| retired != gone);
                if already {
                    return None;
                }
                self.retired = Some(gone);
                OperatorAction::RetireNode(gone)
            }
        })
    }

    pub(super) fn upstream_name(&self, upstream: usize) -> UpstreamName {
        self.scenario.spec.upstreams[upstream].name.clone()
    }

    fn wanted_move(&mut self, ip: twinsite_model::FloatingIpName) -> MoveRequest {
        let kind = if self.rng.f64() < 0.6 { MoveKind::Switchover } else { MoveKind::Failover };
        let to = match self.rng.u32(0..4) {
            0 => MoveTarget::Node(NodeId(self.rng.u64(1..=5))),
            1 => MoveTarget::Site(self.hosts[self.rng.usize(0..4)].site.clone()),
            _ => MoveTarget::Best,
        };
        let overrides = SafetyRule::ALL.into_iter().filter(|_| self.rng.f64() < 0.1).collect();
        MoveRequest { ip, kind, to, overrides }
    }

    /// The specification that is agreed on, with other timings.
    fn other_spec(&mut self, node: usize) -> Option<ClusterSpec> {
        let timings = &self.scenario.other_timings;
        if timings.is_empty() {
            return None;
        }
        let timing = timings[self.rng.usize(0..timings.len())];
        let spec = self.hosts[node].state.spec.as_ref()?;
        let drift_ppm = self.scenario.spec.timing.drift_ppm;
        Some(ClusterSpec { timing: TimingOverrides { drift_ppm, ..timing }, ..ClusterSpec::clone(spec) })
    }

    /// People look at everything; that must change nothing and never fail.
    fn look_around(&mut self, node: usize) {
        let host = &self.hosts[node];
        let (boot, wall) = (host.clock.boot(self.now), host.clock.wall(self.now));
        let Some(process) = &host.process else { return };
        let mut seen = 0;
        for ip in &self.ips {
            seen += u64::from(process.controller.explain(boot, wall, &host.state, ip).is_some());
            let request = MoveRequest {
                ip: ip.clone(),
                kind: MoveKind::Switchover,
                to: MoveTarget::Best,
                overrides: Vec::new(),
            };
            seen += u64::from(process.controller.plan(boot, wall, &host.state, &request).is_ok());
        }
        seen += process.controller.reports(boot, wall, &host.state).len() as u64;
        self.trace.mix(&[9, self.now, seen]);
    }
}
