//! `events` and `watch`: what happened, and what happens.

use super::arguments::{QueryArguments, WatchArguments};
use super::connect::connect;
use super::{CliError, Exit, output, words};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use twinsite_api::{WatchMessage, v1};
use twinsite_drill::engine::WatchItem;
use twinsite_model::{Event, NodeId, Revision, State, WallTime};

/// Names of nodes, for lines that people read.
#[derive(Debug, Clone, Default)]
pub struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// The names of a state.
    pub fn of(state: &v1::State) -> Self {
        Self(state.nodes.iter().map(|node| (NodeId(node.id), node.name.clone())).collect())
    }

    /// The names that were agreed.
    pub fn agreed(state: &State) -> Self {
        let nodes = state.spec.iter().flat_map(|spec| &spec.nodes);
        Self(nodes.map(|node| (node.id, node.name.to_string())).collect())
    }

    /// A node's name; its number if it has none any more.
    pub fn name(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| format!("node {node}"))
    }
}

/// A change on one line.
pub fn line(names: &Names, item: &WatchItem) -> String {
    format!("{}  r{:<6} {}", item.at, item.revision, told(names, &item.event))
}

/// An event in words.
pub fn told(names: &Names, event: &Event) -> String {
    match event {
        Event::SpecApplied => "there is a new specification".to_owned(),
        Event::TicketKeyRotated => "TLS session tickets are made with another key".to_owned(),
        Event::NodePut(node) => format!("{} was added or changed", names.name(*node)),
        Event::NodeRetired(node) => format!("{} was removed for good", names.name(*node)),
        Event::FormatRaised(format) => format!("the cluster uses encoding {}", format.0),
        Event::NodeStarted { node, incarnation } => {
            format!("{} lives (incarnation {incarnation})", names.name(*node))
        }
        Event::VerdictChanged { upstream, from, to, evidence } => {
            let why = if evidence.is_empty() { String::new() } else { format!(" ({})", evidence.join("; ")) };
            format!("{upstream}: {} -> {}{why}", from.as_str(), to.as_str())
        }
        Event::OperationBegan { ip, operation, kind, reason, target, evidence } => {
            let why = if evidence.is_empty() { String::new() } else { format!(" ({})", evidence.join("; ")) };
            let target = names.name(*target);
            format!("{ip}: {} {operation} to {target} begins: {}{why}", kind.as_str(), reason.as_str())
        }
        Event::Retargeted { ip, operation, target } => {
            format!("{ip}: operation {operation} now goes to {}", names.name(*target))
        }
        Event::StepStarted { ip, step, .. } => format!("{ip}: {step} begins"),
        Event::StepFinished { ip, step, result, detail, .. } => {
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            format!("{ip}: {step} {}{detail}", result.as_str())
        }
        Event::Fenced { ip, token, fence, .. } => {
            let token = token.map_or_else(String::new, |token| format!(" token {token}"));
            format!("{ip}: fenced{token} ({})", fence.as_str())
        }
        Event::OwnerChanged { ip, owner } => {
            format!("{ip}: OWNER is {} with token {}", names.name(owner.node), owner.token)
        }
        Event::OperationEnded { ip, operation, outcome } => {
            format!("{ip}: operation {operation} ended: {}", outcome.as_str())
        }
        Event::Paused { until, by, reason } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("automatic moves are paused until {until} by {by}{reason}")
        }
        Event::Resumed { expired: true, .. } => "the pause ended by itself".to_owned(),
        Event::Resumed { by, .. } => format!("the pause was ended by {by}"),
        Event::BreakerReset { by } => format!("the breaker was closed by {by}"),
        Event::GenerationRaised { generation, statement } => {
            format!("FORCED RECOVERY: generation {generation}; {statement}")
        }
        Event::AnnouncedChanged { upstream, address, token } => {
            format!("{upstream} announces {address} (token {token})")
        }
        Event::RoomPinned { room, upstream, .. } => {
            format!("room {} is on {upstream}", &room.to_string()[..8])
        }
        Event::RoomsExpired { count } => format!("{count} unused rooms were forgotten"),
        Event::ErrandSent { ip, errand } => format!(
            "{ip}: {} calls the provider to route it to {} (errand {}, token {})",
            names.name(errand.by),
            names.name(errand.to),
            errand.id,
            errand.token
        ),
        Event::ErrandRecalled { ip, errand } => format!("{ip}: errand {errand} was recalled"),
        Event::ErrandEnded { ip, errand, end } => format!("{ip}: errand {errand} ended: {}", end.as_str()),
        Event::DrillBegan { drill, name, by, runner, until } => {
            format!(
                "drill {drill} ({name}) begins on {} for {by}, until {until} at most",
                names.name(*runner)
            )
        }
        Event::DrillStopped { drill, by, reason } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("{by} wants drill {drill} to end{reason}")
        }
        Event::DrillEnded { drill, name, outcome } => {
            format!("drill {drill} ({name}) is over: {}", outcome.as_str())
        }
    }
}

