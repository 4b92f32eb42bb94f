//! Taking down what the clients see, while they see it.

use super::holders::HolderPeriod;
use super::kernel::OwnerPeriod;
use super::{AnnouncedSample, Answer, Tunnel};
use crate::load::http::Failure;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Records of each sort that are kept; a drill of hours at full load stays below.
const RECORDS_MAX: usize = 4_000_000;

/// How requests ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// With an answer.
    pub ok: u64,
    /// With an answer, after a second attempt or a wait for somebody to listen, as browsers do it.
    pub retried: u64,
    /// Without a good answer, by reason.
    pub failed: BTreeMap<Failure, u64>,
    /// Single attempts that failed before another one of the same request, by reason: what a client sees that does
    /// not try again.
    pub hidden: BTreeMap<Failure, u64>,
}

impl Counts {
    /// All failures together.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Attempts that found nobody: refused, or not even that.
    pub fn refused(&self) -> u64 {
        self.attempts().filter(|(failure, _)| found_nobody(*failure)).map(|(_, count)| count).sum()
    }

    /// Attempts that found somebody, and got no good answer, by reason; a reason may come twice.
    pub fn broken(&self) -> impl Iterator<Item = (Failure, u64)> {
        self.attempts().filter(|(failure, _)| !found_nobody(*failure))
    }

    fn attempts(&self) -> impl Iterator<Item = (Failure, u64)> {
        self.failed.iter().chain(&self.hidden).map(|(failure, count)| (*failure, *count))
    }
}

fn found_nobody(failure: Failure) -> bool {
    matches!(failure, Failure::Refused | Failure::Unanswered)
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Every answer, roughly in the order of reception.
    pub answers: Vec<Answer>,
    /// Requests of the keep-alive clients.
    pub requests: Counts,
    /// When a request of the keep-alive clients failed for good.
    pub failures: Vec<(Instant, Failure)>,
    /// The new connections.
    pub connects: Counts,
    /// The life of every WebSocket; the index is its number.
    pub tunnels: Vec<Tunnel>,
    /// What the instances announced.
    pub announced: Vec<AnnouncedSample>,
    /// Which processes listened on the floating address.
    pub listeners: Vec<OwnerPeriod>,
    /// Which hosts of a lab held the floating address.
    pub holders: Vec<HolderPeriod>,
    /// How late this process itself was scheduled, at worst.
    pub lag: Duration,
    /// Something did not fit any more, so that nothing can be said for certain.
    pub overflow: bool,
}

/// What clients have seen until now, in two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SoFar {
    /// Requests with an answer.
    pub answers: u64,
    /// Requests of patient clients that failed for good.
    pub failed: u64,
}

/// Shared by all clients of a drill.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Recording>);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down an answer.
    pub fn answer(&self, answer: Answer) {
        let recording = &mut *self.lock();
        push(&mut recording.answers, answer, &mut recording.overflow);
    }

    /// Counts a request of a keep-alive client that was answered.
    pub fn request_ok(&self, retried: bool) {
        let requests = &mut self.lock().requests;
        requests.ok += 1;
        requests.retried += u64::from(retried);
    }

    /// Counts a request of a keep-alive client that failed.
    pub fn request_failed(&self, failure: Failure) {
        let recording = &mut *self.lock();
        *recording.requests.failed.entry(failure).or_default() += 1;
        push(&mut recording.failures, (Instant::now(), failure), &mut recording.overflow);
    }

    /// Counts an attempt that failed, and after which its client tries again.
    pub fn attempt_failed(&self, failure: Failure) {
        *self.lock().requests.hidden.entry(failure).or_default() += 1;
    }

    /// Counts a new connection with its one request.
    pub fn connect(&self, outcome: Result<(), Failure>) {
        let connects = &mut self.lock().connects;
        match outcome {
            Ok(()) => connects.ok += 1,
            Err(failure) => *connects.failed.entry(failure).or_default() += 1,
        }
    }

    /// Takes down a new WebSocket and gives it a number; none when nothing fits any more.
    pub fn tunnel_opened(&self, tunnel: Tunnel) -> Option<usize> {
        let recording = &mut *self.lock();
        let number = recording.tunnels.len();
        push(&mut recording.tunnels, tunnel, &mut recording.overflow);
        (recording.tunnels.len() > number).then_some(number)
    }

    /// A message came through a WebSocket.
    pub fn tunnel_heard(&self, number: usize, at: Instant) {
        if let Some(tunnel) = self.lock().tunnels.get_mut(number) {
            tunnel.last = tunnel.last.max(at);
        }
    }

    /// A participant lost its WebSocket or gave it up.
    pub fn tunnel_lost(&self, number: usize, at: Instant) {
        if let Some(tunnel) = self.lock().tunnels.get_mut(number) {
            tunnel.lost.get_or_insert(at);
        }
    }

    /// Takes down what an instance announces.
    pub fn announced(&self, sample: AnnouncedSample) {
        let recording = &mut *self.lock();
        push(&mut recording.announced, sample, &mut recording.overflow);
    }

    /// Takes down who listens on the floating address.
    pub fn listeners(&self, period: OwnerPeriod) {
        let recording = &mut *self.lock();
        push(&mut recording.listeners, period, &mut recording.overflow);
    }

    /// Takes down which hosts of a lab hold the floating address.
    pub fn holders(&self, period: HolderPeriod) {
        let recording = &mut *self.lock();
        push(&mut recording.holders, period, &mut recording.overflow);
    }

    /// Notes how late this process was scheduled.
    pub fn lag(&self, lag: Duration) {
        let recording = &mut *self.lock();
        recording.lag = recording.lag.max(lag);
    }

    /// How many answers came so far, and how many requests of patient clients failed.
    pub fn so_far(&self) -> SoFar {
        let recording = self.lock();
        SoFar {
            answers: recording.requests.ok + recording.connects.ok,
            failed: recording.requests.failures(),
        }
    }

    /// A copy of everything so far.
    pub fn recording(&self) -> Recording {
        self.lock().clone()
    }

    /// The life of every WebSocket so far.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        self.lock().tunnels.clone()
    }

    /// How many `WebSockets` are up.
    pub fn tunnels_up(&self) -> usize {
        self.lock().tunnels.iter().filter(|tunnel| tunnel.lost.is_none()).count()
    }

    /// When the last answer came through the floating address.
    pub fn last_answer(&self) -> Option<Instant> {
        let recording = self.lock();
        let newest = recording.answers.iter().rev().find(|answer| answer.floating);
        newest.map(|answer| answer.received)
    }

    /// The last answer through the floating address that says who gave it.
    pub fn last_identity(&self) -> Option<(Instant, super::Identity)> {
        let recording = self.lock();
        let mut newest = recording.answers.iter().rev().filter(|answer| answer.floating);
        newest.find_map(|answer| Some((answer.received, answer.identity.clone()?)))
    }
}

fn push<T>(records: &mut Vec<T>, record: T, overflow: &mut bool) {
    if records.len() < RECORDS_MAX {
        records.push(record);
    } else {
        *overflow = true;
    }
}
