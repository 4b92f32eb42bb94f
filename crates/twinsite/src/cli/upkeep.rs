//! What operators do between moves: pause, drain, look at rooms, change members.

use super::arguments::{
    AddArguments, BreakerCommand, ClientArguments, DrainArguments, MemberArguments, MembersCommand,
    PauseArguments, QueryArguments, UpstreamCommand,
};
use super::connect::connect;
use super::status::{upstream_json, upstreams_text};
use super::{CliError, Exit, output};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use twinsite_api::{Client, v1};
use twinsite_model::{NodeId, Revision};

/// `twinsite pause`.
pub async fn pause(arguments: &PauseArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let revision = client.pause(arguments.duration.map(|duration| duration.0), &arguments.reason).await?;
    done(&arguments.client, revision, "automatic moves are paused; the pause ends by itself")
}

/// `twinsite resume`.
pub async fn resume(arguments: &QueryArguments) -> Result<Exit, CliError> {
    let revision = connect(&arguments.client)?.resume().await?;
    done(&arguments.client, revision, "automatic moves may happen again")
}

/// `twinsite breaker`.
pub async fn breaker(command: &BreakerCommand) -> Result<Exit, CliError> {
    let BreakerCommand::Reset(arguments) = command;
    let revision = connect(&arguments.client)?.reset_breaker().await?;
    done(&arguments.client, revision, "the breaker is closed: automatic moves may happen again")
}

/// Says that a change is made, and at which revision.
pub fn done(arguments: &ClientArguments, revision: Revision, text: &str) -> Result<Exit, CliError> {
    if arguments.json {
        output::json(&json!({ "revision": revision.0 }))?;
    } else {
        output::line(text)?;
    }
    Ok(Exit::Done)
}

/// `twinsite upstream`.
pub async fn upstream(command: &UpstreamCommand) -> Result<Exit, CliError> {
    match command {
        UpstreamCommand::List(arguments) => {
            let upstreams = state(&connect(&arguments.client)?).await?.upstreams;
            if arguments.client.json {
                output::json(&Value::Array(upstreams.iter().map(upstream_json).collect()))?;
            } else {
                output::line(&upstreams_text(&upstreams))?;
            }
            Ok(Exit::Done)
        }
        UpstreamCommand::Drain(arguments) => drain(arguments, true).await,
        UpstreamCommand::Undrain(arguments) => drain(arguments, false).await,
    }
}

async fn drain(arguments: &DrainArguments, draining: bool) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let within = arguments.deadline.map(|deadline| deadline.0);
    let revision = client.set_drain(&arguments.upstream, draining, within).await?;
    let text = if draining {
        format!("{} drains: live rooms stay, new ones go elsewhere", arguments.upstream)
    } else {
        format!("{} takes new rooms again", arguments.upstream)
    };
    done(&arguments.client, revision, &text)
}

async fn state(client: &Client) -> Result<v1::State, CliError> {
    Ok(client.state().await?.state.unwrap_or_default())
}

/// `twinsite sessions`.
pub async fn sessions(arguments: &QueryArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let (pins, nodes) = (client.pins().await?, client.connections().await?);
    let key = |room: &[u8]| room.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    if arguments.client.json {
        let rooms = pins.iter().map(|pin| {
            let token = super::words::token(pin.token.as_ref());
            json!({ "room": key(&pin.room), "upstream": pin.upstream, "token": token })
        });
        let nodes = nodes.iter().map(|node| {
            let upstreams: BTreeMap<_, _> =
                node.upstreams.iter().map(|upstream| (&upstream.upstream, upstream.connections)).collect();
            json!({ "node": node.node_name, "rooms": node.rooms, "connections": upstreams })
        });
        let (rooms, nodes): (Vec<_>, Vec<_>) = (rooms.collect(), nodes.collect());
        output::json(&json!({ "rooms": rooms, "nodes": nodes }))?;
        return Ok(Exit::Done);
    }
    let mut rooms_at = BTreeMap::<&str, u32>::new();
    for pin in &pins {
        *rooms_at.entry(&pin.upstream).or_default() += 1;
    }
    let mut connections_to = BTreeMap::<&str, u32>::new();
    for upstream in nodes.iter().flat_map(|node| &node.upstreams) {
        *connections_to.entry(&upstream.upstream).or_default() += upstream.connections;
    }
    let mut table = output::table(&["UPSTREAM", "ROOMS", "CONNECTIONS"]);
    let names: std::collections::BTreeSet<_> =
        rooms_at.keys().chain(connections_to.keys()).copied().collect();
    for name in names {
        let count = |counts: &BTreeMap<&str, u32>| counts.get(name).copied().unwrap_or(0).to_string();
        table.add_row([name.to_owned(), count(&rooms_at), count(&connections_to)]);
    }
    output::line(&format!(
        "{} rooms are known (by their hash; names are never kept)\n\n{table}",
        pins.len()
    ))?;
    Ok(Exit::Done)
}