/// `twinsite watch`.
pub async fn watch(arguments: &WatchArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let mut names = match client.state().await {
        Ok(answer) => answer.state.as_ref().map(Names::of).unwrap_or_default(),
        Err(_) => Names::default(),
    };
    let mut messages = client.watch(arguments.since.map(Revision)).await?;
    while let Some(message) = messages.recv().await {
        match message {
            WatchMessage::Snapshot(state) => {
                names = Names::of(&state);
                if arguments.client.json {
                    output::json(&json!({ "snapshot": { "revision": state.revision } }))?;
                } else {
                    output::line(&format!(
                        "{}  r{:<6} watching",
                        words::time(state.wall_ms),
                        state.revision
                    ))?;
                }
            }
            WatchMessage::Change { revision, at, events } if arguments.client.json => {
                let events: Vec<_> = events.iter().map(|event| event_json(&names, event)).collect();
                output::json(&json!({ "revision": revision.0, "at": at.to_string(), "events": events }))?;
            }
            WatchMessage::Change { revision, at, events } => print(&names, revision, at, events)?,
            WatchMessage::Bookmark(revision) if arguments.client.json => {
                output::json(&json!({ "bookmark": { "revision": revision.0 } }))?;
            }
            WatchMessage::Bookmark(_) => {}
        }
    }
    Err(CliError::Unreachable("the watch ended: this certificate may not watch any more".to_owned()))
}

fn print(names: &Names, revision: Revision, at: WallTime, events: Vec<Event>) -> Result<(), CliError> {
    for event in events {
        output::line(&line(names, &WatchItem { revision, at, event }))?;
    }
    Ok(())
}

fn event_json(names: &Names, event: &Event) -> Value {
    let kind = format!("{event:?}");
    let kind = kind.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    let mut value = json!({ "type": kind, "text": told(names, event) });
    if let Event::OwnerChanged { ip, owner } = event {
        value["floating_ip"] = json!(ip.as_str());
        value["owner"] = json!({ "node": names.name(owner.node), "token": owner.token.to_string() });
    }
    value
}

/// `twinsite events`.
pub async fn list(arguments: &QueryArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let operations = client.operations().await?;
    if arguments.client.json {
        output::json(&Value::Array(operations.iter().map(operation_json).collect()))?;
        return Ok(Exit::Done);
    }
    if operations.is_empty() {
        output::line("nothing has been moved yet")?;
    }
    for operation in &operations {
        output::line(&operation_text(operation))?;
    }
    Ok(Exit::Done)
}

/// A move in a few lines: what, why, and how long each step took.
pub fn operation_text(operation: &v1::Operation) -> String {
    let from = operation.from.as_ref().map_or("nobody", |owner| owner.node_name.as_str());
    let by = if operation.by.is_empty() { String::new() } else { format!(" by {}", operation.by) };
    let mut text = format!(
        "{}  {} {} of {}: {from} -> {} ({}{by}), {}",
        words::time(operation.steps.first().map_or(0, |step| step.started_ms)),
        words::kind(operation.kind()),
        operation.id,
        operation.floating_ip,
        operation.target_name,
        words::reason(operation.reason()),
        words::outcome(operation.outcome()),
    );
    for line in &operation.evidence {
        text.push_str(&format!("\n    saw      {line}"));
    }
    for step in &operation.steps {
        // The last step ends with the move.
        let finished = if step.finished_ms > 0 { step.finished_ms } else { operation.ended_ms };
        let took = finished.checked_sub(step.started_ms);
        let took = took.map_or_else(|| "...".to_owned(), |took| format!("{took} ms"));
        let result = words::result(step.result());
        text.push_str(&format!(
            "\n    {:<9}{took:>8}  {result:<9} {}",
            words::step(step.step()),
            step.detail
        ));
    }
    text
}

/// A move for programs.
pub fn operation_json(operation: &v1::Operation) -> Value {
    let steps = operation.steps.iter().map(|step| {
        json!({
            "step": words::step(step.step()),
            "started_ms": step.started_ms,
            "finished_ms": (step.finished_ms > 0).then_some(step.finished_ms),
            "result": words::result(step.result()),
            "detail": step.detail,
        })
    });
    json!({
        "id": operation.id,
        "floating_ip": operation.floating_ip,
        "kind": words::kind(operation.kind()),
        "reason": words::reason(operation.reason()),
        "evidence": operation.evidence,
        "from": operation.from.as_ref().map(|owner| owner.node_name.clone()),
        "to": operation.target_name,
        "by": operation.by,
        "overrides": operation.overrides,
        "fence": words::fence(operation.fence()),
        "token": operation.token.as_ref().map(|token| words::token(Some(token))),
        "outcome": words::outcome(operation.outcome()),
        "ended_ms": (operation.ended_ms > 0).then_some(operation.ended_ms),
        "steps": steps.collect::<Vec<_>>(),
    })
}
