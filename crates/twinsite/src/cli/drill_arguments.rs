//! What can be typed after `twinsite drill`.

use super::arguments::{ClientArguments, ProfileArgument};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use twinsite_drill::random::MINUTES;
use twinsite_model::FloatingIpName;

/// `drill`.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// List the scenarios that come with the program
    #[command(after_help = "Examples:
  twinsite drill list
  twinsite drill list --json | jq -r '.[] | select(.needs_lab) | .name'")]
    List(ListArguments),
    /// Check scenario files: every error with file, line and key
    #[command(after_help = "Examples:
  twinsite drill check scenarios/*.toml
  twinsite drill check my.toml --json
  twinsite schema scenario > scenario.schema.json      for editors that complete and check while you type

The exit code is 2 if a file is wrong.")]
    Check(CheckFilesArguments),
    /// Run a scenario on a cluster of its own, or planned moves on the live one, and report what clients saw
    Run(RunArguments),
    /// Run faults that are drawn from a seed, each mended before the next
    Random(RandomArguments),
    /// End the drill that runs: it goes its way back and reports
    #[command(after_help = "Examples:
  twinsite drill abort
  twinsite drill abort --live --reason 'a big meeting begins'

Without --live it is the one that runs on this machine, and the command returns when the drill has ended. Its verdict is `aborted`, and what was seen until then is audited.")]
    Abort(AbortDrillArguments),
    /// List the reports that are kept
    #[command(after_help = "Examples:
  twinsite drill history
  twinsite drill history --live                  those that the cluster remembers
  twinsite drill history --json | jq '.[] | select(.verdict != \"pass\") | .id'")]
    History(HistoryArguments),
    /// Show a report that is kept
    Report(ReportArguments),
}

/// Whether the cluster that serves people is meant.
#[derive(Debug, Clone, Args)]
pub struct LiveArguments {
    /// The cluster that serves people, not one of the drill's own
    #[arg(long)]
    pub live: bool,
    /// With --live: file that names the nodes and the certificates [default: ./client.toml, then
    /// /etc/twinsite/client.toml, then the running demo's]
    #[arg(long, env = "TWINSITE_CLIENT", value_name = "FILE")]
    pub client: Option<PathBuf>,
}

impl LiveArguments {
    /// How the cluster is reached.
    pub fn client(&self, json: bool) -> ClientArguments {
        ClientArguments { client: self.client.clone(), json }
    }
}

/// Where reports are kept.
#[derive(Debug, Clone, Args)]
pub struct ArchiveArguments {
    /// Folder of the reports
    #[arg(
        long,
        env = "TWINSITE_REPORTS",
        value_name = "DIR",
        help = "Folder of the reports [default: $XDG_STATE_HOME/twinsite/drills, else ~/.local/state/twinsite/drills]"
    )]
    pub reports: Option<PathBuf>,
}

/// `drill list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `drill check`.
#[derive(Debug, Args)]
pub struct CheckFilesArguments {
    /// Scenario files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// On which cluster a drill is run.
#[derive(Debug, Clone, Args)]
pub struct ClusterArguments {
    /// In a lab: a network namespace for every host [default: as root, if a lab can be made]
    #[arg(long, conflicts_with_all = ["no_lab", "redis"])]
    pub lab: bool,
    /// As processes on loopback addresses
    #[arg(long)]
    pub no_lab: bool,
    /// The timings: lan or wan [default: those of the scenario, or lan]
    #[arg(long, value_enum)]
    pub profile: Option<ProfileArgument>,
    /// Keep session placement in the replicated state, without Redis
    #[arg(long)]
    pub embedded: bool,
    /// Use this Redis instead of starting one; on loopback addresses
    #[arg(long, value_name = "URL", conflicts_with = "embedded")]
    pub redis: Option<String>,
    /// Put the cluster's files and logs into this folder, and leave them there; drills have them in memory otherwise, if there
    /// is room (or where TMPDIR says)
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// What becomes of the report.
#[derive(Debug, Clone, Args)]
pub struct OutcomeArguments {
    /// Where reports are kept
    #[command(flatten)]
    pub archive: ArchiveArguments,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the report as JUnit XML to this file too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the report as a page to this file too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `drill run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo twinsite drill run scenarios/site-loss.toml
  twinsite drill run owner-frozen --no-lab --runs 20
  twinsite drill run switchover --profile wan --junit junit.xml --html report.html
  twinsite drill list                              which there are
  twinsite drill run switchover-and-back --live --plan
  twinsite drill run switchover-and-back --live
  twinsite drill run my-drill.toml --live --on wit-1

Starts a cluster of its own, puts clients on it, does what the scenario says, goes the way back, and takes everything
down again. Ctrl-C once, or `twinsite drill abort`, goes the way back at once and reports; Ctrl-C twice just ends.

With --live it breaks nothing: planned moves on the cluster that serves people, guards asked first, limits that end the
drill, and always the way back. There it runs on a node: Ctrl-C stops the watching only, `drill abort --live` ends it.

Exit codes: 0 everything held; 1 something did not, or the drill was aborted; 2 wrong usage or a wrong file; 5 something
came too late, but this machine itself stood still meanwhile (verdict `disturbed`): run it again.")]
pub struct RunArguments {
    /// A scenario by its name, or a .toml file
    #[arg(value_name = "NAME|FILE")]
    pub scenario: String,
    /// How often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// The cluster
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// The report
    #[command(flatten)]
    pub outcome: OutcomeArguments,
    /// The live cluster
    #[command(flatten)]
    pub live: LiveRunArguments,
}

/// A drill on the live cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "On the live cluster")]
pub struct LiveRunArguments {
    /// On the cluster that serves people, not on one of the drill's own
    #[arg(long, conflicts_with_all = ["lab", "no_lab", "profile", "embedded", "redis", "keep", "runs"])]
    pub live: bool,
    /// File that names the nodes and the certificates [default: ./client.toml, then /etc/twinsite/client.toml, then the
    /// running demo's]
    #[arg(long, env = "TWINSITE_CLIENT", value_name = "FILE")]
    pub client: Option<PathBuf>,
    /// Say what would be done and what forbids it, and do nothing
    #[arg(long, requires = "live")]
    pub plan: bool,
    /// The floating IP [default: the only one]
    #[arg(long, value_name = "NAME", requires = "live")]
    pub ip: Option<FloatingIpName>,
    /// The node that runs the drill and measures [default: the first that answers]
    #[arg(long, value_name = "NODE", requires = "live")]
    pub on: Option<String>,
}

/// `drill random`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo twinsite drill random --minutes 10
  sudo twinsite drill random --seed 4711 --minutes 30
  twinsite drill random --seed 4711 --minutes 5 --print > random-4711.toml

The same seed, minutes and cluster draw the same faults. The scenario is kept beside the report.")]
pub struct RandomArguments {
    /// From which everything is drawn [default: a new one, which is printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// About how long
    #[arg(long, value_name = "M", default_value_t = 5, value_parser = minutes)]
    pub minutes: u32,
    /// Only print the scenario
    #[arg(long)]
    pub print: bool,
    /// The cluster
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// The report
    #[command(flatten)]
    pub outcome: OutcomeArguments,
}

fn minutes(text: &str) -> Result<u32, String> {
    let minutes = text.parse().ok().filter(|minutes| MINUTES.contains(minutes));
    minutes.ok_or_else(|| format!("use {} to {}", MINUTES.start(), MINUTES.end()))
}

/// `drill abort`.
#[derive(Debug, Args)]
pub struct AbortDrillArguments {
    /// Where reports are kept
    #[command(flatten)]
    pub archive: ArchiveArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
    /// Why, for those who read the history
    #[arg(long, value_name = "TEXT", requires = "live", default_value = "")]
    pub reason: String,
}

/// `drill history`.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// Where reports are kept
    #[command(flatten)]
    pub archive: ArchiveArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Text,
    /// All of it, for machines
    Json,
    /// JUnit XML: a test case for each thing that must hold
    Junit,
    /// One page with the timeline drawn to scale, which needs nothing else
    Html,
}

impl ReportArguments {
    /// How it is shown.
    pub fn format(&self) -> ReportFormat {
        if self.json { ReportFormat::Json } else { self.format }
    }
}

/// `drill report`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite drill report
  twinsite drill report --format html -o report.html
  twinsite drill report 20261128T104421Z-site-loss --format json | jq .runs[].gap_ms
  twinsite drill report 1234 --live                as the cluster remembers it")]
pub struct ReportArguments {
    /// Which, as `drill history` names it [default: the newest]
    pub id: Option<String>,
    /// How it is shown
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub format: ReportFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write it to this file
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where reports are kept
    #[command(flatten)]
    pub archive: ArchiveArguments,
    /// Which cluster
    #[command(flatten)]
    pub live: LiveArguments,
}
