//! The client that commands, drills and programs use: it finds the leader, survives the loss of single nodes, and
//! bounds everything in time.

mod calls;
mod drills;
mod watch;

pub use calls::{Begun, Wanted};
pub use drills::WantedDrill;
pub use watch::WatchMessage;

use crate::MESSAGE_BYTES_MAX;
use crate::error::{ApiError, Reason};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use twinsite_model::dial::DialMap;

/// The pause between rounds over all nodes.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// PEM: the authority's certificate, and the caller's certificate and key.
#[derive(Clone)]
pub struct ClientTls {
    /// The cluster's authority.
    pub ca: Vec<u8>,
    /// The caller's certificate.
    pub cert: Vec<u8>,
    /// The caller's key.
    pub key: Vec<u8>,
}

/// How a cluster is reached.
#[derive(Clone)]
pub struct ClientOptions {
    /// The API addresses of its nodes; any of them leads to the leader.
    pub endpoints: Vec<SocketAddr>,
    /// The caller's identity.
    pub tls: ClientTls,
    /// The name under which every node's certificate is verified.
    pub domain: String,
    /// Translations of addresses.
    pub dial: DialMap,
    /// How long a whole call may take, over all nodes.
    pub patience: Duration,
    /// How long one node may take.
    pub per_node: Duration,
}

impl ClientOptions {
    /// Patience for people: five seconds in all, 1.5 for each node.
    pub fn new(endpoints: Vec<SocketAddr>, tls: ClientTls, domain: String) -> Self {
        let (patience, per_node) = (Duration::from_secs(5), Duration::from_millis(1_500));
        Self { endpoints, tls, domain, dial: DialMap::default(), patience, per_node }
    }
}

/// A client of one cluster. Clones share connections, and the knowledge of who leads.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    nodes: Vec<Node>,
    /// The address that answered last.
    best: Mutex<Option<SocketAddr>>,
}

#[derive(Clone)]
struct Node {
    address: SocketAddr,
    channel: Channel,
}

impl Client {
    /// A client; connections are made when they are needed. Call it on a tokio runtime.
    pub fn new(options: ClientOptions) -> Result<Self, ApiError> {
        let nodes = options.endpoints.iter().map(|address| {
            let channel = channel(&options, *address).map_err(|error| {
                ApiError::new(Reason::InvalidArgument, format!("cannot prepare a connection: {error}"))
            })?;
            Ok(Node { address: *address, channel })
        });
        let nodes = nodes.collect::<Result<Vec<_>, ApiError>>()?;
        if nodes.is_empty() {
            return Err(ApiError::new(Reason::InvalidArgument, "no API address was given"));
        }
        Ok(Self { inner: Arc::new(Inner { options, nodes, best: Mutex::default() }) })
    }

