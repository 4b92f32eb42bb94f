//! The command line: what can be typed, with examples.

use super::adapt::AdaptArguments;
use super::drill_arguments::DrillCommand;
use super::lab_arguments::LabCommand;
use super::schema::SchemaArguments;
use super::spec_arguments::{ApplyArguments, SpecCommand};
use crate::janitor::JanitorArguments;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use twinsite_model::spec::HumanDuration;
use twinsite_model::{FloatingIpName, UpstreamName};

/// High availability for a service that runs at two sites
#[derive(Debug, Parser)]
#[command(
    name = "twinsite",
    version,
    max_term_width = 110,
    after_help = "Examples:
  twinsite demo                                    a whole cluster on this machine, to look at and to break
  twinsite drill run owner-killed                  kill the owner of the floating IP and measure what clients see
  twinsite lab up                                  the same on a network of its own, which stays (needs root)
  twinsite status                                  who owns what, and whether it could fail over now
  twinsite switchover --to sbg --plan              what a planned move would do, without doing it

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 no quorum (the answer is this node's own, and old);
4 nobody answered; 5 the machine that measured a drill stood still: run it again."
)]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine: two sites, a witness, meeting instances, Redis
    Demo(DemoArguments),
    /// Make a network of this machine's own with a cluster in it, which stays: to look at, to enter, and to break
    #[command(subcommand)]
    Lab(LabCommand),
    /// Break a cluster of its own on purpose, or rehearse moves on the live one; measure what clients see, and keep the
    /// report
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Live through seeded disasters with whole simulated clusters, and see that no rule is broken
    Sim(SimArguments),
    /// Run one node of a cluster
    #[command(after_help = "Examples:
  twinsite node --config /etc/twinsite/node.toml
  twinsite node --config node.toml --log json")]
    Node(NodeArguments),
    /// Run the guardian of a node: it outlives the node, ends it when it hangs, and says so to the cluster
    #[command(after_help = "Examples:
  twinsite guardian --config /etc/twinsite/node.toml      the same file as its node")]
    Guardian(NodeArguments),
    /// Show who owns what, what is healthy, and whether it could fail over now
    Status(StatusArguments),
    /// Follow the cluster's changes as they happen
    Watch(WatchArguments),
    /// List recent moves of the floating IPs, with the time of each step
    #[command(after_help = "Examples:
  twinsite events
  twinsite events --json | jq '.[0].steps'")]
    Events(QueryArguments),
    /// How long failovers and planned moves took, phase by phase: the recovery time to count with
    #[command(after_help = "Examples:
  twinsite rto
  twinsite rto --json | jq '.[] | select(.way == \"released\").handover.median_ms'")]
    Rto(QueryArguments),
    /// Explain why things are as they are, and what could happen now
    Explain(ExplainArguments),
    /// Move a floating IP while both sides are up: drained, without a failed request
    #[command(after_help = "Examples:
  twinsite switchover --to sbg --plan
  twinsite switchover --to sbg
  twinsite switchover --to gra-2 --no-wait")]
    Switchover(MoveArguments),
    /// Move a floating IP although its owner is not well
    #[command(after_help = "Examples:
  twinsite failover --plan
  twinsite failover --to sbg
  twinsite failover --to sbg-2 --override target-reaches-store")]
    Failover(MoveArguments),
    /// Call off a move that has not moved anything yet
    Abort(AbortArguments),
    /// Close the breaker after too many automatic moves
    #[command(subcommand)]
    Breaker(BreakerCommand),
    /// Say what a Caddyfile means as routes and upstreams, and where twinsite does otherwise
    Adapt(AdaptArguments),
    /// Agree on the specification in a file, after a look at what that changes
    Apply(ApplyArguments),
    /// Show the agreed specification, what it was before, and go back
    #[command(subcommand)]
    Spec(SpecCommand),
    /// Stop automatic moves for a while
    Pause(PauseArguments),
    /// Let automatic moves happen again
    #[command(after_help = "Examples:
  twinsite resume")]
    Resume(QueryArguments),
    /// List upstreams, drain one, or end a drain
    #[command(subcommand)]
    Upstream(UpstreamCommand),
    /// List rooms and where they are
    #[command(after_help = "Examples:
  twinsite sessions
  twinsite sessions --json | jq .nodes")]
    Sessions(QueryArguments),
    /// List, add and remove members, and choose who leads
    #[command(subcommand)]
    Members(MembersCommand),
    /// Check configuration and timing before a node starts
    Check(CheckArguments),
    /// Forced recovery when the quorum is lost for good: offline, on one survivor, by a person who names what is lost
    Recover(RecoverArguments),
    /// Print the JSON Schema of a file format
    Schema(SchemaArguments),
    /// Print completions for a shell
    #[command(after_help = "Examples:
  twinsite completion bash > /etc/bash_completion.d/twinsite
  twinsite completion zsh > ~/.zfunc/_twinsite")]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// A small meeting server for demos and drills
    #[command(hide = true)]
    MeetingInstance(MeetingArguments),
    /// Take away what a killed drill leaves; a drill starts it
    #[command(hide = true)]
    Janitor(JanitorArguments),
    /// Measure failovers beside keepalived in a lab; `cargo xtask bench failover` runs it
    #[command(hide = true)]
    CompareFailover(CompareArguments),
}

