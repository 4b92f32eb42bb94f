//! The owner's side of the lease: a pure machine that says when a node may act for a floating IP, and when it must
//! stop (design section 5).

use crate::grantor::{Release, ReleasedBy, Renewal, RenewalRefusal};
use std::collections::BTreeMap;
use std::time::Duration;
use twinsite_model::{BootTime, FloatingIpName, Incarnation, NodeId, Owner, Timing, Token};
use twinsite_model::{Fault, Faults};

/// Renewals whose answers are awaited at most; older ones are forgotten, and their answers mean nothing.
const OUTSTANDING_MAX: usize = 64;

/// What a holder is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderInput {
    /// The state's owner of the address, whenever the state changed.
    State {
        /// The owner, whoever it is.
        owner: Option<Owner>,
    },
    /// The leader granted a renewal.
    Granted {
        /// The renewal's token.
        token: Token,
        /// Its number.
        seq: u64,
        /// How long, from its send time.
        lease: Duration,
    },
    /// The leader refused a renewal.
    Refused {
        /// The renewal's token.
        token: Token,
        /// Its number.
        seq: u64,
        /// Why.
        why: RenewalRefusal,
    },
    /// The machine stood still for so long just now and its clock did not count it (a guest that was paused with its
    /// clocks). Stand-stills that the clock counted need no word: the lease runs on through them. Linux gives no sign of
    /// it (`CLOCK_BOOTTIME` counts a suspended host, and no clock of a guest counts a pause that stopped them all), so
    /// nobody says this today: that it does not happen within a lease is an assumption.
    Suspended {
        /// How long, as far as can be told.
        gap: Duration,
    },
    /// Everything of this token is gone: listeners closed, address read back absent. Answers [`HolderOutput::Stop`].
    Stopped {
        /// The token.
        token: Token,
        /// Which stop was carried out. Between an earlier one and the newest the address may have been held again.
        number: u64,
    },
    /// Another node leads: whoever it is has heard nothing of this holder yet, and an election has used up a good part of
    /// the lease.
    NewLeader,
    /// The address cannot be held here (any more): give the token up. Another one may come later.
    LetGo,
    /// The node is being shut down: let go of what is held.
    Shutdown,
    /// Time has passed: [`Holder::next_wake`] is due.
    Tick,
}

/// What a holder wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderOutput {
    /// Send this to the leader, at once: its lease counts from now.
    SendRenew(Renewal),
    /// Act for the address under this token, until then at most.
    Hold {
        /// The token.
        token: Token,
        /// The end, on this machine's clock.
        until: BootTime,
    },
    /// Stop acting, and answer with [`HolderInput::Stopped`] when everything is gone.
    Stop {
        /// The token.
        token: Token,
        /// Which stop this is.
        number: u64,
        /// Why.
        why: StopReason,
    },
    /// Tell the leader. Comes again until the state shows another owner.
    SendReleased(Release),
}

/// Why a holder stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The cluster took the address away, or the node shuts down: there is time for a clean end.
    Planned,
    /// The lease is over: now, at any price.
    Involuntary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The address is somebody else's.
    Idle,
    /// Ours by the state, not yet (or no longer) by a lease. `lit`: something of a former lease may not be gone yet.
    Acquiring { token: Token, lit: bool },
    /// Ours until then.
    Holding { token: Token, until: BootTime },
    /// Told to stop for good; waiting until everything is gone. Nothing is asked for any more.
    Ending { token: Token },
    /// Gone for good: the leader is told until it knows.
    Released { token: Token },
}

/// The owner's side of one floating IP's lease on one node, for one life of the process.
#[derive(Debug, Clone)]
pub struct Holder {
    ip: FloatingIpName,
    node: NodeId,
    incarnation: Incarnation,
    timing: Timing,
    phase: Phase,
    /// The highest token that this life has given up: never asked for again.
    ended: Option<Token>,
    seq: u64,
    /// When each unanswered renewal was sent.
    sent: BTreeMap<u64, BootTime>,
    last_sent: Option<BootTime>,
    /// The number of the newest stop.
    stops: u64,
    shutting_down: bool,
    faults: Faults,
}

impl Holder {
    /// A holder that holds nothing, whatever a former life held.
    pub fn new(ip: FloatingIpName, node: NodeId, incarnation: Incarnation, timing: Timing) -> Self {
        Self {
            ip,
            node,
            incarnation,
            timing,
            phase: Phase::Idle,
            ended: None,
            seq: 0,
            sent: BTreeMap::new(),
            last_sent: None,
            stops: 0,
            shutting_down: false,
            faults: Faults::here(),
        }
    }

