//! The file that describes a drill: version 1 of the format.
//!
//! A scenario says which cluster it needs, how much load is on it, what must hold before anything is broken
//! (guards), what is done when (steps), what must come of it (expectations and limits), and how the way back goes.
//! The common audit is not in the file: it applies to every drill. `OVERVIEW.md` has the format with an example.

mod builtin;
mod check;
mod limit;
mod schema;
mod steps;
mod target;

pub use builtin::{Builtin, builtin, builtins};
pub use check::ScenarioError;
pub(crate) use check::place;
pub use limit::{Limit, LimitError};
pub use schema::json_schema;
pub use steps::{
    Action, Condition, Cut, Destination, Hosts, Leadership, PolicyChange, Processes, Recover, RedisAction,
    Repeat, Shaping, SpecChange, Step, Upstream, Wait,
};
pub use target::{InstanceTarget, NodeTarget, SiteTarget};

use crate::layout::{self, Ground};
use crate::load::{Entry, LoadPlan};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use twinsite_model::spec::{AnnounceMode, HumanDuration};
use twinsite_model::{Profile, Timing};

/// The version of the format that this program reads.
pub const FORMAT_VERSION: u32 = 1;
/// The longest scenario file, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A drill, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The version of the format; 1.
    pub version: Spanned<u32>,
    /// Its name.
    pub name: Spanned<String>,
    /// One sentence for lists.
    pub description: String,
    /// The cluster.
    #[serde(default)]
    pub topology: Topology,
    /// The clients.
    #[serde(default)]
    pub load: Load,
    /// What must hold before the first step.
    #[serde(default)]
    pub guards: Guards,
    /// What is done, in order.
    #[serde(rename = "step", default)]
    pub steps: Vec<Spanned<Step>>,
    /// How long is watched after the last step.
    #[serde(default)]
    pub observe: Observe,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
    /// Numbers that must not be exceeded.
    #[serde(default)]
    pub limits: Limits,
    /// Those of them that are others in a lab, where silence is not told from slowness.
    #[serde(default)]
    pub limits_in_lab: Limits,
    /// The way back to a whole cluster.
    #[serde(default, rename = "return")]
    pub way_back: WayBack,
}

/// The cluster that a drill needs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// Its kind.
    pub kind: TopologyKind,
    /// The timings that the drill is about; any, if not given.
    pub profile: Option<Profile>,
    /// Proxies at each site, 1 to 8.
    pub nodes_per_site: u8,
    /// Meeting instances at each site, 1 to 8.
    pub instances_per_site: u8,
    /// Which address the meeting instances announce.
    pub announce: AnnounceMode,
    /// The data of each node is on a file system of its own, in memory, of so many MiB: for what fills it. In a lab.
    pub disk_mib: Option<u32>,
    /// The family of all addresses. IPv6 in a lab.
    pub family: layout::Family,
}

/// The kinds of cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyKind {
    /// Two sites and a witness.
    #[default]
    Paired,
}

impl Default for Topology {
    fn default() -> Self {
        let shape = layout::Shape::default();
        Self {
            kind: TopologyKind::Paired,
            profile: None,
            nodes_per_site: shape.nodes_per_site,
            instances_per_site: shape.instances_per_site,
            announce: shape.announce,
            disk_mib: shape.disk_mib,
            family: shape.family,
        }
    }
}

impl Topology {
    /// The shape of the cluster.
    pub fn shape(&self) -> layout::Shape {
        layout::Shape {
            nodes_per_site: self.nodes_per_site,
            instances_per_site: self.instances_per_site,
            announce: self.announce,
            disk_mib: self.disk_mib,
            family: self.family,
            https: false,
        }
    }
}

