//! What can be typed after `twinsite apply` and `twinsite spec`.

use super::arguments::{ClientArguments, QueryArguments};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `apply`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite apply cluster.toml --dry-run
  twinsite apply cluster.toml")]
pub struct ApplyArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// The whole specification, as in `cluster.toml`
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// `spec`.
#[derive(Debug, Subcommand)]
pub enum SpecCommand {
    /// Print the specification as `cluster.toml` has it
    #[command(after_help = "Examples:
  twinsite spec show > cluster.toml
  twinsite spec show --revision 1234")]
    Show(SpecArguments),
    /// List what the specification was before
    #[command(after_help = "Examples:
  twinsite spec history
  twinsite spec history --json | jq .earlier")]
    History(QueryArguments),
    /// Agree on an earlier specification again, after a look at what that changes
    #[command(after_help = "Examples:
  twinsite spec rollback --dry-run
  twinsite spec rollback --revision 1234")]
    Rollback(RollbackArguments),
}

/// Which specification.
#[derive(Debug, Args)]
pub struct SpecArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// An earlier one, by the revision at which it was applied
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<u64>,
}

/// `spec rollback`.
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// How the cluster is reached
    #[command(flatten)]
    pub client: ClientArguments,
    /// The revision at which it was applied, as `twinsite spec history` lists it; without it, the one before this
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<u64>,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
}
