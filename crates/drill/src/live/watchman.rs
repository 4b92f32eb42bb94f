//! What ends a drill that runs: a limit, a person, its time, and a cluster that is not well.

use super::cluster::LiveStatus;
use crate::engine::{ApiError, WatchItem};
use std::time::{Duration, Instant};
use twinsite_model::{
    DrillId, Event, FloatingIpName, NodeName, OperationKind, Timing, UpstreamName, Verdict,
};

/// Why a drill is broken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Abort {
    /// One line for people.
    pub(super) why: String,
    /// Whether the way back may move the address: not after a real failover, nor when another drill runs.
    pub(super) may_move: bool,
}

impl Abort {
    pub(super) fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_move: true }
    }
}

/// Looks at what the cluster says of itself, time after time.
#[derive(Debug)]
pub(super) struct Watchman {
    drill: DrillId,
    /// As whom the runner asks the cluster.
    me: String,
    ip: FloatingIpName,
    /// How long something may look bad: through an election, and until a new leader has heard everybody.
    patience: Duration,
    heard: Vec<NodeName>,
    healthy: Vec<UpstreamName>,
    /// Since when what looks bad.
    bad: Option<(Instant, String)>,
    /// Planned moves that the drill has asked for, and those that were seen to begin.
    asked: u32,
    began: u32,
}

impl Watchman {
    /// What is well at the beginning must stay so.
    pub(super) fn new(
        drill: DrillId,
        me: String,
        ip: FloatingIpName,
        timing: &Timing,
        before: &LiveStatus,
    ) -> Self {
        let healthy = before.cluster.verdicts.iter();
        Self {
            drill,
            me,
            ip,
            patience: 2 * timing.lease + 4 * timing.election_max + Duration::from_secs(1),
            heard: before.cluster.heard.iter().cloned().collect(),
            healthy: healthy
                .filter(|(_, verdict)| **verdict == Verdict::Healthy)
                .map(|(name, _)| name.clone())
                .collect(),
            bad: None,
            asked: 0,
            began: 0,
        }
    }

    /// The drill asks for a planned move.
    pub(super) fn asks_for_move(&mut self) {
        self.asked += 1;
    }

    /// It was refused.
    pub(super) fn was_refused(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Takes a change of the cluster in: a move that is not the drill's own is a real one.
    pub(super) fn hear(&mut self, item: &WatchItem) -> Result<(), Abort> {
        let real = |why: String| Err(Abort { why, may_move: false });
        match &item.event {
            Event::OperationBegan { ip, kind, reason, .. } if *ip == self.ip => {
                if *kind != OperationKind::Switchover {
                    return real(format!("a real {} began: {}", kind.as_str(), reason.as_str()));
                }
                self.began += 1;
                if self.began > self.asked {
                    return real("somebody else moves the address".to_owned());
                }
                Ok(())
            }
            Event::GenerationRaised { generation, .. } => {
                real(format!("a forced recovery made generation {generation}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a look at the cluster in.
    pub(super) fn look(&mut self, now: Instant, look: &Result<LiveStatus, ApiError>) -> Result<(), Abort> {
        let problem = match look {
            Err(error) => Some(format!("the cluster could not be asked ({error})")),
            Ok(status) => {
                self.at_once(status)?;
                self.unwell(status)
            }
        };
        let Some(problem) = problem else {
            self.bad = None;
            return Ok(());
        };
        let since = self.bad.get_or_insert((now, problem.clone())).0;
        if now.saturating_duration_since(since) < self.patience {
            return Ok(());
        }
        Err(Abort::because(format!("the cluster is not well: {problem}")))
    }

    /// What needs no patience.
    fn at_once(&self, status: &LiveStatus) -> Result<(), Abort> {
        match status.drill {
            Some(drill) if drill == self.drill => {}
            Some(other) => {
                let why = format!("drill {other} runs instead");
                return Err(Abort { why, may_move: false });
            }
            None => return Err(Abort::because("it was ended without its runner")),
        }
        if let Some((by, reason)) = &status.stop {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            return Err(Abort::because(format!("{by} wanted it to end{reason}")));
        }
        match status.paused_by.as_ref().filter(|by| **by != self.me) {
            Some(by) => Err(Abort::because(format!("{by} paused automatic moves"))),
            None => Ok(()),
        }
    }

    fn unwell(&self, status: &LiveStatus) -> Option<String> {
        let cluster = &status.cluster;
        if cluster.leader.is_none() {
            return Some("nobody leads".to_owned());
        }
        if let Some(node) = self.heard.iter().find(|node| !cluster.heard.contains(*node)) {
            return Some(format!("{node} is not heard"));
        }
        let verdict = |name| cluster.verdicts.get(name).copied().unwrap_or_default();
        let sick = self.healthy.iter().find(|name| verdict(name) == Verdict::Unhealthy)?;
        Some(format!("{sick} is unhealthy"))
    }
}
