//! `twinsite spec`: the agreed specification, what it was before, and the way back.

use super::apply::agree_on;
use super::arguments::QueryArguments;
use super::connect::connect;
use super::spec_arguments::{RollbackArguments, SpecArguments, SpecCommand};
use super::words::ago;
use super::{CliError, Exit, output};
use serde_json::{Value, json};
use twinsite_api::v1;
use twinsite_model::ClusterSpec;
use twinsite_model::spec::{self, diff};

/// Does what was asked for.
pub async fn run(command: &SpecCommand) -> Result<Exit, CliError> {
    match command {
        SpecCommand::Show(arguments) => show(arguments).await,
        SpecCommand::History(arguments) => history(arguments).await,
        SpecCommand::Rollback(arguments) => rollback(arguments).await,
    }
}

async fn show(arguments: &SpecArguments) -> Result<Exit, CliError> {
    let specs = connect(&arguments.client)?.specs().await?;
    let json = match arguments.revision {
        Some(revision) if revision != specs.spec_revision => &find(&specs, revision)?.spec_json,
        _ => &specs.spec_json,
    };
    let spec = read(json)?;
    if arguments.client.json {
        output::line(&String::from_utf8_lossy(&spec::to_json(&spec)))?;
    } else {
        let text =
            spec::to_toml(&spec).map_err(|error| CliError::Usage(format!("TOML cannot hold it: {error}")))?;
        output::line(text.trim_end())?;
    }
    Ok(Exit::Done)
}

async fn history(arguments: &QueryArguments) -> Result<Exit, CliError> {
    let specs = connect(&arguments.client)?.specs().await?;
    if arguments.client.json {
        let earlier = specs.earlier.iter().map(|earlier| {
            json!({
                "revision": earlier.revision,
                "until_ms": earlier.until_ms,
                "replaced_by": earlier.replaced_by,
                "spec": serde_json::from_str::<Value>(&earlier.spec_json).unwrap_or_default(),
            })
        });
        let earlier: Vec<_> = earlier.collect();
        output::json(&json!({ "revision": specs.spec_revision, "earlier": earlier }))?;
        return Ok(Exit::Done);
    }
    let mut table = output::table(&["REVISION", "REPLACED", "BY", "WHAT WAS CHANGED THEN"]);
    let mut next = specs.spec_json.clone();
    let mut rows = Vec::new();
    for earlier in specs.earlier.iter().rev() {
        let changed = diff::changes(&read(&earlier.spec_json)?, &read(&next)?);
        let first = changed.first().map(|change| change.key.clone()).unwrap_or_default();
        let more = changed.len().saturating_sub(1);
        let what = if more == 0 { first } else { format!("{first} and {more} more") };
        let replaced = format!("{} ago", ago(earlier.until_ms));
        rows.push([earlier.revision.to_string(), replaced, earlier.replaced_by.clone(), what]);
        next.clone_from(&earlier.spec_json);
    }
    for row in rows.into_iter().rev() {
        table.add_row(row);
    }
    table.add_row([specs.spec_revision.to_string(), "in force".to_owned(), String::new(), String::new()]);
    output::line(&table.to_string())?;
    Ok(Exit::Done)
}

async fn rollback(arguments: &RollbackArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let specs = client.specs().await?;
    let wanted = match arguments.revision {
        Some(revision) => find(&specs, revision)?,
        None => specs.earlier.last().ok_or_else(|| {
            CliError::Usage(
                "the cluster keeps no earlier specification: nothing was applied over another one".to_owned(),
            )
        })?,
    };
    agree_on(&client, &arguments.client, &read(&wanted.spec_json)?, arguments.dry_run).await
}

fn find(specs: &v1::ListSpecsResponse, revision: u64) -> Result<&v1::EarlierSpec, CliError> {
    specs.earlier.iter().find(|earlier| earlier.revision == revision).ok_or_else(|| {
        CliError::Usage(format!(
            "--revision {revision}: the cluster keeps none of it; see `twinsite spec history`"
        ))
    })
}

fn read(json: &str) -> Result<ClusterSpec, CliError> {
    spec::from_json(json.as_bytes()).map_err(|error| {
        CliError::Usage(format!("a specification of the cluster cannot be read here: {error}"))
    })
}
