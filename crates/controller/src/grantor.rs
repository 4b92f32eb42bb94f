//! The leader's side of the lease: who may go on acting (design section 5).

use crate::input::{CallId, RoundFailed, RoundId, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twinsite_model::{
    BootTime, FloatingIpName, Incarnation, LeaseBound, NodeId, Owner, State, Timing, Token,
};
use twinsite_model::{Fault, Faults};

/// Renewals that wait at once. Far above one for each address and retry; more are refused, and come again.
const WAITING_MAX: usize = 4_096;

/// An owner asks for more time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The address.
    pub ip: FloatingIpName,
    /// The owner.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its token.
    pub token: Token,
    /// Grows with every renewal of this life: the answer names it, and the owner knows when it sent it.
    pub seq: u64,
    /// Whether its lease runs as it asks. An owner that goes on saying no does not hear the answers.
    pub holding: bool,
}

/// The leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalAnswer {
    /// The owner may act for so long *from the moment at which it sent the renewal*.
    Granted {
        /// The renewal's number.
        seq: u64,
        /// `L`.
        lease: Duration,
    },
    /// Not granted.
    Refused {
        /// The renewal's number.
        seq: u64,
        /// Why.
        why: RenewalRefusal,
    },
}

/// Why a renewal was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewalRefusal {
    /// Another node leads; ask it.
    #[error("this node does not lead")]
    NotLeader,
    /// No quorum confirmed the leader.
    #[error("no quorum confirmed the leader")]
    NoQuorum,
    /// A move of the address has been proposed, and its fate is open.
    #[error("a move of the address is under way")]
    MoveProposed,
    /// The leader has too many renewals waiting.
    #[error("the leader is busy")]
    Busy,
    /// A quorum agrees that the asker does not own the address under this token in this life.
    #[error("the owner is another, or of another life")]
    NotOwner,
    /// A quorum agrees that the right to renew is gone.
    #[error("the token is revoked")]
    Revoked,
    /// The token was released, which is final.
    #[error("the token was released")]
    Released,
}

impl RenewalRefusal {
    /// Whether this token will never be granted again: the asker must stop. Otherwise it may go on to the end of
    /// its lease, and ask again.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::NotOwner | Self::Revoked | Self::Released)
    }

    /// Whether asking again, here or at the leader, may succeed.
    pub const fn retryable(self) -> bool {
        !self.is_final()
    }
}

/// A holder, or the guardian after its process had ended, has let go: no socket, address or element is left. Final
/// for the token. Sent again until the state shows another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The address.
    pub ip: FloatingIpName,
    /// The node.
    pub node: NodeId,
    /// The life that held it.
    pub incarnation: Incarnation,
    /// The token.
    pub token: Token,
    /// Who says so.
    pub by: ReleasedBy,
}

/// Who says that an owner has let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleasedBy {
    /// The owner itself.
    Holder,
    /// Its guardian, after the process had ended.
    Guardian,
}

/// Grants leases during one tenure. What a leader knows of grants dies with its tenure; the next one waits instead.
#[derive(Debug, Clone)]
pub(crate) struct Grantor {
    /// Every grant of earlier leaders followed a quorum round that preceded the election.
    elected_at: BootTime,
    /// When no grant of an earlier leader can be valid by this leader's clock.
    earlier_ended: BootTime,
    /// When no clock within the bound can show such a grant as valid.
    earlier_fenced: BootTime,
    /// Renewals that arrived after the running round began: they need the next one.
    waiting: Vec<(CallId, Renewal)>,
    round: Option<Round>,
    addresses: BTreeMap<FloatingIpName, Memory>,
    faults: Faults,
}

/// The running round.
#[derive(Debug, Clone)]
struct Round {
    id: RoundId,
    began: BootTime,
    /// The renewals that arrived before it began.
    judged: Vec<(CallId, Renewal)>,
}

/// What this tenure knows of one address.
#[derive(Debug, Clone, Default)]
struct Memory {
    grant: Option<Grant>,
    /// When the owner's renewal that is still unanswered arrived.
    asked: BTreeMap<CallId, BootTime>,
    /// Since when the owner has said that it does not hold, although it was granted time.
    deaf_since: Option<BootTime>,
    released: BTreeMap<(Token, Incarnation), ReleasedBy>,
    /// Revocations handed out of which it is not known that they were refused, or that the state shows them.
    proposed: BTreeSet<Ticket>,
}

