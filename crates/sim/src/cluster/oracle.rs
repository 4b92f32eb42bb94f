//! What is true, as seen from outside every node: one log, one leader per term, nothing acknowledged is lost, no read
//! is older than what was acknowledged before it began.

use super::announced::Agreed;
use super::node::Node;
use super::process::Raft;
use crate::clock::TrueTime;
use crate::trace::Trace;
use crate::violation::{Rule, Violation};
use std::collections::BTreeMap;
use std::sync::Arc;
use twinsite_model::state::FloatingIpState;
use twinsite_model::{Generation, NodeId, Pin, RequestId, Revision, RoomKey, State, WallTime, encoding};

/// What a node was last seen to be.
struct Seen {
    /// In which of its lives: after a crash it may show an older state for a moment, until a leader is heard.
    life: u64,
    state: Arc<State>,
    leads: Option<u64>,
}

/// One generation: a forced recovery begins another, with whatever the survivor knew.
#[derive(Default)]
struct Era {
    leaders: BTreeMap<u64, NodeId>,
    /// What the state was at each revision, as a number, and the request that led to it.
    history: BTreeMap<Revision, (u64, Option<RequestId>)>,
    acknowledged: BTreeMap<Revision, RequestId>,
}

/// The memory of one simulation.
#[derive(Default)]
pub(super) struct Oracle {
    seen: BTreeMap<NodeId, Seen>,
    eras: BTreeMap<Generation, Era>,
    violation: Option<Violation>,
    /// Who owned what, move by move.
    pub(super) agreed: Agreed,
    /// Terms that had a leader.
    pub(super) elections: u64,
    /// Owners that changed while a call under their predecessor's token was under way.
    pub(super) changed_during_a_call: u64,
}

impl Oracle {
    pub(super) fn violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// Whether nothing was broken so far.
    pub(super) fn is_content(&self) -> bool {
        self.violation.is_none()
    }

