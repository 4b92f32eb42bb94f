//! `drill run|abort|history|report --live`: drills on the cluster that serves people.

use super::arguments::ClientArguments;
use super::connect::connect;
use super::drill_arguments::{
    AbortDrillArguments, LiveRunArguments, ReportArguments, ReportFormat, RunArguments,
};
use super::drill_run::Reports;
use super::live_drill_text::{drill_json, history_text, preview_json, preview_text, progress_text};
use super::upkeep::done;
use super::{CliError, Exit, drill_history, output, words};
use crate::progress::Progress;
use crate::scenarios;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use twinsite_api::client::WantedDrill;
use twinsite_api::v1::{self, run_drill_response::Message};
use twinsite_api::{ApiError, Client};
use twinsite_drill::engine::Report;
use twinsite_model::{DrillId, FloatingIpName};

/// `twinsite drill run --live`.
pub async fn run(arguments: &RunArguments, client: &ClientArguments) -> Result<Exit, CliError> {
    let chosen = scenarios::load(&arguments.scenario)?;
    let LiveRunArguments { plan, ip, on, .. } = &arguments.live;
    let mut reports = Reports::open(&arguments.outcome)?;
    let json = client.json;
    let client = connect(client)?;
    let on = match on {
        Some(node) => Some(api_address(&client, node).await?),
        None => None,
    };
    let wanted = WantedDrill {
        scenario: chosen.text.clone(),
        file: file_name(&arguments.scenario),
        ip: ip.as_ref().map(FloatingIpName::to_string),
        dry_run: *plan,
        on,
    };
    let mut messages = client.run_drill(&wanted).await?;
    let progress = Progress::new();
    let (mut begun, mut said) = (None, (String::new(), String::new()));
    loop {
        let message = messages.message().await;
        let message = message.map_err(|status| watching_ended(begun, ApiError::from(status)))?;
        let Some(message) = message.and_then(|message| message.message) else {
            progress.end();
            if begun.is_none() {
                return Ok(Exit::Done);
            }
            return Err(watching_ended(
                begun,
                ApiError::new(twinsite_api::Reason::Unavailable, "it ended early"),
            ));
        };
        match message {
            Message::Preview(preview) if *plan => {
                progress.end();
                return show_preview(&preview, json);
            }
            Message::Preview(preview) if !json => anstream::eprintln!("{}", preview_text(&preview, false)),
            Message::Accepted(accepted) => {
                begun = Some(accepted.drill);
                if !json {
                    let until = words::time(accepted.until_ms);
                    progress.say(&format!("drill {} begins; it ends until {until}", accepted.drill));
                }
            }
            Message::Progress(seen) if !json => {
                // A log gets a line for what is new, a terminal every number.
                let new = (seen.what.clone(), seen.aborting.clone());
                if new == said {
                    progress.hint(&progress_text(&seen));
                } else {
                    progress.say(&progress_text(&seen));
                    said = new;
                }
            }
            Message::Preview(_) | Message::Progress(_) => {}
            Message::Finished(finished) => {
                progress.end();
                let drill = finished.drill.unwrap_or_default();
                let report: Option<Report> = serde_json::from_str(&drill.report_json).ok();
                show_report(&drill, json)?;
                if let Some(report) = report {
                    reports.keep(&report, &chosen.text)?;
                    reports.say_where();
                }
                let good = drill.outcome() == v1::DrillOutcome::Passed;
                return Ok(if good { Exit::Done } else { Exit::Refused });
            }
        }
    }
}

/// The drill goes on, or is ended by its time; only nobody tells.
fn watching_ended(begun: Option<u64>, error: ApiError) -> CliError {
    let Some(drill) = begun else { return error.into() };
    CliError::Unreachable(format!(
        "the node that runs drill {drill} tells no more ({error}); `twinsite drill history --live` shows how it ends"
    ))
}

/// What messages about the scenario call it.
fn file_name(named: &str) -> String {
    let name = Path::new(named).file_name().map_or_else(|| named.into(), |name| name.to_string_lossy());
    if name.ends_with(".toml") { name.into_owned() } else { format!("{name}.toml") }
}

async fn api_address(client: &Client, node: &str) -> Result<SocketAddr, CliError> {
    let state = client.state().await?.state.unwrap_or_default();
    let known = state.nodes.iter().find(|known| known.name == node);
    let address = known.and_then(|known| known.api_address.parse().ok());
    address.ok_or_else(|| {
        let names: Vec<_> = state.nodes.iter().map(|node| node.name.as_str()).collect();
        CliError::Usage(format!("--on {node}: there is no such node; there are: {}", names.join(", ")))
    })
}

fn show_preview(preview: &v1::DrillPreview, json: bool) -> Result<Exit, CliError> {
    if json {
        output::json(&preview_json(preview))?;
    } else {
        output::line(&preview_text(preview, true))?;
    }
    let holds = preview.guards.iter().all(|guard| guard.holds);
    Ok(if holds { Exit::Done } else { Exit::Refused })
}

/// `twinsite drill abort --live`.
pub async fn abort(arguments: &AbortDrillArguments, client: &ClientArguments) -> Result<Exit, CliError> {
    let revision = connect(client)?.abort_drill(&arguments.reason).await?;
    done(client, revision, "the drill is to end; it goes the way back first: `twinsite drill history --live`")
}

/// `twinsite drill history --live`.
pub async fn history(client: &ClientArguments) -> Result<Exit, CliError> {
    let drills = connect(client)?.drills().await?;
    if client.json {
        output::json(&Value::Array(drills.iter().map(drill_json).collect()))?;
    } else if drills.is_empty() {
        output::line("there was no drill yet")?;
    } else {
        output::line(&history_text(&drills))?;
    }
    Ok(Exit::Done)
}

/// `twinsite drill report --live`.
pub async fn report(arguments: &ReportArguments, client: &ClientArguments) -> Result<Exit, CliError> {
    let id = arguments.id.as_deref().map(|id| {
        let problem = || {
            CliError::Usage(format!(
                "{id}: the cluster's drills have numbers; see `twinsite drill history --live`"
            ))
        };
        id.parse().map(DrillId).map_err(|_| problem())
    });
    let drill = connect(client)?.drill(id.transpose()?).await?;
    let plain =
        arguments.output.is_none() && matches!(arguments.format(), ReportFormat::Text | ReportFormat::Json);
    if plain {
        show_report(&drill, client.json)?;
        return Ok(Exit::Done);
    }
    let report = serde_json::from_str(&drill.report_json).map_err(|error| {
        CliError::Refused(format!("drill {} has no report that this program can read: {error}", drill.id))
    })?;
    drill_history::put(&report, arguments.format(), arguments.output.as_deref())
}

/// The drill with its report, if it has one.
fn show_report(drill: &v1::Drill, json: bool) -> Result<(), CliError> {
    let report: Option<Value> = serde_json::from_str(&drill.report_json).ok();
    if json {
        let mut value = drill_json(drill);
        value["report"] = json!(report);
        return output::json(&value);
    }
    output::line(&history_text(std::slice::from_ref(drill)))?;
    // One that a newer program wrote is shown as it is.
    match report.map(serde_json::from_value::<Report>) {
        Some(Ok(report)) => {
            output::line("")?;
            report.write_text(&mut anstream::stdout()).map_err(CliError::Output)
        }
        Some(Err(_)) => output::line(&drill.report_json),
        None => Ok(()),
    }
}
