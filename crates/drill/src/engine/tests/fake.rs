//! Real meeting instances, real clients, and an owner that is a few lines long and whose fence can be broken.

use super::super::{ApiError, Backend, BackendError, ClusterApi, ClusterStatus, WatchItem};
use crate::layout::{Layout, Shape, Store};
use crate::meeting::{Answers, Meeting, MeetingConfig};
use crate::process::{Block, Log, PidTable, ProcessName, Restarted};
use crate::wan;
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use twinsite_model::{
    ClusterSpec, Event, Generation, Incarnation, NodeName, OperationId, OperationKind, Outcome, Owner,
    Profile, Reason, Revision, SiteName, Step, StepResult, Token, UpstreamName, Verdict as Health, WallTime,
};

/// How the old owner is kept from answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    Works,
    /// The old owner stops listening, and goes on answering on the connections that it has.
    LeavesConnections,
}

/// The task that accepts, and the connections.
type Serving = (AbortHandle, Arc<Mutex<JoinSet<()>>>);

pub(super) struct Shared {
    pub(super) layout: Layout,
    folder: PathBuf,
    fence: Fence,
    owner: Mutex<(NodeName, Token)>,
    serving: Mutex<Option<Serving>>,
    instances: Mutex<Vec<AbortHandle>>,
    running: Mutex<BTreeSet<ProcessName>>,
    watchers: Mutex<Vec<mpsc::Sender<WatchItem>>>,
    spec: Mutex<ClusterSpec>,
    /// What `failovers_max` was in each specification that was applied.
    pub(super) applied: Mutex<Vec<u32>>,
}

