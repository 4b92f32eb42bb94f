//! A cluster of one node that leads, for tests of what runs beside the consensus.

use crate::peers::{Heard, Noted, Peers};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use twinsite_consensus::grpc::GrpcTransport;
use twinsite_consensus::{Consensus, LogIndex, MemoryDisk, Options, TokioRuntime};
use twinsite_controller::{NodeReport, Release, Renewal, RenewalAnswer};
use twinsite_model::dial::DialMap;
use twinsite_model::{
    ClusterSpec, Command, Effect, FloatingIpName, Format, Incarnation, NodeId, OperationId, Outcome, Profile,
    Proposal, Refusal, Step, StepResult, Timing, WallTime,
};

/// Within which everything comes true, or never.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);

pub(crate) type Raft = Consensus<TokioRuntime>;

/// There is no other node.
#[derive(Clone)]
pub(crate) struct Nobody;

#[derive(Debug, thiserror::Error)]
#[error("there is nobody else")]
pub(crate) struct NobodyElse;

impl Peers for Nobody {
    type Error = NobodyElse;

    fn others(&self) -> Vec<NodeId> {
        Vec::new()
    }

    fn everybody(&self) -> Vec<NodeId> {
        Vec::new()
    }

    async fn report(&self, _: NodeId, _: NodeReport, _: Duration) -> Result<Heard, NobodyElse> {
        Err(NobodyElse)
    }

    async fn ping(&self, _: NodeId, _: Duration) -> Result<(), NobodyElse> {
        Err(NobodyElse)
    }

    async fn renew(&self, _: NodeId, _: Renewal, _: Duration) -> Result<RenewalAnswer, NobodyElse> {
        Err(NobodyElse)
    }

    async fn read_index(&self, _: NodeId, _: Duration) -> Result<LogIndex, NobodyElse> {
        Err(NobodyElse)
    }

    async fn release(&self, _: NodeId, _: &Release, _: Duration) -> Result<Noted, NobodyElse> {
        Err(NobodyElse)
    }
}

/// The node, with the example's specification.
pub(crate) struct Lead {
    pub(crate) raft: Raft,
    pub(crate) spec: ClusterSpec,
    incarnation: Incarnation,
}

impl Lead {
    /// It leads, and nothing is agreed yet.
    pub(crate) async fn start(incarnation: Incarnation, change: impl FnOnce(&mut ClusterSpec)) -> Self {
        let text = include_str!("../../../deploy/example/cluster.toml");
        let mut spec = twinsite_model::spec::from_toml(text).unwrap();
        change(&mut spec);
        let me = spec.nodes[0].id;
        let options = Options::new(spec.cluster.clone(), me, Timing::of(Profile::Lan));
        let transport = GrpcTransport::new(spec.cluster.clone(), DialMap::default(), None);
        let disk = Arc::new(MemoryDisk::new(1));
        let raft = Consensus::<TokioRuntime>::start(options, disk, transport).await.unwrap();
        raft.initialize(&[(me, "127.0.0.1:1".to_owned())].into()).await.unwrap();
        let mut status = raft.status();
        let leading = status.wait_for(|status| status.is_leader);
        tokio::time::timeout(WITHIN, leading).await.unwrap().unwrap();
        Self { raft, spec, incarnation }
    }

    /// The specification and this life are agreed on.
    pub(crate) async fn agree_on_spec(&self) {
        self.agree(Command::ApplySpec { spec: Arc::new(self.spec.clone()) }).await;
        self.lives(self.spec.nodes[0].id).await;
    }

    /// A node lives this life.
    pub(crate) async fn lives(&self, node: NodeId) {
        self.agree(Command::RecordLife {
            node,
            incarnation: self.incarnation,
            format_max: Format::NEWEST,
            version: String::new(),
        })
        .await;
    }

    /// The first address.
    pub(crate) fn ip(&self) -> FloatingIpName {
        self.spec.floating_ips[0].name.clone()
    }

    /// Brings a move of the address to its end: whatever of it is not done yet; what is done is refused.
    pub(crate) async fn finish(&self, operation: OperationId) {
        let ip = self.ip();
        for step in [Step::Observe, Step::Announce, Step::Verify] {
            let ip = ip.clone();
            drop(self.propose(Command::StartStep { ip: ip.clone(), operation, step }).await);
            let (result, detail) = (StepResult::Done, String::new());
            drop(self.propose(Command::FinishStep { ip, operation, step, result, detail }).await);
        }
        let close = Command::CloseOperation { ip: ip.clone(), operation, outcome: Outcome::Verified };
        drop(self.propose(close).await);
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Effect, Refusal> {
        let by = "test".to_owned();
        let proposal =
            Proposal { at: WallTime::default(), by, request: None, expected_revision: None, command };
        let deadline = Instant::now() + WITHIN;
        loop {
            match self.raft.propose(&proposal).await {
                Ok(applied) => return applied.result,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn agree(&self, command: Command) -> Effect {
        self.propose(command).await.unwrap()
    }
}

pub(crate) async fn becomes(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        sleep(Duration::from_millis(2)).await;
    }
}
