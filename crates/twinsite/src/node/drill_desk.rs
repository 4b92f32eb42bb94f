//! What the leader answers to nodes that run drills, and the way to it from any node.

use super::Raft;
use super::api::reason;
use crate::peer::Peers;
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use twinsite_agents::{Brain, Machine, timing};
use twinsite_api::{ApiError, Reason};
use twinsite_consensus::TokioRuntime;
use twinsite_controller::{OperatorAction, OperatorAnswer, OperatorRefusal, OperatorRequest};
use twinsite_model::{DrillId, DrillOutcome, Incarnation, NodeId, RequestId};

/// How soon the leader is asked again, or the next one.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long one node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A drill that a person wants and a node is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillWish {
    /// The scenario's name.
    pub name: String,
    /// The person.
    pub person: String,
    /// The node.
    pub runner: NodeId,
    /// The life of it.
    pub incarnation: Incarnation,
    /// How long it may last.
    pub within: Duration,
    /// By which a repetition is recognised.
    pub request: RequestId,
}

/// A drill that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedDrill {
    /// Its id.
    pub drill: DrillId,
    /// The node that ran it.
    pub runner: NodeId,
    /// How it ended.
    pub outcome: DrillOutcome,
    /// Its report as JSON.
    pub summary: String,
    /// By which a repetition is recognised.
    pub request: RequestId,
}

/// Decides while this node leads.
#[derive(Clone)]
pub struct DrillDesk {
    me: NodeId,
    brain: Brain,
    raft: Raft,
}

impl DrillDesk {
    /// Of this node.
    pub fn new(me: NodeId, brain: Brain, raft: Raft) -> Self {
        Self { me, brain, raft }
    }

    /// Whether a drill might begin now.
    pub async fn may_begin(&self, wish: &DrillWish) -> Result<(), ApiError> {
        let (state, within) = (self.raft.state(), wish.within);
        let look = move |controller: &twinsite_controller::Controller| {
            controller.drill_forbidden(TokioRuntime::boot_now(), TokioRuntime::wall_now(), &state, within)
        };
        let forbidden = self.brain.look(look).await;
        match forbidden.map_err(|busy| ApiError::new(Reason::Busy, busy.to_string()))? {
            None => Ok(()),
            Some(refusal) => Err(refused(&refusal)),
        }
    }

    /// Lets a drill begin; its id.
    pub async fn begin(&self, wish: DrillWish) -> Result<u64, ApiError> {
        let DrillWish { name, person, runner, incarnation, within, request } = wish;
        let action = OperatorAction::BeginDrill { name, person, runner, incarnation, within };
        // Its id is the revision at which it began, also when it began long ago.
        match self.operate(runner, request, action).await? {
            OperatorAnswer::Done { revision } | OperatorAnswer::Repeated { revision } => Ok(revision.0),
            OperatorAnswer::Unchanged { .. } | OperatorAnswer::Began { .. } => {
                Err(ApiError::new(Reason::Refused, "the drill was not begun"))
            }
        }
    }

    /// Notes how a drill ended. Nobody ends another node's.
    pub async fn end(&self, ended: EndedDrill) -> Result<(), ApiError> {
        let EndedDrill { drill, runner, outcome, summary, request } = ended;
        let running = self.raft.state().drill.clone();
        if running.is_some_and(|running| running.id == drill && running.runner != runner) {
            return Err(ApiError::new(Reason::PermissionDenied, "another node runs this drill"));
        }
        self.operate(runner, request, OperatorAction::EndDrill { drill, outcome, summary }).await.map(drop)
    }

    async fn operate(
        &self,
        runner: NodeId,
        request: RequestId,
        action: OperatorAction,
    ) -> Result<OperatorAnswer, ApiError> {
        let by = format!("node {runner}");
        let request = OperatorRequest { by, request: Some(request), expected_revision: None, action };
        let patience = 2 * timing(&self.raft).lease + Duration::from_secs(1);
        match tokio::time::timeout(patience, self.brain.operator(request)).await {
            Err(_) => Err(refused(&OperatorRefusal::OutcomeUnknown)),
            Ok(Err(busy)) => Err(ApiError::new(Reason::Busy, busy.to_string())),
            Ok(Ok(answer)) => answer.map_err(|refusal| refused(&refusal)),
        }
    }
}

fn refused(refusal: &OperatorRefusal) -> ApiError {
    ApiError::new(reason(refusal), refusal.to_string())
}

/// What a node answered; nothing, if it did not.
type Asked<'a, T> = BoxFuture<'a, Option<Result<T, ApiError>>>;

/// The way to whoever leads.
#[derive(Clone)]
pub struct ToLeader {
    /// This node's own desk.
    pub desk: DrillDesk,
    /// The other nodes.
    pub peers: Peers,
}

impl ToLeader {
    /// Has the leader begin a drill, or asks whether it would: then there is no id.
    pub async fn begin(
        &self,
        wish: &DrillWish,
        dry_run: bool,
        within: Duration,
    ) -> Result<Option<DrillId>, ApiError> {
        let ask = |leader| -> Asked<'_, u64> {
            Box::pin(async move {
                if leader != self.desk.me {
                    return self.peers.begin_drill(leader, wish, dry_run, ANSWER_MAX).await.ok();
                }
                Some(if dry_run {
                    self.desk.may_begin(wish).await.map(|()| 0)
                } else {
                    self.desk.begin(wish.clone()).await
                })
            })
        };
        let begun = self.ask(within, ask).await?;
        Ok((begun > 0).then_some(DrillId(begun)))
    }

    /// Tells the leader how a drill ended.
    pub async fn end(&self, ended: &EndedDrill, within: Duration) -> Result<(), ApiError> {
        let ask = |leader| -> Asked<'_, ()> {
            Box::pin(async move {
                if leader == self.desk.me {
                    return Some(self.desk.end(ended.clone()).await);
                }
                self.peers.end_drill(leader, ended, ANSWER_MAX).await.ok()
            })
        };
        self.ask(within, ask).await
    }

    /// Asks whoever leads until somebody decides. A repetition is recognised by its request id.
    async fn ask<'a, T>(
        &self,
        within: Duration,
        ask: impl Fn(NodeId) -> Asked<'a, T>,
    ) -> Result<T, ApiError> {
        let deadline = Instant::now() + within;
        let mut last = ApiError::new(Reason::NoQuorum, "no leader answered");
        loop {
            let leader = self.desk.raft.status().borrow().leader;
            let answer = match leader {
                Some(leader) => ask(leader).await,
                None => None,
            };
            match answer {
                Some(Err(error)) if goes_on(error.reason) => last = error,
                Some(answer) => return answer,
                None => {}
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

/// Whether the same question may be answered a moment later.
const fn goes_on(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotLeader | Reason::NoQuorum | Reason::Unavailable | Reason::Busy | Reason::OutcomeUnknown
    )
}
