//! Drives the controller: gives it what this node hears and the clock says, and does what it decides.
//!
//! The controller is pure and sits on every node; it acts only while its node leads. Leadership itself is a hint:
//! what the controller wants takes effect only through the log and through fresh quorum rounds.

use crate::machine::Machine;
use crate::notices;
use crate::supervise::Supervisor;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use twinsite_consensus::{Consensus, RaftStatus};
use twinsite_controller::{
    CallId, Controller, Effect, Input, NodeReport, Notice, OperatorAnswer, OperatorRefusal, OperatorRequest,
    ProposeFailed, Release, Renewal, RenewalAnswer, RoundFailed, RoundId, Ticket,
};
use twinsite_model::{NodeId, Proposal};

/// Inputs that may wait. Reports and renewals beyond it are refused, and come again.
const INPUTS_MAX: usize = 1_024;
/// Notices that wait for a slow listener.
const NOTICES_MAX: usize = 64;
/// The longest wait for this node's own state to catch up with a quorum round.
const APPLY_MAX: Duration = Duration::from_secs(2);

/// What others send to the brain.
enum Message {
    Input(Input),
    Renew(Renewal, oneshot::Sender<RenewalAnswer>),
    Operator(OperatorRequest, oneshot::Sender<Result<OperatorAnswer, OperatorRefusal>>),
    View(Box<dyn FnOnce(&Controller) + Send>),
}

/// A handle to the brain.
#[derive(Clone)]
pub struct Brain {
    messages: mpsc::Sender<Message>,
    notices: broadcast::Sender<Notice>,
}

/// The brain is busy or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is busy")]
pub struct Busy;

impl Brain {
    /// Starts it.
    pub fn start<M: Machine>(
        me: NodeId,
        raft: Consensus<M>,
        supervisor: &Supervisor,
        stop: CancellationToken,
    ) -> Self {
        let (messages, inbox) = mpsc::channel(INPUTS_MAX);
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        let driver = Driver {
            controller: Controller::new(me),
            notices: notices.clone(),
            raft,
            supervisor: supervisor.clone(),
            renewals: BTreeMap::new(),
            operators: BTreeMap::new(),
            calls: 0,
            term: None,
        };
        let (results, done) = mpsc::channel(INPUTS_MAX);
        drop(M::spawn(supervisor.lasting("the controller", driver.run(inbox, results, done, stop))));
        Self { messages, notices }
    }

    /// What the controller says from now on, while this node leads. Who is slow misses the oldest.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// What a node observed.
    pub fn report(&self, report: NodeReport) -> Result<(), Busy> {
        self.messages.try_send(Message::Input(Input::Report(report))).map_err(|_| Busy)
    }

    /// A holder, or its guardian, has let go for good.
    pub async fn released(&self, release: Release) -> Result<(), Busy> {
        self.messages.send(Message::Input(Input::Released(release))).await.map_err(|_| Busy)
    }

    /// An owner asks for more time.
    pub async fn renew(&self, renewal: Renewal) -> Result<RenewalAnswer, Busy> {
        let (answer, answered) = oneshot::channel();
        self.messages.try_send(Message::Renew(renewal, answer)).map_err(|_| Busy)?;
        answered.await.map_err(|_| Busy)
    }

    /// A person asks for something.
    pub async fn operator(
        &self,
        request: OperatorRequest,
    ) -> Result<Result<OperatorAnswer, OperatorRefusal>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Operator(request, answer)).await.map_err(|_| Busy)?;
        answered.await.map_err(|_| Busy)
    }

    /// Looks at the controller, for `explain` and `plan`.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Controller) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (answer, answered) = oneshot::channel();
        let view = move |controller: &Controller| drop(answer.send(look(controller)));
        self.messages.send(Message::View(Box::new(view))).await.map_err(|_| Busy)?;
        answered.await.map_err(|_| Busy)
    }
}

