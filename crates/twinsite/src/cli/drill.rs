//! `twinsite drill`: which subcommand, and where the reports are.

use super::arguments::ClientArguments;
use super::drill_arguments::{ArchiveArguments, DrillCommand, LiveRunArguments, ReportFormat};
use super::{
    CliError, Exit, connect, drill_check, drill_history, drill_random, drill_run, live_drill, runtime,
};
use std::env;
use std::path::PathBuf;
use std::time::Duration;
use twinsite_drill::archive::Archive;

/// `twinsite drill`.
pub fn run(command: &DrillCommand) -> Result<Exit, CliError> {
    match command {
        DrillCommand::List(arguments) => crate::scenarios::list("DRILL", arguments.json),
        DrillCommand::Check(arguments) => drill_check::run(arguments),
        DrillCommand::Run(arguments) if arguments.live.live => {
            let LiveRunArguments { client, .. } = &arguments.live;
            let client = ClientArguments { client: client.clone(), json: arguments.outcome.json };
            on_live(&client, live_drill::run(arguments, &client))
        }
        DrillCommand::Abort(arguments) if arguments.live.live => {
            let client = arguments.live.client(false);
            on_live(&client, live_drill::abort(arguments, &client))
        }
        DrillCommand::History(arguments) if arguments.live.live => {
            let client = arguments.live.client(arguments.json);
            on_live(&client, live_drill::history(&client))
        }
        DrillCommand::Report(arguments) if arguments.live.live => {
            let client = arguments.live.client(arguments.format() == ReportFormat::Json);
            on_live(&client, live_drill::report(arguments, &client))
        }
        DrillCommand::Run(arguments) => drill_run::run(arguments),
        DrillCommand::Random(arguments) => drill_random::run(arguments),
        DrillCommand::Abort(arguments) => drill_run::abort(arguments),
        DrillCommand::History(arguments) => drill_history::list(arguments),
        DrillCommand::Report(arguments) => drill_history::show(arguments),
    }
}

/// Asks the cluster that serves people.
fn on_live(
    client: &ClientArguments,
    work: impl Future<Output = Result<Exit, CliError>>,
) -> Result<Exit, CliError> {
    connect::enter_by(client)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// The archive that is meant.
pub fn archive(arguments: &ArchiveArguments) -> Result<Archive, CliError> {
    if let Some(folder) = &arguments.reports {
        return Ok(Archive::at(folder));
    }
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state"));
    // One that is not absolute is to be ignored, says its specification.
    let state =
        env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    let missing = || {
        let problem =
            "neither HOME nor XDG_STATE_HOME says where reports are kept: name a folder with --reports DIR";
        CliError::Usage(problem.to_owned())
    };
    Ok(Archive::at(state.ok_or_else(missing)?.join("twinsite/drills")))
}
