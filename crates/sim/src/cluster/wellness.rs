//! Whether all is well again, and if not, what is wrong.

use super::announced;
use super::life::Life;
use super::node::Node;
use super::process::Raft;
use std::time::Duration;
use twinsite_model::{FloatingIpName, State, Verdict};

/// How long after its time a drill may still stand: the leader ends it at once, and its clock may be counted on slowly.
const DRILL_LATE: Duration = Duration::from_secs(5);

/// A drill that nobody ended although its time is over.
fn overdue(state: &State) -> Option<String> {
    let drill = state.drill.as_ref().filter(|drill| state.wall.since(drill.until) > DRILL_LATE)?;
    Some(format!("drill {} should be over since {}", drill.id, drill.until))
}

impl Life {
    /// The first thing that is not as it should be: one leads, everybody has what was acknowledged last, what all
    /// upstreams are is agreed on, every address is answered for by its agreed owner, every instance announces what
    /// follows from that, and everybody of a room is together.
    pub(super) fn what_is_wrong(&self) -> Option<String> {
        if let Some(replacement) = self.replacement {
            return Some(format!("{replacement:?} is not over"));
        }
        if self.disaster.recovering.is_some() {
            return Some("a forced recovery is not over".to_owned());
        }
        let rafts: Vec<_> = self.kept().filter_map(Node::raft).collect();
        let Some(first) = rafts.first().filter(|_| rafts.len() == self.kept().count()) else {
            return Some(format!("{} of {} nodes run", rafts.len(), self.kept().count()));
        };
        let state = first.state();
        self.what_is_wrong_with_the_log(&rafts)
            .or_else(|| self.what_is_misjudged(&state))
            .or_else(|| self.addresses.all().find_map(|ip| self.what_is_wrong_with(ip, &state)))
            .or_else(|| self.misannounced(&state))
            .or_else(|| self.what_is_wrong_with_rooms())
            .or_else(|| overdue(&state))
    }

    fn what_is_wrong_with_the_log(&self, rafts: &[Raft]) -> Option<String> {
        let leaders = rafts.iter().filter(|raft| raft.status().borrow().is_leader).count();
        if leaders != 1 {
            return Some(format!("{leaders} nodes lead"));
        }
        let revisions: Vec<_> = rafts.iter().map(|raft| (raft.generation(), raft.state().revision)).collect();
        if revisions.iter().any(|revision| *revision != revisions[0]) {
            return Some(format!("nodes are at {revisions:?}"));
        }
        let acknowledged = self.oracle.acknowledged();
        (revisions[0] < acknowledged)
            .then(|| format!("nodes are at {:?}, and {acknowledged:?} was acknowledged", revisions[0]))
    }

    fn what_is_misjudged(&self, state: &State) -> Option<String> {
        let mut upstreams = self.plan.spec.upstreams.iter().map(|upstream| &upstream.name);
        let misjudged = upstreams.find(|upstream| state.verdict(upstream) != Verdict::Healthy)?;
        Some(format!("{misjudged} is well, and agreed to be {:?}", state.verdict(misjudged)))
    }

    fn what_is_wrong_with(&self, ip: &FloatingIpName, state: &State) -> Option<String> {
        let owner = state.owner(ip).map(|owner| (owner.node, owner.token));
        let answering = self.addresses.answers(ip);
        if owner.is_none() || answering != owner {
            return Some(format!("{ip} is owned by {owner:?}, and answered for by {answering:?}"));
        }
        let routing = self.provider.routing(ip)?;
        let errand = state.floating_ips[ip].errand.as_ref();
        let is_well = !routing.busy && routing.to == owner.map(|(node, _)| node) && errand.is_none();
        (!is_well).then(|| format!("{ip} is owned by {owner:?}, and {routing:?} with {errand:?}"))
    }

    /// Instances of a site that was lost for good are told nothing any more.
    fn misannounced(&self, state: &State) -> Option<String> {
        let places = self.nodes.iter().zip(&self.plan.spec.nodes);
        let kept = places.filter(|(node, _)| self.kept().any(|kept| kept.id == node.id));
        let sites = kept.map(|(_, place)| place.site.clone()).collect();
        announced::misannounced(&self.files, state, &sites)
    }

    /// How every node and every address stands, for who has to find out why.
    pub(super) fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let what = node.raft().map(|raft| describe_node(&raft)).or_else(|| node.refusal());
            format!(" {}: {};", node.id, what.unwrap_or_else(|| "starting".to_owned()))
        });
        let addresses = self.addresses.all().map(|ip| {
            let owners = self.nodes.iter().filter_map(Node::raft).map(|raft| {
                let state = raft.state();
                let entry = state.floating_ips.get(ip);
                entry.map(|entry| {
                    (entry.owner.as_ref().map(|owner| (owner.node, owner.token)), entry.operation.clone())
                })
            });
            let (owners, answers) = (owners.collect::<Vec<_>>(), self.addresses.answers(ip));
            let routing = self.provider.routing(ip);
            format!(" {ip}: answered by {answers:?}, owned by {owners:?}, provider {routing:?};")
        });
        nodes.chain(addresses).collect()
    }
}

fn describe_node(raft: &Raft) -> String {
    let (status, state) = (raft.status().borrow().clone(), raft.state());
    let formats: Vec<_> = state.nodes.values().map(|life| life.format_max.0).collect();
    let (revision, format, stopped) = (state.revision, state.format.0, &status.stopped);
    let role = if status.is_leader { "leader" } else { "follower" };
    let leads = if status.is_leader {
        format!(", changing {}, members {:?}", status.is_changing, status.members)
    } else {
        String::new()
    };
    let term = status.term;
    format!(
        "{role} of term {term}, state {revision} in format {format} of {formats:?}, stopped {stopped:?}{leads}"
    )
}