    /// Makes deliberate mistakes from here on.
    #[cfg(feature = "seeded-faults")]
    pub fn seed_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Uses other timings from here on. What was granted stays as it was granted.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Something happened. `now` is this machine's clock, and never goes back.
    pub fn step(&mut self, now: BootTime, input: HolderInput) -> Vec<HolderOutput> {
        let mut out = Vec::new();
        // A lease that has ended ends the right to act before anything else is considered.
        let ignores = self.faults.has(Fault::IgnoreSuspend) && !matches!(input, HolderInput::Tick);
        if !ignores {
            self.expire(now, &mut out);
        }
        match input {
            HolderInput::State { owner } => self.state(owner.as_ref(), &mut out),
            HolderInput::Granted { token, seq, lease } => self.granted(now, token, seq, lease, &mut out),
            HolderInput::Refused { token, seq, why } => self.refused(token, seq, why, &mut out),
            HolderInput::Suspended { gap } => self.suspended(now, gap, &mut out),
            HolderInput::Stopped { token, number } => self.stopped(token, number),
            HolderInput::LetGo => self.end(&mut out),
            HolderInput::Shutdown => {
                self.shutting_down = true;
                self.end(&mut out);
            }
            HolderInput::NewLeader => self.last_sent = None,
            HolderInput::Tick => {}
        }
        self.send(now, &mut out);
        out
    }

    fn expire(&mut self, now: BootTime, out: &mut Vec<HolderOutput>) {
        if let Phase::Holding { token, until } = self.phase
            && now >= until
        {
            // The token may still be ours: the state decides, and a new grant may follow.
            self.phase = Phase::Acquiring { token, lit: true };
            self.stop(token, StopReason::Involuntary, out);
        }
    }

