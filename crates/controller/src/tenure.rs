//! What a leader knows in one term. All of it is evidence that a later leader must gather anew.

use crate::grantor::Grantor;
use crate::input::{CallId, Ticket};
use crate::notice::Alarm;
use crate::report::NodeReport;
use crate::verdicts::Opinions;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twinsite_model::{
    BootTime, ErrandId, FloatingIpName, Incarnation, NodeId, OperationId, Revision, RoomKey, State, Step,
    Token, WallTime,
};

/// The pause before a proposal about the same thing is repeated, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// One term of this node's leadership.
#[derive(Debug, Clone)]
pub(crate) struct Tenure {
    pub(crate) term: u64,
    /// When this node learnt of its election: not before it.
    pub(crate) elected_at: BootTime,
    pub(crate) grantor: Grantor,
    /// Whether the state at hand surely has everything that was agreed before the election, among it the longest lease
    /// that an earlier leader may have granted.
    pub(crate) caught_up: bool,
    reports: BTreeMap<NodeId, (BootTime, NodeReport)>,
    /// The newest life of each node that its guardian saw end.
    ended_lives: BTreeMap<NodeId, Incarnation>,
    pub(crate) opinions: Opinions,
    proposals: BTreeMap<Ticket, Pending>,
    busy: BTreeMap<Subject, u32>,
    retries: BTreeMap<Subject, Retry>,
    /// Revocations that were applied, until the state at hand shows them.
    settling: Vec<(Revision, FloatingIpName, Ticket)>,
    /// Revocations of unknown fate, each with the first ticket whose fate settles it.
    unknown: Vec<(FloatingIpName, Ticket, Ticket)>,
    owners: BTreeMap<FloatingIpName, (Token, BootTime)>,
    steps: BTreeMap<FloatingIpName, (OperationId, Step, BootTime)>,
    /// How many errands an address had, the one under way and whether it was recalled, and since when.
    errands: BTreeMap<FloatingIpName, (ErrandSeen, BootTime)>,
    /// Since when an owner that holds a lease has been seen without the address.
    pub(crate) unattached: BTreeMap<FloatingIpName, (Token, BootTime)>,
    /// Addresses whose machines a person attested to be off, with the operation.
    pub(crate) attested: BTreeMap<FloatingIpName, OperationId>,
    /// Moves that a person called off: what does not press is left alone for a while.
    pub(crate) called_off: BTreeMap<FloatingIpName, BootTime>,
    /// What was said about an address, so that it is said once.
    said: BTreeMap<FloatingIpName, String>,
    /// Alarms that are raised, and conditions that may become one, with their beginning.
    pub(crate) alarms: BTreeSet<Alarm>,
    pub(crate) brewing: BTreeMap<Alarm, BootTime>,
    /// When conditions were last weighed.
    pub(crate) weighed: Option<BootTime>,
    pub(crate) rooms_in_use: BTreeSet<RoomKey>,
    pub(crate) rooms_tended: BootTime,
    /// When something becomes due by time alone.
    pub(crate) wake: Option<BootTime>,
}

/// What a proposal is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The journal of an address.
    Journal(FloatingIpName),
    /// Where a provider routes an address.
    Routing(FloatingIpName),
    /// A node's life.
    Life(NodeId),
    /// Verdicts.
    Verdicts,
    /// What is announced.
    Announced,
    /// The end of a pause.
    Pause,
    /// The end of a drill that nobody ends.
    Drill,
    /// The encoding.
    Format,
    /// Rooms of the embedded store.
    Rooms,
    /// Nothing: its fate tells the fate of what was proposed before it.
    Barrier,
    /// A person's request.
    Request(CallId),
}

/// A proposal under way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) subject: Subject,
    /// The address whose owner it takes the right to renew from.
    pub(crate) revokes: Option<FloatingIpName>,
    /// Whether it begins an automatic failover, which the breaker counts.
    pub(crate) fails_over: bool,
    /// The person who waits for its fate.
    pub(crate) call: Option<CallId>,
    /// The address whose old owner the person attested to be off.
    pub(crate) attests: Option<FloatingIpName>,
    /// The address whose move the person calls off.
    pub(crate) calls_off: Option<FloatingIpName>,
}

impl Pending {
    /// A proposal of the controller's own.
    pub(crate) fn own(subject: Subject) -> Self {
        Self { subject, revokes: None, fails_over: false, call: None, attests: None, calls_off: None }
    }
}

type ErrandSeen = (ErrandId, Option<bool>);

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: BootTime,
    pause: Duration,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It was an old one.
    None,
    /// Observations, but not whether the node can own.
    Observations,
    /// Whether the node can own an address, or it was not heard before.
    Fitness,
}

