//! One agent against a real log and a real controller, with hands that only note what they are told.

use super::*;
use crate::alone::{Lead, Nobody, WITHIN, becomes};
use crate::supervise::Supervisor;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use twinsite_model::{Command, Effect, Fence, OperationKind, Profile, Reason, Refusal};

const INCARNATION: Incarnation = Incarnation(7);

struct Noting {
    held: Mutex<Vec<Token>>,
    stopped: Mutex<Vec<(Token, StopReason)>>,
    /// Whether what was told to stop may be gone.
    gone: watch::Sender<bool>,
    failed: watch::Sender<Option<Token>>,
}

impl Noting {
    fn new(gone: bool) -> Arc<Self> {
        let (gone, failed) = (watch::Sender::new(gone), watch::Sender::new(None));
        Arc::new(Self { held: Mutex::default(), stopped: Mutex::default(), gone, failed })
    }

    fn holds(&self, token: Token) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(&token)
    }

    fn stopped(&self) -> Vec<(Token, StopReason)> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Hands for Noting {
    fn hold(&self, token: Token, _: BootTime) {
        self.held.lock().unwrap().push(token);
    }

    fn stop(&self, token: Token, why: StopReason) -> BoxFuture<'static, ()> {
        self.stopped.lock().unwrap().push((token, why));
        let mut gone = self.gone.subscribe();
        Box::pin(async move { drop(gone.wait_for(|gone| *gone).await) })
    }

    fn failed(&self) -> watch::Receiver<Option<Token>> {
        self.failed.subscribe()
    }
}

/// One node that leads, with a specification that names an address.
struct Alone {
    lead: Lead,
    charge: watch::Sender<Charge>,
    stop: CancellationToken,
}

impl Alone {
    async fn start(hands: &Arc<Noting>) -> Self {
        let lead = Lead::start(INCARNATION, |_| {}).await;
        let me = lead.spec.nodes[0].id;
        let stop = CancellationToken::new();
        let brain = Brain::start(me, lead.raft.clone(), &Supervisor::new(stop.clone()), stop.clone());
        let charge = watch::Sender::new(Some(Arc::clone(hands) as Arc<dyn Hands>));
        let identity = Identity { ip: lead.ip(), node: me, incarnation: INCARNATION };
        let agent = Agent::new(
            identity,
            lead.raft.clone(),
            brain,
            Nobody,
            charge.subscribe(),
            Timing::of(Profile::Lan),
        );
        tokio::spawn(agent.run(stop.clone()));
        lead.agree_on_spec().await;
        Self { lead, charge, stop }
    }

    /// Gives the address to this life, again or for the first time.
    async fn assign(&self) -> Token {
        let ip = self.lead.ip();
        let deadline = Instant::now() + WITHIN;
        let before = self.lead.raft.state().owner(&ip).map(|owner| owner.token);
        let operation = loop {
            let owner = self.lead.raft.state().owner(&ip).cloned();
            let kind = if owner.is_some() { OperationKind::Failover } else { OperationKind::Placement };
            let begin = Command::BeginOperation {
                ip: ip.clone(),
                kind,
                reason: Reason::Operator,
                evidence: Vec::new(),
                from: owner.map(|owner| owner.token),
                target: self.lead.spec.nodes[0].id,
                target_incarnation: INCARNATION,
                overrides: Vec::new(),
            };
            match self.lead.propose(begin).await {
                Ok(Effect::Began(operation)) => break operation,
                // The move before this one; the controller may be busy with it as well.
                Err(Refusal::OperationRunning(running)) => self.lead.finish(running).await,
                Err(Refusal::OwnerChanged { .. }) => {}
                other => panic!("{other:?}"),
            }
            assert!(Instant::now() < deadline, "the move before this one never ends");
        };
        // The controller drives it as well; whoever is second is refused.
        let (fence, detail) = (Fence::Released, String::new());
        drop(self.lead.propose(Command::CompleteFence { ip: ip.clone(), operation, fence, detail }).await);
        drop(self.lead.propose(Command::Assign { ip: ip.clone(), operation }).await);
        let given = || {
            let state = self.lead.raft.state();
            state.owner(&ip).map(|owner| owner.token).filter(|token| Some(*token) > before)
        };
        becomes("assigned", || given().is_some()).await;
        given().unwrap()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_hands_begin_only_when_nothing_is_left_under_the_old_ones() {
    let (old, new) = (Noting::new(false), Noting::new(true));
    let alone = Alone::start(&old).await;
    let first = alone.assign().await;
    becomes("held", || old.holds(first)).await;
    alone.charge.send_replace(Some(Arc::clone(&new) as Arc<dyn Hands>));
    becomes("told to stop", || old.stopped() == [(first, StopReason::Planned)]).await;
    old.gone.send_replace(true);

    // A token that comes before the change is over is given up; one after it is held.
    let deadline = Instant::now() + WITHIN;
    let mut second = alone.assign().await;
    while !new.holds(second) {
        assert!(Instant::now() < deadline, "the new hands never hold");
        if old.stopped().iter().any(|(token, _)| *token == second)
            || new.stopped().iter().any(|(token, _)| *token == second)
        {
            second = alone.assign().await;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(second > first);
    assert!(!new.holds(first), "a token that was given up was asked for again");
    assert!(!old.holds(second), "the old hands were used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_held_is_given_up() {
    let hands = Noting::new(true);
    let alone = Alone::start(&hands).await;
    let token = alone.assign().await;
    becomes("held", || hands.holds(token)).await;
    hands.failed.send_replace(Some(token));
    becomes("told to stop", || hands.stopped() == [(token, StopReason::Planned)]).await;
}
