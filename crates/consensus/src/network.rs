//! openraft's view of the peers, over a [`Transport`].

use crate::local::Local;
use crate::pb::{self, exchange_request::Body as Ask, exchange_response::Body as Answer};
use crate::raft_types::{Address, Snapshot, Types, Vote};
use crate::transport::{Destination, Lane, SnapshotTransfer, Transport, TransportError};
use crate::wire::{self, WireError};
use bytes::Bytes;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, VoteRequest,
    VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::{AsyncRuntime, OptionalSend};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::NodeId;

/// The most bytes of entries in one message, unless a single entry is larger.
const APPEND_BYTES: usize = 1 << 20;

/// Makes a [`Peer`] for each peer and lane.
pub(crate) struct Network<RT, T> {
    local: Arc<Local>,
    transport: T,
    runtime: PhantomData<fn() -> RT>,
}

impl<RT, T: Transport> Network<RT, T> {
    pub(crate) fn new(local: Arc<Local>, transport: T) -> Self {
        Self { local, transport, runtime: PhantomData }
    }

    pub(crate) fn peer(&self, node: u64, address: &Address, lane: Lane) -> Peer<RT, T> {
        Peer {
            local: Arc::clone(&self.local),
            transport: self.transport.clone(),
            to: Destination { node: NodeId(node), address: address.0.clone() },
            lane,
            runtime: PhantomData,
        }
    }
}

impl<RT: AsyncRuntime, T: Transport> RaftNetworkFactory<Types<RT>> for Network<RT, T> {
    type Network = Peer<RT, T>;

    async fn new_client(&mut self, node: u64, address: &Address) -> Peer<RT, T> {
        self.peer(node, address, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, node: u64, address: &Address) -> Peer<RT, T> {
        self.peer(node, address, Lane::Urgent)
    }

    async fn new_snapshot_client(&mut self, node: u64, address: &Address) -> Peer<RT, T> {
        self.peer(node, address, Lane::Snapshot)
    }
}

/// One lane to one peer.
pub(crate) struct Peer<RT, T> {
    local: Arc<Local>,
    transport: T,
    to: Destination,
    lane: Lane,
    runtime: PhantomData<fn() -> RT>,
}

/// What can come instead of an answer.
enum Failed {
    Transport(TransportError),
    /// The peer answered something else than was asked.
    Nonsense,
}

impl From<WireError> for Failed {
    fn from(_: WireError) -> Self {
        Self::Nonsense
    }
}

impl<RT: AsyncRuntime, T: Transport> Peer<RT, T> {
    /// Sends a message and waits at most `ttl`. Every way but an answer from the right peer is an error, above all
    /// for votes: silence grants nothing.
    async fn ask(&self, lane: Lane, body: Ask, ttl: Duration) -> Result<Answer, Failed> {
        let message = pb::ExchangeRequest { header: Some(self.local.header(self.to.node)), body: Some(body) };
        let exchange = self.transport.exchange(&self.to, lane, message, ttl);
        let answer = RT::timeout(ttl, exchange)
            .await
            .map_err(|_| Failed::Transport(TransportError::TimedOut))?
            .map_err(|error| self.failed(error))?;
        self.check(answer.header.as_ref())?;
        answer.body.ok_or(Failed::Nonsense)
    }

    fn failed(&self, error: TransportError) -> Failed {
        if let TransportError::OtherGeneration(theirs) = error {
            self.local.heard_generation(theirs);
        }
        Failed::Transport(error)
    }

    /// Says a first word, and learns whether the peer is of a newer generation.
    pub(crate) async fn greet(&self, ttl: Duration) {
        // What the answer means is noted on the way; that none came means nothing.
        drop(self.ask(Lane::Urgent, Ask::Greeting(pb::Blank {}), ttl).await);
    }

    fn check(&self, header: Option<&pb::Header>) -> Result<(), Failed> {
        let from = self.local.admit(header).map_err(|refused| Failed::Transport(refused.into()))?;
        if from == self.to.node { Ok(()) } else { Err(Failed::Nonsense) }
    }

    async fn ballot(
        &self,
        request: VoteRequest<Types<RT>>,
        ttl: Duration,
        ask: fn(pb::Ballot) -> Ask,
    ) -> Result<VoteResponse<Types<RT>>, Failed> {
        let ballot = pb::Ballot {
            vote: Some(wire::from_vote(&request.vote)),
            last: request.last_log_id.as_ref().map(wire::from_log_id),
            transfer: request.leadership_transfer,
        };
        match self.ask(Lane::Urgent, ask(ballot), ttl).await? {
            Answer::Vote(result) | Answer::PreVote(result) => Ok(VoteResponse {
                vote: wire::to_vote(result.vote)?,
                vote_granted: result.granted,
                last_log_id: result.last.map(wire::to_log_id),
            }),
            _ => Err(Failed::Nonsense),
        }
    }

