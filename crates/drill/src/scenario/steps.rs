//! What a drill does.

use super::limit::Limit;
use super::target::{InstanceTarget, NodeTarget, SiteTarget};
use crate::meeting::Answers;
use crate::wan::Percent;
use serde::Deserialize;
use twinsite_model::spec::{HumanDuration, PolicySpec};

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The pause before it.
    #[serde(default = "at_once")]
    pub after: Limit,
    /// What is done.
    #[serde(rename = "do")]
    pub action: Action,
}

fn at_once() -> Limit {
    Limit::fixed(std::time::Duration::ZERO)
}

fn no_pause() -> HumanDuration {
    HumanDuration(std::time::Duration::ZERO)
}

/// What can be done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// kill -9.
    Kill(Processes),
    /// SIGSTOP.
    Freeze(Processes),
    /// SIGCONT, for those that still live.
    Thaw(Processes),
    /// SIGTERM, and wait for the end.
    Stop(Processes),
    /// Start what does not run.
    Start(Processes),
    /// Do something to Redis.
    Redis(RedisAction),
    /// How meeting instances answer from now on.
    Upstream(Upstream),
    /// Nothing passes to and from these nodes' hosts, and nobody is told: no link goes down. In a lab.
    CutHost(Hosts),
    /// Everything on these nodes' hosts stands still, the guardians too; their kernels go on. In a lab: on loopback
    /// addresses there is no kernel that would end the hold.
    FreezeHost(Hosts),
    /// Somebody removes every rule of the packet filter on these nodes' hosts. In a lab.
    FlushFirewall(Hosts),
    /// There is no room any more for these nodes' data. Needs `topology.disk_mib`.
    FillDisk(Hosts),
    /// There is room again; who has ended is not started by it.
    FreeDisk(Hosts),
    /// Let nothing pass from one site to another; the way back stays open.
    Cut(Cut),
    /// Let nothing pass between this site and all others.
    Isolate(SiteTarget),
    /// Make a direction slow or narrow.
    Shape(Shaping),
    /// Make all links whole, those of hosts too.
    HealLinks,
    /// Ask for a planned move.
    Switchover(Destination),
    /// Ask for a move although the owner may not be well.
    Failover(Destination),
    /// Stop automatic moves.
    Pause(HumanDuration),
    /// Allow automatic moves.
    Resume,
    /// Close the breaker: what moved by itself so far does not count any more.
    ResetBreaker,
    /// Hand the leadership over.
    Lead(Leadership),
    /// Change the agreed specification, as an operator does. The way back restores it.
    Apply(SpecChange),
    /// The offline recovery on one survivor, after everything else was stopped.
    Recover(Recover),
    /// Stop and start every node, one after the other, each when all is healthy again; the owner last.
    RestartRolling,
    /// Wait until something is so; it is a failure if it never is.
    Wait(Wait),
    /// Some steps again and again.
    Repeat(Repeat),
}

/// Processes of a cluster. Guardians come first, then nodes, then instances.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    /// The guardians of these nodes.
    pub guardians: Option<NodeTarget>,
    /// These nodes.
    pub nodes: Option<NodeTarget>,
    /// These meeting instances.
    pub instances: Option<InstanceTarget>,
}

/// What can be done to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisAction {
    /// kill -9.
    Kill,
    /// Start it, with the data that it had.
    Start,
    /// SIGSTOP: it accepts connections and answers nothing.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// Remove everything in it.
    Flush,
    /// Make it the replica of nobody: it answers what it knows, and refuses to write.
    Replica,
    /// Let it write again.
    Promote,
}

/// How meeting instances answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Which.
    pub instances: InstanceTarget,
    /// How.
    pub answer: Answers,
}

/// The hosts of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// Those of these nodes.
    pub nodes: NodeTarget,
}

/// One direction between two sites.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The site that sends.
    pub from: SiteTarget,
    /// The site that receives.
    pub to: SiteTarget,
}

