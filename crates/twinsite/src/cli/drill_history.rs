//! `twinsite drill history` and `report`: what was measured before.

use super::drill::archive;
use super::drill_arguments::{HistoryArguments, ReportArguments, ReportFormat};
use super::{CliError, Exit, output};
use serde_json::json;
use std::fs;
use std::path::Path;
use twinsite_drill::archive::{self, Entry};
use twinsite_drill::engine::{Report, RunReport};

/// `twinsite drill history`.
pub fn list(arguments: &HistoryArguments) -> Result<Exit, CliError> {
    let entries = archive(&arguments.archive)?.entries()?;
    if arguments.json {
        output::json(&entries.iter().map(as_json).collect())?;
        return Ok(Exit::Done);
    }
    let mut table = output::table(&["WHEN (UTC)", "SCENARIO", "ON", "RUNS", "HTTP GAP", "VERDICT", "ID"]);
    for entry in &entries {
        match &entry.report {
            Ok(report) => {
                let gap = median(report, |run| run.gap_ms.http);
                table.add_row([
                    archive::utc(report.began_ms).replace('T', " ").replace('Z', ""),
                    report.scenario.clone(),
                    report.origin.as_str().to_owned(),
                    report.runs.len().to_string(),
                    gap.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                    report.verdict.as_str().to_owned(),
                    entry.id.clone(),
                ]);
            }
            // Named, and in the way of nothing.
            Err(error) => anstream::eprintln!("twinsite: {error}"),
        }
    }
    if entries.is_empty() {
        anstream::eprintln!("no drill has left a report yet; `twinsite drill run` makes one");
    } else {
        output::line(&table.to_string())?;
    }
    Ok(Exit::Done)
}

fn as_json(entry: &Entry) -> serde_json::Value {
    match &entry.report {
        Ok(report) => json!({
            "id": entry.id,
            "folder": entry.folder,
            "began_ms": report.began_ms,
            "scenario": report.scenario,
            "origin": report.origin,
            "profile": report.profile,
            "store": report.store,
            "verdict": report.verdict,
            "runs": report.runs.len(),
            "http_gap_ms": median(report, |run| run.gap_ms.http),
            "websocket_gap_ms": median(report, |run| run.gap_ms.websocket),
            "broken": report.broken,
        }),
        Err(error) => json!({ "id": entry.id, "folder": entry.folder, "error": error.to_string() }),
    }
}

/// The middle of all runs that have the number, the higher of two.
fn median(report: &Report, number: fn(&RunReport) -> Option<u64>) -> Option<u64> {
    let mut numbers: Vec<_> = report.runs.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

/// `twinsite drill report`.
pub fn show(arguments: &ReportArguments) -> Result<Exit, CliError> {
    let (_, report) = archive(&arguments.archive)?.find(arguments.id.as_deref())?;
    put(&report, arguments.format(), arguments.output.as_deref())
}

/// Prints a report, or writes it to a file.
pub fn put(report: &Report, format: ReportFormat, into: Option<&Path>) -> Result<Exit, CliError> {
    let text = match format {
        ReportFormat::Text => {
            let Some(file) = into else {
                report.write_text(&mut anstream::stdout()).map_err(CliError::Output)?;
                return Ok(Exit::Done);
            };
            let mut plain = anstream::StripStream::new(Vec::new());
            report.write_text(&mut plain).map_err(CliError::Output)?;
            return write(file, &plain.into_inner());
        }
        ReportFormat::Json => report.to_json().map_err(|error| CliError::Output(error.into()))?,
        ReportFormat::Junit => archive::junit(report),
        ReportFormat::Html => archive::page(report),
    };
    match into {
        Some(file) => write(file, text.as_bytes()),
        None => output::line(text.trim_end()).map(|()| Exit::Done),
    }
}

fn write(file: &Path, text: &[u8]) -> Result<Exit, CliError> {
    fs::write(file, text).map_err(|source| CliError::Write { path: file.to_owned(), source })?;
    Ok(Exit::Done)
}
