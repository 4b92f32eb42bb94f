//! Participants of meetings: a WebSocket in a room, words now and then, and a new WebSocket when the old one is gone.

use super::{Client, Entry, LoadPlan, http};
use crate::layout::Layout;
use crate::measure::{Answer, Identity, Kind, Tunnel};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use twinsite_model::UpstreamName;

/// The source addresses of participants begin here in the clients' block.
const FIRST_ADDRESS: usize = 1_000;
/// How often a WebSocket that was given up is spoken on.
const SPEAK_ON_EVERY: Duration = Duration::from_millis(100);
/// Words whose echo is waited for.
const UNANSWERED_MAX: usize = 256;

type Socket = WebSocketStream<TcpStream>;

pub(super) fn start(client: &Client, plan: &LoadPlan, layout: &Layout) {
    let mut entries = vec![layout.floating];
    if plan.entry == Entry::AllNodes {
        let serving = layout.nodes.iter().filter(|node| node.kind.serves());
        entries.extend(serving.map(|node| layout.own_http(node)));
    }
    // A name of its own for each load, so that rooms of an earlier run are not met again.
    let meeting = fastrand::u32(..);
    for number in 0..plan.participants {
        let room = number % plan.rooms.max(1);
        let participant = Participant {
            client: client.clone(),
            plan: plan.clone(),
            number,
            room,
            source: layout.client(FIRST_ADDRESS + number),
            // Neighbours in a room enter through different addresses.
            entry: entries[(number / plan.rooms.max(1)) % entries.len()],
            path: format!(
                "/socket.io/?EIO=4&transport=websocket&roomId=drill-{meeting:x}-{room}&peerId=p{number}"
            ),
        };
        client.spawn(participant.attend());
    }
}

struct Participant {
    client: Client,
    plan: LoadPlan,
    number: usize,
    room: usize,
    source: IpAddr,
    entry: SocketAddr,
    path: String,
}

/// What the meeting instance says.
#[derive(Deserialize)]
struct Heard {
    #[serde(rename = "type")]
    kind: String,
    instance: UpstreamName,
    from: Option<String>,
    data: Option<String>,
}

/// A WebSocket after its welcome.
struct Seat {
    socket: Socket,
    /// Its number in the recording.
    tunnel: usize,
    identity: Option<Identity>,
    floating: bool,
    me: String,
    /// What was said and not heard back yet, with the time of saying.
    unanswered: VecDeque<(u64, Instant)>,
    said: u64,
}

impl Participant {
    async fn attend(self) {
        // Arriving in step is what real participants do not do.
        sleep(self.plan.say_every.mul_f64(fastrand::f64())).await;
        let mut pause = self.plan.reconnect;
        loop {
            if let Ok(mut seat) = self.sit_down().await {
                pause = self.plan.reconnect;
                let ended = self.converse(&mut seat).await;
                self.client.recorder.tunnel_lost(seat.tunnel, Instant::now());
                if ended == Ended::Silent {
                    self.client.spawn(speak_on(self.client.clone(), seat));
                }
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(self.plan.reconnect_max);
        }
    }

    async fn sit_down(&self) -> Result<Seat, WsError> {
        let within = self.plan.silence_max;
        let late = |_| WsError::Io(std::io::ErrorKind::TimedOut.into());
        let stream = http::connect(self.source, self.entry, within)
            .await
            .map_err(|failure| WsError::Io(std::io::Error::other(failure)))?;
        let mut request = format!("ws://{}{}", self.entry, self.path).into_client_request()?;
        request.headers_mut().insert("x-twinsite-trace", HeaderValue::from_static("1"));
        let upgrade = tokio_tungstenite::client_async(request, stream);
        let (mut socket, answer) = timeout(within, upgrade).await.map_err(late)??;
        let identity = http::identity(answer.headers());
        let welcome = timeout(within, next(&mut socket)).await.map_err(late)??;
        let now = Instant::now();
        let tunnel = Tunnel {
            participant: self.number,
            room: self.room,
            instance: welcome.instance,
            opened: now,
            last: now,
            lost: None,
        };
        let tunnel = self.client.recorder.tunnel_opened(tunnel).ok_or(WsError::ConnectionClosed)?;
        Ok(Seat {
            socket,
            tunnel,
            identity,
            floating: self.entry == self.client.floating,
            me: format!("p{}", self.number),
            unanswered: VecDeque::new(),
            said: 0,
        })
    }

    async fn converse(&self, seat: &mut Seat) -> Ended {
        let mut ticks = interval(self.plan.say_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = next(&mut seat.socket) => match heard {
                    Ok(heard) => seat.note(&self.client, &heard),
                    Err(_) => return Ended::Broken,
                },
                _ = ticks.tick() => {
                    let oldest = seat.unanswered.front();
                    if oldest.is_some_and(|(_, said)| said.elapsed() > self.plan.silence_max) {
                        return Ended::Silent;
                    }
                    if seat.say().await.is_err() {
                        return Ended::Broken;
                    }
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The other end closed, or the connection broke.
    Broken,
    /// Nothing came for too long.
    Silent,
}

impl Seat {
    async fn say(&mut self) -> Result<(), WsError> {
        self.said += 1;
        self.unanswered.push_back((self.said, Instant::now()));
        if self.unanswered.len() > UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        // A full socket of a frozen proxy must not hold up the participant's own clock.
        let sent = timeout(SPEAK_ON_EVERY, self.socket.send(Message::text(self.said.to_string()))).await;
        sent.unwrap_or(Ok(()))
    }

    fn note(&mut self, client: &Client, heard: &Heard) {
        let received = Instant::now();
        client.recorder.tunnel_heard(self.tunnel, received);
        let own = heard.from.as_deref() == Some(&self.me);
        let number = heard.data.as_deref().and_then(|data| data.parse::<u64>().ok()).filter(|_| own);
        let mut sent = None;
        if let Some(number) = number {
            while let Some((said, at)) = self.unanswered.pop_front_if(|(said, _)| *said <= number) {
                if said == number {
                    sent = Some(at);
                }
            }
        }
        client.recorder.answer(Answer {
            kind: Kind::Tunnel,
            sent,
            received,
            identity: self.identity.clone(),
            floating: self.floating,
        });
    }
}

async fn next(socket: &mut Socket) -> Result<Heard, WsError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                if let Ok(heard) = serde_json::from_str::<Heard>(&text)
                    && (heard.kind == "welcome" || heard.kind == "message")
                {
                    return Ok(heard);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(WsError::ConnectionClosed),
        }
    }
}

/// Goes on speaking and listening on a WebSocket that its participant gave up: nothing should come any more.
async fn speak_on(client: Client, mut seat: Seat) {
    let mut ticks = interval(SPEAK_ON_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = next(&mut seat.socket) => match heard {
                Ok(heard) => seat.note(&client, &heard),
                Err(_) => return,
            },
            _ = ticks.tick() => {
                if seat.say().await.is_err() {
                    return;
                }
            }
        }
    }
}
