//! Before a drill: the guards, and what would happen.

use super::admissible::not_measured;
use super::cluster::{LiveCluster, LiveStatus, PlannedMove};
use super::limits::lasts_at_most;
use super::places::Places;
use crate::engine::ApiError;
use crate::scenario::{Action, LeaderPlace, NodeTarget, Scenario, Step};
use std::time::Duration;
use twinsite_model::drill::DRILL_LENGTH_MAX;
use twinsite_model::spec::{FloatingIpSpec, HumanDuration};
use twinsite_model::{ClusterSpec, NodeName, SiteName, Verdict};

/// Steps that are written out; the rest is counted.
const STEPS_MAX: usize = 200;

/// Why a drill cannot even be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The cluster could not be asked.
    #[error("the cluster could not be asked: {0}")]
    Api(#[from] ApiError),
    /// There is nothing to rehearse.
    #[error("{0}")]
    Cluster(String),
    /// It would last too long.
    #[error(
        "it could last {0}, and at most {limit} are allowed: repeat less often, or wait for a shorter time",
        limit = HumanDuration(DRILL_LENGTH_MAX)
    )]
    TooLong(HumanDuration),
    /// The scenario names what is not there.
    #[error("step {step}: {problem}")]
    Step {
        /// Its number, from 1.
        step: usize,
        /// What is wrong.
        problem: String,
    },
}

/// What a drill would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The scenario's name.
    pub name: String,
    /// Who owns the address.
    pub owner: NodeName,
    /// At which site.
    pub owner_site: SiteName,
    /// What is done, in order, the way back included.
    pub steps: Vec<PlannedStep>,
    /// What was asked before it begins.
    pub guards: Vec<Guard>,
    /// How long it may last.
    pub lasts_at_most: HumanDuration,
    /// How long new connections would find nobody, all moves together.
    pub predicted_outage: Duration,
    /// Rooms whose participants would reconnect at each move.
    pub rooms: Option<u32>,
    /// Tunnels that would reconnect at each move.
    pub tunnels: Option<u32>,
    /// Limits of the scenario that are not measured here.
    pub not_measured: Vec<&'static str>,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// In words.
    pub what: String,
    /// Where it moves the address, if it does.
    pub moves_to: Option<SiteName>,
}

/// A condition of a drill, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Its name.
    pub name: String,
    /// Whether the drill may begin as far as it is concerned.
    pub holds: bool,
    /// One line.
    pub detail: String,
}

impl Preview {
    /// The guards that forbid the drill.
    pub fn failing(&self) -> impl Iterator<Item = &Guard> {
        self.guards.iter().filter(|guard| !guard.holds)
    }
}

/// Asks the cluster, and says what the drill would do. Changes nothing. The scenario is admissible.
pub async fn prepare(
    scenario: &Scenario,
    spec: &ClusterSpec,
    ip: &FloatingIpSpec,
    live: &dyn LiveCluster,
) -> Result<Preview, NotReady> {
    // Before anything is written out: what fits into the time is a bounded number of steps.
    let lasts_at_most = lasts_at_most(scenario, &spec.timing());
    if lasts_at_most.0 > DRILL_LENGTH_MAX {
        return Err(NotReady::TooLong(lasts_at_most));
    }
    let status = live.look().await?;
    let places = Places::new(spec, ip, &status.cluster).map_err(NotReady::Cluster)?;
    let steps = planned(scenario, &places)?;
    let mut guards = about_cluster(scenario, spec, &places, &status);
    let mut preview = Preview {
        name: scenario.name().to_owned(),
        owner: places.owner.clone(),
        owner_site: places.owner_site.clone(),
        steps: Vec::new(),
        guards: Vec::new(),
        lasts_at_most,
        predicted_outage: Duration::ZERO,
        rooms: None,
        tunnels: None,
        not_measured: not_measured(&scenario.limits),
    };
    let moves = steps.iter().filter_map(|step| step.moves_to.as_ref());
    let count = u32::try_from(moves.clone().count()).unwrap_or(u32::MAX);
    // Every site that the address goes to; where it is now nobody can be asked before it has left.
    let mut asked: Vec<&SiteName> = Vec::new();
    for site in moves.filter(|site| **site != places.owner_site) {
        if asked.contains(&site) {
            continue;
        }
        asked.push(site);
        let plan = live.plan(site).await?;
        preview.predicted_outage = preview.predicted_outage.max(plan.outage.saturating_mul(count));
        preview.rooms = plan.rooms.or(preview.rooms);
        preview.tunnels = plan.tunnels.or(preview.tunnels);
        guards.push(about_move(site, &plan));
    }
    if !asked.is_empty() {
        guards.push(way_back(&places, &status));
    }
    preview.steps = steps;
    preview.steps.truncate(STEPS_MAX);
    preview.guards = guards;
    Ok(preview)
}

