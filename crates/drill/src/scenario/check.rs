//! Reading a scenario, and saying what is wrong with it: file, line, key, remedy.

use super::steps::{Action, Processes};
use super::target::{InstanceTarget, NodeTarget};
use super::{FORMAT_VERSION, NetworkNeeded, Scenario, StoreNeeded};
use crate::wan::Percent;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// The longest single pause or observation in a scenario.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// One thing that is wrong with a scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScenarioError {
    /// The file.
    pub file: String,
    /// Line and column, from 1, if one place can be named.
    pub place: Option<(usize, usize)>,
    /// The key, if one can be named.
    pub key: Option<String>,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl ScenarioError {
    pub(super) fn whole(file: &str, problem: String) -> Self {
        Self { file: file.to_owned(), place: None, key: None, problem }
    }
}

pub(super) fn parse(file: &str, text: &str) -> Result<Scenario, Vec<ScenarioError>> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        vec![ScenarioError {
            file: file.to_owned(),
            place: error.span().map(|span| place(text, &span)),
            key: None,
            problem: error.message().replace('\n', " "),
        }]
    })?;
    let mut findings = Findings { file, text, errors: Vec::new() };
    findings.look_at(&scenario);
    if findings.errors.is_empty() { Ok(scenario) } else { Err(findings.errors) }
}

fn place(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    errors: Vec<ScenarioError>,
}

impl Findings<'_> {
    fn add(&mut self, span: Option<Range<usize>>, key: &str, problem: impl Into<String>) {
        self.errors.push(ScenarioError {
            file: self.file.to_owned(),
            place: span.map(|span| place(self.text, &span)),
            key: Some(key.to_owned()),
            problem: problem.into(),
        });
    }

    /// The place of a key, found by its name: for values that do not carry their place themselves.
    fn find(&self, key: &str) -> Option<Range<usize>> {
        let at = self.text.lines().scan(0, |offset, line| {
            let start = *offset;
            *offset += line.len() + 1;
            Some((start, line))
        });
        let is_key = |line: &str| {
            line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        at.into_iter().find(|(_, line)| is_key(line)).map(|(start, line)| start..start + line.len())
    }

    fn look_at(&mut self, scenario: &Scenario) {
        let version = *scenario.version.get_ref();
        if version != FORMAT_VERSION {
            let problem = format!(
                "{version}: this program reads version {FORMAT_VERSION}; use a newer program, or write the older format"
            );
            self.add(Some(scenario.version.span()), "version", problem);
        }
        let name = scenario.name.get_ref();
        let well_formed = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !well_formed {
            self.add(Some(scenario.name.span()), "name", "use 1 to 64 of a-z, 0-9 and `-`");
        }
        self.look_at_numbers(scenario);
        self.look_at_steps(scenario);
    }

    fn look_at_numbers(&mut self, scenario: &Scenario) {
        for (key, value) in [
            ("nodes_per_site", scenario.topology.nodes_per_site),
            ("instances_per_site", scenario.topology.instances_per_site),
        ] {
            if !(1..=8).contains(&value) {
                self.add(self.find(key), key, format!("{value}: use 1 to 8"));
            }
        }
        let load = &scenario.load;
        for (key, value, max) in [
            ("http_clients", load.http_clients, 500),
            ("participants", load.participants, 5_000),
            ("rooms", load.rooms, 5_000),
        ] {
            if value > max {
                self.add(self.find(key), key, format!("{value}: use at most {max}"));
            }
        }
        if load.participants > 0 && load.rooms == 0 {
            self.add(self.find("rooms"), "rooms", "0: participants need at least one room");
        }
        for (key, value, min) in [
            ("http_pause", load.http_pause.0, 1),
            ("connect_every", load.connect_every.0, 1),
            ("say_every", load.say_every.0, 10),
            ("silence_max", load.silence_max.0, 100),
            ("reconnect", load.reconnect.0, 1),
        ] {
            if value < Duration::from_millis(min) || value > PAUSE_MAX {
                self.add(self.find(key), key, format!("use {min}ms to 1h"));
            }
        }
        let limits = &scenario.limits;
        let websocket = [
            ("websocket_gap", limits.websocket_gap.is_some()),
            ("tunnels_back", limits.tunnels_back.is_some()),
        ];
        for (key, limited) in websocket {
            if limited && load.participants == 0 {
                self.add(self.find(key), key, "there are no participants; set load.participants");
            }
        }
    }

    fn look_at_steps(&mut self, scenario: &Scenario) {
        if scenario.steps.is_empty() {
            self.add(None, "step", "there is none; write at least one [[step]]");
        }
        let (mut nodes_hit, mut instances_hit) = (false, false);
        for (number, step) in scenario.steps.iter().enumerate() {
            let (span, step) = (Some(step.span()), step.get_ref());
            let key = |part: &str| format!("step {}{part}", number + 1);
            if step.after.0 > PAUSE_MAX {
                self.add(span.clone(), &key(".after"), "use at most 1h");
            }
            match &step.action {
                Action::Redis(_) if scenario.guards.store != StoreNeeded::OwnRedis => {
                    let problem = "this needs a Redis of the drill's own; set guards.store = \"own-redis\"";
                    self.add(span, &key(".do.redis"), problem);
                }
                Action::Kill(processes)
                | Action::Freeze(processes)
                | Action::Thaw(processes)
                | Action::Stop(processes)
                | Action::Start(processes) => {
                    if *processes == Processes::default() {
                        let problem = "names nobody; write nodes, guardians or instances";
                        self.add(span.clone(), &key(".do"), problem);
                    }
                    let of_nodes = [&processes.nodes, &processes.guardians];
                    let of_nodes: Vec<_> = of_nodes.into_iter().flatten().collect();
                    if of_nodes.contains(&&NodeTarget::Victims) && !nodes_hit {
                        self.add(span.clone(), &key(".do"), "no earlier step has hit a node");
                    }
                    if processes.instances == Some(InstanceTarget::Victims) && !instances_hit {
                        self.add(span, &key(".do"), "no earlier step has hit an instance");
                    }
                    if !matches!(step.action, Action::Thaw(_) | Action::Start(_)) {
                        nodes_hit |= !of_nodes.is_empty();
                        instances_hit |= processes.instances.is_some();
                    }
                }
                Action::Cut(cut) if cut.from == cut.to => {
                    self.add(span, &key(".do.cut"), "from and to are the same site");
                }
                Action::Shape(shaping) if shaping.from == shaping.to => {
                    self.add(span, &key(".do.shape"), "from and to are the same site");
                }
                Action::Shape(shaping)
                    if shaping.loss_percent != Percent::ZERO
                        && scenario.guards.network != NetworkNeeded::Lab =>
                {
                    let problem = "packets are lost only in a lab; set guards.network = \"lab\"";
                    self.add(span, &key(".do.shape.loss_percent"), problem);
                }
                _ => {}
            }
        }
    }
}
