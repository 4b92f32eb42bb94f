//! Where Prometheus finds a node: `/metrics`, and `/live` and `/ready` for whoever watches the process.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use twinsite_proxy::Proxy;

/// Scrapes that are answered at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// The longest wait for a request, and between requests.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// How often old samples of histograms are folded, in the absence of scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Buckets of every duration, in seconds: from a loopback round trip to a slow provider.
const BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Whether this node should be given work.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Asks.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts to count. Once in a process.
pub fn install() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS).ok()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    Some(handle)
}

/// Answers until cancelled.
pub async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    proxy: Option<Proxy>,
    readiness: Readiness,
    stop: CancellationToken,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = upkeep.tick() => {
                handle.run_upkeep();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: the connection waits in the kernel; asking again at once would only burn time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (handle, proxy, readiness) = (handle.clone(), proxy.clone(), readiness.clone());
        tokio::spawn(async move {
            converse(stream, handle, proxy, readiness).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, handle: PrometheusHandle, proxy: Option<Proxy>, readiness: Readiness) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.uri().path(), &handle, proxy.as_ref(), &readiness);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a metrics connection ended early");
    }
}

fn answer(
    path: &str,
    handle: &PrometheusHandle,
    proxy: Option<&Proxy>,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/metrics" => {
            let of_proxy = proxy.map(Proxy::metrics).unwrap_or_default();
            (StatusCode::OK, handle.render() + &of_proxy)
        }
        "/live" => (StatusCode::OK, "live\n".to_owned()),
        "/ready" if readiness.get() => (StatusCode::OK, "ready\n".to_owned()),
        "/ready" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "try /metrics, /live or /ready\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
