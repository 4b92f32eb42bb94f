//! `explain`: why things are as they are, and what could happen now.

use super::arguments::ExplainArguments;
use super::connect::connect;
use super::{CliError, Exit, output, words};
use serde_json::{Value, json};
use std::fmt::Write;
use twinsite_api::v1;

/// `twinsite explain`.
pub async fn run(arguments: &ExplainArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let ips = match &arguments.ip {
        Some(ip) => vec![ip.to_string()],
        None => {
            let state = client.state().await?.state.unwrap_or_default();
            state.floating_ips.into_iter().map(|ip| ip.name).collect()
        }
    };
    let mut all = Vec::new();
    for ip in ips {
        all.push(client.explain(Some(&ip)).await?);
    }
    if arguments.client.json {
        output::json(&Value::Array(all.iter().map(to_json).collect()))?;
    } else {
        for explanation in &all {
            output::line(&text(explanation))?;
        }
    }
    Ok(Exit::Done)
}

fn text(explained: &v1::Explanation) -> String {
    let mut text = format!("{}\n", explained.floating_ip);
    let mut say = |head: &str, line: String| {
        let _ = writeln!(text, "  {head:<12}{line}"); // writing to a string cannot fail
    };
    match explained.owner.as_ref().and_then(|owner| Some((owner, owner.owner.as_ref()?))) {
        None => say("owner", "nobody".to_owned()),
        Some((why, owner)) => {
            say(
                "owner",
                format!(
                    "{} at {}, token {}",
                    owner.node_name,
                    owner.site,
                    words::token(owner.token.as_ref())
                ),
            );
            if why.operation > 0 {
                let (kind, reason) = (words::kind(why.kind()), words::reason(why.reason()));
                say("because", format!("{kind} {} made it so: {reason}", why.operation));
            }
            let lease = match why.last_grant_age_ms {
                Some(age) => format!("last renewed {age} ms ago"),
                None => "not renewed in this leader's term yet".to_owned(),
            };
            say("lease", if why.heard { lease } else { format!("{lease}; its reports are NOT HEARD") });
        }
    }
    if let Some(moving) = &explained.moving {
        let (kind, step) = (words::kind(moving.kind()), words::step(moving.step()));
        let waiting = &moving.waiting_for;
        say(
            "moving",
            format!("{kind} {} to {}: {step}, waiting for {waiting}", moving.operation, moving.target_name),
        );
    }
    for quiet in &explained.quiet {
        say("no move", quiet.text.clone());
        for rule in quiet.rules.iter().filter(|rule| !rule.satisfied) {
            say("", format!("rule {}: {}", rule.rule, rule.detail));
        }
    }
    if let Some(forecast) = &explained.failover {
        match forecast.possible {
            Some(true) => say(
                "if it died",
                format!(
                    "{} would take over: about {} ms after a crash ({}), {} ms after silence ({})",
                    forecast.target_name,
                    forecast.after_crash_ms,
                    words::rests_on(forecast.after_crash_moves),
                    forecast.after_silence_ms,
                    words::rests_on(forecast.after_silence_moves)
                ),
            ),
            Some(false) => {
                say("if it died", format!("NOBODY would take over: {}", forecast.why_not.join("; ")));
            }
            None => {}
        }
    }
    for candidate in &explained.candidates {
        match candidate.rank {
            Some(rank) => say("candidate", format!("{}. {}", rank + 1, candidate.node_name)),
            None => say("not", candidate.unfit.clone()),
        }
    }
    if let Some(tolerated) = explained.tolerated_failures {
        say("tolerates", format!("{tolerated} more failed voters with a quorum left"));
    }
    text
}

fn to_json(explained: &v1::Explanation) -> Value {
    json!({
        "floating_ip": explained.floating_ip,
        "by_leader": explained.by_leader,
        "owner": explained.owner.as_ref().map(|why| json!({
            "node": why.owner.as_ref().map(|owner| &owner.node_name),
            "token": why.owner.as_ref().map(|owner| words::token(owner.token.as_ref())),
            "operation": (why.operation > 0).then_some(why.operation),
            "reason": words::reason(why.reason()),
            "last_grant_age_ms": why.last_grant_age_ms,
            "heard": why.heard,
        })),
        "moving": explained.moving.as_ref().map(|moving| json!({
            "operation": moving.operation,
            "kind": words::kind(moving.kind()),
            "to": moving.target_name,
            "step": words::step(moving.step()),
            "waiting_for": moving.waiting_for,
        })),
        "quiet": explained.quiet.iter().map(|quiet| json!({
            "code": quiet.code,
            "text": quiet.text,
            "rules": quiet.rules.iter().map(rule_json).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "failover": explained.failover.as_ref().map(|forecast| json!({
            "possible": forecast.possible,
            "to": forecast.target_name,
            "after_crash_ms": forecast.after_crash_ms,
            "after_silence_ms": forecast.after_silence_ms,
            "after_crash_moves": forecast.after_crash_moves,
            "after_silence_moves": forecast.after_silence_moves,
            "why_not": forecast.why_not,
        })),
        "candidates": explained.candidates.iter().map(|candidate| json!({
            "node": candidate.node_name,
            "rank": candidate.rank,
            "unfit": (!candidate.unfit.is_empty()).then_some(&candidate.unfit),
        })).collect::<Vec<_>>(),
        "tolerated_failures": explained.tolerated_failures,
    })
}

/// A rule for programs.
pub fn rule_json(rule: &v1::RuleResult) -> Value {
    json!({
        "rule": rule.rule,
        "satisfied": rule.satisfied,
        "overridden": rule.overridden,
        "detail": rule.detail,
    })
}