/// The grants of this tenure for one address, by the timing under which each was given: a specification that shortens
/// the lease must not shorten the wait for what was granted before.
#[derive(Debug, Clone, Copy)]
struct Grant {
    token: Token,
    at: BootTime,
    ended: BootTime,
    fenced: BootTime,
}

/// What a renewal or a round leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Granting {
    pub(crate) answers: Vec<(CallId, RenewalAnswer)>,
    pub(crate) start: Option<RoundId>,
    /// Owners that renewed in time after a long silence.
    pub(crate) nearly: Vec<Nearly>,
}

/// An owner that renewed in time after a silence of more than half of a lease, within one tenure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nearly {
    pub(crate) ip: FloatingIpName,
    pub(crate) owner: NodeId,
    pub(crate) token: Token,
    pub(crate) silent_for: Duration,
}

impl Granting {
    fn refuse(&mut self, call: CallId, renewal: &Renewal, why: RenewalRefusal) {
        self.answers.push((call, RenewalAnswer::Refused { seq: renewal.seq, why }));
    }
}

impl Grantor {
    /// A new tenure. `bound` is the longest lease that any leader may have granted.
    pub(crate) fn new(elected_at: BootTime, bound: LeaseBound, faults: Faults) -> Self {
        let mut grantor = Self {
            elected_at,
            earlier_ended: elected_at,
            earlier_fenced: elected_at,
            waiting: Vec::new(),
            round: None,
            addresses: BTreeMap::new(),
            faults,
        };
        grantor.outwait(bound);
        grantor
    }

    /// An earlier leader may have granted so long a lease. The specification that allowed it may have been agreed
    /// before the election and applied here only after it.
    pub(crate) fn outwait(&mut self, bound: LeaseBound) {
        if self.faults.has(Fault::NewTermDoesNotWait) {
            return;
        }
        let wait = if self.faults.has(Fault::WaitWithoutDrift) { bound.lease } else { bound.wait };
        self.earlier_ended = self.earlier_ended.max(self.elected_at + bound.lease);
        self.earlier_fenced = self.earlier_fenced.max(self.elected_at + wait);
    }

    /// A renewal arrived. It is judged after a round that begins from here on; `round` is the id of that round, if
    /// one has to begin now.
    pub(crate) fn renew(
        &mut self,
        now: BootTime,
        timing: &Timing,
        state: &State,
        round: RoundId,
        (call, renewal): (CallId, Renewal),
    ) -> Granting {
        let mut granting = Granting::default();
        if self.waiting.len() >= WAITING_MAX {
            granting.refuse(call, &renewal, RenewalRefusal::Busy);
            return granting;
        }
        if self.faults.has(Fault::GrantWithoutRound) {
            self.answer(now, timing, state, (call, renewal), &mut granting);
            return granting;
        }
        let memory = self.addresses.entry(renewal.ip.clone()).or_default();
        if state.owner(&renewal.ip).is_some_and(|owner| is_owner(owner, &renewal)) {
            memory.asked.insert(call, now);
            let granted = memory.grant.is_some_and(|grant| grant.token == renewal.token);
            memory.deaf_since = match (renewal.holding, granted) {
                (true, _) => None,
                (false, true) => memory.deaf_since.or(Some(now)),
                (false, false) => memory.deaf_since,
            };
        }
        match &mut self.round {
            Some(running) if self.faults.has(Fault::GrantFromOlderRound) => {
                running.judged.push((call, renewal));
            }
            _ => self.waiting.push((call, renewal)),
        }
        granting.start = self.start_round(now, round);
        granting
    }

    fn start_round(&mut self, now: BootTime, id: RoundId) -> Option<RoundId> {
        if self.round.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.round = Some(Round { id, began: now, judged: std::mem::take(&mut self.waiting) });
        Some(id)
    }