/// The block may have been another run's a moment ago, whose last sockets the kernel is just closing.
async fn bind(config: MeetingConfig) -> Meeting {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Meeting::bind(config.clone()).await {
            Ok(meeting) => return meeting,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for Shared {
    /// What listens must not outlive the claim of its block, which the next drill may take.
    fn drop(&mut self) {
        for instance in self.instances.get_mut().unwrap().drain(..) {
            instance.abort();
        }
        if let Some((accepting, _)) = self.serving.get_mut().unwrap().take() {
            accepting.abort();
        }
    }
}

#[derive(Clone)]
pub(super) struct Fake(pub(super) Arc<Shared>);

impl Fake {
    pub(super) async fn start(fence: Fence, folder: PathBuf, block: &Block) -> Self {
        let layout = Layout::paired(block.number(), Profile::Lan, &Shape::default(), Store::Embedded);
        let owner = layout.nodes[0].name.clone();
        let fake = Self(Arc::new(Shared {
            spec: Mutex::new(layout.spec()),
            applied: Mutex::default(),
            layout,
            folder,
            fence,
            owner: Mutex::new((owner, Token::new(1, 1))),
            serving: Mutex::default(),
            instances: Mutex::default(),
            running: Mutex::default(),
            watchers: Mutex::default(),
        }));
        *fake.0.running.lock().unwrap() = fake.processes().into_iter().collect();
        fake.announce();
        for instance in &fake.0.layout.instances {
            let config = MeetingConfig {
                listen: instance.address,
                name: instance.name.clone(),
                announced_file: fake.0.folder.join(instance.name.as_str()),
                answers_file: None,
            };
            let serving = tokio::spawn(bind(config).await.serve());
            fake.0.instances.lock().unwrap().push(serving.abort_handle());
        }
        fake.serve().await;
        fake
    }

    /// Writes what each instance should announce under the present owner.
    fn announce(&self) {
        let owner = self.0.owner.lock().unwrap().0.clone();
        let site = &self.0.layout.node(&owner).unwrap().site;
        for instance in &self.0.layout.instances {
            let address = self.0.layout.announced(&instance.site, Some(site));
            std::fs::write(self.0.folder.join(instance.name.as_str()), address.to_string()).unwrap();
        }
    }

    /// Answers on the floating address as the present owner.
    async fn serve(&self) {
        let listener = TcpListener::bind(self.0.layout.floating).await.unwrap();
        let (node, token) = self.0.owner.lock().unwrap().clone();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let (into, instances) = (Arc::clone(&connections), self.0.layout.instances.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let trace = format!("x-twinsite-node: {node}\r\nx-twinsite-token: {token}\r\n");
                let upstream = instances[0].address;
                into.lock()
                    .unwrap()
                    .spawn(async move { answer(stream, trace, upstream).await.unwrap_or(()) });
            }
        });
        *self.0.serving.lock().unwrap() = Some((task.abort_handle(), connections));
    }

    fn change(&self, event: Event) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let item = WatchItem { revision: Revision(1), at: WallTime(since.as_millis() as u64), event };
        self.0.watchers.lock().unwrap().retain(|watcher| watcher.try_send(item.clone()).is_ok());
    }

    /// The death of the owner, and the takeover by a node of the other site.
    fn owner_dies(&self) {
        let (listening, connections) = self.0.serving.lock().unwrap().take().unwrap();
        listening.abort();
        match self.0.fence {
            Fence::Works => connections.lock().unwrap().abort_all(),
            Fence::LeavesConnections => {
                // Kept, so that they go on.
                std::mem::forget(connections);
            }
        }
        let fake = self.clone();
        tokio::spawn(async move { fake.take_over().await });
    }

    async fn take_over(&self) {
        let ip = self.0.layout.floating_ip.clone();
        let operation = OperationId(7);
        let target = self.0.layout.nodes[2].clone();
        tokio::time::sleep(Duration::from_millis(60)).await;
        self.change(Event::OperationBegan {
            ip: ip.clone(),
            operation,
            kind: OperationKind::Failover,
            reason: Reason::OwnerReleased,
            target: target.id,
            evidence: Vec::new(),
        });
        for step in [Step::Fence, Step::Move, Step::Announce, Step::Verify] {
            self.change(Event::StepStarted { ip: ip.clone(), operation, step });
            tokio::time::sleep(Duration::from_millis(10)).await;
            if step == Step::Move {
                let token = Token::new(1, 2);
                *self.0.owner.lock().unwrap() = (target.name.clone(), token);
                let since = WallTime(0);
                let owner =
                    Owner { node: target.id, incarnation: Incarnation(1), token, since, revoked: false };
                self.change(Event::OwnerChanged { ip: ip.clone(), owner });
                self.serve().await;
                self.announce();
            }
            let result = StepResult::Done;
            self.change(Event::StepFinished {
                ip: ip.clone(),
                operation,
                step,
                result,
                detail: String::new(),
            });
        }
        self.change(Event::OperationEnded { ip, operation, outcome: Outcome::Verified });
    }
}

