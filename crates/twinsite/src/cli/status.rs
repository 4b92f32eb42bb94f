//! `status`: one truth on the first lines, however the cluster is. It never fails because the quorum is lost.

use super::arguments::StatusArguments;
use super::connect::{connect, is_out_of_reach};
use super::{CliError, Exit, live_drill_text, output, words};
use serde_json::{Value, json};
use std::time::Duration;
use twinsite_api::{Client, WatchMessage, v1};

/// Changes that come within so long are shown together.
const SETTLE: Duration = Duration::from_millis(100);

/// `twinsite status`.
pub async fn run(arguments: &StatusArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let exit = show(&client, arguments).await?;
    if !arguments.watch {
        return Ok(exit);
    }
    let mut changes = client.watch(None).await?;
    while let Some(message) = changes.recv().await {
        if matches!(message, WatchMessage::Bookmark(_)) {
            continue;
        }
        tokio::time::sleep(SETTLE).await;
        while changes.try_recv().is_ok() {}
        output::line("")?;
        show(&client, arguments).await?;
    }
    Ok(exit)
}

async fn show(client: &Client, arguments: &StatusArguments) -> Result<Exit, CliError> {
    let look = look(client, arguments.local).await?;
    if arguments.client.json {
        output::json(&look.json())?;
    } else {
        output::line(&look.text())?;
    }
    Ok(if look.answer.has_quorum { Exit::Done } else { Exit::NoQuorum })
}

/// What is known, and from whom.
struct Look {
    answer: v1::GetStateResponse,
    state: v1::State,
    health: v1::ClusterHealth,
    explanations: Vec<v1::Explanation>,
}

async fn look(client: &Client, local: bool) -> Result<Look, CliError> {
    let agreed = if local { None } else { Some(client.state().await) };
    let answer = match agreed {
        Some(Ok(answer)) => answer,
        Some(Err(error)) if !is_out_of_reach(&error) => return Err(error.into()),
        _ => newest_local(client).await?,
    };
    let state = answer.state.clone().unwrap_or_default();
    let health = answer.health.clone().unwrap_or_default();
    let mut explanations = Vec::new();
    if answer.has_quorum {
        for ip in &state.floating_ips {
            // A nicety: what it says is left out if the leader is just changing.
            explanations.extend(client.explain(Some(&ip.name)).await.ok());
        }
    }
    Ok(Look { answer, state, health, explanations })
}

/// Without a quorum: what the node knows that knows most.
async fn newest_local(client: &Client) -> Result<v1::GetStateResponse, CliError> {
    let answers = client.local_states().await;
    let mut why = Vec::new();
    let mut best: Option<v1::GetStateResponse> = None;
    for (address, answer) in answers {
        match answer {
            Ok(answer) => {
                let newer = best.as_ref().is_none_or(|best| {
                    (answer.has_quorum, answer.revision) > (best.has_quorum, best.revision)
                });
                if newer {
                    best = Some(answer);
                }
            }
            Err(error) => why.push(format!("{address}: {error}")),
        }
    }
    best.ok_or_else(|| CliError::Unreachable(format!("no node answers; {}", why.join("; "))))
}

impl Look {
    fn json(&self) -> Value {
        json!({
            "cluster": self.state.cluster,
            "revision": self.answer.revision,
            "generation": self.state.generation,
            "leader": (!self.health.leader_name.is_empty()).then_some(&self.health.leader_name),
            "term": self.health.term,
            "quorum": self.answer.has_quorum,
            "age_ms": self.answer.quorum_age_ms,
            "answered_by": self.health.node_name,
            "tolerated_failures": self.health.tolerated_failures,
            "paused_until_ms": self.state.pause.as_ref().map(|pause| pause.until_ms),
            "drill": self.state.drill.as_ref().map(live_drill_text::drill_json),
            "last_drill": self.state.last_drill.as_ref().map(live_drill_text::drill_json),
            "floating_ips": self.state.floating_ips.iter().map(|ip| self.ip_json(ip)).collect::<Vec<_>>(),
            "nodes": self.state.nodes.iter().map(|node| self.node_json(node)).collect::<Vec<_>>(),
            "upstreams": self.state.upstreams.iter().map(upstream_json).collect::<Vec<_>>(),
        })
    }