/// The clients of a drill.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Keep-alive clients.
    pub http_clients: usize,
    /// The pause of each of them between requests.
    pub http_pause: HumanDuration,
    /// The path they ask for.
    pub path: String,
    /// The pause between new connections.
    pub connect_every: HumanDuration,
    /// Participants of meetings, over WebSocket.
    pub participants: usize,
    /// Their rooms.
    pub rooms: usize,
    /// The pause of each of them between words.
    pub say_every: HumanDuration,
    /// How long each of them waits for an echo before it reconnects.
    pub silence_max: HumanDuration,
    /// The first pause before a reconnection; doubled each time, ±50 %.
    pub reconnect: HumanDuration,
    /// The longest pause before a reconnection.
    pub reconnect_max: HumanDuration,
    /// Through which addresses the participants come.
    pub entry: Entry,
    /// How long the load runs before the first step.
    pub warm_up: HumanDuration,
}

impl Default for Load {
    fn default() -> Self {
        let ms = |ms| HumanDuration(Duration::from_millis(ms));
        Self {
            http_clients: 8,
            http_pause: ms(60),
            path: "/".to_owned(),
            connect_every: ms(2),
            participants: 20,
            rooms: 5,
            say_every: ms(100),
            silence_max: ms(2_000),
            reconnect: ms(50),
            reconnect_max: ms(500),
            entry: Entry::Floating,
            warm_up: ms(1_000),
        }
    }
}

impl Load {
    /// What the load generator is told.
    pub fn plan(&self) -> LoadPlan {
        LoadPlan {
            http_clients: self.http_clients,
            http_pause: self.http_pause.0,
            path: self.path.clone(),
            connect_every: self.connect_every.0,
            participants: self.participants,
            rooms: self.rooms,
            say_every: self.say_every.0,
            silence_max: self.silence_max.0,
            reconnect: self.reconnect.0,
            reconnect_max: self.reconnect_max.0,
            entry: self.entry,
        }
    }
}

/// What must hold before anything is broken. What can be arranged is arranged; the rest refuses the drill.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    /// Where the leader is.
    pub leader: LeaderPlace,
    /// Which store the cluster must have.
    pub store: StoreNeeded,
    /// On which network it must be.
    pub network: NetworkNeeded,
}

/// Where the leader must be; arranged by handing the leadership over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaderPlace {
    /// Anywhere.
    #[default]
    Any,
    /// Not at the owner's site.
    AwayFromOwnerSite,
    /// At the owner's site.
    AtOwnerSite,
    /// The owner itself leads.
    Owner,
    /// The witness leads.
    Witness,
}

/// The store that a drill needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreNeeded {
    /// Any.
    #[default]
    Any,
    /// A Redis that the drill may break.
    OwnRedis,
}

/// The network that a drill needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkNeeded {
    /// Any.
    #[default]
    Any,
    /// A lab, where hosts send each other packets.
    Lab,
}

/// How long is watched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Observe {
    /// All moves must have ended and all participants be back within so long after the last step.
    pub settle: Limit,
    /// How long is watched after that.
    pub hold: HumanDuration,
}

impl Default for Observe {
    fn default() -> Self {
        Self { settle: Limit::fixed(Duration::from_secs(15)), hold: HumanDuration(Duration::from_secs(1)) }
    }
}

/// What must come of it, looked at when all has settled and before the way back.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Who owns the floating address, compared with before.
    pub owner: OwnerExpected,
    /// How many changes of owner there were at most.
    pub moves_max: Option<u32>,
    /// The generation grew by exactly so much.
    pub forced_recoveries: u64,
}

/// Who must own the floating address in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnerExpected {
    /// Anybody, and somebody.
    #[default]
    Any,
    /// The same node under the same token.
    Unchanged,
    /// Another node.
    Changed,
    /// A node of the other site.
    AtOtherSite,
    /// A newer token, on whatever node.
    NewToken,
}

