//! Drills on a cluster that serves: there and back, refused, ended from another terminal, ended by itself, and left
//! behind by a runner that died.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twinsite_drill::layout::Store;
use twinsite_model::spec::{BlockedWindow, ClusterSpec, from_json, to_json};
use twinsite_model::{NodeName, Profile};
use twinsite_tests::{Lab, Said, owner, program};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(30);

/// The limits are wide: what is looked at here is not how fast a busy machine is.
const WIDE: &str = "[observe]\nsettle = \"20s\"\nhold = \"200ms\"\n[limits]\nhttp_gap = \"10s\"\n";
const THERE: &str = "[[step]]\ndo.switchover = { to = \"other-site\" }\n\
                     [[step]]\ndo.wait = { until = \"owner-at-other-site\", within = \"20s\" }\n\
                     [[step]]\ndo.wait = { until = \"moves-ended\", within = \"20s\" }\n";
const BACK: &str = "[[step]]\ndo.switchover = { to = \"owner-site\" }\n\
                    [[step]]\ndo.wait = { until = \"owner-at-owner-site\", within = \"20s\" }\n";
/// Something that does not come.
const STAY: &str = "[[step]]\ndo.wait = { until = \"owner-at-owner-site\", within = \"50s\" }\n";

fn scenario(lab: &Lab, name: &str, rest: &str) -> String {
    let path: PathBuf = lab.cluster.directory().join(format!("{name}.toml"));
    let head = format!("version = 1\nname = \"{name}\"\ndescription = \"A test of drills\"\n");
    fs::write(&path, format!("{head}{rest}")).unwrap();
    path.display().to_string()
}

async fn start() -> Lab {
    let mut lab = Lab::start_with(Store::Embedded, Profile::Wan).await;
    lab.wait_supervised("all is well", SOON, is_well);
    lab
}

fn is_well(status: &Value) -> bool {
    let heard = |node: &Value| node["heard"] == true;
    let healthy = |upstream: &Value| upstream["verdict"] == "healthy";
    let all =
        |list: &Value, is: &dyn Fn(&Value) -> bool| list.as_array().is_some_and(|list| list.iter().all(is));
    all(&status["nodes"], &heard)
        && all(&status["upstreams"], &healthy)
        && status["floating_ips"][0]["moving"].is_null()
        && status["floating_ips"][0]["agree"] == true
}

