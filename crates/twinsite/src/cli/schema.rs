//! `twinsite schema`: file formats, for editors and other programs.

use super::{CliError, Exit, output};
use clap::{Args, ValueEnum};
use twinsite_drill::scenario;

/// `schema`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite schema scenario > scenario.schema.json

With `#:schema ./scenario.schema.json` in its first line, editors that know TOML check and complete a scenario.")]
pub struct SchemaArguments {
    /// The format
    #[arg(value_enum)]
    pub format: Format,
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The file that describes a drill
    Scenario,
}

/// `twinsite schema`.
pub fn run(arguments: &SchemaArguments) -> Result<Exit, CliError> {
    let schema = match arguments.format {
        Format::Scenario => scenario::json_schema(),
    };
    output::line(schema.trim_end()).map(|()| Exit::Done)
}
