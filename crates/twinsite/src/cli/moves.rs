//! `switchover`, `failover` and `abort`: moves by hand, planned, followed to their end, or called off.

use super::arguments::{AbortArguments, MoveArguments};
use super::connect::connect;
use super::events::{operation_json, operation_text};
use super::explain::rule_json;
use super::upkeep::done;
use super::{CliError, Exit, output, words};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use twinsite_api::client::{Begun, Wanted};
use twinsite_api::{Client, Destination, MoveKind, v1};
use twinsite_model::{FloatingIpName, NodeName, OperationId, SiteName};

/// How often a running move is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a move is followed; it goes on without being watched.
const FOLLOW_MAX: Duration = Duration::from_mins(10);

/// `twinsite switchover` and `twinsite failover`.
pub async fn run(kind: MoveKind, arguments: &MoveArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let wanted = Wanted {
        ip: arguments.ip.as_ref().map(ToString::to_string),
        kind,
        to: destination(&client, arguments.to.as_deref()).await?,
        overrides: arguments.overrides.clone(),
        plan_only: arguments.plan,
    };
    let begun = client.move_ip(&wanted).await?;
    if let Some(plan) = &begun.plan {
        return show_plan(plan, arguments.client.json);
    }
    let Begun { operation: Some(operation), .. } = begun else {
        if arguments.client.json {
            output::json(&json!({ "operation": null, "revision": begun.revision.0 }))?;
        } else {
            output::line("nothing had to be moved")?;
        }
        return Ok(Exit::Done);
    };
    if arguments.no_wait {
        if arguments.client.json {
            output::json(&json!({ "operation": operation.0 }))?;
        } else {
            output::line(&format!("operation {operation} began; `twinsite events` shows how it goes"))?;
        }
        return Ok(Exit::Done);
    }
    follow(&client, operation, arguments.client.json).await
}

/// `twinsite abort`.
pub async fn abort(arguments: &AbortArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let revision = client.abort(arguments.ip.as_ref().map(FloatingIpName::as_str), &arguments.reason).await?;
    done(&arguments.client, revision, "the move is called off; `twinsite events` shows how far it was")
}

/// A site or a node, by its name.
async fn destination(client: &Client, to: Option<&str>) -> Result<Destination, CliError> {
    let Some(to) = to else { return Ok(Destination::Best) };
    let state = client.state().await?.state.unwrap_or_default();
    if state.nodes.iter().any(|node| node.name == to) {
        let node = NodeName::new(to).map_err(|error| CliError::Usage(error.to_string()))?;
        return Ok(Destination::Node(node));
    }
    if state.nodes.iter().any(|node| node.site == to) {
        let site = SiteName::new(to).map_err(|error| CliError::Usage(error.to_string()))?;
        return Ok(Destination::Site(site));
    }
    let mut known: Vec<_> =
        state.nodes.iter().flat_map(|node| [node.site.as_str(), node.name.as_str()]).collect();
    known.sort_unstable();
    known.dedup();
    Err(CliError::Usage(format!("--to {to}: there is no such site or node; there are: {}", known.join(", "))))
}

/// Follows a move to its end, through the loss of any node.
async fn follow(client: &Client, id: OperationId, json: bool) -> Result<Exit, CliError> {
    let deadline = Instant::now() + FOLLOW_MAX;
    let mut told = 0;
    loop {
        match client.operation(id).await {
            Ok(operation) if operation.outcome() != v1::Outcome::Unspecified => {
                if json {
                    output::json(&operation_json(&operation))?;
                } else {
                    output::line(&operation_text(&operation))?;
                }
                let good = operation.outcome() == v1::Outcome::Verified;
                return Ok(if good { Exit::Done } else { Exit::Refused });
            }
            Ok(operation) => {
                for step in operation.steps.iter().skip(told).filter(|_| !json) {
                    anstream::eprintln!("{} ...", words::step(step.step()));
                }
                told = operation.steps.len();
            }
            Err(error) if error.retryable() => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            let problem = format!("operation {id} still runs; `twinsite events` shows how it goes");
            return Err(CliError::Unreachable(problem));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show_plan(plan: &v1::Plan, json: bool) -> Result<Exit, CliError> {
    let refused = !plan.refusal.is_empty();
    if json {
        output::json(&json!({
            "floating_ip": plan.floating_ip,
            "kind": words::kind(plan.kind()),
            "from": plan.from_name,
            "to": plan.target_name,
            "steps": plan.steps.iter().map(|step| json!({
                "step": words::step(step.step()),
                "what": step.what,
                "at_most_ms": step.at_most_ms,
            })).collect::<Vec<_>>(),
            "rules": plan.rules.iter().map(rule_json).collect::<Vec<_>>(),
            "refusal": refused.then_some(&plan.refusal),
            "predicted_outage_ms": plan.predicted_outage_ms,
            "predicted_from_moves": plan.predicted_from_moves,
            "rooms": plan.rooms,
            "tunnels": plan.tunnels,
        }))?;
    } else {
        output::line(&plan_text(plan))?;
    }
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

fn plan_text(plan: &v1::Plan) -> String {
    let or_nobody = |name: &str| if name.is_empty() { "nobody".to_owned() } else { name.to_owned() };
    let mut lines = vec![format!(
        "{} of {}: {} -> {} (a plan: nothing is done)",
        words::kind(plan.kind()),
        plan.floating_ip,
        or_nobody(&plan.from_name),
        or_nobody(&plan.target_name)
    )];
    for step in &plan.steps {
        let (step_word, what, at_most) = (words::step(step.step()), &step.what, step.at_most_ms);
        lines.push(format!("  {step_word:<10}{what} (at most {at_most} ms)"));
    }
    for rule in &plan.rules {
        let mark = match (rule.satisfied, rule.overridden) {
            (true, _) => "holds",
            (false, true) => "OVERRIDDEN",
            (false, false) => "FAILS",
        };
        lines.push(format!("  rule      {:<22}{mark:<11}{}", rule.rule, rule.detail));
    }
    lines.push(format!(
        "  outage    about {} ms for new connections ({})",
        plan.predicted_outage_ms,
        words::rests_on(plan.predicted_from_moves)
    ));
    if let (Some(rooms), Some(tunnels)) = (plan.rooms, plan.tunnels) {
        lines.push(format!("  people    {tunnels} connections in {rooms} rooms would reconnect"));
    }
    if !plan.refusal.is_empty() {
        lines.push(format!("  REFUSED   {}", plan.refusal));
    }
    lines.join("\n")
}
