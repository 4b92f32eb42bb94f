//! The one committed log, and the state that it gives: what every node must agree with.

use super::World;
use crate::raft::Entry;
use crate::violation::Rule;
use std::rc::Rc;
use twinsite_model::apply::Effect;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{
    Applied, Command, Fence, FloatingIpName, OperationId, OperationKind, Outcome, Proposal, State, Token,
};

/// The committed log and its state.
#[derive(Default)]
pub(super) struct Reference {
    log: Vec<Rc<Entry>>,
    /// What came of each entry.
    applied: Vec<Option<Applied>>,
    pub(super) state: State,
    pub(super) commands: u64,
}

impl Reference {
    pub(super) fn index(&self) -> u64 {
        self.log.len() as u64
    }

    /// Whether a node makes something else of an entry.
    pub(super) fn differs(&self, index: u64, applied: &Applied) -> bool {
        let known = self.applied.get(index as usize - 1);
        known.is_none_or(|known| known.as_ref() != Some(applied))
    }
}

impl World {
    /// A node knows that more is committed.
    pub(super) fn advance_reference(&mut self, node: usize) {
        let commit = self.hosts[node].raft.commit();
        while self.reference.index() < commit {
            let index = self.reference.index() + 1;
            let Some(entry) = self.hosts[node].raft.entry(index).cloned() else { return };
            self.reference.log.push(Rc::clone(&entry));
            let Some(proposal) = &entry.proposal else {
                self.reference.applied.push(None);
                continue;
            };
            self.reference.commands += 1;
            self.coverage.commands_committed += 1;
            let before = self.reference.state.session_token();
            let announced = matches!(proposal.command, Command::RecordAnnounced { .. })
                .then(|| self.reference.state.announced.clone());
            self.check_fenced(proposal);
            let applied = self.reference.state.apply(index, proposal);
            let after = self.reference.state.session_token();
            if after < before {
                self.violate(Rule::TokensGrow, || format!("the session token went from {before} to {after}"));
            }
            if let Some(announced) = announced {
                self.check_announced(&announced);
            }
            self.trace.mix(&[7, self.now, index, applied.revision.0, applied.events.len() as u64]);
            self.trace.note(self.now, || format!("#{index} {:?} => {:?}", proposal.command, applied.result));
            if applied.result.is_ok() {
                self.count(proposal, &applied);
            }
            self.reference.applied.push(Some(applied));
        }
        self.check_log(node, commit);
    }

    /// The newest committed entry that this node knows is everybody's.
    fn check_log(&mut self, node: usize, commit: u64) {
        let Some(newest) = commit.checked_sub(1) else { return };
        let known = self.hosts[node].raft.entry(commit);
        let same = known.is_some_and(|known| Rc::ptr_eq(known, &self.reference.log[newest as usize]));
        if !same {
            self.violate(Rule::SameState, || format!("node {} has another entry {commit}", node + 1));
        }
    }

    /// The state of a node that has applied everything is the reference's.
    pub(super) fn check_state(&mut self, node: usize) {
        let host = &self.hosts[node];
        let same = host.applied != self.reference.index() || host.state == self.reference.state;
        if !same {
            self.violate(Rule::SameState, || format!("node {} has another state", node + 1));
        }
    }

    fn count(&mut self, proposal: &Proposal, applied: &Applied) {
        let coverage = &mut self.coverage;
        let changed = applied.result != Ok(Effect::Unchanged);
        match &proposal.command {
            Command::BeginOperation { kind, .. } => {
                coverage.moves_begun += 1;
                match kind {
                    OperationKind::Placement => coverage.placements += 1,
                    OperationKind::Switchover => coverage.switchovers += 1,
                    OperationKind::Failback => coverage.failbacks += 1,
                    OperationKind::Failover | OperationKind::Forced => coverage.failovers += 1,
                }
                if *kind == OperationKind::Failover && proposal.by == "controller" {
                    coverage.automatic_failovers += 1;
                    self.check_breaker();
                }
            }
            Command::Assign { ip, .. } => self.check_token(&ip.clone()),
            Command::CompleteFence { fence: Fence::Released, .. } => coverage.fenced_by_release += 1,
            Command::CompleteFence { fence: Fence::LeaseEnded, .. } => coverage.fenced_by_wait += 1,
            Command::Retarget { .. } => coverage.retargeted += 1,
            Command::AbortOperation { .. } => coverage.aborted += 1,
            Command::CloseOperation { outcome: Outcome::Verified, .. } => coverage.verified += 1,
            Command::ApplySpec { .. } if changed => coverage.specifications_applied += 1,
            Command::RetireNode { .. } if changed => coverage.nodes_retired += 1,
            Command::Pause { .. } => coverage.pauses += 1,
            _ => {}
        }
    }

    /// The token that an operation takes away, if it is running in the agreed state.
    pub(super) fn token_taken(&self, ip: &FloatingIpName, operation: OperationId) -> Option<Token> {
        let running = self.reference.state.floating_ips.get(ip)?.operation.as_ref()?;
        (running.id == operation).then_some(running.from.as_ref()?.token)
    }

    /// The floating IPs that the agreed specification names.
    pub(super) fn agreed_ips(&self) -> &[FloatingIpSpec] {
        self.reference.state.spec.as_ref().map_or(&[], |spec| &spec.floating_ips)
    }
}
