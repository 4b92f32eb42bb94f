//! A Redis with an asynchronous replica: what becomes of it, and of the commands that reach it.

use super::Mistake;
use super::net::Net;
use super::redis_data::{Answer, Call, Data, Omitted, What};
use crate::clock::{TrueTime, nanos};
use crate::runtime::{Executor, ProcessId, SimRuntime, spawn};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use twinsite_consensus::AsyncRuntime;
use twinsite_model::{NodeId, RoomKey, Token, UpstreamName};
use twinsite_sessions::{Pin, PinUpdate, Why};

const MS: TrueTime = 1_000_000;
/// What the clock of a server shows at the beginning, in milliseconds.
const CLOCK_START: u64 = 1_800_000_000_000;
/// How wrong a server's clock may be, in milliseconds.
const CLOCK_ERROR_MAX: u64 = 2_000;
/// After how long something that got lost is sent again first; then after twice as long, and so on.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How often it is sent again before the connection is given up.
const SENT_AGAIN_MAX: u32 = 5;

/// What an accepted write was, for whoever checks it without the help of the store's own rules.
#[derive(Debug, Clone)]
pub(super) enum Noted {
    /// From now on it is another data set, which has seen this token.
    Began { newest: Option<Token> },
    /// A writer was refused.
    Stale,
    /// A command came too late.
    Late,
    /// A write was accepted.
    Accepted {
        by: NodeId,
        token: Token,
        /// The token that is kept now.
        kept: Option<Token>,
        created: Option<Created>,
    },
}

/// A room that had no place got one.
#[derive(Debug, Clone)]
pub(super) struct Created {
    pub(super) room: RoomKey,
    pub(super) upstream: UpstreamName,
    /// How old the data set was, in milliseconds; none: it was empty.
    pub(super) age: Option<u64>,
    /// Whether the writer had asked all other nodes.
    pub(super) asked: bool,
    /// Whether it is there instead of somewhere else.
    pub(super) replaces: bool,
}

/// The primary, its replica, and the network around them.
struct Server {
    data: Data,
    /// Connections belong to one life of it.
    life: u64,
    /// Beside which nodes the primary and the replica stand.
    beside: [NodeId; 2],
    clock_errors: [u64; 2],
    replica: Data,
    /// What the replica has not heard yet, and when it does.
    on_its_way: VecDeque<(TrueTime, Call, u64)>,
    lag_max: TrueTime,
    down_until: TrueTime,
    hangs_until: TrueTime,
    refuses: Option<(TrueTime, Why)>,
    noted: Vec<(TrueTime, Noted)>,
    random: fastrand::Rng,
}

impl Server {
    fn clock(&self) -> u64 {
        CLOCK_START + Executor::now() / MS + self.clock_errors[0]
    }

    fn note(&mut self, what: Noted) {
        self.noted.push((Executor::now(), what));
    }

    fn write(&mut self, by: NodeId, call: &Call) -> Answer {
        let now = self.clock();
        let before = self.data.token;
        let created = match &call.what {
            What::Place { room, proposal, replace, peers_asked, .. } => {
                self.data.forget(now);
                let created = Created {
                    room: *room,
                    upstream: proposal.clone(),
                    age: before.map(|(_, born)| now.saturating_sub(born)),
                    asked: *peers_asked,
                    replaces: replace.is_some(),
                };
                (!self.data.pins.contains_key(room)).then_some(created)
            }
            _ => None,
        };
        let answer = self.data.apply(call, now);
        match answer {
            Answer::Late => self.note(Noted::Late),
            Answer::Stale { .. } | Answer::StaleBeat { .. } => self.note(Noted::Stale),
            _ => {}
        }
        if matches!(answer, Answer::Late | Answer::Stale { .. } | Answer::StaleBeat { .. } | Answer::Ask) {
            return answer;
        }
        let kept = self.data.token.map(|(token, _)| token);
        let created = created.filter(|_| matches!(answer, Answer::New(_)));
        self.note(Noted::Accepted { by, token: call.token, kept, created });
        let last = self.on_its_way.back().map_or(0, |(at, ..)| *at);
        let heard = last.max(Executor::now() + self.random.u64(..=self.lag_max));
        self.on_its_way.push_back((heard, call.clone(), now));
        self.tell_replica();
        answer
    }

