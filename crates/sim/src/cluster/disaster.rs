//! All machines but one are lost for good, and a person has the survivor go on alone. One of the lost comes back after
//! all, with its disk, and must not take part any more.

use super::life::{Life, MS};
use super::people::Heard;
use crate::runtime::{Executor, ProcessId, SimRuntime, spawn};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use twinsite_agents::{LostNode, RecoveryNote};
use twinsite_consensus::{AsyncRuntime, recover_disk};
use twinsite_model::Generation;

/// How long a person needs to decide, at most.
const DECIDED_WITHIN: Duration = Duration::from_secs(2);

/// What became of the cluster.
#[derive(Debug, Default)]
pub(super) struct Disaster {
    /// The machines that are gone.
    pub(super) lost: BTreeSet<usize>,
    /// One of them that comes back.
    pub(super) returns: Option<usize>,
    /// Whose disk a person is working on.
    pub(super) recovering: Option<usize>,
    /// What the survivor's next starts find.
    pub(super) note: Option<(usize, RecoveryNote)>,
}

impl Disaster {
    /// Whether a machine may be started.
    pub(super) fn allows(&self, node: usize) -> bool {
        self.recovering != Some(node) && (!self.lost.contains(&node) || self.returns == Some(node))
    }
}

impl Life {
    /// The survivor is a node that could hold an address, and has been a member. Once in a life, and only of a cluster
    /// that nobody is changing: an operator who has just replaced a machine knows which of the two is the member.
    pub(super) fn disaster(&mut self) {
        let survivors: Vec<_> = (0..self.nodes.len()).filter(|node| self.could_survive(*node)).collect();
        let damaged = self.nodes.iter().any(|node| node.disk.is_damaged());
        if damaged || !self.disaster.lost.is_empty() || self.replacement.is_some() || survivors.is_empty() {
            return;
        }
        let survivor = survivors[self.random.usize(..survivors.len())];
        self.count("disasters", 1);
        for node in 0..self.nodes.len() {
            self.power_off(node);
        }
        let lost: BTreeSet<_> = (0..self.nodes.len()).filter(|node| *node != survivor).collect();
        let named = lost.iter().map(|node| {
            let id = self.nodes[*node].id;
            LostNode { id, name: format!("node-{id}") }
        });
        let note = RecoveryNote { generation: Generation(2), lost: named.collect(), attested: true };
        let back = lost.iter().copied().nth(self.random.usize(..lost.len()));
        self.disaster = Disaster { lost, returns: None, recovering: Some(survivor), note: None };
        // Whoever recovers a node first makes room on its disk.
        let health = self.plan.disk;
        self.nodes[survivor].disk.set_health(|present| *present = health);
        let decided = Duration::from_nanos(self.around(DECIDED_WITHIN / 2));
        let (disk, id) = (self.nodes[survivor].disk.clone(), self.nodes[survivor].id);
        let heard = Arc::clone(&self.heard);
        drop(spawn(ProcessId::WORLD, async move {
            SimRuntime::sleep(decided).await;
            let recovered =
                recover_disk(&disk, id, note.generation).await.map(drop).map_err(|error| error.to_string());
            let what = Heard::Recovered(recovered.map(|()| (survivor, note, back)));
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        }));
    }

    fn could_survive(&self, node: usize) -> bool {
        let (id, place) = (self.nodes[node].id, self.plan.spec.nodes.get(node));
        let may_own = place.is_some_and(|node| node.kind.may_own());
        may_own
            && self.nodes[node].raft().is_some_and(|raft| {
                let status = raft.status().borrow().clone();
                let is_voter = status.voters().any(|voter| voter == id);
                is_voter && !status.is_changing && raft.state().spec.is_some()
            })
    }

    /// The survivor's disk is rewritten.
    pub(super) fn recovered(&mut self, (survivor, note, back): (usize, RecoveryNote, Option<usize>)) {
        let id = self.nodes[survivor].id;
        self.note(|| format!("{id} goes on alone in generation {}", note.generation));
        self.disaster.recovering = None;
        self.disaster.note = Some((survivor, note));
        self.disaster.returns = back;
        self.start(survivor);
        if let Some(back) = back {
            self.start_within(back, 6_000 * MS);
        }
    }

    /// Nodes that are to be well in the end.
    pub(super) fn kept(&self) -> impl Iterator<Item = &super::node::Node> {
        let kept = self.nodes.iter().enumerate().filter(|(place, _)| !self.disaster.lost.contains(place));
        kept.map(|(_, node)| node)
    }

    fn power_off(&mut self, node: usize) {
        let _missed = Executor::go_on(self.nodes[node].machine);
        self.nodes[node].power_off();
    }
}
