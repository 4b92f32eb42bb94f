//! Consensus on each node: terms and votes, proposals, quorum rounds, application.

use super::World;
use crate::clock::{TrueTime, nanos};
use crate::event::{Packet, Timer, Work};
use crate::host::Round;
use crate::raft::{Message, Outbox};
use crate::violation::Rule;
use twinsite_controller::{HolderInput, Input, ProposeFailed, RoundId, Ticket};
use twinsite_model::{Command, Proposal};

impl World {
    /// A message of consensus.
    pub(super) fn hear(&mut self, node: usize, from: usize, message: Message) {
        let (now, pace) = (self.now, self.pace);
        let votes = self.hosts[node].process.as_ref().is_some_and(|process| now >= process.votes_from);
        if !votes {
            return;
        }
        let before = self.hosts[node].raft.leads();
        let outbox = self.hosts[node].raft.receive((now, pace), &mut self.rng, from, message);
        self.follow_raft(node, before, outbox);
    }

    /// Its own time has come.
    pub(super) fn raft_timer(&mut self, node: usize) {
        let before = self.hosts[node].raft.leads();
        let outbox = self.hosts[node].raft.tick(self.now, self.pace, &mut self.rng);
        self.follow_raft(node, before, outbox);
    }

    /// Does what follows from a step of consensus.
    fn follow_raft(&mut self, node: usize, before: Option<u64>, outbox: Outbox) {
        for (to, message) in outbox {
            self.send(node, to, Packet::Raft(message));
        }
        let raft = &self.hosts[node].raft;
        let (leads, commit, wake) = (raft.leads(), raft.commit(), raft.wake());
        if leads != before {
            self.leadership_changed(node, leads);
        }
        self.advance_reference(node);
        self.set_timer(node, Timer::Raft, wake);
        self.confirm_rounds(node);
        let host = &mut self.hosts[node];
        let behind = commit > host.applied;
        if let Some(process) = &mut host.process
            && behind
            && !process.applies
        {
            process.applies = true;
            let delay = self.draw(|scenario| scenario.to_apply);
            self.later(node, delay, Work::Apply);
        }
    }

    fn leadership_changed(&mut self, node: usize, leads: Option<u64>) {
        let id = self.hosts[node].id;
        self.trace.mix(&[1, self.now, id.0, leads.unwrap_or(0)]);
        match leads {
            Some(term) => {
                self.coverage.elections += 1;
                let unaware = self.hosts.iter().filter(|host| host.raft.leads().is_some()).count() > 1;
                self.coverage.leaders_unaware_of_their_successor += u64::from(unaware);
                self.trace.note(self.now, || format!("node {id} is elected in term {term}"));
            }
            None => self.trace.note(self.now, || format!("node {id} learns that it leads no more")),
        }
        // Whatever was under way in the former term will not be told any more.
        let Some(process) = &mut self.hosts[node].process else { return };
        let proposals = std::mem::take(&mut process.proposals);
        let rounds = std::mem::take(&mut process.rounds);
        for (ticket, _) in proposals.into_values() {
            self.tell_fate(node, ticket, Err(ProposeFailed::Unknown));
        }
        for round in rounds {
            self.tell_round(node, &round, false);
        }
        let delay = self.draw(|scenario| scenario.to_lead);
        self.later(node, delay, Work::Leadership);
    }

    /// The driver looks who leads: as a level, so that it may miss what was short.
    pub(super) fn look_who_leads(&mut self, node: usize) {
        let leads = self.hosts[node].raft.leads();
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.leads == leads {
            return;
        }
        let before = std::mem::replace(&mut process.leads, leads);
        process.known.released.clear();
        process.known.revoking.clear();
        if before.is_some() {
            self.control(node, Input::LostLeadership);
        }
        let Some(term) = leads else { return };
        if self.hosts[node].state.spec.is_none() {
            let spec = self.scenario.spec.clone();
            let proposal = Proposal::by_controller(self.wall(node), Command::ApplySpec { spec });
            self.append(node, term, proposal);
        }
        self.control(node, Input::BecameLeader { term });
    }