    fn ip_json(&self, ip: &v1::FloatingIpState) -> Value {
        let truth = self.truth(&ip.name);
        let forecast = self.forecast(&ip.name);
        json!({
            "name": ip.name,
            "address": ip.address,
            "ports": ip.ports,
            "owner": ip.owner.as_ref().map(|owner| json!({
                "node": owner.node_name,
                "site": owner.site,
                "token": words::token(owner.token.as_ref()),
                "since_ms": owner.since_ms,
            })),
            "held_by": truth.held_by.iter().map(|holder| json!({
                "node": holder.node_name,
                "token": words::token(holder.token.as_ref()),
            })).collect::<Vec<_>>(),
            "outside": truth.outside.iter().map(|probe| json!({
                "asked_by": probe.asked_by,
                "node": probe.node.map(|_| &probe.node_name),
                "token": probe.token.as_ref().map(|token| words::token(Some(token))),
                "silent": (!probe.silent.is_empty()).then_some(&probe.silent),
            })).collect::<Vec<_>>(),
            "stranger": (!truth.stranger.is_empty()).then_some(&truth.stranger),
            "agree": self.disagreements(ip).is_empty(),
            "moving": ip.operation.as_ref().map(super::events::operation_json),
            "failover": forecast.and_then(|forecast| forecast.possible.map(|possible| json!({
                "possible": possible,
                "to": (!forecast.target_name.is_empty()).then_some(&forecast.target_name),
                "after_crash_ms": possible.then_some(forecast.after_crash_ms),
                "after_silence_ms": possible.then_some(forecast.after_silence_ms),
                "after_crash_moves": possible.then_some(forecast.after_crash_moves),
                "after_silence_moves": possible.then_some(forecast.after_silence_moves),
                "why_not": forecast.why_not,
            }))),
        })
    }

    fn node_json(&self, node: &v1::NodeState) -> Value {
        let member = self.health.members.iter().find(|member| member.id == node.id);
        json!({
            "id": node.id,
            "name": node.name,
            "site": node.site,
            "kind": node.kind,
            "version": node.version,
            "incarnation": node.incarnation,
            "votes": member.is_some_and(|member| member.votes),
            "leads": member.is_some_and(|member| member.leads),
            "heard": member.and_then(|member| member.heard),
        })
    }

    fn truth(&self, ip: &str) -> v1::FloatingIpTruth {
        self.health.truths.iter().find(|truth| truth.floating_ip == ip).cloned().unwrap_or_default()
    }

    fn forecast(&self, ip: &str) -> Option<&v1::Forecast> {
        self.explanations.iter().find(|explanation| explanation.floating_ip == ip)?.failover.as_ref()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.answer.has_quorum {
            let age = self.answer.quorum_age_ms;
            let age = age
                .map_or_else(|| "of unknown age".to_owned(), |age| format!("{:.1} s old", age as f64 / 1e3));
            text.push_str(&format!(
                "NO QUORUM: this is what {} knows by itself, {age}\n",
                self.health.node_name
            ));
        }
        let leader = if self.health.leader_name.is_empty() { "nobody" } else { &self.health.leader_name };
        let tolerates = self.health.tolerated_failures.map_or_else(String::new, |count| match count {
            0 => "; TOLERATES NO FURTHER FAILURE".to_owned(),
            1 => "; tolerates 1 more failure".to_owned(),
            count => format!("; tolerates {count} more failures"),
        });
        text.push_str(&format!(
            "cluster {}, revision {}; {leader} leads{tolerates}\n",
            self.state.cluster, self.answer.revision
        ));
        for ip in &self.state.floating_ips {
            text.push('\n');
            text.push_str(&self.ip_text(ip));
        }
        if let Some(pause) = &self.state.pause {
            let until = words::time(pause.until_ms);
            text.push_str(&format!("\nPAUSED until {until} by {}: {}\n", pause.by, pause.reason));
        }
        if let Some(drill) = live_drill_text::status_line(&self.state) {
            text.push_str(&format!("\n{drill}\n"));
        }
        text.push('\n');
        text.push_str(&self.nodes_text());
        text.push_str("\n\n");
        text.push_str(&upstreams_text(&self.state.upstreams));
        text
    }