    fn best(&self) -> Option<SocketAddr> {
        *self.inner.best.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_best(&self, address: Option<SocketAddr>) {
        *self.inner.best.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// All nodes, the one that answered last first.
    fn in_order(&self) -> Vec<Node> {
        let best = self.best();
        let mut nodes = self.inner.nodes.clone();
        nodes.sort_by_key(|node| Some(node.address) != best);
        nodes
    }

    /// Asks one node after the other, following hints to the leader, until one gives an answer that counts.
    async fn ask<T, F>(&self, call: impl Fn(Channel) -> F + Sync) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let deadline = Instant::now() + self.inner.options.patience;
        let mut last: Option<ApiError> = None;
        loop {
            let mut hint = None;
            for node in self.in_order() {
                match self.ask_one(&node, deadline, &call).await {
                    Ok(answer) => {
                        self.set_best(Some(node.address));
                        return Ok(answer);
                    }
                    Err(error) if goes_on(&error) => {
                        hint = error.leader.as_ref().map(|leader| leader.api).or(hint);
                        last = Some(worse(last, error));
                    }
                    Err(error) => {
                        self.set_best(Some(node.address));
                        return Err(error);
                    }
                }
                if hint.is_some_and(|hint| Some(hint) != self.best() && self.knows(hint)) {
                    break; // the next round begins with the leader
                }
            }
            self.set_best(hint);
            if Instant::now() + ROUND_PAUSE >= deadline {
                return Err(last.unwrap_or_else(|| ApiError::new(Reason::Unavailable, "no node answered")));
            }
            sleep(if hint.is_some() { Duration::from_millis(2) } else { ROUND_PAUSE }).await;
        }
    }

    fn knows(&self, address: SocketAddr) -> bool {
        self.inner.nodes.iter().any(|node| node.address == address)
    }

    async fn ask_one<T, F>(
        &self,
        node: &Node,
        deadline: Instant,
        call: &(impl Fn(Channel) -> F + Sync),
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Status>> + Send,
    {
        let until = deadline.min(Instant::now() + self.inner.options.per_node);
        match timeout_at(until, call(node.channel.clone())).await {
            Ok(answer) => answer.map_err(ApiError::from),
            Err(_) => {
                let message = format!("{} did not answer in time", node.address);
                Err(ApiError::new(Reason::Unavailable, message))
            }
        }
    }
}

/// Whether another node, or a repetition, may do better. A change whose outcome is unknown is repeated: it has its
/// request id, by which the cluster knows what it has done already.
fn goes_on(error: &ApiError) -> bool {
    matches!(
        error.reason,
        Reason::NotLeader
            | Reason::NoQuorum
            | Reason::Unavailable
            | Reason::Busy
            | Reason::NoSpec
            | Reason::OutcomeUnknown
    )
}

/// What is told in the end: that something may have happened before all, and that there is no quorum says more than
/// that somebody did not answer.
fn worse(known: Option<ApiError>, new: ApiError) -> ApiError {
    let rank = |error: &ApiError| match error.reason {
        Reason::OutcomeUnknown => 3,
        Reason::NoQuorum => 2,
        Reason::Unavailable => 0,
        _ => 1,
    };
    match known {
        Some(known) if rank(&known) > rank(&new) => known,
        _ => new,
    }
}

fn channel(options: &ClientOptions, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .identity(Identity::from_pem(&options.tls.cert, &options.tls.key))
        .ca_certificate(Certificate::from_pem(&options.tls.ca))
        .domain_name(options.domain.clone());
    let endpoint = Endpoint::from_shared(format!("https://{}", options.dial.resolve(address)))?
        .tcp_nodelay(true)
        .connect_timeout(options.per_node)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .tls_config(tls)?;
    Ok(endpoint.connect_lazy())
}

/// The bound on messages, in one place for all services.
macro_rules! service {
    ($client:ident, $channel:expr) => {
        $client::new($channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}
use service;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A client of two addresses at which nobody listens: what they answer is up to the test.
    fn client(patience: Duration) -> Client {
        let nothing = ClientTls { ca: Vec::new(), cert: Vec::new(), key: Vec::new() };
        let endpoints = vec![SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
        let nodes = endpoints.iter().map(|address| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            Node { address: *address, channel: endpoint.connect_lazy() }
        });
        let nodes = nodes.collect();
        let options = ClientOptions { patience, ..ClientOptions::new(endpoints, nothing, String::new()) };
        Client { inner: Arc::new(Inner { options, nodes, best: Mutex::default() }) }
    }

    fn refused(reason: Reason) -> Result<u32, Status> {
        Err(ApiError::new(reason, "told by the test").into())
    }

    #[tokio::test]
    async fn a_change_whose_outcome_is_unknown_is_repeated() {
        let asked = AtomicUsize::new(0);
        let client = client(Duration::from_secs(5));
        let answer = client.ask(|_| async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => refused(Reason::OutcomeUnknown),
                1 => refused(Reason::NoQuorum),
                _ => Ok(7),
            }
        });
        assert_eq!(answer.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn that_something_may_have_happened_is_told_before_all_else() {
        let asked = AtomicUsize::new(0);
        let client = client(Duration::from_millis(200));
        let answer = client.ask(|_| async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => refused(Reason::OutcomeUnknown),
                _ => refused(Reason::NoQuorum),
            }
        });
        assert_eq!(answer.await.unwrap_err().reason, Reason::OutcomeUnknown);
        assert!(asked.load(Ordering::Relaxed) > 2, "it was not asked again");
    }

    #[tokio::test]
    async fn what_was_refused_for_good_is_not_asked_again() {
        let asked = AtomicUsize::new(0);
        let client = client(Duration::from_secs(5));
        let answer = client.ask(|_| async {
            asked.fetch_add(1, Ordering::Relaxed);
            refused(Reason::RuleForbids)
        });
        assert_eq!(answer.await.unwrap_err().reason, Reason::RuleForbids);
        assert_eq!(asked.into_inner(), 1);
    }
}
