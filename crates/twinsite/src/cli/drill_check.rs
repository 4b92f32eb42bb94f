//! `twinsite drill check`: everything that is wrong with scenario files.

use super::drill_arguments::CheckFilesArguments;
use super::{CliError, Exit, output};
use serde_json::json;
use twinsite_drill::scenario::{Scenario, ScenarioError};

/// `twinsite drill check`.
pub fn run(arguments: &CheckFilesArguments) -> Result<Exit, CliError> {
    let found: Vec<_> = arguments.files.iter().map(|file| (file, Scenario::load(file))).collect();
    if arguments.json {
        let entry = |(file, loaded): &(_, Result<Scenario, Vec<ScenarioError>>)| {
            let errors: Vec<_> = loaded.as_ref().err().into_iter().flatten().map(as_json).collect();
            let name = loaded.as_ref().ok().map(Scenario::name);
            json!({ "file": file, "right": loaded.is_ok(), "name": name, "errors": errors })
        };
        output::json(&found.iter().map(entry).collect())?;
    } else {
        for (file, loaded) in &found {
            match loaded {
                Ok(scenario) => {
                    let steps = match scenario.steps().count() {
                        1 => "1 step".to_owned(),
                        steps => format!("{steps} steps"),
                    };
                    output::line(&format!("{}: right: `{}`, {steps}", file.display(), scenario.name()))?;
                }
                Err(errors) => {
                    for error in errors {
                        output::line(&error.to_string())?;
                    }
                }
            }
        }
    }
    Ok(if found.iter().all(|(_, loaded)| loaded.is_ok()) { Exit::Done } else { Exit::Wrong })
}

fn as_json(error: &ScenarioError) -> serde_json::Value {
    json!({
        "line": error.place.map(|(line, _)| line),
        "column": error.place.map(|(_, column)| column),
        "key": error.key,
        "problem": error.problem,
    })
}
