//! `drill` on a live cluster: what can be typed, with examples.

use super::arguments::ClientArguments;
use clap::{Args, Subcommand};
use twinsite_model::FloatingIpName;

/// `drill`.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Run a drill on the cluster that serves people: planned moves only, watched, with a way back
    #[command(after_help = "Examples:
  twinsite drill run switchover-and-back --live --plan
  twinsite drill run switchover-and-back --live
  twinsite drill run ./my-drill.toml --live --on wit-1

FILE is a scenario file, or the name of an exercise that comes with the program. The drill runs on a node of the
cluster: Ctrl-C stops the watching, not the drill; `twinsite drill abort --live` ends it, and it goes the way back.")]
    Run(RunDrillArguments),
    /// End the drill that runs: it goes the way back first
    #[command(after_help = "Examples:
  twinsite drill abort --live
  twinsite drill abort --live --reason 'a big meeting begins'")]
    Abort(AbortDrillArguments),
    /// List the drills that the cluster remembers, and the one that runs
    #[command(after_help = "Examples:
  twinsite drill history --live
  twinsite drill history --live --json | jq '.[-1].outcome'")]
    History(DrillHistoryArguments),
    /// Show the report of a drill
    #[command(after_help = "Examples:
  twinsite drill report --live                 the newest
  twinsite drill report 1234 --live --json | jq .limits")]
    Report(DrillReportArguments),
}

/// Which cluster is meant.
#[derive(Debug, Clone, Copy, Args)]
pub struct LiveArguments {
    /// The cluster that serves people, not one of the drill's own
    #[arg(long, required = true)]
    pub live: bool,
}

/// `drill run`.
#[derive(Debug, Args)]
pub struct RunDrillArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
    /// A scenario file, or the name of an exercise
    #[arg(value_name = "FILE")]
    pub scenario: String,
    /// Say what would be done and what forbids it, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// The floating IP [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub ip: Option<FloatingIpName>,
    /// The node that runs the drill and measures [default: the first that answers]
    #[arg(long, value_name = "NODE")]
    pub on: Option<String>,
}

/// `drill abort`.
#[derive(Debug, Args)]
pub struct AbortDrillArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
    /// Why, for those who read the history
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `drill history`.
#[derive(Debug, Args)]
pub struct DrillHistoryArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
}

/// `drill report`.
#[derive(Debug, Args)]
pub struct DrillReportArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
    /// Its number, as in the history [default: the newest]
    #[arg(value_name = "ID")]
    pub drill: Option<u64>,
}