    fn tell_replica(&mut self) {
        while let Some((_, call, at)) = self.on_its_way.pop_front_if(|(heard, ..)| *heard <= Executor::now())
        {
            self.replica.apply(&Call { not_after: 0, ..call }, at);
        }
    }

    /// Every connection breaks.
    fn end(&mut self, down_for: TrueTime) {
        self.life += 1;
        self.down_until = Executor::now() + down_for;
        (self.hangs_until, self.refuses) = (0, None);
    }
}

/// What a client asks.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Write(Call),
    Get(RoomKey),
    Load,
}

/// What it is answered.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Wrote(Answer),
    Found(Option<Pin>),
    All(Vec<PinUpdate>),
}

/// A request on its way, with whom waits for the reply.
pub(super) struct Sent {
    at: TrueTime,
    request: Request,
    tell: oneshot::Sender<Result<Reply, Why>>,
}

/// The Redis. Clones share it.
#[derive(Clone)]
pub(super) struct Redis {
    server: Arc<Mutex<Server>>,
    net: Net,
}

impl Redis {
    /// Both begin empty, the primary beside the first of these nodes.
    pub(super) fn new(net: Net, beside: [NodeId; 2], omitted: Omitted) -> Self {
        let mut random = Executor::random();
        let data = Data { omitted, ..Data::default() };
        let server = Server {
            replica: data.clone(),
            data,
            life: 0,
            beside,
            clock_errors: [0; 2].map(|_: u64| random.u64(..=CLOCK_ERROR_MAX)),
            on_its_way: VecDeque::new(),
            lag_max: random.u64(MS..=500 * MS),
            down_until: 0,
            hangs_until: 0,
            refuses: None,
            noted: Vec::new(),
            random,
        };
        Self { server: Arc::new(Mutex::new(server)), net }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happened since the last call.
    pub(super) fn take_noted(&self) -> Vec<(TrueTime, Noted)> {
        std::mem::take(&mut self.server().noted)
    }

    /// Where the primary has a room now.
    pub(super) fn place_of(&self, room: RoomKey) -> Option<Pin> {
        self.server().data.pins.get(&room).map(|kept| kept.value.clone())
    }

    /// A machine has another name from now on.
    pub(super) fn rename(&self, old: NodeId, new: NodeId) {
        self.server().beside.iter_mut().filter(|beside| **beside == old).for_each(|beside| *beside = new);
    }

    /// It is started again, and has nothing any more.
    pub(super) fn lose_everything(&self, down_for: TrueTime) {
        let mut server = self.server();
        server.end(down_for);
        let omitted = server.data.omitted;
        server.data = Data { omitted, ..Data::default() };
        server.replica = server.data.clone();
        server.on_its_way.clear();
        server.note(Noted::Began { newest: None });
    }

    /// The primary is killed and the replica takes its place, with whatever it has heard of.
    pub(super) fn promote_replica(&self, down_for: TrueTime) -> usize {
        let mut server = self.server();
        server.tell_replica();
        server.end(down_for);
        let lost = server.on_its_way.len();
        server.on_its_way.clear();
        server.data = server.replica.clone();
        server.beside.swap(0, 1);
        server.clock_errors.swap(0, 1);
        let newest = server.data.token.map(|(token, _)| token);
        server.note(Noted::Began { newest });
        lost
    }

    /// It stands still; what reaches it meanwhile is done afterwards.
    pub(super) fn hang(&self, long: TrueTime) {
        self.server().hangs_until = Executor::now() + long;
    }

    /// It answers, and takes no writes.
    pub(super) fn refuse_writes(&self, long: TrueTime, why: Why) {
        self.server().refuses = Some((Executor::now() + long, why));
    }

    /// All is well with it.
    pub(super) fn heal(&self) {
        let mut server = self.server();
        (server.down_until, server.hangs_until, server.refuses) = (0, 0, None);
    }

    /// The time of a way to it or from it; none if the message is lost.
    fn way(&self, node: NodeId, there: bool) -> Option<Duration> {
        let redis = self.server().beside[0];
        if there { self.net.way(node, redis) } else { self.net.way(redis, node) }
    }

    /// Says hello. The connection lasts as long as this life of the server, and the client wants it.
    pub(super) async fn connect(&self, node: NodeId) -> Result<mpsc::UnboundedSender<Sent>, Why> {
        for there in [true, false] {
            match self.way(node, there) {
                Some(way) => SimRuntime::sleep(way).await,
                // The caller's own time runs out.
                None => std::future::pending().await,
            }
        }
        let life = {
            let server = self.server();
            if Executor::now() < server.down_until {
                return Err(Why::Refused);
            }
            server.life
        };
        let (line, queue) = mpsc::unbounded_channel();
        drop(spawn(ProcessId::WORLD, self.clone().carry(life, node, queue)));
        Ok(line)
    }

    /// Takes requests to the server, in order, as a connection does: what is lost is sent again, also when the client
    /// has given up long since.
    async fn carry(self, life: u64, node: NodeId, mut queue: mpsc::UnboundedReceiver<Sent>) {
        while let Some(Sent { at, request, tell }) = queue.recv().await {
            let (mut begun, mut again, mut times) = (at, SENT_AGAIN_AFTER, 0);
            let way = loop {
                if let Some(way) = self.way(node, true) {
                    break way;
                }
                times += 1;
                if times > SENT_AGAIN_MAX {
                    return;
                }
                SimRuntime::sleep(again).await;
                (begun, again) = (Executor::now(), again * 2);
            };
            let arrives = begun + nanos(way);
            SimRuntime::sleep(Duration::from_nanos(arrives.saturating_sub(Executor::now()))).await;
            let reply = self.serve(life, node, &request).await;
            let Some(way) = self.way(node, false) else { continue };
            drop(spawn(ProcessId::WORLD, async move {
                SimRuntime::sleep(way).await;
                let _gave_up = tell.send(reply);
            }));
        }
    }

    async fn serve(&self, life: u64, node: NodeId, request: &Request) -> Result<Reply, Why> {
        loop {
            let hangs_until = self.server().hangs_until;
            let now = Executor::now();
            if now >= hangs_until {
                break;
            }
            // It may end, or go on, before its time.
            SimRuntime::sleep(Duration::from_nanos((hangs_until - now).min(100 * MS))).await;
        }
        let mut server = self.server();
        if server.life != life || Executor::now() < server.down_until {
            return Err(Why::Closed);
        }
        match request {
            Request::Write(call) => {
                if let Some((_, why)) = server.refuses.filter(|(until, _)| Executor::now() < *until) {
                    return Err(why);
                }
                Ok(Reply::Wrote(server.write(node, call)))
            }
            Request::Get(room) => {
                let now = server.clock();
                server.data.forget(now);
                Ok(Reply::Found(server.data.pins.get(room).map(|kept| kept.value.clone())))
            }
            Request::Load => {
                let now = server.clock();
                server.data.forget(now);
                let pins = server.data.pins.iter();
                let pins = pins.map(|(room, kept)| PinUpdate { room: *room, pin: kept.value.clone() });
                Ok(Reply::All(pins.collect()))
            }
        }
    }
}

/// Sends a request. Nobody says so if it never arrives.
pub(super) async fn ask(line: &mpsc::UnboundedSender<Sent>, request: Request) -> Result<Reply, Why> {
    let (tell, told) = oneshot::channel();
    if line.send(Sent { at: Executor::now(), request, tell }).is_err() {
        return Err(Why::Closed);
    }
    match told.await {
        Ok(reply) => reply,
        Err(_) => std::future::pending().await,
    }
}

impl Omitted {
    /// The rules that a mistake leaves out.
    pub(super) fn of(mistake: Option<Mistake>) -> Self {
        Self {
            token_check: mistake == Some(Mistake::ScriptForgetsTokenCheck),
            maximum: mistake == Some(Mistake::ScriptForgetsMaximum),
            peers_first: mistake == Some(Mistake::YoungStoreAsksNobody),
        }
    }
}
