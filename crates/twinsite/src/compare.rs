//! twinsite beside keepalived in a lab: what `cargo xtask bench failover` runs.

use crate::cli::arguments::{CompareArguments, ProfileArgument};
use crate::cli::{CliError, Exit, output};
use crate::drill_api::DrillApi;
use crate::local_cluster::write_client_file;
use crate::signals::interrupted;
use std::sync::Arc;
use twinsite_drill::engine::{ApiError, ClusterApi};
use twinsite_drill::lab::Lab;
use twinsite_drill::process::{Cluster, Launcher};
use twinsite_drill::side_by_side::{self, Cause, Options, System};

/// Makes the lab and goes where its clients are, before there is a runtime with threads of its own.
pub fn enter_lab() -> Result<Option<Arc<Lab>>, CliError> {
    let lab = Lab::up(&side_by_side::layout(ProfileArgument::Lan.into()))?;
    lab.enter()?;
    Ok(Some(lab))
}

/// Measures, and prints the numbers as JSON. After Ctrl-C everything that was started ends, and nothing is printed.
pub async fn run(arguments: CompareArguments, lab: Option<Arc<Lab>>) -> Result<Exit, CliError> {
    let Some(lab) = lab else { return Ok(Exit::Refused) };
    let options = Options {
        runs: arguments.runs,
        systems: chosen("--system", &System::ALL, System::as_str, &arguments.system)?,
        causes: chosen("--cause", &Cause::ALL, Cause::as_str, &arguments.cause)?,
        launcher: Launcher::new(std::env::current_exe().map_err(CliError::Output)?),
    };
    let connect = |cluster: &Cluster| -> Result<Box<dyn ClusterApi>, ApiError> {
        let refused =
            |error: CliError| ApiError { message: error.to_string(), retryable: false, forbidden: false };
        let file = write_client_file(cluster.directory(), cluster.layout(), None).map_err(refused)?;
        Ok(Box::new(DrillApi::connect(&file, cluster.layout()).map_err(refused)?))
    };
    let mut tell = |now: &str| anstream::eprintln!("{now}");
    let comparison = tokio::select! {
        comparison = side_by_side::compare(&lab, &options, &connect, &mut tell) => comparison,
        () = interrupted() => return Ok(Exit::Refused),
    };
    output::line(&comparison.to_json().map_err(|error| CliError::Output(error.into()))?)?;
    Ok(if comparison.is_whole() { Exit::Done } else { Exit::Refused })
}

/// Those with these names, in their usual order; all of them if none is named.
fn chosen<T: Copy>(
    option: &str,
    all: &[T],
    name: fn(T) -> &'static str,
    wanted: &[String],
) -> Result<Vec<T>, CliError> {
    let known: Vec<_> = all.iter().map(|one| name(*one)).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !known.contains(&wanted.as_str())) {
        return Err(CliError::Usage(format!("{option} {unknown}: choose of {}", known.join(", "))));
    }
    let is_wanted = |one: &T| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name(*one));
    Ok(all.iter().copied().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_named_are_chosen() {
        let chosen = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            chosen("--cause", &Cause::ALL, Cause::as_str, &wanted)
        };
        assert_eq!(chosen(&[]).unwrap(), Cause::ALL);
        assert_eq!(chosen(&["planned", "host-cut"]).unwrap(), [Cause::HostCut, Cause::Planned]);
        let refused = chosen(&["flood"]).unwrap_err().to_string();
        assert!(refused.contains("--cause flood: choose of host-cut, killed, frozen, planned"), "{refused}");
    }
}
