//! kill -9 of any process, or of all at once, again and again, with commands under way: it always comes back with the
//! same state, and no acknowledged command is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use twinsite_api::{Client, v1};
use twinsite_drill::layout::Store;
use twinsite_drill::process::{Launcher, ProcessName};
use twinsite_model::UpstreamName;
use twinsite_tests::{Lab, count, left_out, owner};

/// How long a cluster may take to come back from anything.
const BACK: Duration = Duration::from_secs(30);
/// The longest time from the first command of a round to the kill.
const KILL_WITHIN_MS: u64 = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_was_acknowledged() {
    kill_again_and_again(Store::Embedded, 0x7415_17e5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_was_acknowledged_with_redis() {
    if !Launcher::new("").has_redis() {
        left_out("kill -9 of processes, Redis among them", "redis-server is not installed");
        return;
    }
    kill_again_and_again(Store::OwnRedis, 0x7265_6469).await;
}

async fn kill_again_and_again(store: Store, seed: u64) {
    let mut lab = Lab::start(store).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let client = lab.client(&lab.cluster.layout().nodes);
    let upstreams: Vec<_> =
        lab.cluster.layout().instances.iter().map(|instance| instance.name.clone()).collect();
    let mut drains: BTreeMap<UpstreamName, Drain> =
        upstreams.into_iter().map(|upstream| (upstream, Drain::default())).collect();
    for round in 0..count("TWINSITE_KILLS", 6) {
        let before = state(&client).await;
        // Every fifth time all at once and in peace, so that the whole state must come back as it was.
        let quiet = round % 5 == 4;
        let stop = Arc::new(AtomicBool::new(false));
        let commands = if quiet { Vec::new() } else { ask_on(&client, &drains, &stop) };
        if !quiet {
            tokio::time::sleep(Duration::from_millis(random.u64(..KILL_WITHIN_MS))).await;
        }
        let victims = victims(&lab, quiet, &mut random);
        let what = format!("round {round}, killed {victims:?}");
        lab.cluster.kill_all(&victims).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        lab.start_missing();
        lab.wait_supervised(&what, BACK, |status| {
            owner(status).is_some()
                && status["nodes"]
                    .as_array()
                    .is_some_and(|nodes| nodes.iter().all(|node| node["heard"] == true))
        });
        for command in commands {
            drains.extend([command.await.unwrap()]);
        }

        let after = state(&client).await;
        if quiet {
            assert_eq!(lasting(&before), lasting(&after), "{what}");
        }
        assert_eq!(without_drains(lasting(&before)), without_drains(lasting(&after)), "{what}");
        assert_grown(&before, &after, &what);
        for (upstream, drain) in &mut drains {
            let found = after.upstreams.iter().find(|found| found.name == upstream.as_str());
            let found = found.unwrap_or_else(|| panic!("{what}: {upstream} is gone")).drain.is_some();
            assert!(
                found == drain.acknowledged || Some(found) == drain.unanswered,
                "{what}: {upstream} drains: {found}, but {drain:?}"
            );
            *drain = Drain { acknowledged: found, unanswered: None };
        }
    }
    lab.cluster.stop().await;
}

/// What was said of one upstream.
#[derive(Debug, Clone, Copy, Default)]
struct Drain {
    /// The last command that was acknowledged.
    acknowledged: bool,
    /// A later one that may or may not have been carried out.
    unanswered: Option<bool>,
}

/// Drains and undrains every upstream, each in turn with itself, until told to stop or refused.
fn ask_on(
    client: &Client,
    drains: &BTreeMap<UpstreamName, Drain>,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<(UpstreamName, Drain)>> {
    let commands = drains.iter().map(|(upstream, drain)| {
        let (client, upstream, mut drain, stop) =
            (client.clone(), upstream.clone(), *drain, Arc::clone(stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let wanted = !drain.acknowledged;
                if client.set_drain(&upstream, wanted, None).await.is_err() {
                    drain.unanswered = Some(wanted);
                    break;
                }
                drain.acknowledged = wanted;
            }
            (upstream, drain)
        })
    });
    commands.collect()
}

/// The state, as soon as a quorum can tell it.
async fn state(client: &Client) -> v1::State {
    let deadline = tokio::time::Instant::now() + BACK;
    loop {
        match client.state().await {
            Ok(answer) => return answer.state.unwrap(),
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    }
}

fn victims(lab: &Lab, all: bool, random: &mut fastrand::Rng) -> Vec<ProcessName> {
    let mut victims = lab.cluster.processes();
    if !all && random.u8(..4) > 0 {
        random.shuffle(&mut victims);
        victims.truncate(random.usize(1..=3));
    }
    victims
}

/// All of the state that only commands of people change: not what is observed, who owns, and what follows from a kill.
fn lasting(state: &v1::State) -> v1::State {
    let mut lasting = state.clone();
    (lasting.revision, lasting.wall_ms) = (0, 0);
    for node in &mut lasting.nodes {
        (node.incarnation, node.since_ms) = (String::new(), 0);
    }
    for upstream in &mut lasting.upstreams {
        (upstream.verdict, upstream.since_ms) = (0, 0);
        upstream.evidence.clear();
        upstream.announced_ip.clear();
        upstream.announced_token = None;
    }
    for ip in &mut lasting.floating_ips {
        (ip.owner, ip.operation) = (None, None);
    }
    lasting.automatic_failovers_ms.clear();
    lasting.history.clear();
    lasting.session_token = None;
    lasting
}

fn without_drains(mut state: v1::State) -> v1::State {
    for upstream in &mut state.upstreams {
        upstream.drain = None;
    }
    state
}

/// What a kill may change only forwards: revision, tokens, and the history, which keeps what it held.
fn assert_grown(before: &v1::State, after: &v1::State, what: &str) {
    assert!(
        after.revision >= before.revision,
        "{what}: revision {} after {}",
        after.revision,
        before.revision
    );
    let token = |token: Option<v1::Token>| token.map(|token| (token.generation, token.epoch));
    assert!(token(after.session_token) >= token(before.session_token), "{what}");
    for (before, after) in before.floating_ips.iter().zip(&after.floating_ips) {
        let held = |ip: &v1::FloatingIpState| token(ip.owner.as_ref().and_then(|owner| owner.token));
        assert!(held(after) >= held(before), "{what}: {:?} after {:?}", held(after), held(before));
    }
    let oldest = after.history.first().map_or(0, |operation| operation.id);
    for operation in before.history.iter().filter(|operation| operation.id >= oldest) {
        assert!(after.history.contains(operation), "{what}: {operation:?} is not in {:?}", after.history);
    }
}
