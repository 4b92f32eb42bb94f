//! The clients of a drill: on the floating address, from many source addresses, writing down all that they see.
//!
//! * **new connections** (every 2 ms by default) with one request each: who answers now;
//! * **keep-alive clients** that are patient: they wait up to [`PATIENCE`] for somebody to listen, and ask again on a
//!   new connection when a used one breaks before the answer; what remains is a failed request, and every attempt
//!   that their patience hides is counted too;
//! * **participants** in rooms over WebSocket, which reconnect as Socket.IO does.
//!
//! A connection or tunnel that a client gave up is kept and asked on: an old owner that comes back to life and
//! answers on it must not go unseen.

pub mod http;
mod participants;
mod requests;
mod sampling;

pub(crate) use requests::IDENTITY_PATH;

use crate::layout::Layout;
use crate::measure::Recorder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client waits for an answer, or for somebody to listen, before its request has failed.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How much load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPlan {
    /// How many keep-alive clients.
    pub http_clients: usize,
    /// How long each of them pauses between requests.
    pub http_pause: Duration,
    /// The path they ask for.
    pub path: String,
    /// How often a new connection is made.
    pub connect_every: Duration,
    /// How many participants.
    pub participants: usize,
    /// In how many rooms.
    pub rooms: usize,
    /// How often each participant says something.
    pub say_every: Duration,
    /// How long a participant waits for an answer before it gives its WebSocket up.
    pub silence_max: Duration,
    /// The first pause before a participant reconnects; doubled with every further attempt, ±50 %.
    pub reconnect: Duration,
    /// The longest pause before a participant reconnects.
    pub reconnect_max: Duration,
    /// Through which addresses the participants come.
    pub entry: Entry,
}

/// Through which addresses participants enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// Through the floating address.
    #[default]
    Floating,
    /// In turn through the floating address and every node's own.
    AllNodes,
}

/// Running clients. Dropping it stops them.
#[derive(Debug)]
pub struct Load {
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What every client needs.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    floating: SocketAddr,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Client {
    /// Runs a task until it ends or the load is stopped.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }
}

impl Load {
    /// Starts the clients. Needs a tokio runtime.
    pub fn start(plan: &LoadPlan, layout: &Layout) -> Self {
        let client = Client {
            floating: layout.floating,
            recorder: Arc::new(Recorder::default()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        sampling::start(&client, layout);
        requests::start(&client, plan, layout);
        participants::start(&client, plan, layout);
        Self { recorder: client.recorder, stop: client.stop, tasks: client.tasks }
    }

    /// What is being written down.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Stops the clients and waits for their end.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
