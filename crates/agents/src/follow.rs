//! Brings a node in line with the replicated state, revision by revision.

use crate::appoint::{Appointments, Employer};
use crate::hands::{FloatingHands, Tools};
use crate::machine::Machine;
use crate::peers::Peers;
use crate::quorum::QuorumWatch;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use twinsite_consensus::Change;
use twinsite_controller::election_order;
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{ClusterSpec, Event, FloatingIpName, Incarnation, NodeId, Revision, State, Step, Token};

/// What else follows the state on this machine, with what it holds addresses, and how it runs empty.
pub trait Surroundings: Send + 'static {
    /// It begins with this state, or begins again: what changed on the way to it cannot be told.
    fn begin(&mut self, state: &Arc<State>);

    /// One revision has been applied. Comes before what follows from it is done.
    fn publish(&mut self, change: &Change);

    /// There is another specification.
    fn configure(&mut self, spec: &ClusterSpec);

    /// Something that is no room's has changed: `events`, and what cannot be told. Comes after [`Self::configure`].
    fn follow(&mut self, state: &State, events: &[Event]);

    /// With what an address is held. None: this machine cannot.
    fn tools(&mut self, ip: &FloatingIpSpec) -> Option<Tools>;

    /// Sees to it that what is in flight at an address becomes less, within `limit` if it can. Done when nothing is left.
    fn drain(&mut self, ip: &FloatingIpName, limit: Duration) -> BoxFuture<'static, ()>;

    /// The address is served as before.
    fn undrain(&mut self, ip: &FloatingIpName);
}

/// What follows the state on a node.
pub struct Follower<M: Machine, P: Peers, S: Surroundings> {
    employer: Employer<M, P>,
    /// What is known of a quorum.
    quorum: QuorumWatch,
    surroundings: S,
    appointments: Appointments<M>,
    /// The specification that everything was configured by.
    configured: Option<Revision>,
    /// Drains under way.
    draining: BTreeMap<FloatingIpName, (Token, CancellationToken)>,
}

impl<M: Machine, P: Peers, S: Surroundings> Follower<M, P, S> {
    /// Follows nothing yet.
    pub fn new(employer: Employer<M, P>, quorum: QuorumWatch, surroundings: S) -> Self {
        Self {
            employer,
            quorum,
            surroundings,
            appointments: Appointments::default(),
            configured: None,
            draining: BTreeMap::new(),
        }
    }

    /// Follows until cancelled; then lets every floating IP go in good order.
    pub async fn run(mut self, stop: CancellationToken) {
        let raft = self.employer.raft.clone();
        let (state, mut changes) = raft.subscribe();
        self.begin(&state);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                change = changes.next() => match change {
                    Ok(change) => self.take(&change),
                    Err(_) => {
                        if raft.status().borrow().stopped.is_some() {
                            break;
                        }
                        let (state, again) = raft.subscribe();
                        changes = again;
                        self.begin(&state);
                    }
                },
            }
        }
        self.appointments.end().await;
    }

    fn begin(&mut self, state: &Arc<State>) {
        self.surroundings.begin(state);
        self.bring_in_line(state, None);
    }

    fn take(&mut self, change: &Change) {
        if change.skipped {
            return self.begin(&change.state);
        }
        self.surroundings.publish(change);
        self.bring_in_line(&change.state, Some(&change.events));
    }

    /// `events` is what changed; `None` if it cannot be told.
    fn bring_in_line(&mut self, state: &Arc<State>, events: Option<&[Event]>) {
        self.quorum.applied(state);
        if events.is_some_and(|events| events.iter().all(concerns_rooms_only)) {
            return;
        }
        if let Some(spec) = &state.spec
            && self.configured != Some(state.spec_revision)
        {
            self.configured = Some(state.spec_revision);
            self.surroundings.configure(spec);
            self.appointments.follow(spec, &self.employer, |ip| self.surroundings.tools(ip));
        }
        self.employer.raft.set_election_order(&election_order(state));
        self.surroundings.follow(state, events.unwrap_or_default());
        self.follow_drains(state);
    }

    /// A planned move begins with the owner running empty.
    fn follow_drains(&mut self, state: &State) {
        let me = (self.employer.me, self.employer.incarnation);
        let hands = &self.employer.hands;
        self.draining.retain(|ip, (token, stop)| {
            let goes_on = drains(state, ip, me) == Some(*token);
            if !goes_on {
                stop.cancel();
                self.surroundings.undrain(ip);
                if let Some(hands) = hands.of(ip) {
                    hands.set_drained(None);
                }
            }
            goes_on
        });
        let limit = state.spec.as_ref().map_or(Duration::from_secs(1), |spec| spec.policy.drain_timeout.0);
        for ip in state.floating_ips.keys() {
            let token = drains(state, ip, me).filter(|_| !self.draining.contains_key(ip));
            let (Some(token), Some(hands)) = (token, hands.of(ip)) else { continue };
            let stop = CancellationToken::new();
            self.draining.insert(ip.clone(), (token, stop.clone()));
            let empty = self.surroundings.drain(ip, limit);
            let report_soon = Arc::clone(&self.employer.report_soon);
            let drain = drain(ip.clone(), token, hands, empty, report_soon, stop);
            drop(M::spawn(self.employer.supervisor.passing("a drain", drain)));
        }
    }
}

