//! A live cluster of a few lines, with clients that see what it is told to show.

use super::super::cluster::{LiveCluster, LiveStatus, PlannedMove, Probes, RuleSeen, Seen};
use crate::engine::{ApiError, ClusterApi, ClusterStatus, WatchItem};
use crate::measure::{Answer, Identity, Kind, Recording};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use twinsite_model::spec::from_toml;
use twinsite_model::{
    ClusterSpec, DrillId, Event, FloatingIpName, Generation, Incarnation, NodeName, OperationId,
    OperationKind, Outcome, Owner, Reason, Revision, SiteName, Token, Verdict, WallTime,
};

pub(super) const DRILL: DrillId = DrillId(7);
/// As whom the runner asks.
pub(super) const ME: &str = "node 5";

const SPEC: &str = r#"
version = 1
cluster = "meet"
profile = "lan"
site = [
  { name = "gra", announced_ip = "192.0.2.10" },
  { name = "sbg", announced_ip = "198.51.100.10" },
  { name = "wit", witness = true },
]
node = [
  { id = 1, name = "gra-1", site = "gra", peer = "10.1.0.1:1", api = "10.1.0.1:2" },
  { id = 2, name = "gra-2", site = "gra", peer = "10.1.0.2:1", api = "10.1.0.2:2" },
  { id = 3, name = "sbg-1", site = "sbg", peer = "10.2.0.1:1", api = "10.2.0.1:2" },
  { id = 4, name = "sbg-2", site = "sbg", peer = "10.2.0.2:1", api = "10.2.0.2:2" },
  { id = 5, name = "wit-1", site = "wit", kind = "witness", peer = "10.3.0.1:1", api = "10.3.0.1:2" },
]
upstream = [
  { name = "gra-meet-1", site = "gra", address = "10.1.0.11:3443" },
  { name = "sbg-meet-1", site = "sbg", address = "10.2.0.11:3443" },
]
floating_ip = [{ name = "public", address = "127.0.0.10", ports = [8080], provider = "loopback" }]
route = [{ name = "all" }]
"#;

pub(super) fn spec() -> ClusterSpec {
    from_toml(SPEC).unwrap()
}

fn ip() -> FloatingIpName {
    "public".parse().unwrap()
}

pub(super) struct World {
    pub(super) status: LiveStatus,
    /// How long a move takes; it can be called off meanwhile, unless `forward_only`.
    pub(super) move_takes: Duration,
    pub(super) forward_only: bool,
    /// Why plans are refused.
    pub(super) refuses: Option<String>,
    /// Nobody answers questions.
    pub(super) no_quorum: bool,
    /// What clients see beside who answers.
    pub(super) seen: Seen,
    /// What was asked of the cluster, in order.
    pub(super) asked: Vec<String>,
    recording: Recording,
    watchers: Vec<mpsc::Sender<WatchItem>>,
    move_number: u64,
}

#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<World>>);

impl Fake {
    /// gra-1 owns, the witness leads, all is well, and the drill has been let begin.
    pub(super) fn new() -> Self {
        let spec = spec();
        let cluster = ClusterStatus {
            revision: Revision(9),
            generation: Generation(1),
            leader: Some(name("wit-1")),
            owner: Some((name("gra-1"), Token::new(1, 1))),
            moving: false,
            verdicts: spec.upstreams.iter().map(|one| (one.name.clone(), Verdict::Healthy)).collect(),
            heard: spec.nodes.iter().map(|node| node.name.clone()).collect(),
        };
        Self(Arc::new(Mutex::new(World {
            status: LiveStatus { cluster, paused_by: None, drill: Some(DRILL), stop: None },
            move_takes: Duration::from_millis(100),
            forward_only: false,
            refuses: None,
            no_quorum: false,
            seen: Seen::default(),
            asked: Vec::new(),
            recording: Recording::default(),
            watchers: Vec::new(),
            move_number: 0,
        })))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(super) fn owner(&self) -> String {
        self.world().status.cluster.owner.as_ref().unwrap().0.to_string()
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.world().asked.clone()
    }

    /// Something happens in the cluster by itself once this has been asked of it.
    pub(super) fn after(&self, asked: &'static str, happens: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        tokio::spawn(async move {
            while !this.world().asked.iter().any(|known| known.starts_with(asked)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            happens(&this);
        });
    }

