//! From opinions to verdicts: a majority of the observers that can be heard. One node's bad cable takes out nothing.
//!
//! Damping (so many good or bad probes in a row) is the probes' work; here votes are counted. Only upstreams about
//! which somebody changed its mind, or whose verdict changed, are counted again, and all of them when the set of
//! observers changed.

use crate::report::{DETAIL_LENGTH_MAX, NodeReport, UpstreamView};
use std::collections::{BTreeMap, BTreeSet};
use twinsite_model::state::EVIDENCE_MAX;
use twinsite_model::{NewVerdict, NodeId, UpstreamName, Verdict};

/// What the observers say, and which upstreams must be counted again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opinions {
    votes: BTreeMap<UpstreamName, BTreeMap<NodeId, Vote>>,
    /// What each observer has an opinion of, so that what it leaves out can be withdrawn.
    voted: BTreeMap<NodeId, BTreeSet<UpstreamName>>,
    changed: BTreeSet<UpstreamName>,
    /// Whose opinions counted the last time.
    observers: BTreeSet<NodeId>,
    /// Votes looked at since the beginning: the work done, for the tests of growth.
    pub(crate) work: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Vote {
    healthy: bool,
    detail: String,
}

impl Opinions {
    /// Takes the opinions of a report in.
    pub(crate) fn take(&mut self, report: &NodeReport) {
        let Some(views) = &report.upstreams else { return };
        let before = self.voted.remove(&report.node).unwrap_or_default();
        let now: BTreeSet<_> = views.iter().map(|view| view.upstream.clone()).collect();
        for withdrawn in before.difference(&now) {
            if let Some(votes) = self.votes.get_mut(withdrawn) {
                votes.remove(&report.node);
            }
            self.changed.insert(withdrawn.clone());
        }
        for view in views {
            self.work += 1;
            self.vote(report.node, view);
        }
        self.voted.insert(report.node, now);
    }

    fn vote(&mut self, node: NodeId, view: &UpstreamView) {
        let votes = self.votes.entry(view.upstream.clone()).or_default();
        let detail = view.detail.chars().take(DETAIL_LENGTH_MAX).collect();
        let before = votes.insert(node, Vote { healthy: view.healthy, detail });
        if before.is_none_or(|before| before.healthy != view.healthy) {
            self.changed.insert(view.upstream.clone());
        }
    }

    /// What is agreed of these upstreams has changed, perhaps by a command that was given up as of unknown fate and came
    /// to pass after the votes had been counted.
    pub(crate) fn count_again(&mut self, upstreams: Vec<UpstreamName>) {
        self.changed.extend(upstreams);
    }

    /// Everything must be counted again: the state may differ from what was counted.
    pub(crate) fn count_all_again(&mut self) {
        self.observers.clear();
    }

    /// The verdicts that differ from `known`, given who is heard. `name` gives names for the evidence.
    pub(crate) fn due(
        &mut self,
        observers: &BTreeSet<NodeId>,
        known: impl Fn(&UpstreamName) -> Option<Verdict>,
        name: impl Fn(NodeId) -> String,
    ) -> Vec<NewVerdict> {
        let changed = std::mem::take(&mut self.changed);
        let mut due = Vec::new();
        if *observers == self.observers {
            for upstream in &changed {
                due.extend(self.differing(observers, upstream, &known, &name));
            }
        } else {
            self.observers.clone_from(observers);
            let all: Vec<_> = self.votes.keys().cloned().collect();
            for upstream in &all {
                due.extend(self.differing(observers, upstream, &known, &name));
            }
        }
        due
    }

    fn differing(
        &mut self,
        observers: &BTreeSet<NodeId>,
        upstream: &UpstreamName,
        known: &impl Fn(&UpstreamName) -> Option<Verdict>,
        name: &impl Fn(NodeId) -> String,
    ) -> Option<NewVerdict> {
        let votes = self.votes.get(upstream)?;
        self.work += votes.len() as u64;
        let known = known(upstream)?;
        let counted = || votes.iter().filter(|(node, _)| observers.contains(node));
        let good = counted().filter(|(_, vote)| vote.healthy).count();
        let bad = counted().count() - good;
        let health = verdict(observers.len(), good, bad)?;
        if health == known {
            return None;
        }
        let line = |(node, vote): (&NodeId, &Vote)| {
            let word = if vote.healthy { "good" } else { "bad" };
            format!("{}: {word} ({})", name(*node), vote.detail)
        };
        let evidence = counted().take(EVIDENCE_MAX).map(line).collect();
        Some(NewVerdict { upstream: upstream.clone(), health, evidence })
    }
}