    fn append(&mut self, node: usize, term: u64, proposal: Proposal) -> Option<u64> {
        let before = self.hosts[node].raft.leads();
        let (index, outbox) = self.hosts[node].raft.propose(term, proposal)?;
        self.follow_raft(node, before, outbox);
        Some(index)
    }

    /// A proposal of the controller reaches the log, or is refused there.
    pub(super) fn propose(&mut self, node: usize, ticket: Ticket, term: u64, proposal: Proposal) {
        let Some(index) = self.append(node, term, proposal) else {
            self.tell_fate(node, ticket, Err(ProposeFailed::NotDone));
            return;
        };
        if let Some(process) = &mut self.hosts[node].process {
            process.proposals.insert(index, (ticket, term));
        }
        let patience = self.rng.u64(2..20) * self.pace.election_max;
        self.later(node, patience, Work::GiveUp { index, ticket });
    }

    /// The wait for a proposal's fate is over.
    pub(super) fn give_up(&mut self, node: usize, index: u64, ticket: Ticket) {
        let Some(process) = &mut self.hosts[node].process else { return };
        if process.proposals.get(&index).is_some_and(|(pending, _)| *pending == ticket) {
            process.proposals.remove(&index);
            self.tell_fate(node, ticket, Err(ProposeFailed::Unknown));
        }
    }

    fn tell_fate(
        &mut self,
        node: usize,
        ticket: Ticket,
        outcome: Result<twinsite_model::Applied, ProposeFailed>,
    ) {
        match &outcome {
            Err(ProposeFailed::NotDone) => self.coverage.proposals_not_done += 1,
            Err(ProposeFailed::Unknown) => self.coverage.proposals_of_unknown_fate += 1,
            Ok(_) => {}
        }
        let delay = self.draw(|scenario| scenario.to_notice);
        self.later(node, delay, Work::ProposalDone { ticket, outcome: Box::new(outcome) });
    }

    /// A quorum round begins now.
    pub(super) fn begin_round(&mut self, node: usize, id: RoundId) {
        let began = self.now;
        let leads = self.hosts[node].raft.leads();
        let started = self.hosts[node].raft.begin_round();
        let (Some(term), Some((number, index, outbox))) = (leads, started) else {
            self.coverage.rounds_failed += 1;
            let delay = self.draw(|scenario| scenario.to_notice);
            self.later(node, delay, Work::RoundDone { round: id, began, confirmed: false });
            return;
        };
        let lease = nanos(self.timing().lease);
        let deadline = began + self.rng.u64(self.pace.election_max..3 * lease);
        let round = Round { id, term, number, index, began, deadline, confirmed: false };
        if let Some(process) = &mut self.hosts[node].process {
            process.rounds.push(round);
        }
        self.set_timer(node, Timer::Rounds, deadline);
        self.follow_raft(node, leads, outbox);
    }

    /// Rounds that a quorum has confirmed end when the state has caught up with their beginning.
    fn confirm_rounds(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some(process) = &mut host.process else { return };
        if process.rounds.is_empty() {
            return;
        }
        let (leads, confirmed, applied) = (host.raft.leads(), host.raft.confirmed_round(), host.applied);
        let mut ended = Vec::new();
        process.rounds.retain_mut(|round| {
            round.confirmed |= leads == Some(round.term) && confirmed >= round.number;
            let over = round.confirmed && applied >= round.index;
            if over {
                ended.push(*round);
            }
            !over
        });
        for round in ended {
            self.tell_round(node, &round, true);
        }
    }

