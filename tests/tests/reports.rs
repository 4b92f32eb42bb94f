//! What nobody planned is reported by itself, by every node that is left, and is in the ledger.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twinsite_drill::layout::Store;
use twinsite_model::{NodeName, Profile};
use twinsite_tests::{Lab, owner};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(30);

/// The reports of a node, by what they are about.
fn reports(lab: &Lab, node: &NodeName) -> Vec<(PathBuf, Value)> {
    let folder = lab.cluster.directory().join(node.as_str()).join("data/reports");
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let report = |entry: fs::DirEntry| {
        // One that is being written is not there yet under its name.
        let text = fs::read_to_string(entry.path().join("report.json")).ok()?;
        Some((entry.path(), serde_json::from_str(&text).unwrap()))
    };
    entries.filter_map(|entry| report(entry.unwrap())).collect()
}

fn wait_for_failover(lab: &Lab, node: &NodeName) -> (PathBuf, Value) {
    let deadline = Instant::now() + SOON;
    loop {
        let found = reports(lab, node);
        if let Some(report) = found.iter().find(|(_, report)| report["scenario"] == "failover") {
            return report.clone();
        }
        assert!(Instant::now() < deadline, "{node} has no report of the failover: {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn page(folder: &Path) -> String {
    fs::read_to_string(folder.join("report.html")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_reported_by_every_node_that_is_left_and_a_planned_move_is_not() {
    let mut lab = Lab::start_with(Store::Embedded, Profile::Wan).await;
    let settled = |status: &Value| status["floating_ips"][0]["moving"].is_null();
    let status = lab.wait_supervised("an owner", SOON, |status| owner(status).is_some() && settled(status));
    let home: NodeName = owner(&status).unwrap().parse().unwrap();
    assert_eq!(
        lab.ask(&["rto"]).out.trim_end(),
        "no address has moved from one owner to another yet; `twinsite drill` rehearses it"
    );

    let there = if home.as_str().starts_with("gra") { "sbg" } else { "gra" };
    let moved = lab.ask(&["switchover", "--to", there]);
    assert_eq!(moved.code, 0, "{moved:?}");
    let status = lab.wait("the move", SOON, |status| {
        settled(status) && owner(status).is_some_and(|owner| owner.starts_with(there))
    });
    let victim: NodeName = owner(&status).unwrap().parse().unwrap();
    lab.cluster.kill_all(&[Lab::node(&victim)]).await.unwrap();
    lab.wait("another owner", SOON, |status| owner(status).is_some_and(|owner| owner != victim.as_str()));

    let nodes: Vec<_> = lab.cluster.layout().nodes.iter().map(|node| node.name.clone()).collect();
    for node in nodes.iter().filter(|node| **node != victim) {
        let (folder, report) = wait_for_failover(&lab, node);
        assert_eq!(report["origin"], "real", "{node}: {report:#}");
        assert_eq!(report["verdict"], "pass", "{node}: {report:#}");
        assert!(report["description"].as_str().unwrap().contains(victim.as_str()), "{node}: {report:#}");
        let run = &report["runs"][0];
        assert!(
            run["phases_ms"]["fence"].is_u64() && run["phases_ms"]["observe"].is_u64(),
            "{node}: {run:#}"
        );
        assert!(run["owner_before"].as_str().unwrap().starts_with(victim.as_str()), "{node}: {run:#}");
        let sources: Vec<_> =
            run["timeline"].as_array().unwrap().iter().map(|line| &line["source"]).collect();
        assert!(sources.contains(&&Value::from("cluster")), "{node}: {run:#}");
        let html = page(&folder);
        assert!(html.contains("it happened") && html.contains("<svg"), "{node}: a page with a picture");
        let planned = reports(&lab, node).into_iter().find(|(_, report)| report["scenario"] == "switchover");
        assert!(planned.is_none(), "{node} reports what was planned and went well: {planned:?}");
    }

    let ledger = lab.ask(&["rto", "--json"]).json();
    let row = |way: &str| ledger.as_array().unwrap().iter().find(|row| row["way"] == way).unwrap();
    assert_eq!(row("planned")["handover"]["count"], 1);
    assert_eq!(row("released")["handover"]["count"], 1);
    let text = lab.ask(&["status"]).out;
    assert!(text.contains("(by the timings)"), "one move of a way says too little to foretell from: {text}");
}