/// One direction between two sites, and what it does to bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shaping {
    /// The site that sends.
    pub from: SiteTarget,
    /// The site that receives.
    pub to: SiteTarget,
    /// How long each byte is on its way.
    #[serde(default = "no_pause")]
    pub delay: HumanDuration,
    /// Up to so much more, at random.
    #[serde(default = "no_pause")]
    pub jitter: HumanDuration,
    /// Bytes per second.
    #[serde(default)]
    pub rate: Option<u64>,
    /// So many of a hundred packets are lost, in a lab.
    #[serde(default)]
    pub loss_percent: Percent,
}

/// Where a move shall go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The site; the best node there is chosen.
    pub to: SiteTarget,
    /// The cluster must refuse it: there is a rule that such a move breaks.
    #[serde(default)]
    pub refused: bool,
}

/// Who shall lead.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leadership {
    /// Any of these nodes that does not lead already; nothing is done if there is none but the leader.
    pub to: NodeTarget,
}

/// What is changed in the specification; the rest stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecChange {
    /// In `[policy]`.
    pub policy: PolicyChange,
}

/// What is changed in `[policy]`, in its words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyChange {
    /// Log every decision and act on none.
    pub observe_only: Option<bool>,
    /// Healthy upstreams that a move needs at the target's site.
    pub healthy_upstreams_min: Option<u32>,
    /// Automatic failovers in each window.
    pub failovers_max: Option<u32>,
    /// The breaker's window.
    pub failover_window: Option<HumanDuration>,
    /// How long a switchover waits for requests in flight.
    pub drain_timeout: Option<HumanDuration>,
}

impl PolicyChange {
    /// The policy with these changes.
    pub fn applied_to(&self, policy: &PolicySpec) -> PolicySpec {
        PolicySpec {
            observe_only: self.observe_only.unwrap_or(policy.observe_only),
            healthy_upstreams_min: self.healthy_upstreams_min.unwrap_or(policy.healthy_upstreams_min),
            failovers_max: self.failovers_max.unwrap_or(policy.failovers_max),
            failover_window: self.failover_window.unwrap_or(policy.failover_window),
            drain_timeout: self.drain_timeout.unwrap_or(policy.drain_timeout),
            ..policy.clone()
        }
    }
}

/// The same steps again and again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// How often, 1 to 1,000 times.
    pub times: u32,
    /// From the beginning of one time to that of the next; at once, if the steps take longer.
    pub every: Limit,
    /// What is done each time.
    pub steps: Vec<Step>,
}

/// The offline recovery.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recover {
    /// Where; the first of these that may own the floating address. It is stopped, recovered and started.
    pub on: NodeTarget,
    /// Whether the person attests that the lost nodes are switched off, which saves the waiting.
    #[serde(default)]
    pub attest_power_off: bool,
}

/// Waiting for something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// For what.
    pub until: Condition,
    /// For how long at most.
    pub within: Limit,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// The floating address is answered under a newer token than before the first step.
    OwnerChanged,
    /// The floating address is answered from the other site.
    OwnerAtOtherSite,
    /// The floating address is answered from the owner's site, that of before the first step.
    OwnerAtOwnerSite,
    /// The floating address is answered.
    Answering,
    /// The floating address is not answered by anybody.
    Silent,
    /// No verdict of an instance that was hit says healthy any more.
    VictimsUnhealthy,
    /// No node that was hit runs any more: after a start it means that each of them refused to go on.
    VictimsEnded,
    /// Every upstream has the verdict healthy, every node is there, nothing is moving.
    Healthy,
    /// There is a leader.
    Led,
    /// Every participant has a WebSocket.
    ParticipantsBack,
    /// No move is under way.
    MovesEnded,
}

impl Condition {
    /// The words for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OwnerChanged => "a new owner answers",
            Self::OwnerAtOtherSite => "the other site answers",
            Self::OwnerAtOwnerSite => "the owner's site answers",
            Self::Answering => "somebody answers",
            Self::Silent => "nobody answers",
            Self::VictimsUnhealthy => "what was hit is seen as unhealthy",
            Self::VictimsEnded => "the nodes that were hit have ended",
            Self::Healthy => "all is healthy",
            Self::Led => "there is a leader",
            Self::ParticipantsBack => "all participants are back",
            Self::MovesEnded => "nothing moves",
        }
    }
}