/// The opinion of a majority of the observers that can be heard; none while there is no majority either way, and
/// then the verdict stays what it was.
fn verdict(observers: usize, good: usize, bad: usize) -> Option<Verdict> {
    let quorum = observers / 2 + 1;
    if good >= quorum {
        Some(Verdict::Healthy)
    } else if bad >= quorum {
        Some(Verdict::Unhealthy)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::Incarnation;

    fn upstream(name: &str) -> UpstreamName {
        UpstreamName::new(name).unwrap()
    }

    fn report(node: u64, views: &[(&str, bool)]) -> NodeReport {
        let view = |(name, healthy): &(&str, bool)| UpstreamView {
            upstream: upstream(name),
            healthy: *healthy,
            detail: "probed".to_owned(),
        };
        let upstreams = Some(views.iter().map(view).collect());
        NodeReport { upstreams, ..NodeReport::empty(NodeId(node), Incarnation(1), 1) }
    }

    fn due(opinions: &mut Opinions, nodes: &[u64], known: Verdict) -> Vec<(UpstreamName, Verdict)> {
        let observers = nodes.iter().copied().map(NodeId).collect();
        let due = opinions.due(&observers, |_| Some(known), |node| format!("n{node}"));
        due.into_iter().map(|verdict| (verdict.upstream, verdict.health)).collect()
    }

    #[test]
    fn one_bad_cable_takes_out_nothing() {
        let mut opinions = Opinions::default();
        opinions.take(&report(1, &[("m1", false), ("m2", false)]));
        opinions.take(&report(2, &[("m1", true), ("m2", true)]));
        opinions.take(&report(3, &[("m1", true), ("m2", false)]));
        let due = due(&mut opinions, &[1, 2, 3], Verdict::Healthy);
        assert_eq!(due, [(upstream("m2"), Verdict::Unhealthy)]);
    }

    #[test]
    fn a_tie_changes_nothing_and_silence_of_the_others_breaks_it() {
        let mut opinions = Opinions::default();
        opinions.take(&report(1, &[("m1", false)]));
        opinions.take(&report(2, &[("m1", true)]));
        assert_eq!(due(&mut opinions, &[1, 2], Verdict::Healthy), []);
        assert_eq!(due(&mut opinions, &[1], Verdict::Healthy), [(upstream("m1"), Verdict::Unhealthy)]);
    }

    #[test]
    fn the_first_to_speak_does_not_decide_for_those_who_are_heard() {
        let mut opinions = Opinions::default();
        opinions.take(&report(1, &[("m1", true)]));
        assert_eq!(due(&mut opinions, &[1, 2, 3], Verdict::Unknown), []);
        opinions.take(&report(2, &[("m1", true)]));
        assert_eq!(due(&mut opinions, &[1, 2, 3], Verdict::Unknown), [(upstream("m1"), Verdict::Healthy)]);
    }

    #[test]
    fn a_report_without_a_list_changes_no_mind_and_one_that_leaves_out_withdraws() {
        let mut opinions = Opinions::default();
        opinions.take(&report(1, &[("m1", true)]));
        let silent = NodeReport { upstreams: None, ..report(1, &[]) };
        opinions.take(&silent);
        assert_eq!(due(&mut opinions, &[1], Verdict::Unknown).len(), 1);
        opinions.take(&report(1, &[]));
        assert_eq!(due(&mut opinions, &[1], Verdict::Unknown), []);
    }

    #[test]
    fn a_change_of_one_mind_counts_one_upstream_again() {
        let names: Vec<_> = (0..1_000).map(|n| format!("m{n}")).collect();
        let mut views: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
        let mut opinions = Opinions::default();
        for node in 1..=5 {
            opinions.take(&report(node, &views));
        }
        due(&mut opinions, &[1, 2, 3, 4, 5], Verdict::Healthy);
        views[7].1 = false;
        let changed = report(1, &views);
        let before = opinions.work;
        opinions.take(&changed);
        due(&mut opinions, &[1, 2, 3, 4, 5], Verdict::Healthy);
        assert_eq!(opinions.work - before, 1_000 + 5, "the report once, and the votes of one upstream");
    }
}