    /// Rounds that have taken too long are given up; of some of them nothing is heard ever again.
    pub(super) fn rounds_timer(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.hosts[node].process else { return };
        let over: Vec<_> = process.rounds.iter().filter(|round| round.deadline <= now).copied().collect();
        process.rounds.retain(|round| round.deadline > now);
        let next = process.rounds.iter().map(|round| round.deadline).min();
        if let Some(next) = next {
            self.set_timer(node, Timer::Rounds, next);
        }
        for round in over {
            if self.rng.bool() {
                self.tell_round(node, &round, false);
            }
        }
    }

    fn tell_round(&mut self, node: usize, round: &Round, confirmed: bool) {
        if confirmed {
            self.coverage.rounds_confirmed += 1;
        } else {
            self.coverage.rounds_failed += 1;
        }
        let delay = self.draw(|scenario| scenario.to_round_notice);
        self.later(node, delay, Work::RoundDone { round: round.id, began: round.began, confirmed });
    }

    /// Applies what is committed, as far as this node knows.
    pub(super) fn apply(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if let Some(process) = &mut host.process {
            process.applies = false;
        }
        let (from, to) = (host.applied, host.raft.commit());
        let before = host.state.revision;
        for index in from + 1..=to {
            self.apply_one(node, index);
        }
        self.check_state(node);
        if self.hosts[node].state.revision != before {
            self.follow_spec(node);
            self.control(node, Input::Applied);
            for ip in 0..self.ips.len() {
                let owner = self.hosts[node].state.owner(&self.ips[ip]).cloned();
                self.hold(node, ip, HolderInput::State { owner });
            }
        }
        self.confirm_rounds(node);
    }

    fn apply_one(&mut self, node: usize, index: u64) {
        let host = &mut self.hosts[node];
        let Some(entry) = host.raft.entry(index).cloned() else { return };
        host.applied = index;
        let waiting = host.process.as_mut().and_then(|process| process.proposals.remove(&index));
        let Some(proposal) = &entry.proposal else {
            if let Some((ticket, _)) = waiting {
                self.tell_fate(node, ticket, Err(ProposeFailed::NotDone));
            }
            return;
        };
        let applied = host.state.apply(index, proposal);
        if self.reference.differs(index, &applied) {
            let id = self.hosts[node].id;
            self.violate(Rule::SameState, || format!("node {id} makes something else of entry {index}"));
        }
        if let Some((ticket, term)) = waiting {
            let fate = if term == entry.term { Ok(applied) } else { Err(ProposeFailed::NotDone) };
            self.tell_fate(node, ticket, fate);
        }
    }

    /// A new life may begin with what an old snapshot and the log give.
    pub(super) fn replay(&mut self, node: usize) {
        self.coverage.states_replayed += 1;
        let host = &mut self.hosts[node];
        let mut state = twinsite_model::State::default();
        for index in 1..=host.applied {
            if let Some(proposal) = host.raft.entry(index).and_then(|entry| entry.proposal.as_ref()) {
                state.apply(index, proposal);
            }
        }
        let same = state == host.state;
        host.state = state;
        if !same {
            self.violate(Rule::SameState, || format!("node {} replays its log to another state", node + 1));
        }
    }

    /// Hands leadership over.
    pub(super) fn hand_over(&mut self, node: usize, to: twinsite_model::NodeId) {
        let Some(to) = super::place(to) else { return };
        if let Some(message) = self.hosts[node].raft.hand_over(to) {
            self.coverage.handed_over += 1;
            self.send(node, to, Packet::Raft(message));
        }
    }

    /// Sets a timer of a process, unless it is set for an earlier time.
    pub(super) fn set_timer(&mut self, node: usize, timer: Timer, at: TrueTime) {
        let at = at.max(self.now);
        let Some(process) = &mut self.hosts[node].process else { return };
        let set = process.timers.get(&timer);
        if set.is_some_and(|set| *set <= at) {
            return;
        }
        process.timers.insert(timer, at);
        let delay = at - self.now;
        self.later(node, delay, Work::Timer(timer, at));
    }
}
