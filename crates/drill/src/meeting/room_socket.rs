//! One participant's WebSocket: welcome, relay, heartbeat.

use super::Instance;
use super::rooms::Presence;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

/// The longest message of a participant, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// How often the instance asks whether the participant is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After so long without a sign of life the participant is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The longest wait for the client's side of the upgrade, and for one write.
const STALL_MAX: Duration = Duration::from_secs(10);

/// Serves one participant from the upgrade to the end, and frees the seat whatever happens.
pub(super) async fn converse(
    instance: Arc<Instance>,
    room: String,
    peer: String,
    mut presence: Presence,
    upgrade: OnUpgrade,
) {
    let seat = presence.seat;
    if let Ok(Ok(upgraded)) = timeout(STALL_MAX, upgrade).await {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX))
            .max_write_buffer_size(4 * 1024 * 1024);
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let participant = Participant { instance: &instance, room: &room, peer: &peer };
        if let Err(error) = participant.relay(socket, &mut presence).await {
            tracing::debug!(%error, "a participant is gone");
        }
    }
    instance.rooms.leave(&room, seat);
}

struct Participant<'a> {
    instance: &'a Instance,
    room: &'a str,
    peer: &'a str,
}

impl Participant<'_> {
    async fn relay(
        &self,
        mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
        presence: &mut Presence,
    ) -> Result<(), WsError> {
        send(&mut socket, Message::text(self.welcome(&presence.others).await)).await?;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.instance.rooms.tell(self.room, &self.wrap(&text)),
                        Some(Ok(Message::Close(_))) | None => return Ok(()),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error),
                    }
                }
                message = presence.inbox.recv() => match message {
                    Some(message) => send(&mut socket, Message::Text(message)).await?,
                    // The seat was taken away: the queue was full.
                    None => return Ok(()),
                },
                _ = heartbeat.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Ok(());
                    }
                    send(&mut socket, Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    async fn welcome(&self, others: &[String]) -> String {
        json!({
            "type": "welcome",
            "instance": self.instance.name,
            "room": self.room,
            "announcedIp": self.instance.announced().await,
            "peers": others,
        })
        .to_string()
    }

    fn wrap(&self, text: &str) -> Utf8Bytes {
        let wrapped =
            json!({"type": "message", "instance": self.instance.name, "from": self.peer, "data": text});
        Utf8Bytes::from(wrapped.to_string())
    }
}

/// Sends one message; a reader that takes nothing for [`STALL_MAX`] is gone.
async fn send(
    socket: &mut WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    message: Message,
) -> Result<(), WsError> {
    match timeout(STALL_MAX, socket.send(message)).await {
        Ok(sent) => sent,
        Err(_) => Err(WsError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
