//! The rules, looked at whenever they could be broken.

use super::{Granted, World, place};
use crate::clock::nanos;
use crate::host::Caller;
use crate::violation::Rule;
use std::collections::BTreeMap;
use std::time::Duration;
use twinsite_controller::Ticket;
use twinsite_model::state::AnnouncedRecord;
use twinsite_model::{Command, Fence, FloatingIpName, OperationId, Proposal, Token, UpstreamName};

impl World {
    /// At most one node answers for an address at any instant. Looked at after every event: nobody begins to answer
    /// between two.
    pub(super) fn check_answers(&mut self) {
        for ip in 0..self.ips.len() {
            let mut answering = None;
            for node in 0..self.hosts.len() {
                let Some(token) = self.hosts[node].answers(self.now, ip) else { continue };
                if let Some((other, known)) = answering.replace((node, token)) {
                    let name = self.ips[ip].clone();
                    self.violate(Rule::OneAnswer, || {
                        format!(
                            "{name}: node {} answers under {known}, node {} under {token}",
                            other + 1,
                            node + 1
                        )
                    });
                }
            }
        }
    }

    /// What the controller wants to have agreed.
    pub(super) fn check_proposal(&mut self, node: usize, ticket: Ticket, term: u64, proposal: &Proposal) {
        if let Some(ip) = Self::revoked_by(&proposal.command).cloned()
            && let Some(process) = &mut self.hosts[node].process
        {
            process.known.revoking.insert(ticket, ip);
        }
        // What a leader says that was succeeded without knowing it cannot be agreed in its term; its successor knows of
        // other grants. If it is agreed after all, it is checked then.
        let succeeded = self.hosts.iter().any(|host| host.raft.leads().is_some_and(|later| later > term));
        if !succeeded {
            self.check_fenced(proposal);
        }
    }

    /// Whether the former holder can no longer answer, when it is said so and when its address is given away.
    pub(super) fn check_fenced(&mut self, proposal: &Proposal) {
        let (ip, operation, fence) = match &proposal.command {
            Command::CompleteFence { ip, operation, fence, .. } => (ip, *operation, Some(*fence)),
            Command::Assign { ip, operation } => (ip, *operation, None),
            _ => return,
        };
        let (Some(token), Some(place)) = (self.token_taken(ip, operation), self.place_of(ip)) else { return };
        let fence = fence.or_else(|| self.fence_of(ip, operation));
        self.check_nobody_could_answer(place, token);
        if fence == Some(Fence::LeaseEnded) {
            self.check_leases_ended(place, token);
        }
    }

    fn fence_of(&self, ip: &FloatingIpName, operation: OperationId) -> Option<Fence> {
        let running = self.reference.state.floating_ips.get(ip)?.operation.as_ref()?;
        if running.id == operation { running.fence } else { None }
    }

    fn check_nobody_could_answer(&mut self, ip: usize, token: Token) {
        let could = (0..self.hosts.len()).find(|node| {
            let host = &self.hosts[*node];
            host.up && host.could_answer(self.now, ip) == Some(token)
        });
        if let Some(node) = could {
            self.violate(Rule::FencedFirst, || {
                format!("node {} could still answer under {token}, which is said to be fenced", node + 1)
            });
        }
    }

    /// No grant of the token lets its holder answer later, be it on its way still.
    fn check_leases_ended(&mut self, ip: usize, token: Token) {
        let Some(granted) = self.grants.get(&(ip, token)).copied() else { return };
        let host = &self.hosts[granted.node];
        let lives = host.up && host.incarnation() == Some(granted.incarnation);
        let left = granted.until.saturating_sub(host.clock.undisturbed(self.now));
        if lives && left > 0 {
            self.violate(Rule::FencedFirst, || {
                format!(
                    "a lease of {token} on node {} has {:?} left, and the fence is said to be complete",
                    granted.node + 1,
                    Duration::from_nanos(left)
                )
            });
        }
    }

    /// A grant is given: to whom, after what, and until when it counts.
    pub(super) fn note_grant(&mut self, node: usize, caller: &Caller, lease: Duration) {
        let Caller::Owner { node: owner, ip, incarnation, token, sent, arrived } = caller.clone() else {
            return;
        };
        let until = sent + nanos(lease);
        let at = self.now;
        let grant = self.grants.entry((ip, token)).or_insert(Granted { node: owner, incarnation, until, at });
        grant.at = at;
        if grant.incarnation == incarnation {
            grant.until = grant.until.max(until);
        } else {
            *grant = Granted { node: owner, incarnation, until, at };
        }
        if self.settings.outcomes_only {
            return;
        }
        let host = &self.hosts[node];
        let Some(process) = &host.process else { return };
        let name = &self.ips[ip];
        let recorded = host.state.owner(name);
        let broken = if process.known.round_began.is_none_or(|began| began < arrived) {
            Some("without a quorum round that began after the renewal arrived")
        } else if recorded.is_none_or(|owner| owner.incarnation != incarnation || owner.token != token) {
            Some("to another life or token than the recorded one")
        } else if recorded.is_some_and(|owner| owner.revoked) {
            Some("although the token is revoked")
        } else if process.known.revoking.values().any(|revoked| revoked == name) {
            Some("although a revocation was proposed, the fate of which is open")
        } else if process.known.released.contains(&(name.clone(), token, incarnation)) {
            Some("although the token was released")
        } else {
            None
        };
        if let Some(broken) = broken {
            let name = name.clone();
            self.violate(Rule::GrantContract, || {
                format!("node {} grants {name} {token} to node {} {broken}", node + 1, owner + 1)
            });
        }
    }

    /// Tokens only grow, and each is given to one life of one node.
    pub(super) fn check_token(&mut self, ip: &FloatingIpName) {
        let (Some(at), Some(owner)) = (self.place_of(ip), self.reference.state.owner(ip)) else { return };
        let (token, life) = (owner.token, owner.incarnation);
        let Some(node) = place(owner.node) else { return };
        let newest = self.grants.range((at, Token::default())..).take_while(|((ip, _), _)| *ip == at).last();
        let older = newest.is_some_and(|((_, newest), _)| *newest >= token);
        self.grants.insert((at, token), Granted { node, incarnation: life, until: 0, at: 0 });
        if older {
            self.violate(Rule::TokensGrow, || format!("token {token} was given when there was a newer one"));
        }
    }

    /// Not more automatic failovers within the window than allowed. Called right after one began.
    pub(super) fn check_breaker(&mut self) {
        let state = &self.reference.state;
        let Some(spec) = &state.spec else { return };
        let window = spec.policy.failover_window.0;
        let counted = state.automatic_failovers.iter().filter(|at| state.wall.since(**at) < window).count();
        let allowed = spec.policy.failovers_max as usize;
        if counted > allowed {
            self.violate(Rule::Breaker, || {
                format!("{counted} automatic failovers within {window:?}; {allowed} are allowed")
            });
        }
    }

    /// What is agreed to be announced comes from ever newer tokens.
    pub(super) fn check_announced(&mut self, before: &BTreeMap<UpstreamName, AnnouncedRecord>) {
        for (upstream, was) in before {
            let Some(is) = self.reference.state.announced.get(upstream) else { continue };
            if is.token < was.token {
                let (upstream, was, is) = (upstream.clone(), was.token, is.token);
                self.violate(Rule::AnnouncedGrows, || {
                    format!("{upstream} went from token {was} back to {is}")
                });
                return;
            }
        }
    }
}
