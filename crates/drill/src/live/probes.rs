//! The clients of a drill on the live cluster: new connections to the floating address, from the node that runs it.
//!
//! They ask the page on which every node says who it is, so that no meeting server sees them and no session is left
//! behind. Each is a patient client's request too: what was not answered is asked again for as long as such a client
//! waits.

use super::cluster::{Probes, Seen};
use crate::load::http::{Failure, ask_once};
use crate::load::{IDENTITY_PATH, PATIENCE};
use crate::measure::{Answer, Identity, Kind, Recorder, Recording};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The pause between new connections.
const EVERY: Duration = Duration::from_millis(20);
/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_millis(500);
/// How soon a patient client asks again.
const AGAIN: Duration = Duration::from_millis(20);
/// Requests under way at once; more are left out, which shows as a gap if nobody answers.
const AT_ONCE: usize = 128;

/// Clients that run until dropped.
#[derive(Debug)]
pub struct HttpProbes {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    from: IpAddr,
    recorder: Recorder,
    tracker: Mutex<Tracker>,
}

impl HttpProbes {
    /// Asks an address from now on. Call it on a tokio runtime.
    pub fn start(to: SocketAddr) -> Self {
        let from = if to.is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        };
        let tracker = Mutex::new(Tracker::new(Instant::now()));
        let shared = Arc::new(Shared { to, from, recorder: Recorder::default(), tracker });
        let stop = CancellationToken::new();
        let (asking, stopped) = (ask_for_ever(Arc::clone(&shared)), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(asking).await });
        Self { shared, _stop: stop.drop_guard() }
    }
}

impl Probes for HttpProbes {
    fn begin(&self) {
        self.shared.tracker().begin(Instant::now());
    }

    fn seen(&self) -> Seen {
        self.shared.tracker().seen(Instant::now())
    }

    fn recording(&self) -> Recording {
        self.shared.recorder.recording()
    }
}

impl Shared {
    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt.
    async fn attempt(&self) -> Result<(), Failure> {
        let sent = Instant::now();
        let answer = ask_once(self.from, self.to, IDENTITY_PATH, ATTEMPT_MAX).await?;
        let received = Instant::now();
        self.tracker().answered(received, answer.identity.clone());
        self.recorder.answer(Answer {
            kind: Kind::NewConnection,
            sent: Some(sent),
            received,
            identity: answer.identity,
            floating: true,
        });
        Ok(())
    }

    async fn request(self: Arc<Self>) {
        let deadline = Instant::now() + PATIENCE;
        let first = self.attempt().await;
        self.recorder.connect(first);
        self.tracker().connected(first);
        let Err(mut failure) = first else { return self.recorder.request_ok(false) };
        while Instant::now() < deadline {
            sleep(AGAIN).await;
            match self.attempt().await {
                Ok(()) => return self.recorder.request_ok(true),
                Err(again) => {
                    self.recorder.attempt_failed(again);
                    self.tracker().attempt_failed(again);
                    failure = again;
                }
            }
        }
        self.recorder.request_failed(failure);
        self.tracker().gave_up();
    }
}

async fn ask_for_ever(shared: Arc<Shared>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut due = Instant::now();
    loop {
        ticks.tick().await;
        shared.recorder.lag(due.elapsed());
        due = Instant::now() + EVERY;
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let request = Arc::clone(&shared).request();
        tokio::spawn(async move {
            request.await;
            drop(place);
        });
    }
}

/// Counts while it goes on, so that nobody has to read all that was written down.
#[derive(Debug)]
struct Tracker {
    last: Instant,
    longest: Duration,
    seen: Seen,
}

impl Tracker {
    fn new(now: Instant) -> Self {
        Self { last: now, longest: Duration::ZERO, seen: Seen::default() }
    }

    /// What was seen before counts no more, but for who answered last.
    fn begin(&mut self, now: Instant) {
        let newest = self.seen.newest.take();
        *self = Self { seen: Seen { newest, ..Seen::default() }, ..Self::new(now) };
    }

    fn answered(&mut self, at: Instant, identity: Option<Identity>) {
        self.longest = self.longest.max(at.saturating_duration_since(self.last));
        self.last = self.last.max(at);
        if let Some(identity) = identity {
            self.seen.newest = Some((at, identity));
        }
    }

    fn connected(&mut self, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.seen.ok += 1,
            Err(failure) => {
                self.seen.failed += 1;
                self.attempt_failed(failure);
            }
        }
    }

    fn attempt_failed(&mut self, failure: Failure) {
        match failure {
            Failure::Refused | Failure::Unanswered => self.seen.refused += 1,
            _ => self.seen.broken += 1,
        }
    }

    fn gave_up(&mut self) {
        self.seen.given_up += 1;
    }

    fn seen(&self, now: Instant) -> Seen {
        let gap = self.longest.max(now.saturating_duration_since(self.last));
        Seen { gap, ..self.seen.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_gap_is_the_longest_and_an_outage_counts_while_it_lasts() {
        let start = Instant::now();
        let mut tracker = Tracker::new(start);
        for at in [10, 20, 320, 330] {
            tracker.answered(start + at * MS, None);
        }
        assert_eq!(tracker.seen(start + 340 * MS).gap, 300 * MS);
        assert_eq!(tracker.seen(start + 800 * MS).gap, 470 * MS);
        // An answer that comes late and was overtaken ends nothing twice.
        tracker.answered(start + 325 * MS, None);
        assert_eq!(tracker.seen(start + 340 * MS).gap, 300 * MS);
        tracker.begin(start + 1_000 * MS);
        assert_eq!(tracker.seen(start + 1_005 * MS), Seen { gap: 5 * MS, ..Seen::default() });
    }

    #[test]
    fn attempts_are_counted_by_what_they_found() {
        let mut tracker = Tracker::new(Instant::now());
        for outcome in [Ok(()), Err(Failure::Refused), Err(Failure::Broken)] {
            tracker.connected(outcome);
        }
        tracker.attempt_failed(Failure::Unanswered);
        tracker.gave_up();
        let seen = tracker.seen(Instant::now());
        assert_eq!((seen.ok, seen.failed, seen.refused, seen.broken, seen.given_up), (1, 2, 2, 1, 1));
    }

    #[tokio::test]
    async fn nobody_there_is_a_gap_that_grows() {
        // Bound and not listening: refused, and nobody else can take it.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let probes = HttpProbes::start(socket.local_addr().unwrap());
        probes.begin();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = probes.seen();
            if seen.given_up > 0 {
                assert!(seen.gap >= PATIENCE && seen.refused > 2 && seen.ok == 0, "{seen:?}");
                break;
            }
            assert!(Instant::now() < deadline, "{seen:?}");
            sleep(20 * MS).await;
        }
    }
}