/// Runs a drill. A cluster that has just settled may have an alarm for a moment more, and says so.
fn run(lab: &Lab, arguments: &[&str]) -> Said {
    let deadline = Instant::now() + SOON;
    loop {
        let said = lab.ask(&[&["drill", "run", "--live"], arguments].concat());
        let for_a_moment = ["has alarms", "the leader is new", "is moving an address", "not heard:"];
        if said.code == 0
            || !for_a_moment.iter().any(|why| said.err.contains(why) || said.out.contains(why))
            || Instant::now() > deadline
        {
            return said;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Begins a drill on a node, and leaves it to itself.
fn watch(lab: &Lab, file: &str, on: &str) -> Child {
    let client = lab.cluster.directory().join("client.toml");
    let mut command = Command::new(program());
    command.args(["drill", "run", "--live", file, "--on", on, "--client"]).arg(client);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn history(lab: &Lab) -> Vec<Value> {
    let said = lab.ask(&["drill", "history", "--live", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.json().as_array().unwrap().clone()
}

fn owner_now(lab: &Lab) -> String {
    owner(&lab.status().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_is_planned_run_and_remembered_by_every_node() {
    let lab = start().await;
    let file = scenario(&lab, "there-and-back", &format!("{THERE}{BACK}{WIDE}"));
    let before = owner_now(&lab);

    let plan = run(&lab, &[&file, "--plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    for part in ["nothing is done", "switchover to", "cluster-allows", "way-back", "outage"] {
        assert!(plan.out.contains(part), "{part:?} is not in {}", plan.out);
    }
    assert_eq!(history(&lab), Vec::<Value>::new(), "a plan is no drill");

    let said = run(&lab, &[&file, "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let drill = said.json();
    assert_eq!(
        (&drill["outcome"], &drill["report"]["origin"]),
        (&"passed".into(), &"live".into()),
        "{drill:#}"
    );
    assert_eq!(drill["by"], "operator demo", "{drill:#}");
    assert_eq!(owner_now(&lab)[..3], before[..3], "the owner's site is what it was");
    let moves = lab.ask(&["events", "--json"]).json();
    assert_eq!(moves.as_array().unwrap().iter().filter(|one| one["kind"] == "switchover").count(), 2);

    // Every node remembers it by itself.
    let client = lab.client(&lab.cluster.layout().nodes);
    let deadline = Instant::now() + SOON;
    loop {
        let known = client.local_states().await;
        let all = known.iter().all(|(_, answer)| {
            let state = answer.as_ref().ok().and_then(|answer| answer.state.as_ref());
            state.and_then(|state| state.last_drill.as_ref()).is_some_and(|last| drill["id"] == last.id)
        });
        if all {
            break;
        }
        assert!(Instant::now() < deadline, "{known:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let report = lab.ask(&["drill", "report", &drill["id"].to_string(), "--live"]);
    assert_eq!(report.code, 0, "{report:?}");
    assert!(report.out.contains("there-and-back") && report.out.contains("http_gap"), "{}", report.out);
    lab.ask(&["drill", "report", "1", "--live"]).assert_one_line(&["drill 1 is not remembered"]);
    lab.ask(&["drill", "abort", "--live"]).assert_one_line(&["no drill runs"]);
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_done_to_people_is_refused_in_one_line() {
    let lab = start().await;
    let refused = run(&lab, &["owner-killed"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert!(
        refused.err.contains("owner-killed.toml:") && refused.err.contains("step 1.do.kill"),
        "{refused:?}"
    );
    run(&lab, &["no-such"]).assert_one_line(&["no-such", "switchover-and-back"]);

    let client = lab.client(&lab.cluster.layout().nodes);
    let agreed = client.state().await.unwrap().state.unwrap().spec_json;
    let agreed: ClusterSpec = from_json(agreed.as_bytes()).unwrap();
    let file = scenario(&lab, "there-and-back", &format!("{THERE}{BACK}{WIDE}"));
    let always =
        BlockedWindow { days: Vec::new(), from: "00:00".parse().unwrap(), to: "24:00".parse().unwrap() };
    let mut blocked = agreed.clone();
    blocked.drills.blocked.push(always);
    let mut forbidden = agreed.clone();
    forbidden.drills.allowed = false;
    for (spec, why) in [(blocked, "drills.blocked"), (forbidden, "drills.allowed")] {
        client.apply_spec(String::from_utf8(to_json(&spec)).unwrap(), None).await.unwrap();
        run(&lab, &[&file]).assert_one_line(&[why]);
        let plan = run(&lab, &[&file, "--plan"]);
        assert_eq!(plan.code, 1, "{plan:?}");
        assert!(plan.out.contains("FAILS"), "{}", plan.out);
    }
    client.apply_spec(String::from_utf8(to_json(&agreed)).unwrap(), None).await.unwrap();
    assert_eq!(lab.ask(&["pause", "--for", "5m", "--reason", "work"]).code, 0);
    run(&lab, &[&file]).assert_one_line(&["paused by operator demo"]);
    assert_eq!(lab.ask(&["resume"]).code, 0);
    assert_eq!(history(&lab), Vec::<Value>::new(), "nothing of it was begun");

    // A limit that nothing can keep: clients ask every 20 ms.
    let before = owner_now(&lab);
    let impossible = WIDE.replace("10s", "1ms");
    let file = scenario(&lab, "impossible", &format!("{THERE}{STAY}{impossible}"));
    let said = run(&lab, &[&file, "--json"]);
    assert_eq!((said.code, &said.json()["outcome"]), (1, &"aborted".into()), "{said:?}");
    assert!(said.out.contains("limits.http_gap is 1 ms"), "{}", said.out);
    assert_eq!(owner_now(&lab)[..3], before[..3]);
    lab.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_ends_from_another_terminal_and_without_its_runner() {
    let mut lab = start().await;
    let file = scenario(&lab, "stay", &format!("{THERE}{STAY}{WIDE}"));
    let home = owner_now(&lab)[..3].to_owned();
    let away =
        |status: &Value| owner(status).is_some_and(|owner| owner[..3] != home) && status["drill"].is_object();

    let (said, reason) = std::thread::scope(|scope| {
        let drill = scope.spawn(|| run(&lab, &[&file, "--json"]));
        lab.wait("the address is at the other site", SOON, away);
        let status = lab.ask(&["status"]);
        assert!(status.out.contains("(stay) runs on"), "{}", status.out);
        run(&lab, &[&file]).assert_one_line(&["runs already"]);
        let stop = lab.ask(&["drill", "abort", "--live", "--reason", "a big meeting"]);
        assert_eq!(stop.code, 0, "{stop:?}");
        (drill.join().unwrap(), "a big meeting")
    });
    assert_eq!((said.code, &said.json()["outcome"]), (1, &"aborted".into()), "{said:?}");
    assert!(said.out.contains(reason), "{}", said.out);
    assert_eq!(owner_now(&lab)[..3], home);
    lab.wait("all is well", SOON, is_well);

    // The witness runs the next one, and dies in the middle of it.
    let witness = NodeName::new("wit-1").unwrap();
    let mut watching = watch(&lab, &file, "wit-1");
    lab.wait("the address is at the other site", SOON, away);
    lab.cluster.kill_all(&[Lab::node(&witness)]).await.unwrap();
    let ended = watching.wait().unwrap();
    assert_eq!(ended.code(), Some(4), "who watches is told that nobody tells any more");
    let unheard = |status: &Value| {
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().any(|node| node["name"] == "wit-1" && node["heard"] == false)
    };
    let status = lab.wait("the witness is missed", SOON, unheard);
    assert_eq!(status["drill"]["outcome"], "running", "{status:#}");
    // Nobody waits for a runner that is not heard.
    let stop = lab.ask(&["drill", "abort", "--live", "--reason", "its runner is dead"]);
    assert_eq!(stop.code, 0, "{stop:?}");
    assert_eq!(history(&lab).last().unwrap()["outcome"], "abandoned");
    assert!(lab.ask(&["status"]).out.contains("was abandoned"));
    lab.cluster.start_process(&Lab::node(&witness)).unwrap();
    let status = lab.wait("all is well, and the address is served where it was left", SOON, is_well);
    assert!(owner(&status).is_some_and(|owner| owner[..3] != home), "{status:#}");
    lab.cluster.stop().await;
}
