//! Watching through the loss of nodes: resumed elsewhere after the last revision seen, so that nothing is missed and
//! nothing repeated.

use super::{Client, MESSAGE_BYTES_MAX, Node, ROUND_PAUSE, service};
use crate::convert;
use crate::error::{ApiError, Reason};
use crate::v1::{self, cluster_service_client::ClusterServiceClient, watch_response::Message};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::Streaming;
use twinsite_model::{Event, Revision, WallTime};

/// A watch that says nothing for so long is dead: a living one sends a bookmark every second.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Messages that wait for the reader.
const QUEUE: usize = 256;

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchMessage {
    /// The state: at the beginning, and when too much was missed to go on from there.
    Snapshot(Box<v1::State>),
    /// One revision.
    Change {
        /// The revision.
        revision: Revision,
        /// The leader's wall clock.
        at: WallTime,
        /// What changed.
        events: Vec<Event>,
    },
    /// Nothing happened up to here.
    Bookmark(Revision),
}

impl Client {
    /// Watches: from the present state on, or every change after a revision. Waits until some node answers, as long as
    /// any call may take; then the stream goes on until the reader drops it, through the loss of any node.
    pub async fn watch(&self, from: Option<Revision>) -> Result<mpsc::Receiver<WatchMessage>, ApiError> {
        let first = self.begin(from).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(follow(self.clone(), first, from, sender));
        Ok(receiver)
    }

    async fn begin(&self, from: Option<Revision>) -> Result<Streaming<v1::WatchResponse>, ApiError> {
        let request = v1::WatchRequest { from_revision: from.map_or(0, |revision| revision.0) };
        self.ask(|channel| async move {
            let watch = service!(ClusterServiceClient, channel).watch(request).await;
            watch.map(tonic::Response::into_inner)
        })
        .await
    }

    /// Puts a node that went silent to the end of the line.
    fn avoid_best(&self) {
        let order: Vec<Node> = self.in_order();
        self.set_best(order.get(1).map(|node| node.address));
    }
}

async fn follow(
    client: Client,
    mut stream: Streaming<v1::WatchResponse>,
    mut after: Option<Revision>,
    sender: mpsc::Sender<WatchMessage>,
) {
    loop {
        let ended = read(&mut stream, &mut after, &sender).await;
        match ended {
            Ended::ReaderGone => return,
            Ended::Compacted => after = None,
            Ended::Lost => client.avoid_best(),
        }
        stream = loop {
            let begun = tokio::select! {
                () = sender.closed() => return,
                begun = client.begin(after) => begun,
            };
            match begun {
                Ok(stream) => break stream,
                Err(error) if error.reason == Reason::RevisionCompacted => {
                    // Another node may remember; if none does, the state is taken anew.
                    client.avoid_best();
                    match client.begin(after).await {
                        Ok(stream) => break stream,
                        Err(_) => after = None,
                    }
                }
                Err(error) if error.reason == Reason::PermissionDenied => return,
                Err(_) => sleep(ROUND_PAUSE).await,
            }
        };
    }
}

enum Ended {
    ReaderGone,
    Compacted,
    Lost,
}

async fn read(
    stream: &mut Streaming<v1::WatchResponse>,
    after: &mut Option<Revision>,
    sender: &mpsc::Sender<WatchMessage>,
) -> Ended {
    loop {
        let next = tokio::select! {
            () = sender.closed() => return Ended::ReaderGone,
            next = timeout(SILENT_AFTER, stream.message()) => next,
        };
        let message = match next {
            Ok(Ok(Some(v1::WatchResponse { message: Some(message) }))) => message,
            Ok(Ok(Some(_))) => continue, // newer than this program
            Ok(Err(status)) if ApiError::from(status.clone()).reason == Reason::RevisionCompacted => {
                return Ended::Compacted;
            }
            Ok(Ok(None) | Err(_)) | Err(_) => return Ended::Lost,
        };
        let told = match message {
            Message::Snapshot(state) => {
                *after = Some(Revision(state.revision));
                WatchMessage::Snapshot(Box::new(state))
            }
            Message::Change(change) if after.is_some_and(|after| change.revision <= after.0) => continue,
            Message::Change(change) => {
                *after = Some(Revision(change.revision));
                WatchMessage::Change {
                    revision: Revision(change.revision),
                    at: WallTime(change.at_ms),
                    // What a newer cluster says beyond this program's words is left out.
                    events: change
                        .events
                        .into_iter()
                        .filter_map(|event| convert::event(event).ok())
                        .collect(),
                }
            }
            // A node that is behind bookmarks an older revision than was seen already.
            Message::Bookmark(bookmark) => WatchMessage::Bookmark(Revision(bookmark.revision)),
        };
        if sender.send(told).await.is_err() {
            return Ended::ReaderGone;
        }
    }
}
