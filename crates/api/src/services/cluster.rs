//! Questions about the cluster.

use super::{Context, floating_ip};
use crate::convert::{event_to_pb, state_to_pb};
use crate::error::ApiError;
use crate::hub::{Subscription, WatchItem};
use crate::v1::{self, cluster_service_server::ClusterService, watch_response::Message};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use twinsite_model::Revision;

/// How often a quiet watch says that it lives.
const BOOKMARK_EVERY: Duration = Duration::from_secs(1);
/// Messages that wait for one watcher; above it the hub counts how far it is behind.
const QUEUE: usize = 16;
/// How long a watcher may take no message at all.
const STUCK_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl ClusterService for Service {
    async fn get_state(
        &self,
        request: Request<v1::GetStateRequest>,
    ) -> Result<Response<v1::GetStateResponse>, Status> {
        self.0.caller(&request)?;
        let backend = &self.0.backend;
        let local = request.get_ref().consistency() == v1::Consistency::Local;
        let state = if local { backend.local_state() } else { backend.linearizable().await? };
        let (has_quorum, age) = backend.quorum();
        let consistency = if local { v1::Consistency::Local } else { v1::Consistency::Linearizable };
        Ok(Response::new(v1::GetStateResponse {
            revision: state.revision.0,
            state: Some(state_to_pb(&state)),
            consistency: consistency.into(),
            has_quorum,
            quorum_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            health: Some(backend.health().await),
        }))
    }

    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.caller(&request)?;
        let from = request.get_ref().from_revision;
        let (snapshot, changes) = self.0.hub.subscribe((from > 0).then_some(Revision(from)))?;
        let first = snapshot.map(|state| Message::Snapshot(state_to_pb(&state)));
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(feed(first, changes, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.0.caller(&request)?;
        let ip = floating_ip(&self.0.backend.local_state(), &request.get_ref().floating_ip)?;
        let explanation = self.0.backend.explain(ip).await?;
        Ok(Response::new(v1::ExplainResponse { explanation: Some(explanation) }))
    }
}

type Sender = mpsc::Sender<Result<v1::WatchResponse, Status>>;

/// Feeds one watcher until it goes away, or until something must be said that ends it.
async fn feed(first: Option<Message>, mut changes: Subscription, sender: Sender) {
    if let Some(first) = first
        && !send(&sender, Ok(first)).await
    {
        return;
    }
    loop {
        let message = tokio::select! {
            () = sender.closed() => return,
            next = tokio::time::timeout(BOOKMARK_EVERY, changes.next()) => match next {
                Ok(Some(Ok(item))) => Ok(change(&item)),
                Ok(Some(Err(error))) => Err(error),
                Ok(None) => return,
                Err(_) => Ok(Message::Bookmark(v1::Bookmark { revision: changes.after().0 })),
            },
        };
        let last = message.is_err();
        if !send(&sender, message).await || last {
            return;
        }
    }
}

async fn send(sender: &Sender, message: Result<Message, ApiError>) -> bool {
    let message = message.map(|message| v1::WatchResponse { message: Some(message) }).map_err(Status::from);
    sender.send_timeout(message, STUCK_AFTER).await.is_ok()
}

fn change(item: &WatchItem) -> Message {
    Message::Change(v1::Change {
        revision: item.revision.0,
        at_ms: item.at.0,
        events: item.events.iter().map(event_to_pb).collect(),
    })
}