/// One connection to the owner: a WebSocket is tunnelled, everything else answered here.
async fn answer(mut stream: TcpStream, trace: String, upstream: SocketAddr) -> std::io::Result<()> {
    loop {
        let head = read_head(&mut stream).await?;
        if head.starts_with("GET /socket.io/") {
            let mut instance = TcpStream::connect(upstream).await?;
            instance.write_all(head.as_bytes()).await?;
            let accepted = read_head(&mut instance).await?;
            let traced = accepted.replacen("\r\n", &format!("\r\n{trace}"), 1);
            stream.write_all(traced.as_bytes()).await?;
            copy_bidirectional(&mut stream, &mut instance).await?;
            return Ok(());
        }
        let answer = format!("HTTP/1.1 200 OK\r\n{trace}content-length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

impl Backend for Fake {
    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    fn processes(&self) -> Vec<ProcessName> {
        self.0.layout.nodes.iter().map(|node| ProcessName::Node(node.name.clone())).collect()
    }

    fn pids(&self) -> PidTable {
        PidTable::default()
    }

    fn runs(&mut self, process: &ProcessName) -> bool {
        self.0.running.lock().unwrap().contains(process)
    }

    fn kill<'a>(&'a mut self, processes: &'a [ProcessName]) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            for process in processes {
                self.0.running.lock().unwrap().remove(process);
                let owner = ProcessName::Node(self.0.owner.lock().unwrap().0.clone());
                if *process == owner {
                    self.owner_dies();
                }
            }
            Ok(())
        })
    }

    fn terminate<'a>(&'a mut self, process: &'a ProcessName) -> BoxFuture<'a, Result<(), BackendError>> {
        self.kill(std::slice::from_ref(process))
    }

    fn start(&mut self, process: &ProcessName) -> Result<(), BackendError> {
        self.0.running.lock().unwrap().insert(process.clone());
        Ok(())
    }

    fn freeze(&mut self, _: &ProcessName) -> Result<(), BackendError> {
        Ok(())
    }

    fn thaw(&mut self, _: &ProcessName) -> Result<(), BackendError> {
        Ok(())
    }

    fn link(&self, _: &SiteName, _: &SiteName) -> wan::Shape {
        wan::Shape::default()
    }

    fn set_link(&mut self, _: &SiteName, _: &SiteName, _: wan::Shape) -> Result<(), BackendError> {
        Ok(())
    }

    fn cut_host(&mut self, _: &NodeName) -> Result<(), BackendError> {
        Ok(())
    }

    fn heal_links(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn flush_firewall(&mut self, _: &NodeName) -> Result<(), BackendError> {
        Ok(())
    }

    fn set_disk_full(&mut self, _: &NodeName, _: bool) -> Result<(), BackendError> {
        Ok(())
    }

    fn set_answers(&mut self, _: &UpstreamName, _: Answers) -> Result<(), BackendError> {
        Ok(())
    }

    fn mend(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn flush_redis(&mut self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn set_redis_replica(&mut self, _: bool) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn recover<'a>(
        &'a mut self,
        _: &'a NodeName,
        _: &'a [NodeName],
        _: bool,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn rebuild(&mut self) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn tend(&mut self) -> Result<Vec<Restarted>, BackendError> {
        Ok(Vec::new())
    }

    fn logs(&self) -> Vec<Log> {
        vec![Log { name: "node-gra-1".to_owned(), end: b"said\n".to_vec() }]
    }

    fn wait_healthy(&mut self, _: Duration) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }
}

impl ClusterApi for Fake {
    fn status(&self) -> BoxFuture<'_, Result<ClusterStatus, ApiError>> {
        Box::pin(async move {
            let layout = &self.0.layout;
            let healthy = |name: &UpstreamName| (name.clone(), Health::Healthy);
            Ok(ClusterStatus {
                revision: Revision(1),
                generation: Generation(1),
                leader: Some(layout.nodes[4].name.clone()),
                owner: Some(self.0.owner.lock().unwrap().clone()),
                moving: self.0.serving.lock().unwrap().is_none(),
                verdicts: layout.instances.iter().map(|instance| healthy(&instance.name)).collect(),
                heard: layout.nodes.iter().map(|node| node.name.clone()).collect(),
            })
        })
    }

    fn watch(&self) -> BoxFuture<'_, Result<mpsc::Receiver<WatchItem>, ApiError>> {
        let (sender, receiver) = mpsc::channel(1_000);
        self.0.watchers.lock().unwrap().push(sender);
        Box::pin(async { Ok(receiver) })
    }

    fn switchover<'a>(&'a self, _: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>> {
        let refused = ApiError {
            message: "target-healthy: no healthy upstream".to_owned(),
            retryable: true,
            forbidden: true,
        };
        Box::pin(async { Err(refused) })
    }

    fn failover<'a>(&'a self, to: &'a SiteName) -> BoxFuture<'a, Result<(), ApiError>> {
        self.switchover(to)
    }

    fn pause(&self, _: Duration) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }

    fn reset_breaker(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }

    fn spec(&self) -> BoxFuture<'_, Result<ClusterSpec, ApiError>> {
        Box::pin(async { Ok(self.0.spec.lock().unwrap().clone()) })
    }

    fn apply<'a>(&'a self, spec: &'a ClusterSpec) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async {
            self.0.applied.lock().unwrap().push(spec.policy.failovers_max);
            *self.0.spec.lock().unwrap() = spec.clone();
            Ok(())
        })
    }

    fn lead<'a>(&'a self, _: &'a NodeName) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async { Ok(()) })
    }
}
