//! What is left to do after a forced recovery: which generation to announce, and what was attested.

use serde::{Deserialize, Serialize};
use twinsite_model::{FloatingIpName, Generation, NodeId, State};

/// A node that a person named as lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostNode {
    /// Its id, which never comes back. (Its name may.)
    pub id: NodeId,
    /// Its name then.
    pub name: String,
}

/// Written by `twinsite recover`, read by every later start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryNote {
    /// The generation that began.
    pub generation: Generation,
    /// The voters that were named as lost.
    pub lost: Vec<LostNode>,
    /// Whether a person attested that they are powered off.
    pub attested: bool,
}

/// What of a forced recovery is not agreed on yet. Each part may fail and be tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The generation to announce, and the statement for the history. Before that nothing else may be decided.
    pub generation: Option<(Generation, String)>,
    /// Addresses whose owner was attested to be off, and which are not moved yet.
    pub moves: Vec<FloatingIpName>,
    /// Lost nodes that are not removed for good yet.
    pub retire: Vec<NodeId>,
}

impl RecoveryNote {
    /// The sentence for the replicated history.
    pub fn statement(&self) -> String {
        let names: Vec<_> = self.lost.iter().map(|node| node.name.as_str()).collect();
        let attested =
            if self.attested { "attested to be powered off" } else { "not attested to be powered off" };
        format!("lost: {} ({attested})", names.join(", "))
    }

    fn lost(&self, node: NodeId) -> bool {
        self.lost.iter().any(|lost| lost.id == node)
    }
}

/// What is left to do of the recovery that began the generation of this node's disk.
pub fn unfinished(note: Option<&RecoveryNote>, disk: Generation, state: &State) -> Unfinished {
    let note = note.filter(|note| note.generation == disk);
    let mut left = Unfinished::default();
    if state.generation < disk {
        let unknown = || "a forced recovery whose note is gone: what was lost is not known".to_owned();
        left.generation = Some((disk, note.map_or_else(unknown, RecoveryNote::statement)));
    }
    let Some(note) = note else { return left };
    let Some(spec) = &state.spec else { return left };
    if note.attested {
        let waiting = state.floating_ips.iter().filter(|(_, entry)| {
            let owner = entry.owner.as_ref();
            let of_the_lost =
                owner.is_some_and(|owner| owner.token.generation < disk && note.lost(owner.node));
            of_the_lost && entry.operation.is_none()
        });
        left.moves = waiting.map(|(ip, _)| ip.clone()).collect();
    }
    left.retire = spec.nodes.iter().map(|node| node.id).filter(|node| note.lost(*node)).collect();
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use twinsite_model::ClusterSpec;

    fn spec() -> ClusterSpec {
        twinsite_model::spec::from_toml(include_str!("../../../deploy/example/cluster.toml")).unwrap()
    }

    #[test]
    fn every_part_is_left_to_do_until_it_is_done() {
        let mut state = State::default();
        let whole = spec();
        let lost = whole.nodes[1].id;
        state.spec = Some(Arc::new(whole));
        let note = RecoveryNote {
            generation: Generation(2),
            lost: vec![LostNode { id: lost, name: "two".to_owned() }],
            attested: true,
        };

        // The recovery did not come to pass: the note says nothing.
        assert_eq!(unfinished(Some(&note), Generation(1), &state), Unfinished::default());
        let left = unfinished(Some(&note), Generation(2), &state);
        assert_eq!(left.generation, Some((Generation(2), note.statement())));
        assert_eq!(left.retire, [lost]);
        // The generation was announced, and then the leader failed: the rest is still left.
        state.generation = Generation(2);
        let left = unfinished(Some(&note), Generation(2), &state);
        assert_eq!((left.generation, left.retire), (None, vec![lost]));
        let mut without = spec();
        without.nodes.remove(1);
        state.spec = Some(Arc::new(without));
        assert_eq!(unfinished(Some(&note), Generation(2), &state), Unfinished::default());
        // Without the note the generation is announced all the same.
        let left = unfinished(None, Generation(3), &state);
        assert!(left.generation.is_some_and(|(generation, _)| generation == Generation(3)));
        assert_eq!(left.retire, []);
    }
}
