//! kill -9 of any process, or of all at once, again and again: it always comes back with the same state, and no
//! acknowledged command is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use twinsite_drill::layout::Store;
use twinsite_drill::process::ProcessName;
use twinsite_tests::{Lab, count, owner};

/// How long a cluster may take to come back from anything.
const BACK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_that_was_acknowledged() {
    let mut lab = Lab::start(Store::Embedded).await;
    let mut random = fastrand::Rng::with_seed(0x7415_17e5);
    let upstreams: Vec<_> =
        lab.cluster.layout().instances.iter().map(|instance| instance.name.to_string()).collect();
    let mut drained: BTreeMap<String, bool> = BTreeMap::new();
    let mut token = String::new();
    for round in 0..count("TWINSITE_KILLS", 12) {
        // One acknowledged command.
        let upstream = &upstreams[random.usize(..upstreams.len())];
        let drain = !drained.get(upstream).copied().unwrap_or(false);
        let said = lab.ask(&["upstream", if drain { "drain" } else { "undrain" }, upstream]);
        if said.code == 0 {
            drained.insert(upstream.clone(), drain);
        }
        assert_eq!(said.code, 0, "round {round}: {said:?}");

        // Then the kill.
        let victims = victims(&lab, round, &mut random);
        lab.cluster.kill_all(&victims).await.unwrap();
        lab.start_missing();

        let status = lab.wait_supervised(&format!("round {round}, killed {victims:?}"), BACK, |status| {
            owner(status).is_some()
                && status["nodes"]
                    .as_array()
                    .is_some_and(|nodes| nodes.iter().all(|node| node["heard"] == true))
        });
        for (upstream, drain) in &drained {
            let found = is_draining(&status, upstream);
            assert_eq!(found, Some(*drain), "round {round}: {upstream} of {status:#}");
        }
        let now = status["floating_ips"][0]["owner"]["token"].as_str().unwrap_or_default().to_owned();
        assert!(newer_or_same(&now, &token), "round {round}: token {now} after {token}");
        token = now;
    }
    lab.cluster.stop().await;
}

fn victims(lab: &Lab, round: usize, random: &mut fastrand::Rng) -> Vec<ProcessName> {
    let all = lab.cluster.processes();
    if round % 5 == 4 {
        return all;
    }
    let mut some = all.clone();
    random.shuffle(&mut some);
    some.truncate(random.usize(1..=3));
    some
}

fn is_draining(status: &Value, name: &str) -> Option<bool> {
    let upstreams = status["upstreams"].as_array()?;
    let upstream = upstreams.iter().find(|upstream| upstream["name"] == name)?;
    upstream["drain"].as_bool()
}

fn newer_or_same(now: &str, before: &str) -> bool {
    let parts = |token: &str| -> Vec<u64> { token.split('.').filter_map(|part| part.parse().ok()).collect() };
    parts(now) >= parts(before)
}
