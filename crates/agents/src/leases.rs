//! The owner's side, for one floating IP: asks the leader for time, acts while there is some, lets go when there is
//! none. What to do is decided by the pure [`Holder`]; here is only the doing.

use crate::brain::Brain;
use crate::machine::Machine;
use crate::peers::Peers;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinsite_consensus::Consensus;
use twinsite_controller::{
    Holder, HolderInput, HolderOutput, Release, Renewal, RenewalAnswer, RenewalRefusal, StopReason,
};
use twinsite_model::{BootTime, FloatingIpName, Incarnation, NodeId, Timing, Token};

#[cfg(test)]
mod tests;

/// Results that may wait for the holder.
const INPUTS_MAX: usize = 256;

/// What really holds the address: provider, guardian, proxy.
pub trait Hands: Send + Sync + 'static {
    /// Answer for the address under this token, until then at most. Called again with every grant.
    fn hold(&self, token: Token, until: BootTime);
    /// Stop, in whatever time the reason allows. Done when every socket of the token is closed and read back absent.
    fn stop(&self, token: Token, why: StopReason) -> BoxFuture<'static, ()>;
    /// The last token that was granted and cannot be held.
    fn failed(&self) -> watch::Receiver<Option<Token>>;
}

/// With what an agent holds its address; with nothing while this node shall not hold it.
pub type Charge = Option<Arc<dyn Hands>>;

/// What the holder needs to know of its node.
#[derive(Clone)]
pub struct Identity {
    /// The address.
    pub ip: FloatingIpName,
    /// This node.
    pub node: NodeId,
    /// This life.
    pub incarnation: Incarnation,
}

/// Runs one address's holder until the node is told to stop and everything is let go. One for each name and life, even
/// when the address is taken away and comes back: what this life has given up it must never ask for again.
pub struct Agent<M: Machine, P: Peers> {
    identity: Identity,
    raft: Consensus<M>,
    brain: Brain,
    peers: P,
    charge: watch::Receiver<Charge>,
    /// What the holder works with now. It follows `charge` as soon as nothing is left under the old one.
    hands: Charge,
    /// Where it is said that they cannot hold.
    failed: Option<watch::Receiver<Option<Token>>>,
    timing: Timing,
}

impl<M: Machine, P: Peers> Agent<M, P> {
    /// An agent that holds nothing yet.
    pub fn new(
        identity: Identity,
        raft: Consensus<M>,
        brain: Brain,
        peers: P,
        charge: watch::Receiver<Charge>,
        timing: Timing,
    ) -> Self {
        Self { identity, raft, brain, peers, charge, hands: None, failed: None, timing }
    }