impl Tenure {
    pub(crate) fn new(term: u64, now: BootTime, grantor: Grantor) -> Self {
        Self {
            term,
            elected_at: now,
            grantor,
            caught_up: false,
            reports: BTreeMap::new(),
            ended_lives: BTreeMap::new(),
            opinions: Opinions::default(),
            proposals: BTreeMap::new(),
            busy: BTreeMap::new(),
            retries: BTreeMap::new(),
            settling: Vec::new(),
            unknown: Vec::new(),
            owners: BTreeMap::new(),
            steps: BTreeMap::new(),
            errands: BTreeMap::new(),
            unattached: BTreeMap::new(),
            attested: BTreeMap::new(),
            called_off: BTreeMap::new(),
            said: BTreeMap::new(),
            alarms: BTreeSet::new(),
            brewing: BTreeMap::new(),
            weighed: None,
            rooms_in_use: BTreeSet::new(),
            rooms_tended: now,
            wake: Some(now),
        }
    }

    /// Takes a report in, unless a newer one of the same life, or one of a later life, is known.
    pub(crate) fn take_report(&mut self, now: BootTime, freshness: Duration, mut report: NodeReport) -> News {
        let known = self.reports.get(&report.node);
        if let Some((_, known)) = known
            && (known.incarnation, known.seq) >= (report.incarnation, report.seq)
        {
            return News::None;
        }
        self.opinions.take(&report);
        report.upstreams = None; // kept once, as votes
        self.rooms_in_use.extend(std::mem::take(&mut report.rooms_in_use));
        let same = known.is_some_and(|(at, known)| {
            now < *at + freshness
                && known.incarnation == report.incarnation
                && known.not_ready.is_some() == report.not_ready.is_some()
                && known.draining == report.draining
                && known.store == report.store
        });
        self.reports.insert(report.node, (now, report));
        if same { News::Observations } else { News::Fitness }
    }

    /// A guardian saw a life end.
    pub(crate) fn life_ended(&mut self, node: NodeId, life: Incarnation) {
        let newest = self.ended_lives.entry(node).or_insert(life);
        *newest = life.max(*newest);
    }

    /// Whether a guardian saw this life end.
    pub(crate) fn has_ended(&self, node: NodeId, life: Incarnation) -> bool {
        self.ended_lives.get(&node).is_some_and(|ended| life <= *ended)
    }

    /// The newest report of a node, and when it came.
    pub(crate) fn report(&self, node: NodeId) -> Option<(BootTime, &NodeReport)> {
        self.reports.get(&node).map(|(at, report)| (*at, report))
    }

