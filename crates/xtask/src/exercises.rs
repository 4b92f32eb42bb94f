//! The exercises, as the files in `scenarios/` say.

use crate::run::{TaskError, root, target};
use serde::Deserialize;
use std::fs;
use std::process::Command;

/// Runs of an exercise with one store.
pub struct Exercise {
    /// Its name, which is also its file's.
    pub name: String,
    /// Where sessions are kept.
    pub store: &'static str,
    /// Whether it has timings of its own.
    own_timings: bool,
    /// Whether it needs a lab.
    pub needs_lab: bool,
}

/// What is read of a scenario here.
#[derive(Deserialize)]
struct Scenario {
    name: String,
    #[serde(default)]
    guards: Guards,
    #[serde(default)]
    topology: Topology,
}

#[derive(Default, Deserialize)]
struct Topology {
    profile: Option<String>,
}

#[derive(Default, Deserialize)]
struct Guards {
    store: Option<String>,
    network: Option<String>,
}

/// Every exercise with every store that it can run with, in the order of their names. Those named `rooms` belong to
/// the end-to-end tests, which look at each room from outside.
pub fn all() -> Result<Vec<Exercise>, TaskError> {
    let folder = root().join("scenarios");
    let failed = |path: &std::path::Path, source| TaskError::File { path: path.to_owned(), source };
    let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, error))?;
    let mut exercises = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&folder, error))?.path();
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        let scenario: Scenario =
            toml::from_str(&text).map_err(|error| failed(&path, std::io::Error::other(error)))?;
        if scenario.name.starts_with("rooms") {
            continue;
        }
        // What kills Redis needs one of its own.
        let needs_redis = scenario.guards.store.as_deref() == Some("own-redis");
        let needs_lab = scenario.guards.network.as_deref() == Some("lab");
        let stores: &[&str] = match (needs_redis, needs_lab) {
            (true, _) => &["redis"],
            // What becomes of packets is the same with either store, and these take long.
            (false, true) => &["embedded"],
            (false, false) => &["redis", "embedded"],
        };
        exercises.extend(stores.iter().map(|store| Exercise {
            name: scenario.name.clone(),
            store,
            own_timings: scenario.topology.profile.is_some(),
            needs_lab,
        }));
    }
    exercises.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(exercises)
}

impl Exercise {
    /// `twinsite demo --exercise NAME`, as a user would type it.
    pub fn command(&self, runs: u32) -> Command {
        let mut command = Command::new(target().join("release/twinsite"));
        command.args(["demo", "--exercise", &self.name, "--runs", &runs.to_string()]);
        if !self.own_timings {
            command.args(["--profile", "lan"]);
        }
        if self.needs_lab {
            command.arg("--lab");
        }
        if self.store == "embedded" {
            command.arg("--embedded");
        }
        command
    }
}