    /// Runs until `stop`, then lets go in good order.
    pub async fn run(mut self, stop: CancellationToken) {
        let Identity { ip, node, incarnation } = self.identity.clone();
        let mut holder = Holder::new(ip.clone(), node, incarnation, self.timing);
        let (results, mut inputs) = mpsc::channel(INPUTS_MAX);
        self.take_hands();
        let mut changing = false;
        let (state, mut changes) = self.raft.subscribe();
        let owner = state.owner(&ip).cloned();
        self.step(&mut holder, HolderInput::State { owner }, &results);
        let mut shutting_down = false;
        let mut shutdown_at = M::boot_now();
        let mut stopping = None;
        let mut status = self.raft.status();
        let mut leader = status.borrow_and_update().leader;
        loop {
            let now = M::boot_now();
            let wake = holder.next_wake();
            let tick = async {
                match wake {
                    Some(at) => M::sleep(at.since(now)).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                biased;
                () = stop.cancelled(), if !shutting_down => {
                    shutting_down = true;
                    shutdown_at = M::boot_now();
                    HolderInput::Shutdown
                }
                Some(input) = inputs.recv() => input,
                Ok(()) = self.charge.changed(), if !changing => {
                    changing = true;
                    HolderInput::LetGo
                }
                token = cannot_hold(&mut self.failed) => {
                    if holder.token() != Some(token) {
                        continue;
                    }
                    HolderInput::LetGo
                }
                change = changes.next() => match change {
                    Ok(change) => HolderInput::State { owner: change.state.owner(&ip).cloned() },
                    Err(_) => {
                        let (state, again) = self.raft.subscribe();
                        changes = again;
                        HolderInput::State { owner: state.owner(&ip).cloned() }
                    }
                },
                Ok(()) = status.changed() => {
                    let now = status.borrow_and_update().leader;
                    let is_new = now.is_some() && now != leader;
                    leader = now;
                    if !is_new {
                        continue;
                    }
                    HolderInput::NewLeader
                }
                () = tick => HolderInput::Tick,
            };
            self.follow_timing(&mut holder);
            if matches!(input, HolderInput::Stopped { number, .. } if stopping == Some(number)) {
                stopping = None;
            }
            stopping = self.step(&mut holder, input, &results).or(stopping);
            if changing || self.hands.is_none() {
                // Whatever is given to this node meanwhile, it cannot take.
                stopping = self.step(&mut holder, HolderInput::LetGo, &results).or(stopping);
            }
            if changing && stopping.is_none() {
                self.take_hands();
                changing = false;
            }
            if shutting_down && stopping.is_none() && self.is_known_to_have_let_go(shutdown_at) {
                return;
            }
        }
    }

    fn take_hands(&mut self) {
        self.hands.clone_from(&self.charge.borrow_and_update());
        self.failed = self.hands.as_ref().map(|hands| hands.failed());
    }

    /// Whether the cluster has given the address to somebody else, or had its time to. Until then the holder repeats
    /// that it has let go.
    fn is_known_to_have_let_go(&self, shutdown_at: BootTime) -> bool {
        let state = self.raft.state();
        let owns = state.owner(&self.identity.ip).is_some_and(|owner| {
            owner.node == self.identity.node && owner.incarnation == self.identity.incarnation
        });
        !owns || M::boot_now().since(shutdown_at) >= 2 * self.timing.lease
    }

    fn follow_timing(&mut self, holder: &mut Holder) {
        let timing = self.raft.state().spec.as_ref().map(|spec| spec.timing());
        if let Some(timing) = timing
            && timing != self.timing
        {
            self.timing = timing;
            holder.set_timing(timing);
        }
    }

    /// Does what the holder wants; says which letting go it began, if any.
    fn step(
        &self,
        holder: &mut Holder,
        input: HolderInput,
        results: &mpsc::Sender<HolderInput>,
    ) -> Option<u64> {
        let mut stop = None;
        for output in holder.step(M::boot_now(), input) {
            match output {
                HolderOutput::SendRenew(renewal) => self.renew(renewal, results.clone()),
                HolderOutput::Hold { token, until } => {
                    if let Some(hands) = &self.hands {
                        hands.hold(token, until);
                    }
                }
                HolderOutput::Stop { token, number, why } => {
                    stop = Some(number);
                    tracing::info!(ip = %self.identity.ip, %token, ?why, "letting a floating IP go");
                    // Without hands nothing was held, and everything that hands before them held was read back absent.
                    let stopped = self.hands.as_ref().map(|hands| hands.stop(token, why));
                    let results = results.clone();
                    drop(M::spawn(async move {
                        if let Some(stopped) = stopped {
                            stopped.await;
                        }
                        drop(results.send(HolderInput::Stopped { token, number }).await);
                    }));
                }
                HolderOutput::SendReleased(release) => self.release(release),
            }
        }
        stop
    }

    /// Asks whoever leads. An answer that is late is worth nothing: the next renewal is on its way.
    fn renew(&self, renewal: Renewal, results: mpsc::Sender<HolderInput>) {
        let (brain, peers) = (self.brain.clone(), self.peers.clone());
        let leader = self.leader();
        let (me, within) = (self.identity.node, self.timing.lease);
        drop(M::spawn(async move {
            let (token, seq) = (renewal.token, renewal.seq);
            let answer = match leader {
                None => return,
                Some(leader) if leader == me => match M::timeout(within, brain.renew(renewal)).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) | Err(_) => return,
                },
                Some(leader) => match peers.renew(leader, renewal, within).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        tracing::debug!(%error, "a renewal was not answered");
                        return;
                    }
                },
            };
            let input = match answer {
                RenewalAnswer::Granted { lease, .. } => HolderInput::Granted { token, seq, lease },
                RenewalAnswer::Refused { why, .. } => {
                    if why != RenewalRefusal::NotLeader {
                        tracing::debug!(%token, %why, "a renewal was refused");
                    }
                    HolderInput::Refused { token, seq, why }
                }
            };
            drop(results.send(input).await);
        }));
    }

    /// Tells the leader that a token has ended; the holder repeats it until the state shows another owner.
    fn release(&self, release: Release) {
        let (brain, peers) = (self.brain.clone(), self.peers.clone());
        let (me, leader, within) = (self.identity.node, self.leader(), self.timing.lease);
        drop(M::spawn(async move {
            match leader {
                Some(leader) if leader == me => drop(brain.released(release).await),
                Some(leader) => {
                    if let Err(error) = peers.release(leader, &release, within).await {
                        tracing::debug!(%error, "a release was not taken");
                    }
                }
                None => {}
            }
        }));
    }

    fn leader(&self) -> Option<NodeId> {
        self.raft.status().borrow().leader
    }
}

/// The next token that was granted and cannot be held.
async fn cannot_hold(failed: &mut Option<watch::Receiver<Option<Token>>>) -> Token {
    let Some(failed) = failed else { return std::future::pending().await };
    loop {
        if failed.changed().await.is_err() {
            std::future::pending::<()>().await; // its worker has ended, and so will the node
        }
        if let Some(token) = *failed.borrow_and_update() {
            return token;
        }
    }
}
