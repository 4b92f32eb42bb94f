//! People who watch: each sees every change of its node once, in order, with the events that everybody else sees.

use super::Mistake;
use super::process::Raft;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use twinsite_model::{ErrandEnd, Event, Generation, NodeId, Revision};

/// Without a break: from where on somebody watched, and what came.
struct Stretch {
    node: NodeId,
    generation: Generation,
    from: Revision,
    seen: BTreeSet<Revision>,
    last: Revision,
}

/// What all of them have seen. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    events: BTreeMap<(Generation, Revision), Vec<Event>>,
    stretches: Vec<Stretch>,
    wrong: Option<String>,
    snapshots: u64,
    snapshots_in_a_move: u64,
}

impl Watches {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a node until its process ends.
    pub(super) async fn watch(self, node: NodeId, raft: Raft, mistake: Option<Mistake>) {
        let misses = mistake == Some(Mistake::WatchMisses);
        let mut passed = 0_u64;
        loop {
            let (state, mut changes) = raft.subscribe();
            let mut stretch = self.seen().begin(node, raft.generation(), state.revision);
            while let Ok(change) = changes.next().await {
                passed += 1;
                if misses && passed.is_multiple_of(100) {
                    continue;
                }
                let mut seen = self.seen();
                if change.skipped {
                    let moves = change.state.floating_ips.values().any(|ip| ip.operation.is_some());
                    seen.snapshots += 1;
                    seen.snapshots_in_a_move += u64::from(moves);
                    stretch = seen.begin(node, raft.generation(), change.revision);
                } else {
                    seen.note(stretch, change.revision, &change.events);
                }
            }
            if raft.status().borrow().stopped.is_some() {
                return;
            }
        }
    }

    /// How many snapshots came to nodes that were watched, and how many of them while an address was being moved.
    pub(super) fn snapshots(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.snapshots, seen.snapshots_in_a_move)
    }

    /// How many errands at a provider ended in this way.
    pub(super) fn errands(&self, end: ErrandEnd) -> u64 {
        let seen = self.seen();
        let events = seen.events.values().flatten();
        events.filter(|event| matches!(event, Event::ErrandEnded { end: known, .. } if *known == end)).count()
            as u64
    }

    /// What is wrong with what they saw, now that nothing more comes.
    pub(super) fn verdict(&self) -> Option<String> {
        let seen = self.seen();
        let missed = |stretch: &Stretch| {
            let era = (stretch.generation, stretch.from)..=(stretch.generation, stretch.last);
            let all = seen.events.range(era).map(|((_, revision), _)| *revision);
            let missed =
                all.filter(|revision| *revision > stretch.from).find(|all| !stretch.seen.contains(all))?;
            Some(format!(
                "who watched {} from {} to {} did not see {missed}",
                stretch.node, stretch.from, stretch.last
            ))
        };
        seen.wrong.clone().or_else(|| seen.stretches.iter().find_map(missed))
    }
}

impl Seen {
    fn begin(&mut self, node: NodeId, generation: Generation, from: Revision) -> usize {
        self.stretches.push(Stretch { node, generation, from, seen: BTreeSet::new(), last: from });
        self.stretches.len() - 1
    }

    fn note(&mut self, stretch: usize, revision: Revision, events: &[Event]) {
        let generation = self.stretches[stretch].generation;
        let known = self.events.entry((generation, revision)).or_insert_with(|| events.to_vec());
        let other = known.as_slice() != events;
        let stretch = &mut self.stretches[stretch];
        if other {
            self.wrong = Some(format!(
                "{} tells of other events at {revision} than were seen there before",
                stretch.node
            ));
        }
        if revision <= stretch.last {
            self.wrong = Some(format!("{} tells of {revision} after {}", stretch.node, stretch.last));
        }
        stretch.last = revision;
        stretch.seen.insert(revision);
    }
}
