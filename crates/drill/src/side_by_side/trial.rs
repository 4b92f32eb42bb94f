//! One system meets one cause once.

use super::contender::{Contender, READY_MAX};
use super::{Cause, CompareError};
use crate::lab::{Lab, Prober};
use crate::load::{IDENTITY_PATH, Load, LoadPlan};
use crate::measure::hosts::{self, Period};
use crate::measure::{Kind, Recorder, gap};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};
use twinsite_model::NodeName;

/// How long a cause lasts, before it is repaired.
pub const LASTS: Duration = Duration::from_secs(6);
/// How long clients must have been answered before anything is done, and after it is repaired.
const BEFORE: Duration = Duration::from_millis(800);
/// How long one host must have been the only one that answers.
const STEADY: Duration = Duration::from_secs(1);
/// Who answered within that answers.
const RECENT: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The longest time in which new connections got no answer, while the cause lasted.
    pub gap_ms: u64,
    /// The longest such time afterwards, when the cause was repaired.
    pub return_gap_ms: u64,
    /// For how long two hosts answered at once, with the way back: proven.
    pub two_hosts_ms: u64,
    /// For how long no host answered probes, while the cause lasted.
    pub nobody_ms: u64,
    /// Requests of patient clients that failed, while the cause lasted.
    pub failed_requests: u64,
    /// Requests of patient clients that were answered.
    pub requests: u64,
    /// Attempts of all clients that were refused or broken, whether or not they tried again.
    pub failed_attempts: u64,
    /// Who had the address.
    pub before: NodeName,
    /// Who answered for it when the cause had lasted.
    pub after: Vec<NodeName>,
    /// The longest time from one probe of a host to the next: nothing shorter can be promised to have been seen.
    pub probes_apart_max_ms: u64,
}

/// The same clients for all: new connections, and a few that keep theirs and are patient.
fn plan() -> LoadPlan {
    LoadPlan {
        http_clients: 8,
        http_pause: Duration::from_millis(20),
        path: IDENTITY_PATH.to_owned(),
        connect_every: Duration::from_millis(2),
        participants: 0,
        ..crate::scenario::Load::default().plan()
    }
}

/// Waits until all is well, makes it happen, waits, repairs, waits until all is well again.
pub(super) async fn perform(
    cause: Cause,
    contender: &mut dyn Contender,
    lab: &Lab,
) -> Result<Trial, CompareError> {
    contender.ready().await?;
    let layout = contender.layout().clone();
    let prober = lab.prober(&layout)?;
    let before = steady(&prober).await?;
    let load = Load::start(&plan(), &layout);
    answered(load.recorder()).await?;
    let began = Instant::now();
    if cause == Cause::HostCut {
        lab.cut_host(before.as_str())?;
    }
    contender.meet(cause, &before).await?;
    sleep_until((began + LASTS).into()).await;
    let ended = Instant::now();
    let after = prober.answering(RECENT);
    let seen = load.recorder().recording();
    lab.heal_hosts()?;
    contender.repair()?;
    steady(&prober).await?;
    answered(load.recorder()).await?;
    let returned = Instant::now();
    load.stop().await;
    let probing = prober.finish()?;

    let whole = load.recorder().recording();
    let connections = whole.answers.iter().filter(|answer| answer.kind == Kind::NewConnection);
    let moments: Vec<_> = connections.map(|answer| answer.received).collect();
    let found = hosts::find(&probing, Period { from: began, to: ended });
    let attempts = crate::engine::Attempts::of(&seen.requests, &seen.connects);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(Trial {
        gap_ms: ms(gap::longest(moments.iter().copied(), began, ended).lasts()),
        return_gap_ms: ms(gap::longest(moments.iter().copied(), ended, returned).lasts()),
        two_hosts_ms: crate::audit::ceil_ms(found.two_hosts.total),
        nobody_ms: ms(found.nobody.longest),
        failed_requests: seen.requests.failures(),
        requests: seen.requests.ok,
        failed_attempts: attempts.refused + attempts.broken,
        before,
        after,
        probes_apart_max_ms: crate::audit::ceil_ms(found.apart),
    })
}

/// Waits until clients have been answered for a while. That one host answers is not enough: it may not have told the
/// network that the address is with it.
async fn answered(recorder: &Recorder) -> Result<(), CompareError> {
    let deadline = Instant::now() + READY_MAX;
    let mut since = None;
    loop {
        let recent = recorder.last_answer().is_some_and(|last| last.elapsed() <= RECENT);
        since = if recent { since.or_else(|| Some(Instant::now())) } else { None };
        if since.is_some_and(|since: Instant| since.elapsed() >= BEFORE) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CompareError::NoAnswers { within: READY_MAX });
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until one host has been the only one that answers for a while. Says which.
async fn steady(prober: &Prober) -> Result<NodeName, CompareError> {
    let deadline = Instant::now() + READY_MAX;
    let mut only: Option<(NodeName, Instant)> = None;
    loop {
        let answering = prober.answering(RECENT);
        only = match (answering.as_slice(), only) {
            ([host], Some((same, since))) if *host == same => Some((same, since)),
            ([host], _) => Some((host.clone(), Instant::now())),
            _ => None,
        };
        if let Some((host, _)) = only.as_ref().filter(|(_, since)| since.elapsed() >= STEADY) {
            return Ok(host.clone());
        }
        if Instant::now() >= deadline {
            return Err(CompareError::NotSteady { within: READY_MAX, answering });
        }
        sleep(LOOK_EVERY).await;
    }
}