    fn error(&self, failed: Failed, action: RPCTypes, ttl: Duration) -> RPCError<Types<RT>> {
        match failed {
            Failed::Transport(TransportError::TimedOut) => {
                // `id` is only printed.
                Timeout {
                    action,
                    id: self.local.header(self.to.node).from,
                    target: self.to.node.0,
                    timeout: ttl,
                }
                .into()
            }
            Failed::Transport(error) => {
                tracing::debug!(peer = %self.to.node, %error, "no answer");
                Unreachable::from_string(error).into()
            }
            Failed::Nonsense => Unreachable::from_string("the answer makes no sense").into(),
        }
    }
}

impl<RT: AsyncRuntime, T: Transport> RaftNetworkV2<Types<RT>> for Peer<RT, T> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<RT>>, RPCError<Types<RT>>> {
        // All of it: a quarter less would be a quarter less of distance between the sites (`Timing::round_trip_max`).
        let ttl = option.hard_ttl();
        let mut bytes = 0;
        let fitting: Vec<_> = request
            .entries
            .iter()
            .take_while(|entry| {
                let is_first = bytes == 0;
                bytes += wire::entry_size(entry);
                is_first || bytes <= APPEND_BYTES
            })
            .collect();
        let is_whole = fitting.len() == request.entries.len();
        let last_sent = fitting.last().map(|entry| entry.log_id);
        let append = pb::Append {
            vote: Some(wire::from_vote(&request.vote)),
            previous: request.prev_log_id.as_ref().map(wire::from_log_id),
            entries: fitting.into_iter().map(wire::from_entry).collect(),
            committed: request.leader_commit.as_ref().map(wire::from_log_id),
        };
        let appended = async {
            let Answer::Append(appended) = self.ask(self.lane, Ask::Append(append), ttl).await? else {
                return Err(Failed::Nonsense);
            };
            Ok(match appended.result.ok_or(Failed::Nonsense)? {
                pb::appended::Result::Success(_) if is_whole => AppendEntriesResponse::Success,
                pb::appended::Result::Success(_) => AppendEntriesResponse::PartialSuccess(last_sent),
                pb::appended::Result::Conflict(_) => AppendEntriesResponse::Conflict,
                pb::appended::Result::Higher(vote) => {
                    AppendEntriesResponse::HigherVote(wire::to_vote(Some(vote))?)
                }
            })
        };
        appended.await.map_err(|failed| self.error(failed, RPCTypes::AppendEntries, ttl))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<RT>>, RPCError<Types<RT>>> {
        let ttl = option.soft_ttl();
        self.ballot(request, ttl, Ask::Vote).await.map_err(|failed| self.error(failed, RPCTypes::Vote, ttl))
    }

    // openraft's default *grants*, which would make the question worthless.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<RT>>, RPCError<Types<RT>>> {
        let ttl = option.soft_ttl();
        self.ballot(request, ttl, Ask::PreVote)
            .await
            .map_err(|failed| self.error(failed, RPCTypes::Vote, ttl))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<RT>>, StreamingError<Types<RT>>> {
        let ttl = option.soft_ttl();
        let transfer = SnapshotTransfer {
            opening: pb::SnapshotOpening {
                header: Some(self.local.header(self.to.node)),
                vote: Some(wire::from_vote(&vote)),
                snapshot: Some(wire::from_snapshot(&snapshot.meta, &snapshot.snapshot)),
            },
            content: snapshot.snapshot,
        };
        let sending = RT::timeout(ttl, self.transport.install_snapshot(&self.to, transfer, ttl));
        let outcome = match RT::select2(cancel, sending).await {
            openraft::async_runtime::Select2::First(closed) => return Err(closed.into()),
            openraft::async_runtime::Select2::Second(outcome) => outcome,
        };
        let installed = async {
            let answer = outcome
                .map_err(|_| Failed::Transport(TransportError::TimedOut))?
                .map_err(|error| self.failed(error))?;
            self.check(answer.header.as_ref())?;
            Ok(SnapshotResponse::new(wire::to_vote(answer.vote)?))
        };
        installed.await.map_err(|failed| match self.error(failed, RPCTypes::InstallSnapshot, ttl) {
            RPCError::Timeout(timeout) => timeout.into(),
            RPCError::Unreachable(unreachable) => unreachable.into(),
            other => Unreachable::from_string(other).into(),
        })
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<RT>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<RT>>, RPCError<Types<RT>>> {
        let ttl = option.soft_ttl();
        let transfer = pb::Transfer {
            vote: Some(wire::from_vote(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(wire::from_log_id),
        };
        match self.ask(Lane::Urgent, Ask::Transfer(transfer), ttl).await {
            Ok(Answer::Transfer(result)) if result.declined.is_empty() => Ok(Ok(())),
            // Only printed by openraft, so the peer's own words need not be taken apart.
            Ok(Answer::Transfer(_)) => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: None,
            })),
            Ok(_) => Err(self.error(Failed::Nonsense, RPCTypes::TransferLeader, ttl)),
            Err(failed) => Err(self.error(failed, RPCTypes::TransferLeader, ttl)),
        }
    }
}
