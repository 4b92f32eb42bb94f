//! What peers ask of this node. A transport's server side hands their messages over here.

use crate::changes::Published;
use crate::local::{Local, Refused};
use crate::pb::{self, exchange_request::Body as Ask, exchange_response::Body as Answer};
use crate::raft_types::{Snapshot, Types};
use crate::state_machine::StateMachine;
use crate::transport::SnapshotTransfer;
use crate::turns::Turns;
use crate::wire::{self, WireError};
use openraft::error::RaftError;
use openraft::raft::TransferLeaderRequest;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{AsyncRuntime, Raft};
use std::sync::Arc;
use tokio::sync::watch;
use twinsite_model::NodeId;

/// Takes the peers' messages. Cheap to clone.
pub struct Inbound<RT: AsyncRuntime> {
    pub(crate) raft: Raft<Types<RT>, StateMachine>,
    pub(crate) local: Arc<Local>,
    pub(crate) published: Arc<Published>,
    pub(crate) turns: Arc<Turns<RT>>,
    pub(crate) started: watch::Receiver<bool>,
}

impl<RT: AsyncRuntime> Clone for Inbound<RT> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            local: Arc::clone(&self.local),
            published: Arc::clone(&self.published),
            turns: Arc::clone(&self.turns),
            started: self.started.clone(),
        }
    }
}

impl From<WireError> for Refused {
    fn from(_: WireError) -> Self {
        Self::Malformed
    }
}

impl<RT: AsyncRuntime> Inbound<RT> {
    /// Answers one message. The caller has checked that whoever sent it may speak for the node in its header.
    pub async fn exchange(&self, message: pb::ExchangeRequest) -> Result<pb::ExchangeResponse, Refused> {
        let from = match message.body {
            // Answered by nodes that wait for their own turn too: two that begin together must not wait in vain.
            Some(Ask::Greeting(_)) => self.local.admit(message.header.as_ref())?,
            _ => self.admit(message.header.as_ref())?,
        };
        let answer = match message.body.ok_or(Refused::Malformed)? {
            Ask::Append(append) => Answer::Append(self.append(from, append).await?),
            Ask::Vote(ballot) => {
                // At once, because a vote takes its time to reach the disk: only who was granted a round of pre-votes
                // asks for one.
                self.turns.helps_another();
                Answer::Vote(self.voted(self.raft.vote(to_vote_request(ballot)?).await)?)
            }
            Ask::PreVote(ballot) => {
                self.turns.another_asks();
                Answer::PreVote(self.voted(self.raft.pre_vote(to_vote_request(ballot)?).await)?)
            }
            Ask::Greeting(pb::Blank {}) => Answer::Greeting(pb::Blank {}),
            Ask::Transfer(transfer) => Answer::Transfer(self.transfer(transfer).await?),
        };
        Ok(pb::ExchangeResponse { header: Some(self.local.header(from)), body: Some(answer) })
    }

    /// Installs a snapshot. The caller has checked the sender, as above.
    pub async fn install_snapshot(
        &self,
        transfer: SnapshotTransfer,
    ) -> Result<pb::InstallSnapshotResponse, Refused> {
        let SnapshotTransfer { opening, content } = transfer;
        let from = self.admit(opening.header.as_ref())?;
        let vote = wire::to_vote(opening.vote)?;
        let meta = wire::to_snapshot(opening.snapshot.ok_or(Refused::Malformed)?, &content)?;
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: content }).await;
        let answer = installed.map_err(|_| Refused::NotTakingPart)?;
        if answer.vote == vote {
            self.turns.heard_leader(from);
        }
        Ok(pb::InstallSnapshotResponse {
            header: Some(self.local.header(from)),
            vote: Some(wire::from_vote(&answer.vote)),
        })
    }

    /// Whether a message with this header would be looked at, and from whom it is. For a transport that wants to
    /// know before it receives the rest.
    pub fn admit(&self, header: Option<&pb::Header>) -> Result<NodeId, Refused> {
        let from = self.local.admit(header)?;
        if self.published.is_retired(from) {
            return Err(Refused::Retired(from));
        }
        if !*self.started.borrow() || self.published.stopped().is_some() {
            return Err(Refused::NotTakingPart);
        }
        Ok(from)
    }

    async fn append(&self, from: NodeId, append: pb::Append) -> Result<pb::Appended, Refused> {
        let request = AppendEntriesRequest {
            vote: wire::to_vote(append.vote)?,
            prev_log_id: append.previous.map(wire::to_log_id),
            entries: append.entries.into_iter().map(wire::to_entry).collect::<Result<_, _>>()?,
            leader_commit: append.committed.map(wire::to_log_id),
        };
        let response = self.raft.append_entries(request).await.map_err(|_| Refused::NotTakingPart)?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.turns.heard_leader(from);
        }
        let result = match response {
            AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {
                pb::appended::Result::Success(pb::Blank {})
            }
            AppendEntriesResponse::Conflict => pb::appended::Result::Conflict(pb::Blank {}),
            AppendEntriesResponse::HigherVote(vote) => pb::appended::Result::Higher(wire::from_vote(&vote)),
        };
        Ok(pb::Appended { result: Some(result) })
    }

    fn voted(
        &self,
        result: Result<VoteResponse<Types<RT>>, RaftError<Types<RT>>>,
    ) -> Result<pb::BallotResult, Refused> {
        let response = result.map_err(|_| Refused::NotTakingPart)?;
        if response.vote_granted {
            self.turns.helps_another();
        }
        Ok(from_vote_response(&response))
    }

    async fn transfer(&self, transfer: pb::Transfer) -> Result<pb::TransferResult, Refused> {
        let vote = wire::to_vote(transfer.vote)?;
        let request = TransferLeaderRequest::new(vote, transfer.to, transfer.last.map(wire::to_log_id));
        let result = self.raft.handle_transfer_leader(request).await;
        let result = result.map_err(|_| Refused::NotTakingPart)?;
        Ok(pb::TransferResult { declined: result.err().map(|error| error.to_string()).unwrap_or_default() })
    }
}

fn to_vote_request<RT: AsyncRuntime>(ballot: pb::Ballot) -> Result<VoteRequest<Types<RT>>, WireError> {
    Ok(VoteRequest {
        vote: wire::to_vote(ballot.vote)?,
        last_log_id: ballot.last.map(wire::to_log_id),
        leadership_transfer: ballot.transfer,
    })
}

fn from_vote_response<RT: AsyncRuntime>(response: &VoteResponse<Types<RT>>) -> pb::BallotResult {
    pb::BallotResult {
        vote: Some(wire::from_vote(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(wire::from_log_id),
    }
}