    /// All newest reports, and when they came.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (BootTime, &NodeReport)> {
        self.reports.values().map(|(at, report)| (*at, report))
    }

    /// Notes who owns what, and where the journals stand, so that time can be counted on this node's own clock.
    pub(crate) fn look_at(&mut self, now: BootTime, state: &State) {
        self.settling.retain(|(revision, ip, ticket)| {
            let shown = state.revision >= *revision;
            if shown {
                self.grantor.revocation_settled(ip, *ticket);
            }
            !shown
        });
        for (ip, entry) in &state.floating_ips {
            if let Some(owner) = &entry.owner
                && self.owners.get(ip).is_none_or(|(token, _)| *token != owner.token)
            {
                let before = self.owners.insert(ip.clone(), (owner.token, now));
                assert!(
                    before.is_none_or(|(before, _)| before < owner.token),
                    "tokens only grow: {before:?} then {} for {ip}",
                    owner.token
                );
                self.grantor.owner_is(ip, owner.token);
                self.unattached.remove(ip);
            }
            let at =
                entry.operation.as_ref().and_then(|operation| Some((operation.id, operation.current()?)));
            match at {
                Some((id, step)) => {
                    let known = self.steps.get(ip);
                    if known.is_none_or(|(known, at, _)| (*known, *at) != (id, step)) {
                        self.steps.insert(ip.clone(), (id, step, now));
                    }
                }
                None => {
                    self.steps.remove(ip);
                }
            }
            if entry.operation.is_none() {
                self.attested.remove(ip);
            }
            let seen = (entry.errands, entry.errand.as_ref().map(|errand| errand.recalled));
            if self.errands.get(ip).is_none_or(|(known, _)| *known != seen) {
                self.errands.insert(ip.clone(), (seen, now));
            }
        }
    }

    /// When this tenure first saw the owner under this token.
    pub(crate) fn owner_seen(&self, ip: &FloatingIpName, token: Token) -> Option<BootTime> {
        self.owners.get(ip).filter(|(seen, _)| *seen == token).map(|(_, at)| *at)
    }

    /// When this tenure first saw the journal of an address at its present step. A new leader begins to count anew.
    pub(crate) fn step_since(&self, ip: &FloatingIpName) -> Option<BootTime> {
        self.steps.get(ip).map(|(_, _, at)| *at)
    }

    /// Since when, as far as this tenure saw, the errands of an address stand as they do.
    pub(crate) fn errand_since(&self, ip: &FloatingIpName) -> Option<BootTime> {
        self.errands.get(ip).map(|(_, at)| *at)
    }

    /// Whether something about this may be proposed now.
    pub(crate) fn may_propose(&self, now: BootTime, subject: &Subject) -> bool {
        !self.busy.contains_key(subject) && self.retries.get(subject).is_none_or(|retry| now >= retry.at)
    }

    /// Whether a proposal about this is under way.
    pub(crate) fn is_busy(&self, subject: &Subject) -> bool {
        self.busy.contains_key(subject)
    }

    /// Whether nothing at all is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.proposals.is_empty()
    }

    /// When the next repetition is due.
    pub(crate) fn next_retry(&self, now: BootTime) -> Option<BootTime> {
        self.retries.values().map(|retry| retry.at).filter(|at| *at > now).min()
    }

    /// Notes that a proposal is handed out.
    pub(crate) fn hand_out(&mut self, ticket: Ticket, pending: Pending) {
        *self.busy.entry(pending.subject.clone()).or_default() += 1;
        if let Some(ip) = &pending.revokes {
            self.grantor.revocation_proposed(ip, ticket);
        }
        self.proposals.insert(ticket, pending);
    }

    /// A proposal's fate is known, or known to be unknown. `None`: it was of an earlier tenure.
    pub(crate) fn take_back(&mut self, ticket: Ticket) -> Option<Pending> {
        let pending = self.proposals.remove(&ticket)?;
        if let Some(count) = self.busy.get_mut(&pending.subject) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&pending.subject);
            }
        }
        Some(pending)
    }

    /// It worked: the next one about this need not wait.
    pub(crate) fn succeeded(&mut self, subject: &Subject) {
        self.retries.remove(subject);
    }

    /// It did not: the next one about this waits, each time longer.
    pub(crate) fn failed(&mut self, now: BootTime, subject: &Subject) {
        let pause = self.retries.get(subject).map_or(RETRY_MIN, |retry| (2 * retry.pause).min(RETRY_MAX));
        self.retries.insert(subject.clone(), Retry { at: now + pause, pause });
    }

    /// A revocation was applied at this revision.
    pub(crate) fn revocation_applied(&mut self, ip: FloatingIpName, ticket: Ticket, revision: Revision) {
        self.settling.push((revision, ip, ticket));
    }

    /// The fate of a revocation is unknown. It goes on blocking grants until the fate of a proposal handed out from
    /// `next` on is known: that one is behind it in the log, if it is there at all.
    pub(crate) fn revocation_unknown(&mut self, ip: FloatingIpName, ticket: Ticket, next: Ticket) {
        self.unknown.push((ip, ticket, next));
    }

    /// The fate of this proposal is known: so is that of unknown ones before it, and the state shows it.
    pub(crate) fn conclusive(&mut self, done: Ticket) {
        self.caught_up = true;
        let grantor = &mut self.grantor;
        self.unknown.retain(|(ip, ticket, settles)| {
            let settled = done >= *settles;
            if settled {
                grantor.revocation_settled(ip, *ticket);
            }
            !settled
        });
    }

    /// Automatic failovers that may have begun and that the state at hand need not show yet. Rather one too many for a
    /// moment than one too few.
    pub(crate) fn failovers_under_way(&self) -> usize {
        let proposed = self.proposals.values().filter(|pending| pending.fails_over).count();
        proposed + self.settling.len() + self.unknown.len()
    }

    /// Whether a barrier is needed: to learn the fate of a revocation, or to have all that earlier terms agreed on.
    pub(crate) fn needs_barrier(&self) -> bool {
        !self.unknown.is_empty() || !self.caught_up
    }

    /// Whether this has not been said of this address last.
    pub(crate) fn say_once(&mut self, ip: &FloatingIpName, what: String) -> bool {
        if self.said.get(ip) == Some(&what) {
            return false;
        }
        self.said.insert(ip.clone(), what);
        true
    }

    /// There is nothing to say about an address any more.
    pub(crate) fn nothing_to_say(&mut self, ip: &FloatingIpName) {
        self.said.remove(ip);
    }

    /// The persons who still wait for an answer.
    pub(crate) fn waiting_calls(&self) -> impl Iterator<Item = CallId> {
        self.proposals.values().filter_map(|pending| pending.call)
    }
}

/// The point before which a room must have been touched to be forgotten.
pub(crate) fn rooms_before(wall: WallTime, ttl: Duration) -> Option<WallTime> {
    wall.0.checked_sub(u64::try_from(ttl.as_millis()).ok()?).map(WallTime)
}