    /// The token, if the state says that it is this life's.
    fn mine<'o>(&self, owner: Option<&'o Owner>) -> Option<&'o Owner> {
        let any_life = self.faults.has(Fault::OldIncarnationRenews);
        owner.filter(|owner| owner.node == self.node && (any_life || owner.incarnation == self.incarnation))
    }

    fn state(&mut self, owner: Option<&Owner>, out: &mut Vec<HolderOutput>) {
        let newest = owner.map(|owner| owner.token);
        if let Some(held) = self.token()
            && newest.is_some_and(|newest| newest < held)
        {
            return; // an older state than the one that gave us the token
        }
        match self.mine(owner) {
            Some(owner) if self.token() == Some(owner.token) => {
                if owner.revoked {
                    self.end(out);
                }
            }
            Some(owner) => {
                self.let_go_at_once(out);
                self.sent.clear();
                self.last_sent = None;
                self.phase = if self.ended.is_some_and(|ended| owner.token <= ended) {
                    Phase::Released { token: owner.token }
                } else {
                    Phase::Acquiring { token: owner.token, lit: false }
                };
                if owner.revoked || self.shutting_down {
                    self.end(out);
                }
            }
            None => {
                self.let_go_at_once(out);
                self.sent.clear();
                self.phase = Phase::Idle;
            }
        }
    }

    /// Another owner is known: whatever is still here under the former token has no right to be.
    fn let_go_at_once(&mut self, out: &mut Vec<HolderOutput>) {
        if let Phase::Holding { token, .. }
        | Phase::Acquiring { token, lit: true }
        | Phase::Ending { token } = self.phase
        {
            self.stop(token, StopReason::Involuntary, out);
        }
        self.ended = self.ended.max(self.token());
    }

    fn stop(&mut self, token: Token, why: StopReason, out: &mut Vec<HolderOutput>) {
        self.stops += 1;
        out.push(HolderOutput::Stop { token, number: self.stops, why });
    }

    /// Gives the token up for good: first everything stops, then it is released.
    fn end(&mut self, out: &mut Vec<HolderOutput>) {
        let (Phase::Acquiring { token, .. } | Phase::Holding { token, .. }) = self.phase else { return };
        // Even what never held is read back, so that `Released` always rests on an observation.
        self.stop(token, StopReason::Planned, out);
        self.ended = self.ended.max(Some(token));
        self.last_sent = None;
        self.sent.clear();
        self.phase = if self.faults.has(Fault::ReleasedBeforeStopped) {
            Phase::Released { token }
        } else {
            Phase::Ending { token }
        };
    }

    fn granted(
        &mut self,
        now: BootTime,
        granted: Token,
        seq: u64,
        lease: Duration,
        out: &mut Vec<HolderOutput>,
    ) {
        // An answer to a renewal of a former token, a repeated one, or a forgotten one means nothing.
        let Some(sent) = self.sent.remove(&seq) else { return };
        let (Phase::Acquiring { token, .. } | Phase::Holding { token, .. }) = self.phase else { return };
        if token != granted {
            return;
        }
        let from = if self.faults.has(Fault::LeaseFromReceipt) { now } else { sent };
        let until = from + lease;
        let later = match self.phase {
            Phase::Holding { until: current, .. } => until > current,
            _ => true,
        };
        if later && now < until {
            self.phase = Phase::Holding { token, until };
            out.push(HolderOutput::Hold { token, until });
        }
    }

    fn refused(&mut self, refused: Token, seq: u64, why: RenewalRefusal, out: &mut Vec<HolderOutput>) {
        if self.sent.remove(&seq).is_none() || self.token() != Some(refused) {
            return;
        }
        if why.is_final() {
            self.end(out);
        }
    }

    /// The rest of the world lived through what this clock missed.
    fn suspended(&mut self, now: BootTime, gap: Duration, out: &mut Vec<HolderOutput>) {
        if self.faults.has(Fault::IgnoreSuspend) {
            return;
        }
        self.sent.clear(); // the send times are too late by the gap
        self.last_sent = None;
        if let Phase::Ending { token } = self.phase {
            // There was time for a clean end, and it may be over: what is left of it cannot be told.
            self.stop(token, StopReason::Involuntary, out);
        }
        if let Phase::Holding { token, until } = self.phase {
            let until = until - gap;
            self.phase = Phase::Holding { token, until };
            if now < until {
                out.push(HolderOutput::Hold { token, until });
            } else {
                self.expire(now, out);
            }
        }
    }

    fn stopped(&mut self, gone: Token, number: u64) {
        if number != self.stops && !self.faults.has(Fault::AnyStopCounts) {
            return;
        }
        match self.phase {
            Phase::Ending { token } if token == gone => {
                self.phase = Phase::Released { token };
                self.last_sent = None;
            }
            Phase::Acquiring { token, .. } if token == gone => {
                self.phase = Phase::Acquiring { token, lit: false };
            }
            _ => {}
        }
    }

    fn send(&mut self, now: BootTime, out: &mut Vec<HolderOutput>) {
        if self.last_sent.is_some_and(|sent| now.since(sent) < self.timing.renew) {
            return;
        }
        match self.phase {
            Phase::Acquiring { token, .. } | Phase::Holding { token, .. } => {
                self.seq += 1;
                self.sent.insert(self.seq, now);
                if self.sent.len() > OUTSTANDING_MAX {
                    self.sent.pop_first();
                }
                self.last_sent = Some(now);
                out.push(HolderOutput::SendRenew(Renewal {
                    ip: self.ip.clone(),
                    node: self.node,
                    incarnation: self.incarnation,
                    token,
                    seq: self.seq,
                    holding: matches!(self.phase, Phase::Holding { .. }),
                }));
            }
            Phase::Released { token } => {
                self.last_sent = Some(now);
                out.push(HolderOutput::SendReleased(Release {
                    ip: self.ip.clone(),
                    node: self.node,
                    incarnation: self.incarnation,
                    token,
                    by: ReleasedBy::Holder,
                }));
            }
            Phase::Idle | Phase::Ending { .. } => {}
        }
    }

    /// When [`HolderInput::Tick`] is due at the latest.
    pub fn next_wake(&self) -> Option<BootTime> {
        let next = self.last_sent.map_or(BootTime::default(), |sent| sent + self.timing.renew);
        match self.phase {
            Phase::Idle | Phase::Ending { .. } => None,
            Phase::Acquiring { .. } | Phase::Released { .. } => Some(next),
            Phase::Holding { until, .. } => Some(next.min(until)),
        }
    }

    /// The token under which this node may act at this instant, and the end of that right.
    pub fn holding(&self, now: BootTime) -> Option<(Token, BootTime)> {
        match self.phase {
            Phase::Holding { token, until } if now < until => Some((token, until)),
            _ => None,
        }
    }

    /// The token that this life has to do with, in whatever way.
    pub fn token(&self) -> Option<Token> {
        match self.phase {
            Phase::Idle => None,
            Phase::Acquiring { token, .. }
            | Phase::Holding { token, .. }
            | Phase::Ending { token }
            | Phase::Released { token } => Some(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::Profile;

    const ME: NodeId = NodeId(1);

    fn holder() -> Holder {
        let ip = FloatingIpName::new("public").unwrap();
        Holder::new(ip, ME, Incarnation(7), Timing::of(Profile::Lan))
    }

    fn mine(epoch: u64) -> HolderInput {
        let (token, incarnation) = (Token::new(1, epoch), Incarnation(7));
        HolderInput::State {
            owner: Some(Owner {
                node: ME,
                incarnation,
                token,
                since: twinsite_model::WallTime::default(),
                revoked: false,
            }),
        }
    }

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    /// What cannot be held is given up for good, and the next token is taken all the same.
    #[test]
    fn an_address_that_is_let_go_is_released_only_once_it_is_gone() {
        let (mut holder, token) = (holder(), Token::new(1, 1));
        let asked = holder.step(at(1_000), mine(1));
        assert!(matches!(&asked[..], [HolderOutput::SendRenew(renewal)] if renewal.seq == 1));
        let lease = Duration::from_millis(320);
        holder.step(at(1_001), HolderInput::Granted { token, seq: 1, lease });
        let out = holder.step(at(1_002), HolderInput::LetGo);
        let stop = HolderOutput::Stop { token, number: 1, why: StopReason::Planned };
        assert_eq!(out, [stop], "nothing is said before it is gone");
        assert_eq!(holder.step(at(1_003), HolderInput::LetGo), [], "once");
        assert_eq!(holder.step(at(1_003), mine(1)), [], "the same token is not taken again");
        let out = holder.step(at(1_004), HolderInput::Stopped { token, number: 1 });
        assert!(matches!(&out[..], [HolderOutput::SendReleased(release)] if release.token == token));

        let out = holder.step(at(1_005), mine(2));
        assert!(
            matches!(&out[..], [HolderOutput::SendRenew(renewal)] if renewal.token == Token::new(1, 2)),
            "{out:?}"
        );
    }
}
