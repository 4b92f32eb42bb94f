//! Reading a scenario, and saying what is wrong with it: file, line, key, remedy.

use super::limit::Limit;
use super::steps::{Action, Hosts, Processes, Repeat, SpecChange, Step};
use super::target::{InstanceTarget, NodeTarget};
use super::{FORMAT_VERSION, NetworkNeeded, Scenario, StoreNeeded};
use crate::layout::Family;
use crate::wan::Percent;
use std::fmt;
use std::ops::Range;
use std::time::Duration;
use twinsite_model::{Profile, Timing};

/// The longest single pause or observation in a scenario.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// How often a step may be repeated.
const TIMES_MAX: u32 = 1_000;
/// The smallest and the largest file system of a node's own: its database begins with some MiB, and it is in memory.
const DISK_MIB: std::ops::RangeInclusive<u32> = 8..=256;

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
            key: error.span().and_then(|span| key(text, span.start)),
            problem: error.message().replace('\n', " "),
        }]
    })?;
    let mut findings = Findings { file, text, errors: Vec::new() };
    findings.look_at(&scenario);
    if findings.errors.is_empty() { Ok(scenario) } else { Err(findings.errors) }
}

pub(crate) fn place(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// The key on the line of a place, after the table that the line is in: for what is no scenario at all, where nothing
/// else says it.
fn key(text: &str, at: usize) -> Option<String> {
    let line_begin = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(line_begin..)?.lines().next()?;
    let (own, _) = line.split_once('=')?;
    let own = own.trim();
    let is_key = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if !is_key(own) {
        return None;
    }
    let table = text.get(..line_begin)?.lines().rev().find(|line| line.trim_start().starts_with('['));
    let table = table.map(|line| line.trim().trim_start_matches('[').trim_end_matches(']'));
    Some(table.filter(|table| is_key(table)).map_or_else(|| own.to_owned(), |table| format!("{table}.{own}")))
}

/// What the steps so far have hit.
#[derive(Default)]
struct Hit {
    nodes: bool,
    instances: bool,
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
        if scenario.topology.family == Family::Ipv6 && scenario.guards.network != NetworkNeeded::Lab {
            let problem = "loopback addresses are of IPv4; set guards.network = \"lab\"";
            self.add(self.find("family"), "family", problem);
        }
        if let Some(mib) = scenario.topology.disk_mib {
            let problem = if scenario.guards.network != NetworkNeeded::Lab {
                Some(
                    "nodes have file systems of their own in a lab only; set guards.network = \"lab\""
                        .to_owned(),
                )
            } else if !DISK_MIB.contains(&mib) {
                Some(format!("{mib}: use {} to {}", DISK_MIB.start(), DISK_MIB.end()))
            } else {
                None
            };
            if let Some(problem) = problem {
                self.add(self.find("disk_mib"), "disk_mib", problem);
            }
        }
        let (limits, in_lab) = (&scenario.limits, &scenario.limits_in_lab);
        let websocket = [
            ("websocket_gap", limits.websocket_gap.is_some() || in_lab.websocket_gap.is_some()),
            ("tunnels_back", limits.tunnels_back.is_some() || in_lab.tunnels_back.is_some()),
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
        let mut hit = Hit::default();
        for (number, step) in scenario.steps.iter().enumerate() {
            let key = format!("step {}", number + 1);
            self.look_at_step(scenario, &step.span(), &key, step.get_ref(), &mut hit);
        }
    }

    fn look_at_step(
        &mut self,
        scenario: &Scenario,
        span: &Range<usize>,
        key: &str,
        step: &Step,
        hit: &mut Hit,
    ) {
        let needs_lab = scenario.guards.network != NetworkNeeded::Lab;
        let mut problem = |part: &str, problem: &str| {
            self.add(Some(span.clone()), &format!("{key}{part}"), problem);
        };
        if longest(&step.after) > PAUSE_MAX {
            problem(".after", "use at most 1h");
        }
        match &step.action {
            Action::Redis(_) if scenario.guards.store != StoreNeeded::OwnRedis => {
                problem(
                    ".do.redis",
                    "this needs a Redis of the drill's own; set guards.store = \"own-redis\"",
                );
            }
            Action::Cut(cut) if cut.from == cut.to => {
                problem(".do.cut", "from and to are the same site");
            }
            Action::Shape(shaping) if shaping.from == shaping.to => {
                problem(".do.shape", "from and to are the same site");
            }
            Action::Shape(shaping) if shaping.loss_percent != Percent::ZERO && needs_lab => {
                let lossy = "packets are lost only in a lab; set guards.network = \"lab\"";
                problem(".do.shape.loss_percent", lossy);
            }
            Action::CutHost(_) | Action::FreezeHost(_) | Action::FlushFirewall(_) if needs_lab => {
                problem(".do", "nodes have hosts of their own in a lab only; set guards.network = \"lab\"");
            }
            Action::FillDisk(_) | Action::FreeDisk(_) if scenario.topology.disk_mib.is_none() => {
                problem(".do", "nodes share this machine's disk; set topology.disk_mib, as in 32");
            }
            Action::Lead(leadership) if !names_leaders(&leadership.to) => {
                problem(
                    ".do.lead.to",
                    &format!(
                        "`{}` says nobody in particular; write owner, owner-site, other-site, witness or a name",
                        leadership.to
                    ),
                );
            }
            Action::Apply(change) if *change == SpecChange::default() => {
                problem(".do.apply", "changes nothing; write as in { policy = { failovers_max = 1 } }");
            }
            Action::Repeat(repeat) => self.look_at_repeat(scenario, span, key, repeat, hit),
            _ => {}
        }
        self.look_at_targets(span, key, &step.action, hit);
    }

    fn look_at_repeat(
        &mut self,
        scenario: &Scenario,
        span: &Range<usize>,
        key: &str,
        repeat: &Repeat,
        hit: &mut Hit,
    ) {
        let key = format!("{key}.do.repeat");
        if !(1..=TIMES_MAX).contains(&repeat.times) {
            let problem = format!("{}: use 1 to {TIMES_MAX}", repeat.times);
            self.add(Some(span.clone()), &format!("{key}.times"), problem);
        }
        if longest(&repeat.every) > PAUSE_MAX {
            self.add(Some(span.clone()), &format!("{key}.every"), "use at most 1h");
        }
        if repeat.steps.is_empty() {
            self.add(Some(span.clone()), &format!("{key}.steps"), "there is none; write at least one");
        }
        for (number, step) in repeat.steps.iter().enumerate() {
            let key = format!("{key}.steps {}", number + 1);
            if let Action::Repeat(_) = step.action {
                self.add(Some(span.clone()), &key, "repeats within itself; write the steps out");
            } else {
                self.look_at_step(scenario, span, &key, step, hit);
            }
        }
    }

    /// Whether somebody is named, and `victims` means somebody.
    fn look_at_targets(&mut self, span: &Range<usize>, key: &str, action: &Action, hit: &mut Hit) {
        let (nodes, instances) = targets(action);
        let key = format!("{key}.do");
        if let Action::Kill(processes)
        | Action::Freeze(processes)
        | Action::Thaw(processes)
        | Action::Stop(processes)
        | Action::Start(processes) = action
            && *processes == Processes::default()
        {
            self.add(Some(span.clone()), &key, "names nobody; write nodes, guardians or instances");
        }
        if nodes.contains(&&NodeTarget::Victims) && !hit.nodes {
            self.add(Some(span.clone()), &key, "no earlier step has hit a node");
        }
        if instances == Some(&InstanceTarget::Victims) && !hit.instances {
            self.add(Some(span.clone()), &key, "no earlier step has hit an instance");
        }
        if !matches!(action, Action::Thaw(_) | Action::Start(_) | Action::FreeDisk(_)) {
            hit.nodes |= !nodes.is_empty();
            hit.instances |= instances.is_some();
        }
    }
}

/// Which nodes and which instances a step is for.
fn targets(action: &Action) -> (Vec<&NodeTarget>, Option<&InstanceTarget>) {
    match action {
        Action::Kill(processes)
        | Action::Freeze(processes)
        | Action::Thaw(processes)
        | Action::Stop(processes)
        | Action::Start(processes) => {
            let nodes = [&processes.nodes, &processes.guardians];
            (nodes.into_iter().flatten().collect(), processes.instances.as_ref())
        }
        Action::CutHost(Hosts { nodes })
        | Action::FreezeHost(Hosts { nodes })
        | Action::FlushFirewall(Hosts { nodes })
        | Action::FillDisk(Hosts { nodes })
        | Action::FreeDisk(Hosts { nodes }) => (vec![nodes], None),
        Action::Upstream(upstream) => (Vec::new(), Some(&upstream.instances)),
        _ => (Vec::new(), None),
    }
}

/// Whether these can be asked to lead.
fn names_leaders(target: &NodeTarget) -> bool {
    matches!(
        target,
        NodeTarget::Owner
            | NodeTarget::OwnerSite
            | NodeTarget::OtherSite
            | NodeTarget::Witness
            | NodeTarget::Named(_)
    )
}

/// The pause under the slower timings.
fn longest(pause: &Limit) -> Duration {
    pause.in_timing(&Timing::of(Profile::Wan))
}