/// How the cluster is reached.
#[derive(Debug, Clone, Args)]
pub struct ClientArguments {
    /// File that names the nodes and the certificates [default: ./client.toml, then /etc/twinsite/client.toml, then
    /// the running demo's]
    #[arg(long, env = "TWINSITE_CLIENT", value_name = "FILE")]
    pub client: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A query without arguments of its own.
#[derive(Debug, Args)]
pub struct QueryArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite status
  twinsite status --json | jq .floating_ips
  twinsite status --watch")]
pub struct StatusArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Show it again whenever it changes
    #[arg(long)]
    pub watch: bool,
    /// Ask for this node's own view, however old
    #[arg(long)]
    pub local: bool,
}

/// `watch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite watch
  twinsite watch --since 1042 --json")]
pub struct WatchArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Begin after this revision instead of now
    #[arg(long, value_name = "REVISION")]
    pub since: Option<u64>,
}

/// `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite explain
  twinsite explain --ip public --json")]
pub struct ExplainArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Only this floating IP
    #[arg(long, value_name = "NAME")]
    pub ip: Option<FloatingIpName>,
}

/// `switchover` and `failover`.
#[derive(Debug, Args)]
pub struct MoveArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// The floating IP [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub ip: Option<FloatingIpName>,
    /// The site or node that shall own it [default: the best one]
    #[arg(long, value_name = "SITE|NODE")]
    pub to: Option<String>,
    /// Print steps, rules and the outage to expect, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Override a safety rule by its name; may be given several times
    #[arg(long = "override", value_name = "RULE")]
    pub overrides: Vec<String>,
    /// Return as soon as the move has begun
    #[arg(long)]
    pub no_wait: bool,
}

/// `abort`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite abort
  twinsite abort --ip public --reason 'wrong site'

Possible until the address itself moves; after that a move only goes forward.")]
pub struct AbortArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// The floating IP [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub ip: Option<FloatingIpName>,
    /// Why, for those who read the journal
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `breaker`.
#[derive(Debug, Subcommand)]
pub enum BreakerCommand {
    /// Let automatic moves happen again, although there were too many of them lately
    #[command(after_help = "Examples:
  twinsite status                                  says whether the breaker is open
  twinsite breaker reset")]
    Reset(QueryArguments),
}

/// `pause`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite pause --for 30m --reason 'switch replacement at gra'")]
pub struct PauseArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// How long; a pause always ends by itself [default: the cluster's policy]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<HumanDuration>,
    /// Why, for those who find it
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `upstream`.
#[derive(Debug, Subcommand)]
pub enum UpstreamCommand {
    /// List upstreams with the cluster's verdict and the evidence
    #[command(after_help = "Examples:
  twinsite upstream list
  twinsite upstream list --json")]
    List(QueryArguments),
    /// Let an upstream run empty: live rooms stay, new ones go elsewhere
    #[command(after_help = "Examples:
  twinsite upstream drain gra-meet-1
  twinsite upstream drain gra-meet-1 --deadline 2h")]
    Drain(DrainArguments),
    /// End a drain
    #[command(after_help = "Examples:
  twinsite upstream undrain gra-meet-1")]
    Undrain(DrainArguments),
}

/// `upstream drain` and `undrain`.
#[derive(Debug, Args)]
pub struct DrainArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// The upstream
    pub upstream: UpstreamName,
    /// When it should be empty, from now
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub deadline: Option<HumanDuration>,
}

/// `members`.
#[derive(Debug, Subcommand)]
pub enum MembersCommand {
    /// List members, who votes, who leads, and how far each log is
    #[command(after_help = "Examples:
  twinsite members list
  twinsite members list --json")]
    List(QueryArguments),
    /// Add a node: it receives the log first, and gets its vote when it has caught up
    Add(AddArguments),
    /// Remove a node for good; its id never comes back
    #[command(after_help = "Examples:
  twinsite members remove sbg-2")]
    Remove(MemberArguments),
    /// Hand the leadership to a node
    #[command(after_help = "Examples:
  twinsite members lead wit-1")]
    Lead(MemberArguments),
}

/// `members add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite members add node.toml-fragment.toml     a file with one [[node]] table as in cluster.toml")]
pub struct AddArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// A file with one [[node]] table, as in cluster.toml
    pub file: PathBuf,
}

/// A member by name or number.
#[derive(Debug, Args)]
pub struct MemberArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// The node, by name or id
    pub node: String,
}

/// `node` and `guardian`.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// The node's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/twinsite/node.toml")]
    pub config: PathBuf,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For machines
    Json,
}

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite check --config node.toml
  twinsite check --timing --profile wan")]
