//! A small Raft: terms, votes, a replicated log, quorum rounds for reads, hand-over. It stands in for openraft and
//! keeps what matters to those above: a leader that is cut off goes on believing that it leads until it hears of a
//! newer term; what it proposed meanwhile may be lost, or committed by a successor; voters that heard a leader a moment
//! ago refuse others.

use crate::clock::TrueTime;
use std::collections::BTreeSet;
use std::rc::Rc;
use twinsite_model::Proposal;

/// Entries in one message at most.
const BATCH_MAX: usize = 64;

/// One entry of the log. Without a proposal: the first of a new leader.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) proposal: Option<Proposal>,
}

/// The end of a log: its last entry's term and index. Compared in that order.
type End = (u64, u64);

/// What the nodes tell one another.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// Asks for a vote. `handed_over`: the leader itself wanted that.
    Vote { term: u64, end: End, handed_over: bool },
    /// Answers it.
    Voted { term: u64, granted: bool },
    /// The leader's heartbeat, with what the receiver lacks, and the newest quorum round.
    Append { term: u64, before: End, entries: Vec<Rc<Entry>>, commit: u64, round: u64 },
    /// Answers it: the logs agree up to `matched`, or (not `agrees`) can agree up to there at most.
    Appended { term: u64, agrees: bool, matched: u64, round: u64 },
    /// The leader hands over.
    TakeOver { term: u64 },
}

/// What to send, to whom.
pub(crate) type Outbox = Vec<(usize, Message)>;

/// The timings that it needs, in nanoseconds of true time (nothing safe hangs on them).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) heartbeat: u64,
    pub(crate) election_min: u64,
    pub(crate) election_max: u64,
}

#[derive(Debug, Clone)]
enum Role {
    Follower,
    Candidate(BTreeSet<usize>),
    Leader(Leading),
}

#[derive(Debug, Clone)]
struct Leading {
    /// The index of this leader's first entry: reads wait for it.
    first: u64,
    next: Vec<u64>,
    matched: Vec<u64>,
    round: u64,
    rounds: Vec<u64>,
    /// When each voter last agreed.
    heard: Vec<TrueTime>,
}

/// One voter. Term, vote and log survive a crash.
#[derive(Debug, Clone)]
pub(crate) struct Raft {
    me: usize,
    voters: usize,
    term: u64,
    voted: Option<usize>,
    log: Vec<Rc<Entry>>,
    role: Role,
    commit: u64,
    leader: Option<usize>,
    heard: Option<TrueTime>,
    wake: TrueTime,
}

impl Raft {
    pub(crate) fn new(me: usize, voters: usize) -> Self {
        Self {
            me,
            voters,
            term: 0,
            voted: None,
            log: Vec::new(),
            role: Role::Follower,
            commit: 0,
            leader: None,
            heard: None,
            wake: 0,
        }
    }

    /// Begins another life: what was not on disk is forgotten.
    pub(crate) fn restart(&mut self, now: TrueTime, pace: Pace, rng: &mut fastrand::Rng) {
        self.role = Role::Follower;
        self.commit = 0;
        self.leader = None;
        self.heard = None;
        self.wake = now + election_timeout(pace, rng);
    }

    /// The term in which it leads, as far as it knows.
    pub(crate) fn leads(&self) -> Option<u64> {
        matches!(self.role, Role::Leader(_)).then_some(self.term)
    }

