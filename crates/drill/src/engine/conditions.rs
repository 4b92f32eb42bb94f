//! Waiting until something is so.

use super::actions::list;
use super::run::Run;
use super::{Backend, ClusterApi, ClusterStatus, EngineError};
use crate::layout::Layout;
use crate::measure::Identity;
use crate::process::ProcessName;
use crate::scenario::Condition;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use twinsite_model::{SiteName, Verdict};

const POLL: Duration = Duration::from_millis(20);
/// An answer within so long means that somebody answers, none that nobody does.
const RECENT: Duration = Duration::from_millis(300);

impl Run<'_> {
    /// The cluster's state, if it can be asked; keeps the roles up to date.
    pub(super) async fn status(&mut self) -> Option<ClusterStatus> {
        let status = self.api.status().await.ok()?;
        self.roles.update(&status);
        Some(status)
    }

    /// Waits for a condition; false if it is not so within the time, or if somebody wants the drill to end.
    pub(super) async fn wait(&mut self, condition: Condition, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            self.tend();
            if self.holds(condition).await {
                return true;
            }
            if Instant::now() >= deadline || self.is_aborted() {
                return false;
            }
            self.pause(POLL).await;
        }
    }

    /// Starts what has ended by itself. What cannot be started is not healthy, which is noticed elsewhere.
    pub(super) fn tend(&mut self) {
        let started = self.backend.tend().unwrap_or_default();
        if !started.is_empty() {
            self.did(format!("start of what had ended by itself: {}", list(&started)));
        }
    }

    fn site_of(&self, identity: Option<Identity>) -> Option<&SiteName> {
        self.layout.node(&identity?.node).map(|node| &node.site)
    }

    async fn holds(&mut self, condition: Condition) -> bool {
        let newest = self.recorder.last_identity();
        let recent = newest.filter(|(at, _)| at.elapsed() < RECENT).map(|(_, identity)| identity);
        match condition {
            Condition::Answering => recent.is_some(),
            Condition::Silent => recent.is_none(),
            Condition::OwnerChanged => {
                recent.and_then(|identity| identity.token).is_some_and(|token| token > self.roles.token)
            }
            Condition::OwnerAtOtherSite => self.site_of(recent) == Some(&self.roles.other_site),
            Condition::OwnerAtOwnerSite => self.site_of(recent) == Some(&self.roles.owner_site),
            Condition::ParticipantsBack => self.recorder.tunnels_up() >= self.scenario.load.participants,
            Condition::VictimsUnhealthy => {
                let Some(status) = self.status().await else { return false };
                let mut hit = self.roles.instances_hit.iter();
                hit.all(|name| status.verdicts.get(name) != Some(&Verdict::Healthy))
            }
            Condition::VictimsEnded => {
                let mut hit = self.roles.nodes_hit.iter();
                hit.all(|name| !self.backend.runs(&ProcessName::Node(name.clone())))
            }
            Condition::Healthy => {
                let Some(status) = self.status().await else { return false };
                unhealthy(&status, &self.layout).is_none()
            }
            Condition::Led => {
                let leader = self.status().await.and_then(|status| status.leader);
                leader.is_some_and(|leader| self.backend.runs(&ProcessName::Node(leader)))
            }
            Condition::MovesEnded => self.status().await.is_some_and(|status| !status.moving),
        }
    }
}

/// What keeps a cluster from being wholly healthy, in a few words; none if it is.
fn unhealthy(status: &ClusterStatus, layout: &Layout) -> Option<String> {
    if status.leader.is_none() {
        return Some("there is no leader".to_owned());
    }
    if status.owner.is_none() {
        return Some("nobody owns the floating address".to_owned());
    }
    if status.moving {
        return Some("the floating address is moving".to_owned());
    }
    let unheard = layout.nodes.iter().find(|node| !status.heard.contains(&node.name));
    if let Some(node) = unheard {
        return Some(format!("{} is not heard", node.name));
    }
    let verdict = |name| status.verdicts.get(name).copied().unwrap_or_default();
    let bad = layout.instances.iter().find(|instance| verdict(&instance.name) != Verdict::Healthy)?;
    Some(format!("{} is {}", bad.name, verdict(&bad.name).as_str()))
}

/// Waits until the cluster says of itself that all is well, and tends it meanwhile.
pub(super) async fn wait_healthy(
    backend: &mut dyn Backend,
    api: &dyn ClusterApi,
    within: Duration,
) -> Result<ClusterStatus, EngineError> {
    let layout = backend.layout().clone();
    let deadline = Instant::now() + within;
    loop {
        backend.tend()?;
        let why = match api.status().await {
            Ok(status) => match unhealthy(&status, &layout) {
                None => return Ok(status),
                Some(why) => why,
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(EngineError::NotHealthy { within, why });
        }
        sleep(POLL).await;
    }
}