    /// The owner by every source, and where they differ.
    fn ip_text(&self, ip: &v1::FloatingIpState) -> String {
        let truth = self.truth(&ip.name);
        let owner = ip.owner.as_ref().map_or_else(
            || "nobody".to_owned(),
            |owner| {
                let token = words::token(owner.token.as_ref());
                format!(
                    "{} at {} (token {token}, for {})",
                    owner.node_name,
                    owner.site,
                    words::ago(owner.since_ms)
                )
            },
        );
        let mut text = format!("{} {}\n  agreed     {owner}\n", ip.name, ip.address);
        let list = |items: Vec<String>, none: &str| {
            if items.is_empty() { none.to_owned() } else { items.join(", ") }
        };
        let unknown = if self.health.truths.is_empty() { "not known here" } else { "nobody" };
        let held = truth
            .held_by
            .iter()
            .map(|holder| format!("{} (token {})", holder.node_name, words::token(holder.token.as_ref())));
        text.push_str(&format!("  kernel     {}\n", list(held.collect(), unknown)));
        let mut seen = std::collections::BTreeMap::<String, Vec<&str>>::new();
        for probe in &truth.outside {
            let what = if probe.node.is_some() {
                format!("{} (token {})", probe.node_name, words::token(probe.token.as_ref()))
            } else {
                probe.silent.clone()
            };
            seen.entry(what).or_default().push(&probe.asked_by);
        }
        let seen = seen.into_iter().map(|(what, by)| format!("{what}, seen by {}", by.join(" ")));
        text.push_str(&format!("  outside    {}\n", list(seen.collect(), unknown)));
        let mut announced = std::collections::BTreeMap::<(&str, &str), u32>::new();
        for upstream in &self.state.upstreams {
            *announced.entry((&upstream.site, &upstream.announced_ip)).or_default() += 1;
        }
        let announced = announced.into_iter().map(|((site, address), count)| {
            let address = if address.is_empty() { "unknown" } else { address };
            format!("{address} at {site} ({count})")
        });
        text.push_str(&format!("  announced  {}\n", list(announced.collect(), "nothing")));
        for difference in self.disagreements(ip) {
            text.push_str(&format!("  DIFFERS    {difference}\n"));
        }
        if !truth.stranger.is_empty() {
            text.push_str(&format!(
                "  CONFLICT   a host that is no node answers for it too, hardware address {}\n",
                truth.stranger
            ));
        }
        if let Some(operation) = &ip.operation {
            text.push_str(&format!("  MOVING     {}\n", super::events::operation_text(operation)));
        }
        if let Some(forecast) =
            self.forecast(&ip.name).and_then(|forecast| Some((forecast, forecast.possible?)))
        {
            text.push_str(&match forecast {
                (forecast, true) => format!(
                    "  failover   possible now, to {}{}: about {} ms after a crash ({}), {} ms after silence ({})\n",
                    forecast.target_name,
                    self.site_in_words(forecast.target),
                    forecast.after_crash_ms,
                    words::rests_on(forecast.after_crash_moves),
                    forecast.after_silence_ms,
                    words::rests_on(forecast.after_silence_moves),
                ),
                (forecast, false) => {
                    format!("  FAILOVER   NOT POSSIBLE NOW: {}\n", forecast.why_not.join("; "))
                }
            });
        }
        text
    }

    /// Where a node is, if that is known.
    fn site_in_words(&self, node: u64) -> String {
        let node = self.state.nodes.iter().find(|known| known.id == node);
        node.map_or_else(String::new, |node| format!(" at {}", node.site))
    }

