//! twinsite beside keepalived, in one lab and one run: how long clients get no answer when the owner of an address is
//! cut off, killed, frozen, or asked to leave, and how long two hosts answer at once.
//!
//! Each system has two hosts, one at each site, and twinsite a witness at a third. In every round each system is started
//! anew and meets each cause once, and the rounds turn their order, so that what else the machine does hits all alike.
//!
//! All are measured by the same clients and the same prober. What they ask for is a page that the host itself gives:
//! keepalived has no proxy, so on its hosts the sample meeting server answers, and with twinsite the node's own page
//! is asked for, so that neither has a second hop. Every 2 ms there is a new connection, which gives up after
//! [`CONNECT_PATIENCE`](crate::load::http::CONNECT_PATIENCE): its SYN is sent again after a second only, so none that was not
//! answered hides that there are answers again, and the next one finds that 2 ms later. The **gap** is the longest time without an answer to any of them,
//! from the cause to the end of the time in which it lasts ([`LASTS`]); what comes after the repair is counted by itself.
//! **Two hosts**: the whole time with the way back, in which a cut host returns and a frozen process goes on, as
//! `measure::hosts` proves it.

mod contender;
mod numbers;
mod trial;

pub use numbers::{Cell, Comparison, Numbers};
pub use trial::{LASTS, Trial};

use crate::engine::{ApiError, ClusterApi, EngineError};
use crate::lab::{Lab, LabError};
use crate::layout::{Ground, Layout, Shape, Store};
use crate::process::{Cluster, Launcher, ProcessError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use twinsite_machine::Awake;
use twinsite_model::{NodeName, Profile};

/// What keeps the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum System {
    /// keepalived, an advert every second, as it comes.
    #[serde(rename = "keepalived-1s")]
    KeepalivedSecond,
    /// keepalived, ten adverts a second.
    #[serde(rename = "keepalived-100ms")]
    KeepalivedTenth,
    /// twinsite with its default timings.
    #[serde(rename = "twinsite-wan")]
    TwinsiteWan,
    /// twinsite with the fast ones.
    #[serde(rename = "twinsite-lan")]
    TwinsiteLan,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::KeepalivedSecond, Self::KeepalivedTenth, Self::TwinsiteWan, Self::TwinsiteLan];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepalivedSecond => "keepalived-1s",
            Self::KeepalivedTenth => "keepalived-100ms",
            Self::TwinsiteWan => "twinsite-wan",
            Self::TwinsiteLan => "twinsite-lan",
        }
    }
}

/// Why the address moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing comes to the owner's host or from it any more; it notices nothing, and its interface stays up.
    HostCut,
    /// kill -9 of the owner's process; of keepalived, of all its processes there.
    Killed,
    /// SIGSTOP of the same.
    Frozen,
    /// Asked for: a switchover; of keepalived, a lower priority at the owner.
    Planned,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HostCut, Self::Killed, Self::Frozen, Self::Planned];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostCut => "host-cut",
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::Planned => "planned",
        }
    }
}

/// What is compared, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each system meets each cause.
    pub runs: u32,
    /// Which systems.
    pub systems: Vec<System>,
    /// Which causes.
    pub causes: Vec<Cause>,
    /// The programs.
    pub launcher: Launcher,
}

/// How a cluster is asked.
pub type Connect<'a> = dyn Fn(&Cluster) -> Result<Box<dyn ClusterApi>, ApiError> + Sync + 'a;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The cluster.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The cluster's API.
    #[error("the cluster could not be asked: {0}")]
    Api(#[from] ApiError),
    /// Not exactly one host answers.
    #[error("after {} not one host answers for the floating address but {}", humantime::format_duration(*within), names(answering))]
    NotSteady {
        /// How long was waited.
        within: Duration,
        /// Who answers.
        answering: Vec<NodeName>,
    },
    /// The clients got nothing.
    #[error("after {} clients are still not answered", humantime::format_duration(*within))]
    NoAnswers {
        /// How long was waited.
        within: Duration,
    },
}

fn names(nodes: &[NodeName]) -> String {
    let names: Vec<_> = nodes.iter().map(NodeName::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" and ") }
}

/// One host at each site.
fn shape() -> Shape {
    Shape { nodes_per_site: 1, instances_per_site: 1, ..Shape::default() }
}

/// The places of a lab for all systems, with the timings of one.
pub fn layout(profile: Profile) -> Layout {
    // In a lab addresses do not depend on the block.
    Layout::on(Ground::Lab, 0, profile, &shape(), Store::Embedded)
}

/// Measures everything. The lab is one for [`layout`], and this process is where its clients are. What cannot be measured
/// is noted, and the rest goes on.
pub async fn compare(
    lab: &Arc<Lab>,
    options: &Options,
    connect: &Connect<'_>,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Comparison {
    let _awake = Awake::keep();
    let mut trials: BTreeMap<(System, Cause), Vec<Trial>> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut systems = options.systems.clone();
    for round in 1..=options.runs {
        for system in &systems {
            let now = format!("round {round}/{}: {}", options.runs, system.as_str());
            if let Err(error) = meet(lab, *system, options, connect, &now, tell, &mut trials).await {
                let why = format!("{now}: {error}");
                tell(&why);
                failed.push(why);
            }
        }
        // Everybody has everybody before it now and then.
        let first = usize::from(!systems.is_empty());
        systems.rotate_left(first);
    }
    Comparison::new(options.runs, &trials, failed)
}

/// One system meets every cause once.
async fn meet(
    lab: &Arc<Lab>,
    system: System,
    options: &Options,
    connect: &Connect<'_>,
    now: &str,
    tell: &mut (dyn FnMut(&str) + Send),
    trials: &mut BTreeMap<(System, Cause), Vec<Trial>>,
) -> Result<(), CompareError> {
    tell(&format!("{now}: starting"));
    // Who was here before was ended without a word, and what it left is not of this system.
    lab.clear_hosts(layout(Profile::Wan).floating.ip())?;
    let mut contender = contender::start(lab, system, &options.launcher, connect).await?;
    let mut outcome = Ok(());
    for cause in &options.causes {
        tell(&format!("{now}: {}", cause.as_str()));
        match trial::perform(*cause, contender.as_mut(), lab).await {
            Ok(trial) => trials.entry((system, *cause)).or_default().push(trial),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    contender.end().await;
    // Ports that have just been made cannot be set yet, so it is done after a system and not before it.
    lab.heal_hosts()?;
    outcome
}
