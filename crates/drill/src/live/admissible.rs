//! What of a scenario cannot be done to people.

use crate::scenario::{
    Action, Condition, Destination, LeaderPlace, Limits, NetworkNeeded, Scenario, ScenarioError, Step,
    StoreNeeded, WayBackKind, place,
};
use std::ops::Range;

/// Everything in a scenario that a live cluster does not allow, a line each with file, place and key. Empty: it can be
/// run. `text` is what it was read from.
pub fn admissible(file: &str, text: &str, scenario: &Scenario) -> Vec<ScenarioError> {
    let mut findings = Findings { file, text, errors: Vec::new() };
    let guards = &scenario.guards;
    if guards.store == StoreNeeded::OwnRedis {
        findings.add(None, "guards.store", "a live cluster's Redis is not the drill's own; run it in a lab");
    }
    if guards.network == NetworkNeeded::Lab {
        findings.add(None, "guards.network", "it is about a lab's network; run it in a lab");
    }
    if matches!(guards.leader, LeaderPlace::Owner | LeaderPlace::AtOwnerSite) {
        let problem = "on a live cluster the leader is not put where a failure would cost most; use any or \
                       away-from-owner-site";
        findings.add(None, "guards.leader", problem);
    }
    if scenario.way_back.by == WayBackKind::Rebuild {
        findings.add(None, "return.by", "a live cluster is never built anew; run it in a lab");
    }
    if scenario.expect.forced_recoveries > 0 {
        findings.add(
            None,
            "expect.forced_recoveries",
            "a live cluster is never recovered by force in a drill",
        );
    }
    for (number, step) in scenario.steps.iter().enumerate() {
        findings.look_at(&step.span(), &format!("step {}", number + 1), step.get_ref());
    }
    findings.errors
}

struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    errors: Vec<ScenarioError>,
}

impl Findings<'_> {
    fn add(&mut self, span: Option<&Range<usize>>, key: &str, problem: &str) {
        self.errors.push(ScenarioError {
            file: self.file.to_owned(),
            place: span.map(|span| place(self.text, span)),
            key: Some(key.to_owned()),
            problem: problem.to_owned(),
        });
    }

    fn look_at(&mut self, span: &Range<usize>, key: &str, step: &Step) {
        if let Action::Repeat(repeat) = &step.action {
            for (number, step) in repeat.steps.iter().enumerate() {
                self.look_at(span, &format!("{key}.do.repeat.steps {}", number + 1), step);
            }
        } else if let Err((part, why)) = allowed(&step.action) {
            self.add(Some(span), &format!("{key}.do.{part}"), why);
        }
    }
}

/// Whether something may be done; or its key, and why not.
fn allowed(action: &Action) -> Result<(), (&'static str, &'static str)> {
    const PROCESS: &str =
        "a live cluster's processes are not touched; run it in a lab, or with `twinsite demo`";
    const NETWORK: &str = "a live cluster's network is not touched; run it in a lab, or with `twinsite demo`";
    const HOST: &str = "a live cluster's hosts are not touched; run it in a lab";
    match action {
        Action::Switchover(Destination { refused: false, .. })
        | Action::Pause(_)
        | Action::Resume
        | Action::Lead(_)
        | Action::Repeat(_) => Ok(()),
        Action::Wait(wait) => match wait.until {
            Condition::Silent => Err(("wait.until", "on a live cluster nobody waits for an outage")),
            Condition::VictimsUnhealthy | Condition::VictimsEnded => {
                Err(("wait.until", "on a live cluster nothing is hit"))
            }
            Condition::OwnerChanged
            | Condition::OwnerAtOtherSite
            | Condition::OwnerAtOwnerSite
            | Condition::Answering
            | Condition::Healthy
            | Condition::Led
            | Condition::ParticipantsBack
            | Condition::MovesEnded => Ok(()),
        },
        Action::Switchover(_) => Err((
            "switchover.refused",
            "if the rule did not hold, people would be moved; `twinsite switchover --plan` asks without risk",
        )),
        Action::Failover(_) => {
            Err(("failover", "it drains nobody, so people would see it; use switchover, or run it in a lab"))
        }
        Action::Kill(_) => Err(("kill", PROCESS)),
        Action::Freeze(_) => Err(("freeze", PROCESS)),
        Action::Thaw(_) => Err(("thaw", PROCESS)),
        Action::Stop(_) => Err(("stop", PROCESS)),
        Action::Start(_) => Err(("start", PROCESS)),
        Action::RestartRolling => Err(("restart-rolling", PROCESS)),
        Action::Upstream(_) => Err(("upstream", PROCESS)),
        Action::Redis(_) => Err(("redis", PROCESS)),
        Action::Cut(_) => Err(("cut", NETWORK)),
        Action::Isolate(_) => Err(("isolate", NETWORK)),
        Action::Shape(_) => Err(("shape", NETWORK)),
        Action::HealLinks => Err(("heal-links", NETWORK)),
        Action::CutHost(_) => Err(("cut-host", HOST)),
        Action::FreezeHost(_) => Err(("freeze-host", HOST)),
        Action::FlushFirewall(_) => Err(("flush-firewall", HOST)),
        Action::FillDisk(_) => Err(("fill-disk", HOST)),
        Action::FreeDisk(_) => Err(("free-disk", HOST)),
        Action::ResetBreaker => Err((
            "reset-breaker",
            "the breaker of a live cluster is closed by a person who knows why it opened",
        )),
        Action::Apply(_) => Err(("apply", "the specification of a live cluster is not changed by a drill")),
        Action::Recover(_) => Err(("recover", "a live cluster is never recovered by force in a drill")),
    }
}

/// The limits of a scenario that nothing measures on a live cluster: the drill has no participants and keeps no
/// connections there.
pub fn not_measured(limits: &Limits) -> Vec<&'static str> {
    [
        ("keep_alive_gap", limits.keep_alive_gap.is_some()),
        ("websocket_gap", limits.websocket_gap.is_some()),
        ("tunnels_back", limits.tunnels_back.is_some()),
        ("tunnels_lost", limits.tunnels_lost.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, limited)| limited.then_some(name))
    .collect()
}

/// The limits without those.
pub(super) fn measured(limits: &Limits) -> Limits {
    Limits {
        keep_alive_gap: None,
        websocket_gap: None,
        tunnels_back: None,
        tunnels_lost: None,
        ..limits.clone()
    }
}
