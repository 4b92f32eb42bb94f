//! Standard output: results for people or for programs, and nothing else.

use super::CliError;
use comfy_table::{Table, presets};
use std::io::{self, Write};

/// Prints one line. A reader that went away (`| head`) is no error.
pub fn line(text: &str) -> Result<(), CliError> {
    forgive_closed(writeln!(anstream::stdout(), "{text}"))
}

/// Prints one JSON document on a line of its own.
pub fn json(value: &serde_json::Value) -> Result<(), CliError> {
    line(&value.to_string())
}

fn forgive_closed(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::Output),
    }
}

/// A table without lines, that a person can read and `awk` can split.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}
