//! `twinsite drill`, from outside: run, kept, shown, ended, killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twinsite_drill::lab::life::Life;
use twinsite_tests::{Said, lab_is_possible, lab_namespaces, left_out, program, run, run_command};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(60);

/// An archive of this test's own.
struct Reports(TempDir);

impl Reports {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// `twinsite drill VERB ... --reports HERE`.
    fn ask(&self, arguments: &[&str]) -> Said {
        let here = self.path().to_str().unwrap();
        run(&[&["drill"], arguments, &["--reports", here]].concat())
    }

    /// A drill that goes on while the test does; its words go into a file.
    fn begin(&self, arguments: &[&str]) -> Running {
        let words = self.path().join("words.txt");
        let mut command = Command::new(program());
        command.args(["drill", "run"]).args(arguments).arg("--reports").arg(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&words).unwrap());
        Running { child: command.spawn().unwrap(), words }
    }

    fn history(&self) -> Vec<Value> {
        let said = self.ask(&["history", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json().as_array().unwrap().clone()
    }
}

struct Running {
    child: Child,
    words: PathBuf,
}

impl Running {
    /// Waits until it says something.
    #[track_caller]
    fn wait_for(&self, what: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let words = fs::read_to_string(&self.words).unwrap();
            if words.contains(what) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: never; {words}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How it ended.
    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "it does not end; {}",
                fs::read_to_string(&self.words).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The processes that were started by this one, and by those.
fn descendants(of: u32) -> Vec<Life> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let all: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut found = vec![of];
    let mut looked = 0;
    while let Some(one) = found.get(looked).copied() {
        found.extend(all.iter().filter(|pid| parent(**pid) == Some(one)));
        looked += 1;
    }
    found.into_iter().skip(1).filter_map(Life::of).collect()
}

#[track_caller]
fn gone(what: &str, still: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + SOON;
    loop {
        let left = still();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A long wait in the middle of which a drill can be looked at.
fn patient(folder: &Path, topology: &str) -> PathBuf {
    let path = folder.join("patient.toml");
    let text = format!(
        "version = 1\nname = \"patient\"\ndescription = \"Waits for what never comes\"\n\
         [topology]\nprofile = \"wan\"\n{topology}\n\
         [[step]]\ndo.kill = {{ instances = \"busiest\" }}\n\
         [[step]]\ndo.wait = {{ until = \"owner-changed\", within = \"50s\" }}\n\
         [expect]\nowner = \"changed\"\n[limits]\ndetect = \"1ms\"\n"
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_drill_is_run_kept_and_shown_in_every_format() {
    let reports = Reports::new();
    let [junit, html] = ["junit.xml", "page.html"].map(|file| reports.path().join(file));
    let said = reports.ask(&[
        "run",
        "owner-killed",
        "--no-lab",
        "--embedded",
        "--profile",
        "wan",
        "--json",
        "--junit",
        junit.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    let report = said.json();
    // A busy machine may break a limit of time; then the exit code must say so.
    let passed = report["verdict"] == "pass";
    let code = match report["verdict"].as_str().unwrap() {
        "pass" => 0,
        "disturbed" => 5,
        _ => 1,
    };
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!((&report["origin"], &report["version"]), (&"loopback".into(), &1.into()));
    assert_eq!(report["audit"]["dual_answer_ms"], 0, "{report:#}");
    let spans = &report["runs"][0]["spans"];
    let phases: Vec<_> =
        spans["phases"].as_array().unwrap().iter().map(|span| span["phase"].as_str().unwrap()).collect();
    assert!(phases.contains(&"detect") && phases.contains(&"verify"), "{spans:#}");
    let nodes: Vec<_> = spans["nodes"].as_array().unwrap().iter().map(|node| node["node"].clone()).collect();
    let owner = |key: &str| report["runs"][0][key].as_str().unwrap().split(' ').next().unwrap().to_owned();
    for node in [owner("owner_before"), owner("owner_after")] {
        assert!(nodes.contains(&node.as_str().into()), "{node}: {spans:#}");
    }

    let history = reports.history();
    let [entry] = history.as_slice() else { panic!("{history:?}") };
    assert_eq!((&entry["scenario"], &entry["verdict"]), (&"owner-killed".into(), &report["verdict"]));
    let id = entry["id"].as_str().unwrap();
    assert!(said.err.contains(&format!("{id}/report.html")), "{said:?}");
    let folder = Path::new(entry["folder"].as_str().unwrap());
    let kept = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    assert!(kept("scenario.toml").contains("name = \"owner-killed\""));

    let shown = |format: &str| {
        let said = reports.ask(&["report", id, "--format", format]);
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    };
    assert_eq!(serde_json::from_str::<Value>(&shown("json")).unwrap(), report);
    assert!(shown("text").contains("limit http_gap"));
    let newest =
        reports.ask(&["report", "--format", "html", "-o", html.with_extension("2").to_str().unwrap()]);
    assert_eq!(newest.code, 0, "{newest:?}");
    let page = fs::read_to_string(&html).unwrap();
    assert_eq!(fs::read_to_string(html.with_extension("2")).unwrap(), page);
    assert_eq!(
        (shown("html").trim_end(), kept("report.html").trim_end()),
        (page.trim_end(), page.trim_end())
    );
    for elsewhere in ["http:", "https:", "<script", "<link", "<img", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert!(page.contains("class=\"gap-band\"") && page.contains("class=\"phase detect\""), "{page}");
    assert_eq!(shown("junit").trim_end(), fs::read_to_string(&junit).unwrap().trim_end());
    xml_is_right(&junit, passed);

    let unknown = reports.ask(&["report", "../x"]);
    unknown.assert_one_line(&["there is no report `../x`", "drill history"]);
}

/// Reads XML with somebody else's program.
fn xml_is_right(file: &Path, passed: bool) {
    let script = "import sys, xml.etree.ElementTree as t\n\
                  suite = t.parse(sys.argv[1]).getroot().find('testsuite')\n\
                  cases = suite.findall('testcase')\n\
                  failed = [case for case in cases if case.find('failure') is not None]\n\
                  assert suite.get('name') == 'owner-killed'\n\
                  assert int(suite.get('tests')) == len(cases) > 8, len(cases)\n\
                  assert int(suite.get('failures')) == len(failed)\n\
                  print('failed' if failed else 'passed')";
    let parsed = Command::new("python3").args(["-c", script]).arg(file).output();
    let Ok(parsed) = parsed else {
        left_out("reading JUnit XML with another program's parser", "python3 is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&parsed.stdout);
    assert_eq!(said.trim(), if passed { "passed" } else { "failed" }, "{parsed:?}");
}

/// A guardian that wakes beside its node finds the lease over and ends it. On a real host its supervisor starts it again, and
/// so does a drill, without a step that asks for it.
#[test]
fn a_node_that_its_guardian_had_to_end_is_started_again() {
    if !lab_is_possible("a whole host that stands still and wakes") {
        return;
    }
    let reports = Reports::new();
    let file = reports.path().join("frozen.toml");
    let text = "version = 1\nname = \"frozen\"\ndescription = \"Its guardian wakes with it\"\n\
                [guards]\nnetwork = \"lab\"\n\
                [[step]]\ndo.freeze-host = { nodes = \"owner\" }\n\
                [[step]]\ndo.wait = { until = \"owner-changed\", within = \"wait + 10s\" }\n\
                [[step]]\ndo.thaw = { guardians = \"victims\", nodes = \"victims\" }\n\
                [[step]]\ndo.wait = { until = \"healthy\", within = \"30s\" }\n\
                [expect]\nowner = \"changed\"\n";
    fs::write(&file, text).unwrap();
    let said = reports.ask(&["run", file.to_str().unwrap(), "--embedded", "--json"]);
    let report = said.json();
    assert_eq!((said.code, &report["broken"]), (0, &Value::Array(Vec::new())), "{}", said.err);
    let timeline = report["runs"][0]["timeline"].as_array().unwrap();
    let started = timeline
        .iter()
        .any(|entry| entry["what"].as_str().unwrap().starts_with("start of what had ended by itself: node "));
    assert!(started, "{timeline:#?}");
}

#[test]
fn what_is_wrong_with_files_is_said_with_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let right = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/site-loss.toml");
    let wrong = folder.path().join("wrong.toml");
    let text = "version = 1\nname = \"wrong\"\ndescription = \"\"\n\
                [[step]]\ndo.kill = { nodes = \"victims\" }\n[topology]\nnodes_per_site = 9\n";
    fs::write(&wrong, text).unwrap();
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "version = 1\n[load]\nhttp_pause = 3\n").unwrap();
    let files = [&right, &wrong, &broken].map(|path| path.to_str().unwrap());
    let said = run(&[&["drill", "check"], &files[..]].concat());
    assert_eq!(said.code, 2, "{said:?}");
    for line in [
        "site-loss.toml: right: `site-loss`, 2 steps",
        "wrong.toml:7:1: nodes_per_site: 9: use 1 to 8",
        "wrong.toml:4:1: step 1.do: no earlier step has hit a node",
        "broken.toml:3:14: load.http_pause: ",
    ] {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
    let said = run(&[&["drill", "check", "--json"], &files[..]].concat());
    assert_eq!(said.code, 2, "{said:?}");
    let found = said.json();
    assert_eq!((&found[0]["right"], &found[0]["name"]), (&true.into(), &"site-loss".into()));
    assert_eq!(
        (&found[1]["errors"][0]["line"], &found[1]["errors"][0]["key"]),
        (&7.into(), &"nodes_per_site".into())
    );
    assert_eq!(run(&["drill", "check", files[0]]).code, 0);
    // What runs a file says the same of it, before anything is started.
    let refused = run(&["drill", "run", files[1], "--no-lab", "--reports", folder.path().to_str().unwrap()]);
    refused.assert_one_line(&["wrong.toml:7:1", "wrong.toml:4:1"]);
    assert_eq!(refused.code, 2);
}

#[test]
fn what_there_is_and_what_is_drawn_can_be_printed() {
    let list = run(&["drill", "list", "--json"]).json();
    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"site-loss") && names.len() > 30, "{names:?}");
    let schema = run(&["schema", "scenario"]).json();
    assert_eq!(schema["properties"]["version"]["const"], 1, "{schema:#}");
    let drawn = |seed: &str| {
        let said =
            run(&["drill", "random", "--seed", seed, "--minutes", "2", "--no-lab", "--embedded", "--print"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    };
    let text = drawn("7");
    assert_eq!(text, drawn("7"));
    assert_ne!(text, drawn("8"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("drawn.toml");
    fs::write(&file, text).unwrap();
    assert_eq!(run(&["drill", "check", file.to_str().unwrap()]).code, 0);
    let refused = run(&["drill", "random", "--minutes", "999"]);
    assert!(refused.code == 2 && refused.err.contains("use 1 to 45"), "{refused:?}");
}

#[test]
fn a_running_drill_is_found_kept_from_a_second_one_and_ended() {
    let reports = Reports::new();
    reports.ask(&["abort"]).assert_one_line(&["no drill runs"]);
    let scenario = patient(reports.path(), "");
    let mut running = reports.begin(&[scenario.to_str().unwrap(), "--no-lab", "--embedded"]);
    running.wait_for("kill -9");
    let second = reports.ask(&["run", "owner-killed", "--no-lab", "--embedded"]);
    let pid = format!("process {}", running.child.id());
    second.assert_one_line(&["a drill runs already", "`patient`", &pid, "twinsite drill abort"]);
    let processes = descendants(running.child.id());
    assert!(processes.len() > 10, "{processes:?}");

    let aborted = reports.ask(&["abort"]);
    assert_eq!(aborted.code, 0, "{aborted:?}");
    assert_eq!(running.code(), Some(1));
    gone("processes of the drill", || {
        processes.iter().filter(|life| life.goes_on()).map(|life| format!("{life:?}")).collect()
    });
    let report = reports.ask(&["report", "--format", "json"]).json();
    assert_eq!(report["verdict"], "aborted", "{report:#}");
    assert_eq!(report["broken"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["runs"][0]["aborted"], true);
    let timeline = report["runs"][0]["timeline"].as_array().unwrap();
    assert!(timeline.iter().any(|entry| entry["what"] == "aborted"), "{report:#}");
    // The claim went with it.
    reports.ask(&["abort"]).assert_one_line(&["no drill runs"]);
}

#[test]
fn ctrl_c_goes_the_way_back_and_a_second_one_just_ends() {
    let reports = Reports::new();
    let scenario = patient(reports.path(), "");
    let interrupt = |running: &Running| kill_process(Pid::from_child(&running.child), Signal::INT).unwrap();
    let mut running = reports.begin(&[scenario.to_str().unwrap(), "--no-lab", "--embedded"]);
    running.wait_for("kill -9");
    interrupt(&running);
    assert_eq!(running.code(), Some(1));
    assert_eq!(reports.history()[0]["verdict"], "aborted");

    let mut running = reports.begin(&[scenario.to_str().unwrap(), "--no-lab", "--embedded"]);
    running.wait_for("kill -9");
    let processes = descendants(running.child.id());
    interrupt(&running);
    running.wait_for("aborting");
    interrupt(&running);
    assert_eq!(running.code(), Some(1));
    gone("processes", || {
        processes.iter().filter(|life| life.goes_on()).map(|life| format!("{life:?}")).collect()
    });
}

#[test]
fn a_runner_that_is_killed_in_a_lab_leaves_nothing() {
    if !lab_is_possible("what the killed runner of a drill leaves") {
        return;
    }
    let reports = Reports::new();
    let scenario = patient(reports.path(), "disk_mib = 32\n[guards]\nnetwork = \"lab\"");
    let mut running = reports.begin(&[scenario.to_str().unwrap(), "--embedded"]);
    running.wait_for("kill -9");
    let pid = running.child.id();
    let processes = descendants(pid);
    assert!(processes.len() > 10 && lab_namespaces(pid).len() >= 12);
    let mounts = || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let ours = |line: &&str| line.starts_with(&format!("twinsite-lab-{pid}-"));
        mounts.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
    };
    let folder = PathBuf::from(mounts()[0].split(' ').nth(1).unwrap());
    // Wherever it is: on a disk or in memory.
    let is_ours =
        |path: &&Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"twinsite-"));
    let folder = folder.ancestors().find(is_ours).unwrap().to_owned();
    kill_process(Pid::from_child(&running.child), Signal::KILL).unwrap();
    running.child.wait().unwrap();
    gone("processes", || {
        processes.iter().filter(|life| life.goes_on()).map(|life| format!("{life:?}")).collect()
    });
    gone("namespaces", || lab_namespaces(pid));
    gone("mounts", mounts);
    gone("files", || if folder.exists() { vec![folder.display().to_string()] } else { Vec::new() });
    assert_eq!(reports.history(), Vec::<Value>::new(), "nothing half done");
    // Its claim is nobody's now.
    reports.ask(&["abort"]).assert_one_line(&["no drill runs"]);
}

#[test]
fn as_root_a_drill_runs_in_a_lab() {
    if !lab_is_possible("a drill in a lab") {
        return;
    }
    let reports = Reports::new();
    let said = reports.ask(&["run", "switchover", "--embedded", "--profile", "wan", "--json"]);
    let report = said.json();
    assert_eq!(said.code == 0, report["verdict"] == "pass", "{said:?}");
    assert_eq!(
        (&report["origin"], &report["audit"]["two_hosts_ms"]),
        (&"lab".into(), &0.into()),
        "{report:#}"
    );
    let page = reports.ask(&["report", "--format", "html"]).out;
    assert!(page.contains("probes answered by"), "{page}");
}

#[test]
fn without_root_it_is_said_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("twinsite");
    fs::copy(program(), &own).unwrap();
    for path in [folder.path(), &own] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let without_root = |arguments: &[&str]| {
        let mut command = Command::new(&own);
        command
            .args(["drill", "run"])
            .args(arguments)
            .current_dir("/")
            .env("TWINSITE_REPORTS", folder.path());
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        run_command(command)
    };
    without_root(&["host-cut"]).assert_one_line(&["`host-cut`", "needs root", "sudo", "--no-lab"]);
    without_root(&["owner-killed", "--lab"]).assert_one_line(&["needs root", "sudo", "--no-lab"]);
    let said = without_root(&["owner-killed", "--embedded", "--profile", "wan", "--json"]);
    assert_eq!(said.json()["origin"], "loopback", "{said:?}");
    assert!(said.err.lines().any(|line| line.starts_with("on loopback addresses; as root,")), "{said:?}");
}
