//! The handle: propose, read, follow, ask how it stands, stop.

use crate::changes::{Published, Subscription};
use crate::disk::{Disk, DiskError};
use crate::error::{ProposeError, ReadError, StartError, StopReason, WaitError};
use crate::inbound::Inbound;
use crate::local::Local;
use crate::log_store::LogStore;
use crate::network::{Network, Peer};
use crate::options::Options;
use crate::raft_types::{Command, CommittedLeaderId, Types};
use crate::recovery::members_on_disk;
use crate::state_machine::StateMachine;
use crate::status::{LogIndex, RaftStatus};
use crate::transport::{Lane, Transport};
use crate::turns::Turns;
use futures_util::future::{join, join_all};
use openraft::async_runtime::Select2;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{
    ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use openraft::{AsyncRuntime, Instant, LinearizerOption, Raft};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use twinsite_model::encoding;
use twinsite_model::{Applied, Generation, NodeId, Proposal, State};

/// The largest encoded proposal, in bytes.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 2 << 20;

type Written<RT> = ClientWriteResponse<Types<RT>>;
type WriteError<RT> = RaftError<Types<RT>, ClientWriteError<Types<RT>>>;

/// One node's part in the consensus. Cheap to clone; the last clone's drop does not stop it, [`Self::shutdown`] does.
pub struct Consensus<RT: AsyncRuntime> {
    pub(crate) raft: Raft<Types<RT>, StateMachine>,
    pub(crate) shared: Arc<Shared<RT>>,
}

/// What the handle's clones have in common.
pub(crate) struct Shared<RT: AsyncRuntime> {
    pub(crate) options: Options,
    pub(crate) published: Arc<Published>,
    pub(crate) turns: Arc<Turns<RT>>,
    local: Arc<Local>,
    disk: Arc<dyn Disk>,
    status: watch::Sender<RaftStatus>,
    started: watch::Sender<bool>,
    /// Whether everything is there that taking part needs.
    ready: watch::Sender<bool>,
    proposals: Semaphore,
}

impl<RT: AsyncRuntime> Clone for Consensus<RT> {
    fn clone(&self) -> Self {
        Self { raft: self.raft.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<RT: AsyncRuntime> Consensus<RT> {
    /// Reads the disk, restores the state, and takes part after `options.start_delay`.
    pub async fn start<T: Transport>(
        options: Options,
        disk: Arc<dyn Disk>,
        transport: T,
    ) -> Result<Self, StartError> {
        let consensus = Self::prepare(options, disk, transport).await?;
        consensus.take_part();
        Ok(consensus)
    }

    /// The same, but keeps silent until [`Self::take_part`] as well: a node that could be elected before it can do
    /// what a leader must would keep the cluster from electing one that can.
    pub async fn prepare<T: Transport>(
        options: Options,
        disk: Arc<dyn Disk>,
        transport: T,
    ) -> Result<Self, StartError> {
        let config = Arc::new(options.config()?);
        let mut contents = disk.load()?;
        let published = Arc::new(Published::new(options.subscription_capacity));
        let (cluster, node) = (options.cluster.clone(), options.node);
        if let Some(theirs) = contents.superseded_by.filter(|theirs| *theirs > contents.generation) {
            return Err(StopReason::Superseded { ours: contents.generation, theirs }.into());
        }
        let local = Local::new(cluster, node, Arc::clone(&disk), Arc::clone(&published), &contents)?;
        let local = Arc::new(local);
        let members = members_on_disk(&contents).map_err(|error| DiskError::Damaged {
            path: "of this node".to_owned(),
            what: format!("the members: {error}"),
        })?;
        let log = LogStore::new(Arc::clone(&disk), Arc::clone(&published), &contents)?;
        let (seen, reads) = (contents.snapshot.take(), options.format_max);
        let machine = StateMachine::new(Arc::clone(&published), Arc::clone(&disk), seen, reads)?;
        let network = Network::<RT, T>::new(Arc::clone(&local), transport.clone());
        let urgent = Network::<RT, T>::new(Arc::clone(&local), transport);
        let others = members.iter().filter(|(member, _)| *member != node.0);
        let peers = others.map(|(member, address)| urgent.peer(*member, address, Lane::Urgent)).collect();
        let raft = Raft::build(node.0, config, network, log, machine).await.map_err(|fatal| {
            published.stopped().unwrap_or_else(|| StopReason::Internal(fatal.to_string()))
        })?;

        let status = RaftStatus::read(&raft.metrics().borrow_watched(), &published, false);
        let shared = Arc::new(Shared {
            proposals: Semaphore::new(options.proposals_max),
            turns: Arc::new(Turns::new(options.node)),
            options,
            published,
            local,
            disk,
            status: watch::Sender::new(status),
            started: watch::Sender::new(false),
            ready: watch::Sender::new(false),
        });
        let consensus = Self { raft, shared };
        drop(RT::spawn(consensus.clone().begin(peers)));
        drop(RT::spawn(consensus.clone().follow_status()));
        drop(RT::spawn(consensus.clone().stand_in_turn()));
        Ok(consensus)
    }

    /// Everything is there that a leader needs: takes part, not before `options.start_delay` is over.
    pub fn take_part(&self) {
        self.shared.ready.send_replace(true);
    }

    /// Keeps silent until every lease is over that this node's former life may have granted, and meanwhile asks the
    /// members whether a forced recovery has gone on without it; then takes part.
    async fn begin<T: Transport>(self, peers: Vec<Peer<RT, T>>) {
        // Twice the lease: a peer that has not answered by then is as good as away, and is met later.
        let patience = 2 * self.shared.options.timing.election_max;
        let greetings = join_all(peers.iter().map(|peer| peer.greet(patience)));
        join(RT::sleep(self.shared.options.start_delay), greetings).await;
        let mut ready = self.shared.ready.subscribe();
        let stopped = self.shared.published.until_stopped();
        RT::select2(stopped, ready.wait_for(|ready| *ready)).await;
        if self.shared.published.stopped().is_none() {
            self.raft.run();
            self.shared.started.send_replace(true);
            self.refresh_status();
        }
    }

    async fn follow_status(self) {
        let mut metrics = self.raft.metrics();
        loop {
            let stopped = self.shared.published.until_stopped();
            match RT::select2(stopped, metrics.changed()).await {
                Select2::First(reason) => {
                    self.refresh_status();
                    if reason != StopReason::Shutdown {
                        // A leader that cannot write must not hold its followers with heartbeats.
                        self.end_raft().await;
                    }
                    return;
                }
                Select2::Second(Ok(())) => {
                    let running = metrics.borrow_watched().running_state.clone();
                    if let Err(fatal) = running {
                        self.shared.published.stop(StopReason::Internal(fatal.to_string()));
                    }
                    self.refresh_status();
                }
                Select2::Second(Err(_)) => {
                    self.shared.published.stop(StopReason::Internal("its task ended".to_owned()));
                }
            }
        }
    }

    async fn end_raft(&self) {
        if RT::timeout(self.shared.options.propose_timeout, self.raft.shutdown()).await.is_err() {
            tracing::warn!("the consensus did not end in time");
        }
    }

    fn refresh_status(&self) {
        let started = *self.shared.started.borrow();
        let metrics = self.raft.metrics();
        let status = RaftStatus::read(&metrics.borrow_watched(), &self.shared.published, started);
        self.shared.status.send_if_modified(|current| {
            let is_new = *current != status;
            *current = status;
            is_new
        });
    }

    /// Has the command agreed on and applied, on the leader only. Bounded by `options.propose_timeout`.
    pub async fn propose(&self, proposal: &Proposal) -> Result<Applied, ProposeError> {
        self.propose_under(None, proposal).await
    }

    /// The same, but only if this node leads in exactly this term. A decision that rests on evidence of one term must
    /// not reach the log in another: the node may have lost and regained the lead unnoticed.
    pub async fn propose_in_term(&self, term: u64, proposal: &Proposal) -> Result<Applied, ProposeError> {
        self.propose_under(Some(term), proposal).await
    }

    async fn propose_under(&self, term: Option<u64>, proposal: &Proposal) -> Result<Applied, ProposeError> {
        let bytes = encoding::encode_proposal(proposal);
        if bytes.len() > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: bytes.len(), max: PROPOSAL_BYTES_MAX });
        }
        if !*self.shared.started.borrow() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let _turn = self.shared.proposals.try_acquire().map_err(|_| ProposeError::Busy)?;
        let write = self.write(term, Command(bytes.into()));
        match RT::timeout(self.shared.options.propose_timeout, write).await {
            Ok(Ok(written)) => {
                // The state machine answers every command; see `StateMachine::apply_one`.
                written.data.0.ok_or(ProposeError::OutcomeUnknown)
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(match forward.reason {
                    ForwardReason::LeaseExpired => ProposeError::LeaseNotYetHeld,
                    _ => ProposeError::NotLeader { leader: self.other_leader(&forward) },
                })
            }
            // Its entry was in the log when leadership changed: it may yet be committed by the next leader.
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(ProposeError::OutcomeUnknown),
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stop_reason(&fatal).into()),
        }
    }

    async fn write(&self, term: Option<u64>, command: Command) -> Result<Written<RT>, WriteError<RT>> {
        let Some(term) = term else { return self.raft.client_write(command).await };
        let (responder, answer) = ProgressResponder::complete_only();
        let write = self.raft.write(command).with_leader(CommittedLeaderId::new(term)).responder(responder);
        write.await.map_err(RaftError::Fatal)?;
        answer.await.map_err(|_| RaftError::Fatal(Fatal::Stopped))?.map_err(RaftError::APIError)
    }

    /// A place in the log such that whoever has applied it sees everything that was acknowledged before this call.
    ///
    /// Each call is answered by a quorum that acknowledged a heartbeat *sent after the call arrived*; an older
    /// acknowledgement, however recent, never counts. Concurrent calls share heartbeats under that condition. On the
    /// leader only; bounded by `options.read_timeout`. Then use [`Self::wait_applied`].
    pub async fn read_index(&self) -> Result<LogIndex, ReadError> {
        if !*self.shared.started.borrow() {
            return Err(ReadError::NotLeader { leader: None });
        }
        let timeout = self.shared.options.read_timeout;
        // Maximum age zero = ReadIndex; `true` = send heartbeats now rather than wait for the next round.
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(timeout);
        match RT::timeout(2 * timeout, self.raft.get_read_linearizer(option)).await {
            Ok(Ok(linearizer)) => Ok(LogIndex(linearizer.read_log_id().log_id().index)),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(ReadError::NotLeader { leader: self.other_leader(&forward) })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(ReadError::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.stop_reason(&fatal).into()),
        }
    }

    /// Waits until the entry at `index` is applied here, at most `timeout`.
    pub async fn wait_applied(&self, index: LogIndex, timeout: Duration) -> Result<(), WaitError> {
        let mut applied = self.shared.published.applied();
        let reached = async { applied.wait_for(|count| *count > index.0).await.is_ok() };
        let stopped = self.stopped();
        match RT::timeout(timeout, RT::select2(reached, stopped)).await {
            Ok(Select2::First(true)) => Ok(()),
            Ok(Select2::First(false)) => Err(StopReason::Shutdown.into()),
            Ok(Select2::Second(reason)) => Err(reason.into()),
            Err(_) => Err(WaitError::TimedOut),
        }
    }

    /// Resolves when the node no longer takes part, with the reason.
    pub async fn stopped(&self) -> StopReason {
        self.shared.published.until_stopped().await
    }

    /// The state as applied here. Possibly old; see [`Self::read_index`].
    pub fn state(&self) -> Arc<State> {
        self.shared.published.state()
    }

    /// The state now, and every change after it.
    pub fn subscribe(&self) -> (Arc<State>, Subscription) {
        self.shared.published.subscribe()
    }

    /// The last entry that was applied here.
    pub fn applied_index(&self) -> Option<LogIndex> {
        self.shared.published.applied_index()
    }

    /// How it stands, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<RaftStatus> {
        self.shared.status.subscribe()
    }

    /// How long ago the newest message was sent that a quorum acknowledged; only a leader knows. For display: the
    /// clock may have stood still meanwhile.
    pub fn quorum_ack_age(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let acked = metrics.borrow_watched().last_quorum_acked.map(|acked| *acked)?;
        Some(Instant::elapsed(&acked))
    }

    /// How many forced recoveries this node's disk knows of, plus one.
    pub fn generation(&self) -> Generation {
        self.shared.local.generation()
    }

    /// Whether this id was a member once and is none any more: it never will be again.
    pub fn is_retired(&self, node: NodeId) -> bool {
        self.shared.published.is_retired(node)
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared.options.node
    }

    /// Takes the peers' messages.
    pub fn inbound(&self) -> Inbound<RT> {
        Inbound {
            raft: self.raft.clone(),
            local: Arc::clone(&self.shared.local),
            published: Arc::clone(&self.shared.published),
            turns: Arc::clone(&self.shared.turns),
            started: self.shared.started.subscribe(),
        }
    }

    /// Begins to take a snapshot; it appears in the status when it is done.
    pub async fn trigger_snapshot(&self) -> Result<(), StopReason> {
        self.raft.trigger().snapshot().await.map_err(|fatal| self.stop_reason(&fatal))
    }

    /// Stops taking part and releases the disk. Bounded by `options.propose_timeout`.
    pub async fn shutdown(&self) {
        self.shared.published.stop(StopReason::Shutdown);
        self.refresh_status();
        self.end_raft().await;
        self.shared.disk.close();
    }

    fn other_leader(&self, forward: &ForwardToLeader<Types<RT>>) -> Option<NodeId> {
        forward.leader_id.map(NodeId).filter(|leader| *leader != self.node())
    }

    pub(crate) fn stop_reason(&self, fatal: &Fatal<Types<RT>>) -> StopReason {
        self.shared.published.stopped().unwrap_or_else(|| match fatal {
            Fatal::Stopped => StopReason::Shutdown,
            other => StopReason::Internal(other.to_string()),
        })
    }
}

impl From<DiskError> for StopReason {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