/// `twinsite members`.
pub async fn members(command: &MembersCommand) -> Result<Exit, CliError> {
    match command {
        MembersCommand::List(arguments) => list_members(arguments).await,
        MembersCommand::Add(arguments) => add_member(arguments).await,
        MembersCommand::Remove(arguments) => {
            let client = connect(&arguments.client)?;
            let node = node(&client, arguments).await?;
            let revision = client.retire_node(node).await?;
            done(
                &arguments.client,
                revision,
                &format!("{} is removed; its id never comes back", arguments.node),
            )
        }
        MembersCommand::Lead(arguments) => {
            let client = connect(&arguments.client)?;
            let node = node(&client, arguments).await?;
            client.transfer_leadership(node).await?;
            if arguments.client.json {
                output::json(&json!({ "leader": arguments.node }))?;
            } else {
                output::line(&format!("{} leads", arguments.node))?;
            }
            Ok(Exit::Done)
        }
    }
}

async fn list_members(arguments: &QueryArguments) -> Result<Exit, CliError> {
    let health = connect(&arguments.client)?.state().await?.health.unwrap_or_default();
    if arguments.client.json {
        let members = health.members.iter().map(|member| {
            json!({
                "id": member.id,
                "name": member.name,
                "address": member.address,
                "votes": member.votes,
                "leads": member.leads,
                "heard": member.heard,
                "matched": member.matched,
            })
        });
        output::json(&Value::Array(members.collect()))?;
        return Ok(Exit::Done);
    }
    let mut table = output::table(&["ID", "NODE", "ADDRESS", "PART", "HEARD", "LOG UP TO"]);
    for member in &health.members {
        let part = match (member.leads, member.votes) {
            (true, _) => "leader",
            (_, true) => "voter",
            _ => "learner",
        };
        let heard = member.heard.map_or("?", |heard| if heard { "yes" } else { "NO" });
        let matched = member.matched.map_or_else(String::new, |index| index.to_string());
        table.add_row([&*member.id.to_string(), &member.name, &member.address, part, heard, &matched]);
    }
    output::line(&table.to_string())?;
    Ok(Exit::Done)
}

async fn add_member(arguments: &AddArguments) -> Result<Exit, CliError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fragment {
        node: Vec<twinsite_model::spec::NodeSpec>,
    }
    let path = arguments.file.display();
    let text =
        fs::read_to_string(&arguments.file).map_err(|error| CliError::Usage(format!("{path}: {error}")))?;
    let fragment: Fragment = toml::from_str(&text)
        .map_err(|error| CliError::Usage(format!("{path}: {}", crate::config::one_line(&error, &text))))?;
    let [node] = fragment.node.as_slice() else {
        return Err(CliError::Usage(format!("{path}: write exactly one [[node]] table, as in cluster.toml")));
    };
    let json = serde_json::to_string(node).map_err(|error| CliError::Usage(format!("{path}: {error}")))?;
    let revision = connect(&arguments.client)?.put_node(json).await?;
    let text = format!(
        "{} is in the specification. Start it; it receives the log first, and gets its vote when it has caught up",
        node.name
    );
    done(&arguments.client, revision, &text)
}

/// A member by its name or number.
async fn node(client: &Client, arguments: &MemberArguments) -> Result<NodeId, CliError> {
    let nodes = state(client).await?.nodes;
    let wanted = &arguments.node;
    let found = nodes.iter().find(|node| node.name == *wanted || node.id.to_string() == *wanted);
    found.map(|node| NodeId(node.id)).ok_or_else(|| {
        let known: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        CliError::Usage(format!("there is no node `{wanted}`; there are: {}", known.join(", ")))
    })
}
