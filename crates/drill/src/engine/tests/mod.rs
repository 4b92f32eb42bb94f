//! The engine on a cluster of fakes.

mod fake;

use super::*;
use crate::process::Block;
use fake::{Fake, Fence};

fn scenario(rest: &str) -> Scenario {
    let text = format!(
        "version = 1\nname = \"fake\"\ndescription = \"A drill on fakes.\"\n\
         [load]\nhttp_pause = \"15ms\"\nparticipants = 6\nrooms = 2\nwarm_up = \"300ms\"\n{rest}"
    );
    Scenario::parse("fake.toml", &text).unwrap()
}

const OWNER_KILLED: &str = "[[step]]\ndo.kill = { nodes = \"owner\" }\n\
                            [[step]]\ndo.wait = { until = \"owner-changed\", within = \"5s\" }\n\
                            [expect]\nowner = \"at-other-site\"\nmoves_max = 1\n";

async fn drill(fence: Fence, rest: &str) -> Report {
    let block = Block::claim().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut fake = Fake::start(fence, folder.path().to_owned(), &block).await;
    let api = fake.clone();
    run(&scenario(rest), &mut fake, &api, &Options::default(), &mut |_| ()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_measured_and_passes() {
    let report =
        drill(Fence::Works, &format!("{OWNER_KILLED}[limits]\nhttp_gap = \"2s\"\ntunnels_back = \"5s\"\n"))
            .await;
    assert_eq!(report.broken, Vec::<String>::new());
    let run = &report.runs[0];
    let gap = run.gap_ms.http.unwrap();
    assert!((60..2_000).contains(&gap), "the address was away for at least 70 ms: {gap}");
    assert!(run.gap_ms.websocket.unwrap() >= 60);
    assert!(run.phases_ms.detect.unwrap() >= 50 && run.phases_ms.verify.is_some(), "{:?}", run.phases_ms);
    assert_eq!((run.tunnels.lost, run.tunnels.back), (6, 6));
    assert!(run.logs.is_empty(), "nobody asks for them");
    assert!(run.requests.ok > 20 && run.connects.failed > 0, "{:?} {:?}", run.requests, run.connects);
    let what: Vec<_> = run.timeline.iter().map(|entry| entry.what.as_str()).collect();
    for line in ["kill -9: node gra-1", "sbg-1 owns under 1.2", "first answer from sbg-1 (1.2)"] {
        assert!(what.contains(&line), "{line} is not in {what:?}");
    }

    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!((&json["verdict"], &json["profile"]), (&"pass".into(), &"lan".into()));
    for key in ["detect", "fence", "move", "announce", "verify"] {
        assert!(json["runs"][0]["phases_ms"][key].is_u64(), "{key}");
    }
    for key in ["dual_answer_ms", "stale_epoch_writes", "split_rooms", "announced_mismatch_ms"] {
        assert_eq!(json["audit"][key], 0, "{key}");
    }
    assert_eq!(json["audit"]["epochs_monotonic"], true);
    let mut text = Vec::new();
    report.write_text(&mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("limit http_gap"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_fence_is_seen_from_outside() {
    let report = drill(Fence::LeavesConnections, OWNER_KILLED).await;
    assert!(!report.passed());
    assert!(report.audit.dual_answer_ms > 100, "{:?}", report.audit);
    let evidence = report.audit.evidence.join("\n");
    assert!(evidence.contains("gra-1 answered under 1.1"), "{evidence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_limits_and_steps_are_named() {
    let report = drill(Fence::Works, &format!("{OWNER_KILLED}[limits]\nhttp_gap = \"1ms\"\n")).await;
    assert!(!report.passed());
    let [line] = report.broken.as_slice() else { panic!("{:?}", report.broken) };
    assert!(line.starts_with("http_gap: median ") && line.ends_with(" ms, limit 1 ms"), "{line}");
    assert_eq!(report.runs[0].logs.len(), 1, "they may say why");

    let report = drill(Fence::Works, "[[step]]\ndo.switchover = { to = \"other-site\" }\n").await;
    assert_eq!(report.broken, ["run 1: step 1: target-healthy: no healthy upstream"]);
}

#[tokio::test]
async fn a_drill_that_breaks_redis_is_refused_where_there_is_none() {
    let block = Block::claim().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut fake = Fake::start(Fence::Works, folder.path().to_owned(), &block).await;
    let api = fake.clone();
    let scenario = scenario("[guards]\nstore = \"own-redis\"\n[[step]]\ndo.redis = \"flush\"\n");
    let error = run(&scenario, &mut fake, &api, &Options::default(), &mut |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("without --redis and --embedded"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_refused_is_refused_and_what_is_repeated_is_done_so_often() {
    let refused = "[[step]]\ndo.switchover = { to = \"other-site\", refused = true }\n\
                   [[step]]\ndo.repeat = { times = 3, every = \"20ms\", steps = [{ do.isolate = \"owner-site\" }, { do = \"heal-links\" }] }\n";
    let report = drill(Fence::Works, refused).await;
    assert_eq!(report.broken, Vec::<String>::new());
    let timeline = &report.runs[0].timeline;
    let count = |what: &str| timeline.iter().filter(|entry| entry.what == what).count();
    assert_eq!(count("refused: target-healthy: no healthy upstream"), 1);
    assert_eq!((count("cut: gra from all other sites"), count("all links whole")), (3, 3));
    let begun: Vec<_> =
        timeline.iter().filter(|entry| entry.what.starts_with("cut:")).map(|entry| entry.at_ms).collect();
    assert!(begun.windows(2).all(|pair| pair[1] - pair[0] >= 19), "{begun:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_specification_is_changed_back() {
    let block = Block::claim().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut fake = Fake::start(Fence::Works, folder.path().to_owned(), &block).await;
    let api = fake.clone();
    let changes =
        [3, 4].map(|max| format!("[[step]]\ndo.apply = {{ policy = {{ failovers_max = {max} }} }}\n"));
    let report =
        run(&scenario(&changes.join("")), &mut fake, &api, &Options::default(), &mut |_| ()).await.unwrap();
    assert_eq!(report.broken, Vec::<String>::new());
    let before = fake.0.layout.spec().policy.failovers_max;
    assert_eq!(*fake.0.applied.lock().unwrap(), [3, 4, before]);
}