/// The token of an address that this life of a node owns and is to run empty: from the first step of draining until the
/// address is somebody else's, or the move is called off.
fn drains(state: &State, ip: &FloatingIpName, me: (NodeId, Incarnation)) -> Option<Token> {
    let entry = state.floating_ips.get(ip)?;
    let owner = entry.owner.as_ref().filter(|owner| (owner.node, owner.incarnation) == me)?;
    let operation = entry.operation.as_ref()?;
    let began = operation.steps.iter().any(|record| record.step == Step::Drain);
    (operation.kind.drains() && began).then_some(owner.token)
}

/// Says so when nothing of an address is in flight any more.
async fn drain(
    ip: FloatingIpName,
    token: Token,
    hands: Arc<FloatingHands>,
    empty: BoxFuture<'static, ()>,
    report_soon: Arc<Notify>,
    stop: CancellationToken,
) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = empty => {
            hands.set_drained(Some(token));
            tracing::debug!(%ip, %token, "drained");
            report_soon.notify_one();
        }
    }
}

fn concerns_rooms_only(event: &Event) -> bool {
    matches!(event, Event::RoomPinned { .. } | Event::RoomsExpired { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::state::{FloatingIpState, Owner};
    use twinsite_model::{Epoch, Operation, OperationId, OperationKind, Reason, StepRecord, WallTime};

    fn moving(kind: OperationKind, steps: &[Step]) -> Operation {
        let record = |step: &Step| StepRecord {
            step: *step,
            started: WallTime::default(),
            finished: None,
            detail: String::new(),
        };
        Operation {
            id: OperationId(1),
            ip: FloatingIpName::new("public").unwrap(),
            kind,
            reason: Reason::Operator,
            evidence: Vec::new(),
            from: None,
            target: NodeId(2),
            target_incarnation: Incarnation(1),
            by: String::new(),
            overrides: Vec::new(),
            fence: None,
            token: None,
            steps: steps.iter().map(record).collect(),
            ended: None,
        }
    }

    #[test]
    fn runs_empty_from_the_first_step_of_draining_until_somebody_else_owns_it_or_the_move_is_called_off() {
        let (ip, me, token) =
            (FloatingIpName::new("public").unwrap(), (NodeId(1), Incarnation(7)), Token::new(1, 4));
        let of = |owner: (NodeId, Incarnation), operation: Option<Operation>| {
            let (node, incarnation) = owner;
            let owner = Owner { node, incarnation, token, since: WallTime::default(), revoked: false };
            let entry = FloatingIpState {
                epoch: Epoch(4),
                owner: Some(owner),
                operation,
                ..FloatingIpState::default()
            };
            let state = State { floating_ips: [(ip.clone(), entry)].into(), ..State::default() };
            drains(&state, &ip, me)
        };
        let planned = |steps: &[Step]| Some(moving(OperationKind::Switchover, steps));
        assert_eq!(of(me, planned(&[Step::Decide])), None, "not yet");
        assert_eq!(of(me, planned(&[Step::Decide, Step::Drain])), Some(token));
        assert_eq!(of(me, planned(&[Step::Decide, Step::Drain, Step::Fence])), Some(token), "goes on");
        assert_eq!(of(me, None), None, "called off, or over");
        assert_eq!(of(me, Some(moving(OperationKind::Failover, &[Step::Decide, Step::Drain]))), None);
        let drains = || planned(&[Step::Decide, Step::Drain]);
        assert_eq!(of((NodeId(2), Incarnation(7)), drains()), None, "somebody else's");
        assert_eq!(of((NodeId(1), Incarnation(6)), drains()), None, "an earlier life's");
    }
}
