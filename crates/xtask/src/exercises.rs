//! The exercises, as the files in `scenarios/` say.

use crate::run::{TaskError, root, target};
use serde::Deserialize;
use std::fs;
use std::process::Command;

/// Those that are about what most users have seen happen: run with every store, and most often.
const CORE: [&str; 14] = [
    "leader-lost",
    "majority-lost",
    "one-way-cut",
    "owner-frozen",
    "owner-killed",
    "redis-flushed",
    "redis-lost",
    "rolling-restart",
    "site-isolated",
    "site-loss",
    "site-loss-with-leader",
    "switchover",
    "upstream-down",
    "witness-lost",
];
/// Of these, those that `cargo xtask test` runs with both stores; of the others with Redis alone.
const WITH_BOTH_STORES: [&str; 4] = ["owner-killed", "site-loss", "switchover", "upstream-down"];
/// Those beside the core that `cargo xtask test` runs: one of each kind. `cargo xtask accept` runs all.
const ALSO_IN_SAMPLE: [&str; 9] = [
    "breaker-open",
    "firewall-flushed",
    "guardian-killed",
    "host-cut",
    "host-frozen",
    "ipv6-host-cut",
    "node-paused",
    "policy-changed",
    "upstream-truncated",
];

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
    /// Whether it is one of those that are run most often.
    pub is_core: bool,
    /// Whether `cargo xtask test` runs it.
    pub is_in_sample: bool,
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

impl Scenario {
    /// What kills Redis needs one of its own.
    fn needs_redis(&self) -> bool {
        self.guards.store.as_deref() == Some("own-redis")
    }

    fn needs_lab(&self) -> bool {
        self.guards.network.as_deref() == Some("lab")
    }
}

/// All files in `scenarios/`, in the order of their names.
fn read() -> Result<Vec<Scenario>, TaskError> {
    let folder = root().join("scenarios");
    let failed = |path: &std::path::Path, source| TaskError::File { path: path.to_owned(), source };
    let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, error))?;
    let mut scenarios = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&folder, error))?.path();
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        let scenario: Scenario =
            toml::from_str(&text).map_err(|error| failed(&path, std::io::Error::other(error)))?;
        scenarios.push(scenario);
    }
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}

/// A scenario as `twinsite drill run` runs it: as root in a lab.
pub struct Drill {
    /// Its name.
    pub name: String,
    /// Whether it has timings of its own.
    own_timings: bool,
    /// Whether it cannot do without a lab.
    pub needs_lab: bool,
    /// Whether it cannot do without a Redis.
    pub needs_redis: bool,
}

/// Every scenario.
pub fn drills() -> Result<Vec<Drill>, TaskError> {
    let drill = |scenario: Scenario| Drill {
        needs_lab: scenario.needs_lab(),
        needs_redis: scenario.needs_redis(),
        own_timings: scenario.topology.profile.is_some(),
        name: scenario.name,
    };
    Ok(read()?.into_iter().map(drill).collect())
}

impl Drill {
    /// `twinsite drill run NAME`, with its reports where the build is.
    pub fn command(&self, runs: u32) -> Command {
        let mut command = Command::new(target().join("release/twinsite"));
        command.args(["drill", "run", &self.name, "--runs", &runs.to_string()]);
        if !self.own_timings {
            command.args(["--profile", "lan"]);
        }
        command.arg("--reports").arg(target().join("drills"));
        command
    }
}

/// Every exercise, those of the core with every store that they can run with, in the order of their names. Those named
/// `rooms` belong to the end-to-end tests, which look at each room from outside.
pub fn all() -> Result<Vec<Exercise>, TaskError> {
    let mut exercises = Vec::new();
    for scenario in read()? {
        if scenario.name.starts_with("rooms") {
            continue;
        }
        let (needs_redis, needs_lab) = (scenario.needs_redis(), scenario.needs_lab());
        let is_core = CORE.contains(&scenario.name.as_str());
        let stores: &[&str] = match (needs_redis, is_core) {
            (true, _) => &["redis"],
            (false, true) => &["redis", "embedded"],
            // What becomes of them is the same with either store.
            (false, false) => &["embedded"],
        };
        let name = scenario.name.as_str();
        let in_both = !is_core || WITH_BOTH_STORES.contains(&name);
        exercises.extend(stores.iter().map(|store| Exercise {
            name: name.to_owned(),
            store,
            own_timings: scenario.topology.profile.is_some(),
            needs_lab,
            is_core,
            is_in_sample: (is_core || ALSO_IN_SAMPLE.contains(&name)) && (in_both || *store == "redis"),
        }));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_a_list_is_an_exercise() {
        let all = all().unwrap();
        let named = |name: &str| all.iter().find(|exercise| exercise.name == name);
        for name in CORE.iter().chain(&WITH_BOTH_STORES).chain(&ALSO_IN_SAMPLE) {
            assert!(named(name).is_some(), "{name}");
        }
        assert!(WITH_BOTH_STORES.iter().all(|name| CORE.contains(name)));
        let in_sample = |name: &str| all.iter().any(|one| one.name == *name && one.is_in_sample);
        assert!(CORE.iter().chain(&ALSO_IN_SAMPLE).all(|name| in_sample(name)));
    }
}