    /// Who leads, as far as it knows.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.leader
    }

    pub(crate) fn commit(&self) -> u64 {
        self.commit
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Rc<Entry>> {
        self.log.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn wake(&self) -> TrueTime {
        self.wake
    }

    fn end(&self) -> End {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len() as u64)
    }

    fn quorum(&self) -> usize {
        self.voters / 2 + 1
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.voters).filter(move |other| *other != me)
    }

    pub(crate) fn tick(&mut self, now: TrueTime, pace: Pace, rng: &mut fastrand::Rng) -> Outbox {
        if now < self.wake {
            return Vec::new();
        }
        if matches!(self.role, Role::Leader(_)) {
            self.wake = now + pace.heartbeat;
            return self.heartbeat();
        }
        self.stand(now, pace, rng, false)
    }

    fn stand(&mut self, now: TrueTime, pace: Pace, rng: &mut fastrand::Rng, handed_over: bool) -> Outbox {
        self.term += 1;
        self.voted = Some(self.me);
        self.role = Role::Candidate(BTreeSet::from([self.me]));
        self.leader = None;
        self.wake = now + election_timeout(pace, rng);
        let vote = Message::Vote { term: self.term, end: self.end(), handed_over };
        self.others().map(|other| (other, vote.clone())).collect()
    }

    pub(crate) fn receive(
        &mut self,
        (now, pace): (TrueTime, Pace),
        rng: &mut fastrand::Rng,
        from: usize,
        message: Message,
    ) -> Outbox {
        match message {
            Message::Vote { term, end, handed_over } => {
                let granted = self.vote(now, pace, from, (term, end), handed_over);
                if granted {
                    self.wake = now + election_timeout(pace, rng);
                }
                vec![(from, Message::Voted { term: self.term.max(term), granted })]
            }
            Message::Voted { term, granted } => self.voted(now, pace, from, term, granted),
            Message::Append { term, before, entries, commit, round } => {
                if term < self.term {
                    let refusal = Message::Appended { term: self.term, agrees: false, matched: 0, round: 0 };
                    return vec![(from, refusal)];
                }
                self.follow(term);
                self.leader = Some(from);
                self.heard = Some(now);
                self.wake = now + election_timeout(pace, rng);
                let (agrees, matched) = self.append(before, entries);
                if agrees {
                    self.commit = self.commit.max(commit.min(matched));
                }
                vec![(from, Message::Appended { term, agrees, matched, round })]
            }
            Message::Appended { term, agrees, matched, round } => {
                if term > self.term {
                    self.follow(term);
                    self.wake = now + election_timeout(pace, rng);
                    return Vec::new();
                }
                if term < self.term { Vec::new() } else { self.appended(now, from, agrees, matched, round) }
            }
            Message::TakeOver { term } if term == self.term && self.leads().is_none() => {
                self.stand(now, pace, rng, true)
            }
            Message::TakeOver { .. } => Vec::new(),
        }
    }

    /// A newer term, or the leader of the present one, is known.
    fn follow(&mut self, term: u64) {
        assert!(term > self.term || self.leads().is_none(), "one leader in each term");
        if term > self.term {
            self.term = term;
            self.voted = None;
            self.leader = None;
        }
        self.role = Role::Follower;
    }

    fn vote(
        &mut self,
        now: TrueTime,
        pace: Pace,
        from: usize,
        (term, end): (u64, End),
        handed_over: bool,
    ) -> bool {
        let heard = match &self.role {
            Role::Leader(leading) => Some(self.quorum_heard(leading)),
            _ => self.heard,
        };
        let content = heard.is_some_and(|heard| now < heard + pace.election_max);
        if term < self.term || (content && !handed_over) {
            return false;
        }
        if term > self.term {
            self.follow(term);
        }
        let free = self.voted.is_none_or(|voted| voted == from);
        let granted = free && end >= self.end() && matches!(self.role, Role::Follower);
        if granted {
            self.voted = Some(from);
        }
        granted
    }

    fn voted(&mut self, now: TrueTime, pace: Pace, from: usize, term: u64, granted: bool) -> Outbox {
        let quorum = self.quorum();
        let Role::Candidate(votes) = &mut self.role else { return Vec::new() };
        if term != self.term || !granted {
            return Vec::new();
        }
        votes.insert(from);
        if votes.len() < quorum {
            return Vec::new();
        }
        self.log.push(Rc::new(Entry { term, proposal: None }));
        let first = self.log.len() as u64;
        self.role = Role::Leader(Leading {
            first,
            next: vec![first; self.voters],
            matched: vec![0; self.voters],
            round: 0,
            rounds: vec![0; self.voters],
            heard: vec![now; self.voters],
        });
        self.leader = Some(self.me);
        self.wake = now + pace.heartbeat;
        self.heartbeat()
    }

    /// Takes entries over; says whether the logs agree, and up to where.
    fn append(&mut self, (term, index): End, entries: Vec<Rc<Entry>>) -> (bool, u64) {
        let agrees = index == 0 || self.entry(index).is_some_and(|entry| entry.term == term);
        if !agrees {
            return (false, (self.log.len() as u64).min(index - 1));
        }
        let mut at = index;
        for entry in entries {
            at += 1;
            if self.entry(at).is_some_and(|known| known.term == entry.term) {
                continue;
            }
            assert!(at > self.commit, "what is committed stays");
            self.log.truncate(at as usize - 1);
            self.log.push(entry);
        }
        (true, at)
    }

    fn appended(&mut self, now: TrueTime, from: usize, agrees: bool, matched: u64, round: u64) -> Outbox {
        let newest = self.log.len() as u64;
        let Role::Leader(leading) = &mut self.role else { return Vec::new() };
        leading.heard[from] = now;
        leading.rounds[from] = leading.rounds[from].max(round);
        if !agrees {
            leading.next[from] = leading.next[from].min(matched + 1);
            return vec![(from, self.append_for(from))];
        }
        leading.matched[from] = leading.matched[from].max(matched);
        leading.next[from] = leading.next[from].max(leading.matched[from] + 1);
        let behind = leading.next[from] <= newest && matched + (BATCH_MAX as u64) <= newest;
        if self.advance() {
            return self.heartbeat();
        }
        if behind { vec![(from, self.append_for(from))] } else { Vec::new() }
    }

    /// Commits what a quorum has; says whether that is anything new.
    fn advance(&mut self) -> bool {
        let newest = self.log.len() as u64;
        let Role::Leader(leading) = &self.role else { return false };
        let mut matched = leading.matched.clone();
        matched[self.me] = newest;
        matched.sort_unstable();
        let agreed = matched[self.voters - self.quorum()];
        let own = self.entry(agreed).is_some_and(|entry| entry.term == self.term);
        let new = own && agreed > self.commit;
        if new {
            self.commit = agreed;
        }
        new
    }

    fn append_for(&self, to: usize) -> Message {
        let Role::Leader(leading) = &self.role else { unreachable!("only leaders append") };
        let index = leading.next[to] - 1;
        let term = self.entry(index).map_or(0, |entry| entry.term);
        let entries = self.log.iter().skip(index as usize).take(BATCH_MAX).cloned().collect();
        Message::Append {
            term: self.term,
            before: (term, index),
            entries,
            commit: self.commit,
            round: leading.round,
        }
    }

    fn heartbeat(&self) -> Outbox {
        self.others().map(|other| (other, self.append_for(other))).collect()
    }

    /// Appends a proposal, if this node leads in that very term. Says where it is.
    pub(crate) fn propose(&mut self, term: u64, proposal: Proposal) -> Option<(u64, Outbox)> {
        if self.leads() != Some(term) {
            return None;
        }
        self.log.push(Rc::new(Entry { term, proposal: Some(proposal) }));
        Some((self.log.len() as u64, self.heartbeat()))
    }

    /// Begins a quorum round now: its number, and the index up to which the state must be applied.
    pub(crate) fn begin_round(&mut self) -> Option<(u64, u64, Outbox)> {
        let commit = self.commit;
        let Role::Leader(leading) = &mut self.role else { return None };
        leading.round += 1;
        let (round, index) = (leading.round, commit.max(leading.first));
        Some((round, index, self.heartbeat()))
    }

    /// The newest round that a quorum has confirmed in this term.
    pub(crate) fn confirmed_round(&self) -> u64 {
        let Role::Leader(leading) = &self.role else { return 0 };
        self.quorum_of(leading.round, &leading.rounds)
    }

    fn quorum_heard(&self, leading: &Leading) -> TrueTime {
        self.quorum_of(TrueTime::MAX, &leading.heard)
    }

    /// The highest value that a quorum has reached, with `own` for this node.
    fn quorum_of(&self, own: u64, values: &[u64]) -> u64 {
        let mut values = values.to_vec();
        values[self.me] = own;
        values.sort_unstable();
        values[self.voters - self.quorum()]
    }

    /// Hands leadership over, if the target has everything.
    pub(crate) fn hand_over(&self, to: usize) -> Option<Message> {
        let Role::Leader(leading) = &self.role else { return None };
        let ready = leading.matched.get(to).is_some_and(|matched| *matched >= self.commit);
        ready.then_some(Message::TakeOver { term: self.term })
    }
}

fn election_timeout(pace: Pace, rng: &mut fastrand::Rng) -> u64 {
    pace.election_max + rng.u64(pace.election_min..=pace.election_max)
}