    /// A round ended; `state` includes everything up to it. `next` is the id of the next one, if one has to begin.
    pub(crate) fn round_done(
        &mut self,
        now: BootTime,
        timing: &Timing,
        state: &State,
        (round, outcome): (RoundId, Result<(), RoundFailed>),
        next: RoundId,
    ) -> Granting {
        let mut granting = Granting::default();
        let Some(done) = self.round.take_if(|running| running.id == round) else {
            return granting; // given up, or of an earlier tenure
        };
        for (call, renewal) in done.judged {
            self.forget_call(&renewal.ip, call);
            match outcome {
                Ok(()) => self.answer(now, timing, state, (call, renewal), &mut granting),
                Err(RoundFailed) => granting.refuse(call, &renewal, RenewalRefusal::NoQuorum),
            }
        }
        granting.start = self.start_round(now, next);
        granting
    }

    /// A round that has not ended for two leases will not: whoever waits for it asks again.
    pub(crate) fn give_up_round(&mut self, now: BootTime, timing: &Timing, next: RoundId) -> Granting {
        let mut granting = Granting::default();
        let overdue = |round: &mut Round| now.since(round.began) >= 2 * timing.lease;
        let Some(lost) = self.round.take_if(overdue) else { return granting };
        for (call, renewal) in lost.judged {
            self.forget_call(&renewal.ip, call);
            granting.refuse(call, &renewal, RenewalRefusal::NoQuorum);
        }
        granting.start = self.start_round(now, next);
        granting
    }

    fn forget_call(&mut self, ip: &FloatingIpName, call: CallId) {
        if let Some(memory) = self.addresses.get_mut(ip) {
            memory.asked.remove(&call);
        }
    }

    /// Grants or refuses, by the state as a quorum knows it.
    fn answer(
        &mut self,
        now: BootTime,
        timing: &Timing,
        state: &State,
        (call, renewal): (CallId, Renewal),
        granting: &mut Granting,
    ) {
        if let Err(why) = self.check(state, &renewal) {
            granting.refuse(call, &renewal, why);
            return;
        }
        let silent_for = self.last_grant(&renewal.ip, renewal.token).map(|last| now.since(last));
        self.note_grant(now, timing, &renewal);
        granting.answers.push((call, RenewalAnswer::Granted { seq: renewal.seq, lease: timing.lease }));
        if let Some(silent_for) = silent_for.filter(|silent_for| *silent_for > timing.lease / 2) {
            let Renewal { ip, node: owner, token, .. } = renewal;
            granting.nearly.push(Nearly { ip, owner, token, silent_for });
        }
    }

    fn check(&self, state: &State, renewal: &Renewal) -> Result<(), RenewalRefusal> {
        let owner = state.owner(&renewal.ip).ok_or(RenewalRefusal::NotOwner)?;
        let other_life_allowed = self.faults.has(Fault::OldIncarnationRenews)
            && owner.node == renewal.node
            && owner.token == renewal.token;
        if !is_owner(owner, renewal) && !other_life_allowed {
            return Err(RenewalRefusal::NotOwner);
        }
        if owner.revoked && !self.faults.has(Fault::GrantAfterRevoke) {
            return Err(RenewalRefusal::Revoked);
        }
        let Some(memory) = self.addresses.get(&renewal.ip) else { return Ok(()) };
        if memory.released.contains_key(&(owner.token, owner.incarnation))
            && !self.faults.has(Fault::ReleasedGrantedAgain)
        {
            return Err(RenewalRefusal::Released);
        }
        let ignores_proposed =
            self.faults.has(Fault::GrantAfterProposedRevoke) || self.faults.has(Fault::GrantAfterRevoke);
        if !memory.proposed.is_empty() && !ignores_proposed {
            return Err(RenewalRefusal::MoveProposed);
        }
        Ok(())
    }

    fn note_grant(&mut self, now: BootTime, timing: &Timing, renewal: &Renewal) {
        let (ended, fenced) = (now + timing.lease, now + wait(timing, &self.faults));
        let memory = self.addresses.entry(renewal.ip.clone()).or_default();
        let before = memory.grant.replace(Grant { token: renewal.token, at: now, ended, fenced });
        if let (Some(before), Some(grant)) = (before, &mut memory.grant) {
            assert!(before.at <= grant.at, "the leader's clock never goes back");
            grant.ended = grant.ended.max(before.ended);
            grant.fenced = grant.fenced.max(before.fenced);
        }
    }