/// What is done, with repetitions written out, and the way back.
fn planned(scenario: &Scenario, places: &Places) -> Result<Vec<PlannedStep>, NotReady> {
    let mut steps = Vec::new();
    for (number, step) in scenario.steps().enumerate() {
        let problem = |problem| NotReady::Step { step: number + 1, problem };
        add(&mut steps, step, places).map_err(problem)?;
    }
    let at_end = steps.iter().rev().find_map(|step| step.moves_to.as_ref());
    if at_end.is_some_and(|site| *site != places.owner_site) {
        steps.push(PlannedStep {
            what: format!("the way back: switchover to {}", places.owner_site),
            moves_to: Some(places.owner_site.clone()),
        });
    }
    Ok(steps)
}

fn add(steps: &mut Vec<PlannedStep>, step: &Step, places: &Places) -> Result<(), String> {
    let (what, moves_to) = match &step.action {
        Action::Switchover(destination) => {
            let site = places.site(&destination.to);
            let site = site.ok_or_else(|| format!("{}: there is no such site", destination.to))?;
            (format!("switchover to {site}"), Some(site))
        }
        Action::Lead(leadership) => {
            let named = matches!(leadership.to, NodeTarget::Named(_));
            if named && places.voters(&leadership.to, None).is_empty() {
                return Err(format!("{}: there is no such voter", leadership.to));
            }
            (format!("leadership to {}", leadership.to), None)
        }
        Action::Pause(duration) => (format!("pause for {duration}"), None),
        Action::Resume => ("resume".to_owned(), None),
        Action::Wait(wait) => (format!("wait until {}", wait.until.as_str()), None),
        Action::Repeat(repeat) => {
            for _ in 0..repeat.times {
                for step in &repeat.steps {
                    add(steps, step, places)?;
                }
            }
            return Ok(());
        }
        // Refused before: `admissible`.
        _ => return Err("it is not done on a live cluster".to_owned()),
    };
    steps.push(PlannedStep { what, moves_to });
    Ok(())
}

fn about_cluster(
    scenario: &Scenario,
    spec: &ClusterSpec,
    places: &Places,
    status: &LiveStatus,
) -> Vec<Guard> {
    let guard = |name: &str, holds, detail: String| Guard { name: name.to_owned(), holds, detail };
    let mut guards = Vec::new();
    let wanted = scenario.topology.profile;
    if let Some(wanted) = wanted {
        let detail = format!("the scenario is about {wanted}, and the cluster uses {}", spec.profile);
        guards.push(guard("profile", wanted == spec.profile, detail));
    }
    let leader = status.cluster.leader.as_ref();
    let leader_site = leader.and_then(|leader| places.site_of(leader));
    let (holds, wish) = match scenario.guards.leader {
        LeaderPlace::AwayFromOwnerSite => {
            (leader_site.is_some_and(|site| *site != places.owner_site), " away from the owner's site")
        }
        LeaderPlace::Witness => {
            let witnesses = places.voters(&NodeTarget::Witness, None);
            (leader.is_some_and(|leader| witnesses.contains(leader)), " on the witness")
        }
        _ => (leader.is_some(), ""),
    };
    let name = leader.map_or("nobody", |leader| leader.as_str());
    let remedy = if holds { "" } else { "; `twinsite members lead` changes that" };
    guards.push(guard("leader", holds, format!("{name} leads; wanted: a leader{wish}{remedy}")));
    let moving = if status.cluster.moving { "it is being moved" } else { "nothing moves it" };
    guards.push(guard("address-rests", !status.cluster.moving, moving.to_owned()));
    let unheard: Vec<_> = places.nodes().filter(|node| !status.cluster.heard.contains(*node)).collect();
    let names: Vec<_> = unheard.iter().map(|node| node.as_str()).collect();
    let detail = if unheard.is_empty() {
        "every node is heard".to_owned()
    } else {
        format!("not heard: {}", names.join(", "))
    };
    guards.push(guard("nodes-heard", unheard.is_empty(), detail));
    guards
}

fn about_move(site: &SiteName, plan: &PlannedMove) -> Guard {
    let failing = plan.rules.iter().filter(|rule| !rule.holds);
    let failing: Vec<_> = failing.map(|rule| format!("{}: {}", rule.name, rule.detail)).collect();
    let detail = match (&plan.refusal, &plan.target) {
        (Some(refusal), _) if failing.is_empty() => refusal.clone(),
        (Some(_), _) => failing.join("; "),
        (None, Some(target)) => {
            let rules: Vec<_> = plan.rules.iter().map(|rule| rule.name.as_str()).collect();
            format!("to {target}; {} hold", rules.join(", "))
        }
        (None, None) => "no node there can take it".to_owned(),
    };
    let holds = plan.refusal.is_none() && plan.target.is_some();
    Guard { name: format!("switchover-to-{site}"), holds, detail }
}

/// The owner's site must be fit to be returned to, before anything leaves it.
fn way_back(places: &Places, status: &LiveStatus) -> Guard {
    let site = &places.owner_site;
    let upstreams = places.upstreams().filter(|(at, _)| *at == site);
    let healthy =
        upstreams.filter(|(_, name)| status.cluster.verdicts.get(*name) == Some(&Verdict::Healthy)).count();
    let wanted = places.healthy_upstreams_min();
    let detail = format!("site {site} has {healthy} healthy upstreams; {wanted} are needed");
    Guard { name: "way-back".to_owned(), holds: healthy >= wanted, detail }
}
