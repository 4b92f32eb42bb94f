//! `drill run|abort|history|report --live`: drills on the cluster that serves people.

use super::connect::connect;
use super::live_drill_arguments::{
    AbortDrillArguments, DrillCommand, DrillHistoryArguments, DrillReportArguments, RunDrillArguments,
};
use super::live_drill_text::{drill_json, history_text, preview_json, preview_text, progress_text};
use super::upkeep::done;
use super::{CliError, Exit, output, words};
use crate::cluster_here::Progress;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use twinsite_api::client::WantedDrill;
use twinsite_api::v1::{self, run_drill_response::Message};
use twinsite_api::{ApiError, Client};
use twinsite_drill::engine::Report;
use twinsite_drill::scenario::{FILE_BYTES_MAX, builtin};
use twinsite_model::{DrillId, FloatingIpName};

/// `twinsite drill ... --live`.
pub async fn run(command: &DrillCommand) -> Result<Exit, CliError> {
    match command {
        DrillCommand::Run(arguments) => run_drill(arguments).await,
        DrillCommand::Abort(arguments) => abort(arguments).await,
        DrillCommand::History(arguments) => history(arguments).await,
        DrillCommand::Report(arguments) => report(arguments).await,
    }
}

async fn run_drill(arguments: &RunDrillArguments) -> Result<Exit, CliError> {
    let (file, scenario) = scenario(&arguments.scenario)?;
    let client = connect(&arguments.client)?;
    let on = match &arguments.on {
        Some(node) => Some(api_address(&client, node).await?),
        None => None,
    };
    let wanted = WantedDrill {
        scenario,
        file,
        ip: arguments.ip.as_ref().map(FloatingIpName::to_string),
        dry_run: arguments.plan,
        on,
    };
    let mut messages = client.run_drill(&wanted).await?;
    let json = arguments.client.json;
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
            Message::Preview(preview) if arguments.plan => {
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
                show_report(&drill, json)?;
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

/// A file that exists, or an exercise of the program, with what messages call it.
fn scenario(named: &str) -> Result<(String, String), CliError> {
    let path = Path::new(named);
    if !path.exists() {
        return match builtin(named) {
            Ok(builtin) => Ok((format!("{named}.toml"), builtin.text.to_owned())),
            Err(_) => Err(CliError::Usage(format!(
                "{named}: there is no such file, and no such exercise; `switchover-and-back` and `leader-handover` \
                 are made for live clusters"
            ))),
        };
    }
    let unreadable = |problem: String| CliError::Usage(format!("{named}: {problem}"));
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("larger than {FILE_BYTES_MAX} bytes; a scenario is a page of text")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let name = path.file_name().map_or_else(|| named.to_owned(), |name| name.to_string_lossy().into_owned());
    Ok((name, text))
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

async fn abort(arguments: &AbortDrillArguments) -> Result<Exit, CliError> {
    let revision = connect(&arguments.client)?.abort_drill(&arguments.reason).await?;
    let text = "the drill is to end; it goes the way back first: `twinsite drill history --live`";
    done(&arguments.client, revision, text)
}

async fn history(arguments: &DrillHistoryArguments) -> Result<Exit, CliError> {
    let drills = connect(&arguments.client)?.drills().await?;
    if arguments.client.json {
        output::json(&Value::Array(drills.iter().map(drill_json).collect()))?;
    } else if drills.is_empty() {
        output::line("there was no drill yet")?;
    } else {
        output::line(&history_text(&drills))?;
    }
    Ok(Exit::Done)
}

async fn report(arguments: &DrillReportArguments) -> Result<Exit, CliError> {
    let drill = connect(&arguments.client)?.drill(arguments.drill.map(DrillId)).await?;
    show_report(&drill, arguments.client.json)?;
    Ok(Exit::Done)
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