/// Numbers that must not be exceeded. Gaps and phases: by the median of all runs. Counts: by each run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest time without an answer to HTTP. In a lab: to new connections.
    pub http_gap: Option<Limit>,
    /// The longest time without an answer on any connection that is kept.
    pub keep_alive_gap: Option<Limit>,
    /// The longest time without an answer on any WebSocket.
    pub websocket_gap: Option<Limit>,
    /// The longest time that any one participant was without a WebSocket.
    pub tunnels_back: Option<Limit>,
    /// From the fault to the decision.
    pub detect: Option<Limit>,
    /// From the decision until the old owner cannot act.
    pub fence: Option<Limit>,
    /// Requests of patient clients that failed for good.
    pub failed_requests: Option<u64>,
    /// Attempts of any HTTP client that found nobody, also when the client tried again.
    pub refused_attempts: Option<u64>,
    /// Attempts of any HTTP client that found somebody and got no good answer, also when the client asked again.
    pub broken_attempts: Option<u64>,
    /// `WebSockets` that were lost.
    pub tunnels_lost: Option<u64>,
}

/// The way back.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WayBack {
    /// How the cluster becomes whole again.
    pub by: WayBackKind,
    /// Everything must be healthy again within so long.
    pub within: Limit,
}

/// How the cluster becomes whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayBackKind {
    /// Every link healed, everything frozen thawed, everything missing started; then it must heal by itself.
    #[default]
    Repair,
    /// A new cluster: after a forced recovery the lost nodes cannot come back under their old ids.
    Rebuild,
}

impl Default for WayBack {
    fn default() -> Self {
        Self { by: WayBackKind::Repair, within: Limit::fixed(Duration::from_secs(30)) }
    }
}

impl Scenario {
    /// Reads and checks a scenario; `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ScenarioError>> {
        check::parse(file, text)
    }

    /// Reads and checks a scenario file.
    pub fn load(path: &Path) -> Result<Self, Vec<ScenarioError>> {
        Self::parse(&path.display().to_string(), &Self::read(path)?)
    }

    /// Reads the text of a scenario file, which is checked later.
    pub fn read(path: &Path) -> Result<String, Vec<ScenarioError>> {
        let file = path.display().to_string();
        let unreadable = |problem: String| vec![ScenarioError::whole(&file, problem)];
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!(
                "larger than {FILE_BYTES_MAX} bytes; a scenario is a page of text"
            )));
        }
        std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }

    /// The steps.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().map(Spanned::get_ref)
    }

    /// The limits on this ground.
    pub fn limits_on(&self, ground: Ground) -> Limits {
        match ground {
            Ground::Loopback => self.limits.clone(),
            Ground::Lab => self.limits_in_lab.clone().or(&self.limits),
        }
    }
}

impl Limits {
    /// Every duration in milliseconds, by name, for reports.
    pub fn durations(&self, profile: Profile) -> Vec<(&'static str, Duration)> {
        let timing = Timing::of(profile);
        [
            ("http_gap", &self.http_gap),
            ("keep_alive_gap", &self.keep_alive_gap),
            ("websocket_gap", &self.websocket_gap),
            ("tunnels_back", &self.tunnels_back),
            ("detect", &self.detect),
            ("fence", &self.fence),
        ]
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit.as_ref()?.in_timing(&timing))))
        .collect()
    }

    /// These, and the others' where there is none.
    #[must_use]
    fn or(self, others: &Self) -> Self {
        let limit = |own: Option<Limit>, other: &Option<Limit>| own.or_else(|| other.clone());
        Self {
            http_gap: limit(self.http_gap, &others.http_gap),
            keep_alive_gap: limit(self.keep_alive_gap, &others.keep_alive_gap),
            websocket_gap: limit(self.websocket_gap, &others.websocket_gap),
            tunnels_back: limit(self.tunnels_back, &others.tunnels_back),
            detect: limit(self.detect, &others.detect),
            fence: limit(self.fence, &others.fence),
            failed_requests: self.failed_requests.or(others.failed_requests),
            refused_attempts: self.refused_attempts.or(others.refused_attempts),
            broken_attempts: self.broken_attempts.or(others.broken_attempts),
            tunnels_lost: self.tunnels_lost.or(others.tunnels_lost),
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