struct Driver<M: Machine> {
    controller: Controller,
    notices: broadcast::Sender<Notice>,
    raft: Consensus<M>,
    supervisor: Supervisor,
    renewals: BTreeMap<CallId, oneshot::Sender<RenewalAnswer>>,
    operators: BTreeMap<CallId, oneshot::Sender<Result<OperatorAnswer, OperatorRefusal>>>,
    calls: u64,
    /// The term in which this node leads, as far as it knows.
    term: Option<u64>,
}

impl<M: Machine> Driver<M> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        results: mpsc::Sender<Input>,
        mut done: mpsc::Receiver<Input>,
        stop: CancellationToken,
    ) {
        let mut status = self.raft.status();
        let (_, mut changes) = self.raft.subscribe();
        // A receiver has seen what is there when it is made: this node may lead already.
        self.lead(self.leading(&mut status), &results);
        loop {
            let now = M::boot_now();
            let wake = self.controller.next_wake(now, &self.raft.state());
            let sleep = async {
                match wake {
                    Some(at) => M::sleep(at.since(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(input) = done.recv() => self.step(input, &results),
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.lead(self.leading(&mut status), &results);
                }
                change = changes.next() => {
                    if change.is_err() {
                        changes = self.raft.subscribe().1;
                    }
                    self.lead(self.leading(&mut status), &results);
                    self.step(Input::Applied, &results);
                }
                message = inbox.recv() => {
                    let Some(message) = message else { return };
                    self.receive(message, &results);
                }
                () = sleep => self.step(Input::Tick, &results),
            }
        }
    }

    /// The term in which this node leads, if it does. After a forced recovery not before the new generation is agreed
    /// on: what was decided until then would carry tokens of the old one.
    fn leading(&self, status: &mut watch::Receiver<RaftStatus>) -> Option<u64> {
        let (leads, term) = {
            let status = status.borrow_and_update();
            (status.is_leader, status.term)
        };
        (leads && self.raft.state().generation >= self.raft.generation()).then_some(term)
    }

    fn lead(&mut self, term: Option<u64>, results: &mpsc::Sender<Input>) {
        if self.term == term {
            return;
        }
        if self.term.is_some() {
            self.step(Input::LostLeadership, results);
        }
        self.term = term;
        if let Some(term) = term {
            tracing::info!(term, "this node leads");
            self.step(Input::BecameLeader { term }, results);
        }
    }

    fn receive(&mut self, message: Message, results: &mpsc::Sender<Input>) {
        let input = match message {
            Message::Input(input) => input,
            Message::Renew(renewal, answer) => {
                let call = self.next_call();
                self.renewals.insert(call, answer);
                Input::Renew { call, renewal }
            }
            Message::Operator(request, answer) => {
                let call = self.next_call();
                self.operators.insert(call, answer);
                Input::Operator { call, request }
            }
            Message::View(look) => return look(&self.controller),
        };
        self.step(input, results);
    }

    fn next_call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    fn step(&mut self, input: Input, results: &mpsc::Sender<Input>) {
        let state = self.raft.state();
        for effect in self.controller.step(M::boot_now(), M::wall_now(), &state, input) {
            self.perform(effect, results);
        }
    }

    fn perform(&mut self, effect: Effect, results: &mpsc::Sender<Input>) {
        match effect {
            Effect::Propose { ticket, term, proposal } => {
                self.propose(ticket, term, proposal, results.clone());
            }
            Effect::StartRound { round } => self.start_round(round, results.clone()),
            Effect::AnswerRenewal { call, answer } => {
                if let Some(waiting) = self.renewals.remove(&call) {
                    let _gone = waiting.send(answer);
                }
            }
            Effect::AnswerOperator { call, answer } => {
                if let Some(waiting) = self.operators.remove(&call) {
                    drop(waiting.send(answer));
                }
            }
            Effect::TransferLeadership { to } => {
                let raft = self.raft.clone();
                drop(M::spawn(async move {
                    match raft.transfer_leadership(to).await {
                        Ok(()) => tracing::info!(%to, "leadership handed over"),
                        Err(error) => tracing::info!(%to, %error, "leadership not handed over"),
                    }
                }));
            }
            Effect::Notice(notice) => {
                notices::log(&notice);
                // It is an error if nobody listens, and nobody has to.
                drop(self.notices.send(notice));
            }
        }
    }

    fn propose(&self, ticket: Ticket, term: u64, proposal: Proposal, results: mpsc::Sender<Input>) {
        let raft = self.raft.clone();
        drop(M::spawn(self.supervisor.passing("a proposal", async move {
            let outcome = raft.propose_in_term(term, &proposal).await.map_err(|error| {
                if error.certainly_not_done() { ProposeFailed::NotDone } else { ProposeFailed::Unknown }
            });
            drop(results.send(Input::ProposalDone { ticket, outcome }).await);
        })));
    }

    /// A quorum round that begins now, and then the state as of it.
    fn start_round(&self, round: RoundId, results: mpsc::Sender<Input>) {
        let raft = self.raft.clone();
        drop(M::spawn(self.supervisor.passing("a quorum round", async move {
            let caught_up = async {
                let index = raft.read_index().await.map_err(|_| RoundFailed)?;
                raft.wait_applied(index, APPLY_MAX).await.map_err(|_| RoundFailed)
            };
            let outcome = caught_up.await;
            drop(results.send(Input::RoundDone { round, outcome }).await);
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::time::{Instant, sleep};
    use twinsite_consensus::grpc::GrpcTransport;
    use twinsite_consensus::{Disk, MemoryDisk, Options, TokioRuntime, recover_disk};
    use twinsite_model::dial::DialMap;
    use twinsite_model::{ClusterName, Command, Generation, Profile, Timing, WallTime};

    const ME: NodeId = NodeId(1);

    type Raft = Consensus<TokioRuntime>;

    async fn alone(disk: &Arc<MemoryDisk>) -> Raft {
        let cluster = ClusterName::new("demo").unwrap();
        let options = Options::new(cluster.clone(), ME, Timing::of(Profile::Lan));
        let transport = GrpcTransport::new(cluster, DialMap::default(), None);
        let disk = Arc::clone(disk) as Arc<dyn Disk>;
        Raft::start(options, disk, transport).await.unwrap()
    }

    async fn leads(raft: &Raft) {
        let mut status = raft.status();
        let leading = status.wait_for(|status| status.is_leader);
        tokio::time::timeout(Duration::from_secs(10), leading).await.unwrap().unwrap();
    }

    fn brain(raft: &Raft) -> Brain {
        let stop = CancellationToken::new();
        Brain::start(ME, raft.clone(), &Supervisor::new(stop.clone()), stop)
    }

    async fn comes_to_lead(brain: &Brain) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while brain.look(Controller::term).await.unwrap().is_none() {
            assert!(Instant::now() < deadline, "the controller never heard that its node leads");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_leadership_that_was_there_first_is_seen() {
        let raft = alone(&Arc::new(MemoryDisk::new(1))).await;
        raft.initialize(&[(ME, "127.0.0.1:1".to_owned())].into()).await.unwrap();
        leads(&raft).await;
        comes_to_lead(&brain(&raft)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_recovery_nothing_is_decided_before_the_generation_is_agreed_on() {
        let disk = Arc::new(MemoryDisk::new(1));
        let raft = alone(&disk).await;
        raft.initialize(&[(ME, "127.0.0.1:1".to_owned())].into()).await.unwrap();
        leads(&raft).await;
        raft.shutdown().await;
        recover_disk(&*disk, ME, Generation(2)).await.unwrap();

        let raft = alone(&disk).await;
        let brain = brain(&raft);
        leads(&raft).await;
        assert_eq!(raft.generation(), Generation(2));
        assert_eq!(brain.look(Controller::term).await.unwrap(), None);
        let command = Command::RaiseGeneration { generation: Generation(2), statement: String::new() };
        let by = "test".to_owned();
        let proposal =
            Proposal { at: WallTime::default(), by, request: None, expected_revision: None, command };
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = raft.propose(&proposal).await {
            assert!(Instant::now() < deadline, "{error}");
            assert_eq!(brain.look(Controller::term).await.unwrap(), None);
            sleep(Duration::from_millis(5)).await;
        }
        comes_to_lead(&brain).await;
    }
}
