//! `twinsite apply`: the specification in a file becomes the agreed one, after a look at what that changes.

use super::arguments::ClientArguments;
use super::connect::connect;
use super::spec_arguments::ApplyArguments;
use super::upkeep::done;
use super::{CliError, Exit, output};
use crate::config::ConfigError;
use serde_json::{Value, json};
use std::fs;
use twinsite_api::{ApiError, Client, Reason};
use twinsite_model::Revision;
use twinsite_model::spec::diff::{Change, changes};
use twinsite_model::spec::{self, ClusterSpec, validate};

/// How often the change is tried anew when something else of the cluster has changed meanwhile.
const TRIES: usize = 10;

/// Shows what would change, and changes it unless it is only to be shown.
pub async fn run(arguments: &ApplyArguments) -> Result<Exit, CliError> {
    let wanted = read(arguments)?;
    let client = connect(&arguments.client)?;
    agree_on(&client, &arguments.client, &wanted, arguments.dry_run).await
}

/// Shows what a specification would change, and has it agreed on unless it is only to be shown.
pub async fn agree_on(
    client: &Client,
    arguments: &ClientArguments,
    wanted: &ClusterSpec,
    dry_run: bool,
) -> Result<Exit, CliError> {
    let (former, revision) = agreed(client).await?;
    let found = changes(&former, wanted);
    // A program that asks what would change is told in the same form that nothing does.
    if found.is_empty() && !(dry_run && arguments.json) {
        return done(arguments, revision, "nothing changes: this is what the cluster has agreed on");
    }
    show(arguments, dry_run, &found, wanted, revision)?;
    if dry_run {
        return Ok(Exit::Done);
    }
    let applied = apply(client, &former, wanted, revision).await?;
    done(arguments, applied, &format!("applied: {}", counted(&found)))
}

fn read(arguments: &ApplyArguments) -> Result<ClusterSpec, CliError> {
    let path = || arguments.file.clone();
    let text =
        fs::read_to_string(&arguments.file).map_err(|source| ConfigError::Read { path: path(), source })?;
    Ok(spec::from_toml(&text).map_err(|source| ConfigError::Spec { path: path(), source })?)
}

/// What the cluster has agreed on, and at which revision it was seen.
async fn agreed(client: &Client) -> Result<(ClusterSpec, Revision), CliError> {
    let state = client.state().await?.state.unwrap_or_default();
    let spec = spec::from_json(state.spec_json.as_bytes()).map_err(|error| {
        CliError::Usage(format!("the cluster's specification cannot be read here: {error}"))
    })?;
    Ok((spec, Revision(state.revision)))
}

fn show(
    arguments: &ClientArguments,
    dry_run: bool,
    found: &[Change],
    wanted: &ClusterSpec,
    revision: Revision,
) -> Result<(), CliError> {
    let warnings: Vec<_> = validate::warnings(wanted).iter().map(ToString::to_string).collect();
    if arguments.json {
        if !dry_run {
            return Ok(());
        }
        let all = found
            .iter()
            .map(|change| json!({ "key": change.key, "before": change.before, "after": change.after }));
        let changes = Value::Array(all.collect());
        return output::json(&json!({ "revision": revision.0, "changes": changes, "warnings": warnings }));
    }
    for change in found {
        output::line(&change.to_string())?;
    }
    for warning in warnings {
        anstream::eprintln!("warning: {warning}");
    }
    if dry_run {
        output::line(&format!("{}; nothing was changed (--dry-run)", counted(found)))?;
    }
    Ok(())
}

fn counted(found: &[Change]) -> String {
    match found.len() {
        1 => "1 change".to_owned(),
        more => format!("{more} changes"),
    }
}

/// Applies what was shown, and nothing else: if somebody has changed the specification since, it is left as it is.
async fn apply(
    client: &Client,
    former: &ClusterSpec,
    wanted: &ClusterSpec,
    seen: Revision,
) -> Result<Revision, CliError> {
    let json = String::from_utf8_lossy(&spec::to_json(wanted)).into_owned();
    let mut revision = seen;
    for _ in 0..TRIES {
        match client.apply_spec(json.clone(), Some(revision)).await {
            Err(error) if is_stale(&error) => {}
            applied => return Ok(applied?),
        }
        let (now, at) = agreed(client).await?;
        if now != *former {
            let problem = "somebody else has changed the specification meanwhile, and nothing of yours was applied; \
                           look at it with --dry-run and apply again";
            return Err(CliError::Usage(problem.to_owned()));
        }
        revision = at;
    }
    let problem = "the cluster changes so fast that nothing could be applied; try again in a moment";
    Err(CliError::Usage(problem.to_owned()))
}

/// Whether only the revision was another one.
fn is_stale(error: &ApiError) -> bool {
    error.reason == Reason::RevisionMismatch
}
