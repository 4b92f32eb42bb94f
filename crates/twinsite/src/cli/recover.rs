//! `twinsite recover`: forced recovery when the quorum is lost for good. Offline, on one survivor, by a person who
//! names what is lost.

use super::arguments::RecoverArguments;
use super::{CliError, Exit, output};
use crate::config::{self, Loaded};
use crate::identity::Credentials;
use crate::peer::Peers;
use crate::recovery_note;
use crate::telemetry::without_panic_messages;
use futures_util::future::join_all;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use twinsite_agents::{LostNode, Peers as _, RecoveryNote};
use twinsite_consensus::{Contents, Disk, Identity, RedbDisk};
use twinsite_model::{Generation, NodeId, NodeName};

/// How long a node that is named as lost may take to show that it is not.
const PING_WITHIN: Duration = Duration::from_secs(2);

/// Rewrites the survivor's membership and begins the next generation.
pub async fn run(arguments: &RecoverArguments) -> Result<Exit, CliError> {
    let loaded = config::load(&arguments.config)?;
    let credentials = Credentials::load(&loaded.node.tls)?;
    credentials.check_node(&loaded.node.tls.cert, &loaded.spec.cluster, loaded.me.id)?;

    let generation = Generation(present(&loaded)?.generation.0 + 1);
    let lost = lost(&loaded, &arguments.lost)?;
    let attested = attested(&arguments.lost, &arguments.attest_power_off)?;
    refuse_if_a_quorum_answers(&loaded, &credentials).await?;
    // Before the disk is rewritten: a crash between the two must not leave a recovery that nobody stated. A note whose
    // recovery fails speaks of a generation that does not exist, and is not looked at.
    let named = lost.iter().map(|(id, name)| LostNode { id: *id, name: name.to_string() });
    let note = RecoveryNote { generation, lost: named.collect(), attested };
    let data = &loaded.node.data;
    recovery_note::write(&note, data).map_err(|source| CliError::Data { path: data.clone(), source })?;
    let recovered =
        twinsite_consensus::recover(&loaded.node.data, &loaded.spec.cluster, loaded.me.id, generation)
            .await?;
    let unnamed: Vec<_> = recovered.lost.iter().filter(|node| !lost.contains_key(node)).collect();
    if arguments.json {
        output::json(&json!({
            "survivor": loaded.me.name.as_str(),
            "generation": recovered.generation.0,
            "lost": recovered.lost.iter().map(|node| node.0).collect::<Vec<_>>(),
            "adopted_entries": recovered.adopted,
            "attested_power_off": attested,
        }))?;
    } else {
        output::line(&format!(
            "{} is now the only member, in generation {}. {} log entries that it could not know to be committed are \
             kept.",
            loaded.me.name, recovered.generation, recovered.adopted
        ))?;
        if !unnamed.is_empty() {
            let ids: Vec<_> = unnamed.iter().map(ToString::to_string).collect();
            output::line(&format!(
                "It also dropped members that are not in the specification: {}",
                ids.join(", ")
            ))?;
        }
        output::line(
            "Start it now. Nodes of the older generation stop when they hear of it: give each a new id and an empty data \
             directory, then `twinsite members add`.",
        )?;
    }
    Ok(Exit::Done)
}

/// A recovery divides the cluster for good: every other node that lives would stop at its next word with the survivor. So
/// nobody shall do it for want of a look at the others.
async fn refuse_if_a_quorum_answers(loaded: &Loaded, credentials: &Credentials) -> Result<(), CliError> {
    let tls = credentials
        .peer_tls()
        .map_err(|error| CliError::Usage(format!("{}: {error}", loaded.node.tls.cert.display())))?;
    let peers = Peers::new(loaded.me.id, &loaded.spec, tls, loaded.node.dial.clone());
    let voters: Vec<_> = loaded.spec.nodes.iter().filter(|node| node.kind.votes()).collect();
    let others = voters.iter().filter(|node| node.id != loaded.me.id);
    let pings = others.map(async |node| (&node.name, peers.ping(node.id, PING_WITHIN).await.is_ok()));
    let answers = join_all(pings).await;
    let alive: Vec<_> =
        answers.iter().filter(|(_, answers)| *answers).map(|(name, _)| name.as_str()).collect();
    if alive.len() + 1 > voters.len() / 2 {
        let problem = format!(
            "{} answer: together with this node they are a quorum, and nothing is lost; start this node as usual, or \
             stop them first",
            alive.join(", ")
        );
        return Err(CliError::Usage(problem));
    }
    Ok(())
}

/// What the survivor's disk holds now.
fn present(loaded: &Loaded) -> Result<Contents, CliError> {
    let identity = Identity { cluster: loaded.spec.cluster.clone(), node: loaded.me.id, new_disk: 0 };
    let disk = without_panic_messages(|| RedbDisk::open_existing(&loaded.node.data, &identity))?;
    let contents = disk.load();
    disk.close();
    Ok(contents?)
}

/// Every other voter of the specification must be named: whoever does this must know what is given up.
fn lost(loaded: &Loaded, named: &[String]) -> Result<BTreeMap<NodeId, NodeName>, CliError> {
    let mut lost = BTreeMap::new();
    for name in named {
        let known = NodeName::new(name.as_str()).ok().and_then(|name| loaded.spec.node_named(&name).cloned());
        let node = known.ok_or_else(|| CliError::Usage(format!("--lost {name}: there is no such node")))?;
        if node.id == loaded.me.id {
            return Err(CliError::Usage(format!("--lost {name}: that is the survivor itself")));
        }
        lost.insert(node.id, node.name);
    }
    let missing: Vec<_> = loaded
        .spec
        .nodes
        .iter()
        .filter(|node| node.kind.votes() && node.id != loaded.me.id && !lost.contains_key(&node.id))
        .map(|node| node.name.as_str())
        .collect();
    if missing.is_empty() {
        Ok(lost)
    } else {
        Err(CliError::Usage(format!(
            "voters that are not named as lost: {}; if one of them lives, start it instead of recovering; otherwise add \
             --lost {}",
            missing.join(", "),
            missing.join(" --lost ")
        )))
    }
}

/// The attestation holds only if every lost name was typed again.
fn attested(lost: &[String], again: &[String]) -> Result<bool, CliError> {
    if again.is_empty() {
        return Ok(false);
    }
    let lost: BTreeSet<_> = lost.iter().collect();
    let again: BTreeSet<_> = again.iter().collect();
    if lost == again {
        Ok(true)
    } else {
        let problem = "--attest-power-off must name exactly the nodes named by --lost; power off the others, or leave it \
                       out and the last lease is waited for";
        Err(CliError::Usage(problem.to_owned()))
    }
}
