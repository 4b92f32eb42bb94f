//! Which scenario is meant: one that comes with the program, by its name, or a file.

use crate::cli::{CliError, Exit, output};
use std::path::Path;
use twinsite_drill::scenario::{self, NetworkNeeded, Scenario, ScenarioError, StoreNeeded};

/// A scenario, and as it is written.
pub struct Chosen {
    /// As it is run.
    pub scenario: Scenario,
    /// As it is kept beside its report.
    pub text: String,
}

/// A scenario by its name or its file.
pub fn load(name: &str) -> Result<Chosen, CliError> {
    let in_one_line = |errors: Vec<ScenarioError>| {
        CliError::Usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
        let text = Scenario::read(Path::new(name)).map_err(in_one_line)?;
        let scenario = Scenario::parse(name, &text).map_err(in_one_line)?;
        return Ok(Chosen { scenario, text });
    }
    match scenario::builtin(name) {
        Ok(builtin) => {
            let scenario = builtin.scenario().map_err(in_one_line)?;
            Ok(Chosen { scenario, text: builtin.text.to_owned() })
        }
        Err(known) => {
            let known = known.join(", ");
            Err(CliError::Usage(format!(
                "there is no exercise `{name}`; there are: {known}; or name a .toml file"
            )))
        }
    }
}

/// Prints those that come with the program, under this heading.
pub fn list(heading: &str, json: bool) -> Result<Exit, CliError> {
    let all: Vec<_> = scenario::builtins()
        .iter()
        .filter_map(|builtin| Some((builtin.name, builtin.scenario().ok()?)))
        .collect();
    if json {
        let entry = |(name, scenario): &(&str, Scenario)| {
            serde_json::json!({
                "name": name,
                "description": scenario.description,
                "needs_lab": needs_lab(scenario),
                "needs_redis": scenario.guards.store == StoreNeeded::OwnRedis,
            })
        };
        output::json(&all.iter().map(entry).collect())?;
    } else {
        let mut table = output::table(&[heading, "WHAT HAPPENS"]);
        for (name, scenario) in &all {
            let needs = if needs_lab(scenario) { " (needs a lab)" } else { "" };
            table.add_row([*name, &format!("{}{needs}", scenario.description)]);
        }
        output::line(&table.to_string())?;
    }
    Ok(Exit::Done)
}

/// Whether it is about packets on a network.
pub fn needs_lab(scenario: &Scenario) -> bool {
    scenario.guards.network == NetworkNeeded::Lab
}