    pub(super) fn found(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(super) fn report(&mut self, rule: Rule, now: TrueTime, detail: String) {
        self.violation.get_or_insert(Violation { rule, at_seconds: now as f64 / 1e9, detail });
    }

    /// The newest revision that anybody was told of.
    pub(super) fn acknowledged(&self) -> (Generation, Revision) {
        let newest = self.eras.iter().rev().find_map(|(generation, era)| {
            era.acknowledged.last_key_value().map(|(revision, _)| (*generation, *revision))
        });
        newest.unwrap_or_default()
    }

    /// Looks at everybody.
    pub(super) fn look(&mut self, nodes: &[Node], now: TrueTime, trace: &mut Trace) {
        for node in nodes {
            let Some((generation, leads, term, state)) = node.peek(seen) else { continue };
            if self.seen.get(&node.id).is_some_and(|seen| seen.life != node.lives) {
                self.seen.remove(&node.id);
            }
            self.look_at(node, generation, leads.then_some(term), state, now, trace);
        }
    }

    fn look_at(
        &mut self,
        node: &Node,
        generation: Generation,
        leads: Option<u64>,
        state: Arc<State>,
        now: TrueTime,
        trace: &mut Trace,
    ) {
        let (id, life) = (node.id, node.lives);
        let before = self.seen.get(&id);
        if before.is_none_or(|before| before.leads != leads)
            && let Some(term) = leads
        {
            trace.mix(&[now, id.0, term]);
            trace.note(now, || format!("{id} leads in term {term}"));
            let leaders = &mut self.eras.entry(generation).or_default().leaders;
            self.elections += u64::from(!leaders.contains_key(&term));
            let first = *leaders.entry(term).or_insert(id);
            if first != id {
                self.report(Rule::OneLeader, now, format!("{first} and {id} lead in term {term}"));
            }
        }
        let before = self.seen.get(&id);
        if before.is_none_or(|before| before.state.revision != state.revision) {
            let was = before.map(|before| before.state.revision);
            let stale = before.and_then(|before| stale_pin(&before.state, &state));
            if let Some(detail) = stale {
                self.report(Rule::SessionTokens, now, detail);
            }
            self.moved(id, generation, was, &state, now, trace);
        }
        self.seen.insert(id, Seen { life, state, leads });
    }

    fn moved(
        &mut self,
        id: NodeId,
        generation: Generation,
        was: Option<Revision>,
        state: &State,
        now: TrueTime,
        trace: &mut Trace,
    ) {
        let revision = state.revision;
        if let Some(was) = was.filter(|was| revision < *was) {
            self.report(Rule::SameState, now, format!("{id} went back from {was} to {revision}"));
        }
        self.agreed.note(state);
        let print = fingerprint(state);
        trace.mix(&[now, id.0, revision.0, print]);
        let newest = state.requests.back().filter(|(_, at)| *at == revision).map(|(request, _)| request);
        let era = self.eras.entry(generation).or_default();
        if !era.history.contains_key(&revision) {
            self.changed_during_a_call +=
                state.floating_ips.values().filter(|ip| overtaken(ip)).count() as u64;
        }
        let (known, request) =
            era.history.entry(revision).or_insert_with(|| (print, newest.cloned())).clone();
        let acknowledged = era.acknowledged.get(&revision).cloned();
        if known != print {
            let detail = format!("{id} has another state at {revision} than was seen there before");
            self.report(Rule::SameState, now, detail);
        }
        if let Some(acknowledged) = acknowledged
            && request.as_ref() != Some(&acknowledged)
        {
            let detail = format!("{revision} was acknowledged for {acknowledged:?}, and is {request:?}");
            self.report(Rule::Acknowledged, now, detail);
        }
    }

    /// Somebody was told that a request led to a revision.
    pub(super) fn acknowledge(
        &mut self,
        generation: Generation,
        request: RequestId,
        revision: Revision,
        now: TrueTime,
    ) {
        let era = self.eras.entry(generation).or_default();
        let known = era.history.get(&revision).map(|(_, known)| known.clone());
        era.acknowledged.insert(revision, request.clone());
        if let Some(known) = known
            && known.as_ref() != Some(&request)
        {
            let detail = format!("{revision} was acknowledged for {request:?}, and is {known:?}");
            self.report(Rule::Acknowledged, now, detail);
        }
    }

    /// A read that began when `floor` had been acknowledged saw `revision`.
    pub(super) fn read(
        &mut self,
        node: NodeId,
        floor: (Generation, Revision),
        revision: (Generation, Revision),
        now: TrueTime,
    ) {
        if revision < floor {
            let detail = format!("{node} read {revision:?} when {floor:?} had been acknowledged before");
            self.report(Rule::FreshRead, now, detail);
        }
    }
}

/// Whether the owner that this very revision brought finds a call under an older token.
fn overtaken(ip: &FloatingIpState) -> bool {
    let (Some(owner), Some(errand)) = (&ip.owner, &ip.errand) else { return false };
    errand.token < owner.token && !errand.recalled
}

/// Whether a node leads, in which term it is, and its state.
fn seen(raft: &Raft) -> (Generation, bool, u64, Arc<State>) {
    let status = raft.status();
    let status = status.borrow();
    (raft.generation(), status.is_leader, status.term, raft.state())
}

/// A room that was placed under an older token than had been reached before.
fn stale_pin(before: &State, after: &State) -> Option<String> {
    let reached = before.session_token();
    // A room that is merely confirmed keeps the token under which it was placed.
    let stays = |room: &RoomKey, pin: &Pin| {
        let known = before.sessions.pins.get(room);
        known.is_some_and(|known| (&known.upstream, known.token) == (&pin.upstream, pin.token))
    };
    let placed = after.sessions.pins.iter().filter(|(room, pin)| !stays(room, pin));
    let stale = placed.map(|(_, pin)| pin.token).find(|token| *token < reached)?;
    Some(format!("a room was placed under {stale} after {reached} had been reached"))
}

/// A number for a state, without its clock, which commands move that change nothing else.
fn fingerprint(state: &State) -> u64 {
    let state = State { wall: WallTime::default(), ..state.clone() };
    let bytes = encoding::encode_state(&state);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