    /// Where the sources do not say the same about the owner.
    fn disagreements(&self, ip: &v1::FloatingIpState) -> Vec<String> {
        let truth = self.truth(&ip.name);
        let agreed = ip.owner.as_ref().map(|owner| owner.node);
        let held = truth.held_by.iter().filter(|holder| Some(holder.node) != agreed);
        let held = held.map(|holder| format!("{} holds it, and is not the owner", holder.node_name));
        let answered = truth.outside.iter().filter(|probe| probe.node.is_some() && probe.node != agreed);
        let answered =
            answered.map(|probe| format!("{} was answered by {}", probe.asked_by, probe.node_name));
        let silent = truth.outside.iter().filter(|probe| probe.node.is_none() && agreed.is_some());
        let silent = silent.map(|probe| format!("{} got no answer: {}", probe.asked_by, probe.silent));
        held.chain(answered).chain(silent).collect()
    }

    fn nodes_text(&self) -> String {
        let mut table = output::table(&["NODE", "SITE", "KIND", "PART", "HEARD", "VERSION", "UP FOR"]);
        for node in &self.state.nodes {
            let member = self.health.members.iter().find(|member| member.id == node.id);
            let part = match member {
                Some(member) if member.leads => "leader",
                Some(member) if member.votes => "voter",
                Some(_) => "learner",
                None => "no member",
            };
            let heard = match member.and_then(|member| member.heard) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "?",
            };
            let up = words::ago(node.since_ms);
            table.add_row([&*node.name, &node.site, &node.kind, part, heard, &node.version, &up]);
        }
        table.to_string()
    }
}

/// The upstreams, with the verdict and the evidence against it.
pub fn upstreams_text(upstreams: &[v1::UpstreamState]) -> String {
    let mut table =
        output::table(&["UPSTREAM", "SITE", "ADDRESS", "VERDICT", "FOR", "ANNOUNCES", "EVIDENCE"]);
    for upstream in upstreams {
        let verdict = words::verdict(upstream.verdict());
        let evidence = by_opinion(&upstream.evidence);
        let since = words::ago(upstream.since_ms);
        table.add_row([
            &*upstream.name,
            &upstream.site,
            &upstream.address,
            verdict,
            &since,
            &upstream.announced_ip,
            &evidence,
        ]);
    }
    table.to_string()
}

/// Who says what, the same opinion once: `good (answers): gra-1 gra-2`. Lines of another form are left as they are.
fn by_opinion(evidence: &[String]) -> String {
    let mut opinions: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in evidence {
        let (who, opinion) = line.split_once(": ").unwrap_or(("", line));
        match opinions.iter_mut().find(|(known, _)| *known == opinion) {
            Some((_, observers)) => observers.push(who),
            None => opinions.push((opinion, vec![who])),
        }
    }
    let texts = opinions.iter().map(|(opinion, observers)| format!("{opinion}: {}", observers.join(" ")));
    texts.collect::<Vec<_>>().join("; ")
}

/// An upstream for programs.
pub fn upstream_json(upstream: &v1::UpstreamState) -> Value {
    json!({
        "name": upstream.name,
        "site": upstream.site,
        "address": upstream.address,
        "verdict": words::verdict(upstream.verdict()),
        "since_ms": upstream.since_ms,
        "evidence": upstream.evidence,
        "drain": upstream.drain.is_some(),
        "announced": (!upstream.announced_ip.is_empty()).then_some(&upstream.announced_ip),
    })
}

#[cfg(test)]
mod tests {
    use super::by_opinion;

    #[test]
    fn the_same_opinion_is_shown_once() {
        let evidence =
            ["gra-1: good (answers)", "gra-2: bad (503)", "sbg-1: good (answers)"].map(str::to_owned);
        assert_eq!(by_opinion(&evidence), "good (answers): gra-1 sbg-1; bad (503): gra-2");
        assert_eq!(by_opinion(&[]), "");
    }
}