    /// An address moves, for whatever reason; it takes its time.
    pub(super) fn move_to(&self, kind: OperationKind, node: &str) {
        let (takes, number) = {
            let mut world = self.world();
            world.status.cluster.moving = true;
            world.move_number += 1;
            (world.move_takes, world.move_number)
        };
        let operation = OperationId(100 + number);
        self.emit(Event::OperationBegan {
            ip: ip(),
            operation,
            kind,
            reason: Reason::Operator,
            target: spec().node_named(&name(node)).unwrap().id,
            evidence: Vec::new(),
        });
        let (this, node) = (self.clone(), name(node));
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            {
                let mut world = this.world();
                if !world.status.cluster.moving || world.move_number != number {
                    return; // called off
                }
                let (_, token) = world.status.cluster.owner.clone().unwrap();
                let token = Token { epoch: twinsite_model::Epoch(token.epoch.0 + 1), ..token };
                world.status.cluster.owner = Some((node.clone(), token));
                world.status.cluster.moving = false;
            }
            let (_, token) = this.world().status.cluster.owner.clone().unwrap();
            let id = spec().node_named(&node).unwrap().id;
            let owner =
                Owner { node: id, incarnation: Incarnation(1), token, since: WallTime(1), revoked: false };
            this.emit(Event::OwnerChanged { ip: ip(), owner });
            this.emit(Event::OperationEnded { ip: ip(), operation, outcome: Outcome::Verified });
        });
    }

    fn emit(&self, event: Event) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let at = WallTime(since.as_millis() as u64);
        let item = WatchItem { revision: Revision(10), at, event };
        self.world().watchers.retain(|watcher| watcher.try_send(item.clone()).is_ok());
    }

    fn ask(&self, what: String) -> Result<(), ApiError> {
        let mut world = self.world();
        world.asked.push(what);
        if world.no_quorum { Err(error("no quorum", true)) } else { Ok(()) }
    }
}

pub(super) fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn error(message: &str, retryable: bool) -> ApiError {
    ApiError { message: message.to_owned(), retryable, forbidden: false }
}

impl ClusterApi for Fake {
    fn status(&self) -> BoxFuture<'_, Result<ClusterStatus, ApiError>> {
        Box::pin(async move { self.look().await.map(|status| status.cluster) })
    }

    fn watch(&self) -> BoxFuture<'_, Result<mpsc::Receiver<WatchItem>, ApiError>> {
        let (sender, receiver) = mpsc::channel(1_000);
        self.world().watchers.push(sender);
        Box::pin(async move { Ok(receiver) })
    }

    fn switchover<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            self.ask(format!("switchover {to}"))?;
            self.move_to(OperationKind::Switchover, &format!("{to}-1"));
            Ok(())
        })
    }

    fn failover<'a>(&'a self, _: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>> {
        panic!("no drill on a live cluster asks for a failover")
    }

    fn pause(&self, _: Duration) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async move {
            self.ask("pause".to_owned())?;
            self.world().status.paused_by = Some(ME.to_owned());
            Ok(())
        })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async move {
            self.ask("resume".to_owned())?;
            self.world().status.paused_by = None;
            Ok(())
        })
    }

    fn reset_breaker(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        panic!("no drill on a live cluster closes the breaker")
    }

    fn spec(&self) -> BoxFuture<'_, Result<ClusterSpec, ApiError>> {
        Box::pin(async { Ok(spec()) })
    }

    fn apply<'a>(&'a self, _: &'a ClusterSpec) -> BoxFuture<'a, Result<(), ApiError>> {
        panic!("no drill on a live cluster changes the specification")
    }

    fn lead<'a>(&'a self, node: &'a NodeName) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            self.ask(format!("lead {node}"))?;
            self.world().status.cluster.leader = Some(node.clone());
            Ok(())
        })
    }
}

impl LiveCluster for Fake {
    fn look(&self) -> BoxFuture<'_, Result<LiveStatus, ApiError>> {
        Box::pin(async move {
            let world = self.world();
            if world.no_quorum { Err(error("no quorum", true)) } else { Ok(world.status.clone()) }
        })
    }

    fn plan<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<PlannedMove, ApiError>> {
        Box::pin(async move {
            let world = self.world();
            let rule = RuleSeen {
                name: "target-healthy".to_owned(),
                holds: world.refuses.is_none(),
                detail: "as told by the test".to_owned(),
            };
            Ok(PlannedMove {
                target: Some(name(&format!("{to}-1"))),
                refusal: world.refuses.clone(),
                outage: Duration::from_millis(40),
                rooms: Some(3),
                tunnels: Some(12),
                rules: vec![rule],
            })
        })
    }

    fn call_off<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            self.ask("call off".to_owned())?;
            let mut world = self.world();
            if world.forward_only {
                return Err(error("it can only go forward", false));
            }
            world.status.cluster.moving = false;
            Ok(())
        })
    }
}

impl Probes for Fake {
    fn begin(&self) {
        self.world().asked.push("begin".to_owned());
    }

    fn seen(&self) -> Seen {
        let mut world = self.world();
        let now = Instant::now();
        let identity = world.status.cluster.owner.clone();
        let identity = identity.map(|(node, token)| Identity { node, token: Some(token) });
        if let Some(identity) = identity.filter(|_| !world.status.cluster.moving) {
            let answer = Answer {
                kind: Kind::NewConnection,
                sent: Some(now),
                received: now,
                identity: Some(identity.clone()),
                floating: true,
            };
            world.recording.answers.push(answer);
            world.seen.newest = Some((now, identity));
        }
        world.seen.clone()
    }

    fn recording(&self) -> Recording {
        self.world().recording.clone()
    }
}
