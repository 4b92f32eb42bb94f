//! What the operators want, and how it may change while nodes act by it.

use super::{Handled, Refusal, upstream_names};
use crate::apply::Effect;
use crate::event::Event;
use crate::ids::{FloatingIpName, NodeId, Revision};
use crate::spec::{ClusterSpec, FloatingIpSpec, NodeSpec, to_json, validate};
use crate::state::{EARLIER_SPECS_BYTES_MAX, EARLIER_SPECS_MAX, EarlierSpec, Format, State};
use crate::ticket_keys::{self, TicketKey, TicketSecret};
use crate::time::WallTime;
use crate::timing::LeaseBound;
use std::sync::Arc;

impl State {
    pub(super) fn apply_spec(&mut self, revision: Revision, spec: &Arc<ClusterSpec>, by: &str) -> Handled {
        if self.cluster().is_some_and(|cluster| *cluster != spec.cluster) {
            return Err(Refusal::OtherCluster);
        }
        if let Some(retired) = spec.nodes.iter().find(|node| self.retired_nodes.contains(&node.id)) {
            return Err(Refusal::RetiredNode(retired.id));
        }
        if self.spec.as_ref() == Some(spec) {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        if let Some(known) = self.spec.clone() {
            // An old file must not take nodes out by leaving them out.
            if let Some(missing) = known.nodes.iter().find(|node| spec.node(node.id).is_none()) {
                return Err(Refusal::NodeMissing(missing.id));
            }
            for node in &spec.nodes {
                keeps_its_vote(&known, node)?;
            }
            self.floating_ips_may_change(&known, spec)?;
        }
        self.remember_spec(by);
        self.install_spec(revision, Arc::clone(spec));
        Ok((Effect::Done, vec![Event::SpecApplied]))
    }

    /// Keeps the specification in force among the earlier ones, for whoever wants it back.
    fn remember_spec(&mut self, replaced_by: &str) {
        let Some(spec) = self.spec.clone().filter(|_| self.format >= Format::EDGE) else { return };
        let (revision, until) = (self.spec_revision, self.wall);
        self.earlier_specs.push_back(EarlierSpec {
            revision,
            until,
            replaced_by: replaced_by.to_owned(),
            spec,
        });
        let bytes = |earlier: &EarlierSpec| to_json(&*earlier.spec).len();
        let mut sum: usize = self.earlier_specs.iter().map(bytes).sum();
        while self.earlier_specs.len() > EARLIER_SPECS_MAX || sum > EARLIER_SPECS_BYTES_MAX {
            let Some(oldest) = self.earlier_specs.pop_front() else { return };
            sum -= bytes(&oldest);
        }
    }

    pub(super) fn rotate_ticket_key(&mut self, now: WallTime, secret: &TicketSecret) -> (Effect, Vec<Event>) {
        if !ticket_keys::is_due(&self.ticket_keys, now) {
            return (Effect::Unchanged, Vec::new());
        }
        self.ticket_keys.push_back(TicketKey { secret: secret.clone(), since: now });
        while self.ticket_keys.len() > ticket_keys::KEYS_MAX {
            self.ticket_keys.pop_front();
        }
        (Effect::Done, vec![Event::TicketKeyRotated])
    }

    /// Puts a specification in force and forgets what it no longer names.
    fn install_spec(&mut self, revision: Revision, spec: Arc<ClusterSpec>) {
        let upstreams = upstream_names(&spec);
        self.verdicts.retain(|name, _| upstreams.contains(name));
        self.drains.retain(|name, _| upstreams.contains(name));
        self.announced.retain(|name, _| upstreams.contains(name));
        self.nodes.retain(|id, _| spec.node(*id).is_some());
        self.sessions.pins.retain(|_, pin| upstreams.contains(&pin.upstream));
        for ip in &spec.floating_ips {
            // The epoch of a name outlives its removal and return, so entries are never taken away.
            self.floating_ips.entry(ip.name.clone()).or_default();
        }
        // The former one counts too: it may be of a time when this was not kept.
        self.longest = self.lease_bound().or(LeaseBound::of(&spec.timing()));
        self.spec = Some(spec);
        self.spec_revision = revision;
    }

    /// An address is known to the journal by its name. If it came under another name, or a name came to stand for
    /// another address, the new entry would have no owner and be assigned at once, while the old owner answers. So
    /// nothing comes new while something leaves, and what is held stays as it is.
    fn floating_ips_may_change(&self, known: &ClusterSpec, new: &ClusterSpec) -> Result<(), Refusal> {
        let same =
            |ip: &FloatingIpSpec| known.floating_ip(&ip.name).is_some_and(|known| same_address(known, ip));
        let coming: Vec<_> = new.floating_ips.iter().filter(|ip| !same(ip)).collect();
        for (name, entry) in &self.floating_ips {
            let leaves = new.floating_ip(name).is_none();
            let changes = coming.iter().any(|ip| ip.name == *name);
            let is_new = leaves && known.floating_ip(name).is_some();
            if let Some(running) = entry.operation.as_ref().filter(|_| is_new || changes) {
                return Err(Refusal::FloatingIpMoving { ip: name.clone(), operation: running.id });
            }
            if self.may_be_held(name) && (changes || (leaves && !coming.is_empty())) {
                return Err(Refusal::FloatingIpHeld(name.clone()));
            }
        }
        Ok(())
    }

    /// Whether a node may answer for this address, in or out of the specification.
    fn may_be_held(&self, name: &FloatingIpName) -> bool {
        self.floating_ips.get(name).is_some_and(|entry| entry.owner.is_some() || entry.operation.is_some())
    }

    pub(super) fn put_node(&mut self, revision: Revision, node: &NodeSpec) -> Handled {
        if self.retired_nodes.contains(&node.id) {
            return Err(Refusal::RetiredNode(node.id));
        }
        let known = self.spec.clone().ok_or(Refusal::NoSpec)?;
        let mut spec = ClusterSpec::clone(&known);
        match spec.nodes.iter_mut().find(|known| known.id == node.id) {
            Some(known) if known == node => return Ok((Effect::Unchanged, Vec::new())),
            Some(known) => *known = node.clone(),
            None => spec.nodes.push(node.clone()),
        }
        keeps_its_vote(&known, node)?;
        usable(&known, &spec)?;
        self.install_spec(revision, Arc::new(spec));
        Ok((Effect::Done, vec![Event::NodePut(node.id)]))
    }

    /// `by_node`: the program itself takes out what a forced recovery left behind. Those nodes are lost whatever is left,
    /// so nothing may stand in the way.
    pub(super) fn retire_node(&mut self, revision: Revision, node: NodeId, by_node: bool) -> Handled {
        if self.retired_nodes.contains(&node) {
            return Ok((Effect::Unchanged, Vec::new()));
        }
        let known = self.spec.clone().ok_or(Refusal::NoSpec)?;
        let mut spec = ClusterSpec::clone(&known);
        spec.nodes.retain(|known| known.id != node);
        if !by_node {
            usable(&known, &spec)?;
        }
        self.retired_nodes.insert(node);
        self.install_spec(revision, Arc::new(spec));
        Ok((Effect::Done, vec![Event::NodeRetired(node)]))
    }
}

/// Whether a floating IP is served in the same place and way.
fn same_address(one: &FloatingIpSpec, other: &FloatingIpSpec) -> bool {
    one.address == other.address && one.ports == other.ports && one.provider == other.provider
}

/// The consensus gives votes to members and takes them only from those that leave.
fn keeps_its_vote(known: &ClusterSpec, node: &NodeSpec) -> Result<(), Refusal> {
    let votes = known.node(node.id).is_some_and(|known| known.kind.votes());
    if votes && !node.kind.votes() { Err(Refusal::VoteKept(node.id)) } else { Ok(()) }
}

/// Refuses what a change would make wrong. What was wrong before, by rules that came later, is no reason.
fn usable(known: &ClusterSpec, new: &ClusterSpec) -> Result<(), Refusal> {
    let introduced = validate::introduced(known, new);
    if introduced.is_empty() { Ok(()) } else { Err(Refusal::SpecInvalid(introduced)) }
}