pub struct CheckArguments {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print every timing inequality with its numbers
    #[arg(long)]
    pub timing: bool,
    /// The profile to look at, if there is no configuration
    #[arg(long, default_value = "wan")]
    pub profile: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `recover`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite recover --config node.toml --lost gra-1 --lost gra-2 --lost wit-1
  twinsite recover --config node.toml --lost gra-1 --lost gra-2 --lost wit-1 --attest-power-off gra-1,gra-2,wit-1

The node must be stopped. Its membership becomes itself alone, the generation grows, and every node of an older
generation is refused until it rejoins under a new id. Commands that only the lost nodes acknowledged are gone.")]
pub struct RecoverArguments {
    /// The survivor's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/twinsite/node.toml")]
    pub config: PathBuf,
    /// A voter that is lost; name every one but the survivor
    #[arg(long, value_name = "NODE", required = true)]
    pub lost: Vec<String>,
    /// Attest that these nodes are powered off, to skip the waiting; type every lost name again
    #[arg(long, value_name = "NODE,NODE", value_delimiter = ',')]
    pub attest_power_off: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite demo
  twinsite demo --exercise site-loss --profile wan
  twinsite demo --exercise owner-frozen --runs 20 --json
  twinsite demo --list")]
pub struct DemoArguments {
    /// Run this exercise, print its report, and end
    #[arg(long, value_name = "NAME")]
    pub exercise: Option<String>,
    /// List the exercises
    #[arg(long)]
    pub list: bool,
    /// The timings: lan or wan [default: those of the exercise, or lan]
    #[arg(long, value_enum)]
    pub profile: Option<ProfileArgument>,
    /// How often the exercise runs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Use this Redis instead of starting one
    #[arg(long, value_name = "URL", conflicts_with = "embedded")]
    pub redis: Option<String>,
    /// Keep session placement in the replicated state, without Redis
    #[arg(long)]
    pub embedded: bool,
    /// Give every host a network namespace, and put the floating IP on a real interface (needs root)
    #[arg(long, conflicts_with = "redis")]
    pub lab: bool,
    /// Use IPv6 in the lab, and no IPv4
    #[arg(long, requires = "lab")]
    pub ipv6: bool,
    /// Where the cluster's files go [default: a new folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// A profile on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileArgument {
    /// Fast recovery, sites a millisecond apart
    Lan,
    /// Patient, sites on a wide-area network
    Wan,
}

impl From<ProfileArgument> for twinsite_model::Profile {
    fn from(profile: ProfileArgument) -> Self {
        match profile {
            ProfileArgument::Lan => Self::Lan,
            ProfileArgument::Wan => Self::Wan,
        }
    }
}

/// `compare-failover`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// How often each system meets each cause
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Only this system; may be given several times
    #[arg(long, value_name = "NAME")]
    pub system: Vec<String>,
    /// Only this cause; may be given several times
    #[arg(long, value_name = "NAME")]
    pub cause: Vec<String>,
}

/// `meeting-instance`.
#[derive(Debug, Args)]
pub struct MeetingArguments {
    /// Where it listens
    #[arg(long)]
    pub listen: std::net::SocketAddr,
    /// Its name
    #[arg(long)]
    pub name: UpstreamName,
    /// The file from which it reads the address that it announces
    #[arg(long)]
    pub announced_file: PathBuf,
    /// The file from which it reads how it answers: well, slow, errors, wrong or truncated
    #[arg(long)]
    pub answers_file: Option<PathBuf>,
    /// End when standard input closes
    #[arg(long)]
    pub exit_with_stdin: bool,
}

pub(super) fn duration(text: &str) -> Result<HumanDuration, String> {
    humantime::parse_duration(text)
        .map(HumanDuration)
        .map_err(|error| format!("{error}; write it with a unit, as in 30s, 10m or 2h"))
}

/// `twinsite sim`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite sim
  twinsite sim --seeds 20000
  twinsite sim --seed 4711 --trace
  twinsite sim --seed 4711 --shrink

The real consensus, controller and agents run on simulated clocks, network, disks and kernels. Each seed is a life of
20 seconds of misfortunes and 10 in which all must become well, and the same every time. The exit code is 1 if a rule was
broken.")]
pub struct SimArguments {
    /// Live through this many seeds
    #[arg(long, default_value_t = 1_000)]
    pub seeds: u64,
    /// Begin with this seed
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// Live through this seed only
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,
    /// Print what happened, event by event
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// Let only these misfortunes and wishes come to pass, by their numbers in the trace
    #[arg(long, requires = "seed", value_delimiter = ',', value_name = "NUMBERS")]
    pub only: Option<Vec<u64>>,
    /// Leave out misfortunes as long as the same rule is broken, and print how to repeat what is left
    #[arg(long, requires = "seed")]
    pub shrink: bool,
    /// Threads [default: as many as there are cores]
    #[arg(long, conflicts_with = "seed")]
    pub threads: Option<usize>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}