    /// A holder, or its guardian, has let go for good. Says whether that is news.
    pub(crate) fn released(&mut self, release: &Release) -> bool {
        let memory = self.addresses.entry(release.ip.clone()).or_default();
        // Of one that let go in good order the guardian tells, too, when its process has ended: the first word counts.
        let life = (release.token, release.incarnation);
        let is_news = !memory.released.contains_key(&life);
        memory.released.entry(life).or_insert(release.by);
        is_news
    }

    /// A revocation is about to be proposed: from here on nothing is granted.
    pub(crate) fn revocation_proposed(&mut self, ip: &FloatingIpName, ticket: Ticket) {
        self.addresses.entry(ip.clone()).or_default().proposed.insert(ticket);
    }

    /// The state shows the revocation, or it certainly never will.
    pub(crate) fn revocation_settled(&mut self, ip: &FloatingIpName, ticket: Ticket) {
        if let Some(memory) = self.addresses.get_mut(ip) {
            memory.proposed.remove(&ticket);
        }
    }

    /// Forgets what no longer matters once an address has an owner with this token.
    pub(crate) fn owner_is(&mut self, ip: &FloatingIpName, token: Token) {
        if let Some(memory) = self.addresses.get_mut(ip) {
            memory.deaf_since = None;
            memory.released.retain(|(released, _), _| *released >= token);
        }
    }

    /// Whether the owner's token has ended for good.
    pub(crate) fn is_released(&self, ip: &FloatingIpName, owner: &Owner) -> bool {
        self.released_by(ip, owner).is_some()
    }

    /// Who said that the owner's token has ended for good.
    pub(crate) fn released_by(&self, ip: &FloatingIpName, owner: &Owner) -> Option<ReleasedBy> {
        self.addresses.get(ip)?.released.get(&(owner.token, owner.incarnation)).copied()
    }

    /// When the last grant of this token in this tenure was given.
    pub(crate) fn last_grant(&self, ip: &FloatingIpName, token: Token) -> Option<BootTime> {
        let grant = self.addresses.get(ip)?.grant?;
        (grant.token == token).then_some(grant.at)
    }

    /// When no clock within the bound can show a valid lease any more, if nothing is granted from now on.
    pub(crate) fn fence_at(&self, ip: &FloatingIpName) -> BootTime {
        if self.faults.has(Fault::SkipWait) {
            return self.elected_at;
        }
        let granted = self.addresses.get(ip).and_then(|memory| memory.grant);
        granted.map_or(self.earlier_fenced, |grant| grant.fenced.max(self.earlier_fenced))
    }

    /// When the owner counts as silent: by this leader's clock no grant can be valid, and it is not asking. An owner
    /// that asks and goes on saying that it does not hold hears nothing: it is as good as silent. `seen` is when this
    /// tenure first saw it as the owner.
    pub(crate) fn silent_at(
        &self,
        ip: &FloatingIpName,
        owner: &Owner,
        seen: BootTime,
        timing: &Timing,
    ) -> BootTime {
        let memory = self.addresses.get(ip);
        if let Some(since) = memory.and_then(|memory| memory.deaf_since) {
            return since + 2 * timing.lease;
        }
        let granted = memory.and_then(|memory| memory.grant).filter(|grant| grant.token == owner.token);
        let asked = memory.and_then(|memory| memory.asked.values().max());
        let unborn = seen + timing.lease;
        let ended = granted.map_or(self.earlier_ended, |grant| grant.ended.max(self.earlier_ended));
        asked.map_or(ended, |asked| ended.max(*asked + timing.lease)).max(unborn)
    }

    /// Everybody who still waits is told to ask elsewhere.
    pub(crate) fn end(&mut self) -> Granting {
        let mut granting = Granting::default();
        let judged = self.round.take().map(|round| round.judged).unwrap_or_default();
        for (call, renewal) in judged.into_iter().chain(std::mem::take(&mut self.waiting)) {
            granting.refuse(call, &renewal, RenewalRefusal::NotLeader);
        }
        granting
    }
}

fn is_owner(owner: &Owner, renewal: &Renewal) -> bool {
    owner.node == renewal.node && owner.incarnation == renewal.incarnation && owner.token == renewal.token
}

/// `W`, or what a seeded mistake makes of it.
fn wait(timing: &Timing, faults: &Faults) -> Duration {
    if faults.has(Fault::WaitWithoutDrift) { timing.lease } else { timing.wait() }
}
