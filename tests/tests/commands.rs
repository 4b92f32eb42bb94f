//! Every command against a running demo, for people and as JSON; and Ctrl-C, after which nothing is left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use twinsite_tests::{Said, program, run};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(20);

/// `twinsite demo` as a person starts it, with a folder for temporary files of its own.
struct Demo {
    process: Child,
    out: Lines<BufReader<ChildStdout>>,
    temporary: tempfile::TempDir,
    /// What it said when all was healthy.
    introduction: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = Command::new(program());
        command.args(["demo", "--embedded"]).env("TMPDIR", temporary.path()).env_remove("TWINSITE_CLIENT");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut introduction = Vec::new();
        // The demo gives up by itself when it does not become healthy, and closes its output.
        while !introduction.iter().any(|line: &String| line.contains("Ctrl-C ends everything")) {
            introduction.push(out.next().unwrap_or_else(|| panic!("{introduction:?}")).unwrap());
        }
        Self { process, out, temporary, introduction }
    }

    fn directory(&self) -> PathBuf {
        let line = self.introduction.iter().find_map(|line| line.split_once("logs are in "));
        PathBuf::from(line.unwrap().1.trim())
    }

    /// The second number of its addresses.
    fn block(&self) -> u8 {
        let address = self.introduction.iter().find_map(|line| line.split_once("http://127."));
        address.unwrap().1.split('.').next().unwrap().parse().unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> Said {
        let client = self.directory().join("client.toml").display().to_string();
        run(&[arguments, &["--client", &client]].concat())
    }

    /// What a command prints for people; it must be good news.
    #[track_caller]
    fn text(&self, arguments: &[&str]) -> String {
        let said = self.ask(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        assert!(!said.out.trim().is_empty(), "{arguments:?} said nothing");
        said.out
    }

    /// What it prints for programs: one document.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.ask(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.json()
    }

    /// The first line of a command that goes on until it is stopped.
    fn first_line(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program());
        command.args(arguments).arg("--client").arg(self.directory().join("client.toml"));
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let line = BufReader::new(process.stdout.take().unwrap()).lines().next();
        process.kill().unwrap();
        process.wait().unwrap();
        line.unwrap().unwrap()
    }

    fn owner_site(&self) -> String {
        self.json(&["status"])["floating_ips"][0]["owner"]["node"].as_str().unwrap()[..3].to_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn every_command_answers_for_people_and_for_programs() {
    let demo = Demo::start();
    let first = &demo.introduction[0];
    for part in ["gra with 2 proxies and 3 meeting instances", "wit as witness", "embedded"] {
        assert!(first.contains(part), "{part:?} is not in {first:?}");
    }
    looking(&demo);
    moving(&demo);
    configuring(&demo);
    keeping(&demo);
}

fn looking(demo: &Demo) {
    assert!(demo.text(&["status"]).contains("gra-1"));
    let status = demo.json(&["status"]);
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(5), "{status:#}");
    assert_eq!(demo.json(&["status", "--local"])["cluster"], status["cluster"]);

    assert!(!demo.first_line(&["watch", "--since", "0"]).is_empty());
    let change: Value = serde_json::from_str(&demo.first_line(&["watch", "--since", "0", "--json"])).unwrap();
    assert!(change.is_object(), "{change}");

    assert!(demo.text(&["explain"]).contains("public"));
    assert_eq!(demo.json(&["explain", "--ip", "public"]).as_array().map(Vec::len), Some(1));

    assert!(demo.text(&["sessions"]).contains("rooms are known"));
    assert!(demo.json(&["sessions"])["nodes"].is_array());

    let node = demo.directory().join("gra-1/node.toml").display().to_string();
    let check = run(&["check", "--config", &node]);
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.out.contains("gra-1"), "{check:?}");
    let check = run(&["check", "--config", &node, "--timing", "--json"]);
    assert_eq!(check.json()["ok"], true);
    assert_eq!(check.json()["round_trip_max_ms"], 25.0, "the heartbeat of `lan`");

    for shell in ["bash", "zsh", "fish"] {
        let said = run(&["completion", shell]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("switchover"), "no word of switchover for {shell}");
    }
}

fn moving(demo: &Demo) {
    let from = demo.owner_site();
    let to = if from == "gra" { "sbg" } else { "gra" };
    assert!(demo.text(&["switchover", "--to", to, "--plan"]).contains("nothing is done"));
    let plan = demo.json(&["switchover", "--to", to, "--plan"]);
    assert!(plan["predicted_outage_ms"].is_u64(), "{plan:#}");
    assert_eq!(demo.owner_site(), from, "a plan moved the address");
    assert_eq!(demo.json(&["switchover", "--to", to])["outcome"], "verified");
    assert_eq!(demo.owner_site(), to);
    // Everything is where it should be: an answer all the same.
    let owner = demo.json(&["status"])["floating_ips"][0]["owner"]["node"].as_str().unwrap().to_owned();
    let again = demo.ask(&["switchover", "--to", &owner, "--json"]);
    assert!(again.code != 0 || again.json().is_object(), "{again:?}");
    assert!(demo.text(&["switchover", "--to", &from]).contains("verified"));

    let plan = demo.json(&["failover", "--to", to, "--plan"]);
    assert_eq!(plan["kind"], "failover", "{plan:#}");
    assert!(demo.text(&["failover", "--to", to, "--plan"]).contains("outage"));
    let begun = demo.json(&["failover", "--to", to, "--no-wait"]);
    assert!(begun["operation"].is_u64(), "{begun}");
    let deadline = Instant::now() + SOON;
    while demo.json(&["events"]).as_array().is_none_or(|moves| {
        !moves.iter().any(|one| one["id"] == begun["operation"] && one["outcome"] == "verified")
    }) {
        assert!(Instant::now() < deadline, "the failover did not end: {}", demo.text(&["events"]));
    }
    assert!(demo.text(&["events"]).contains("failover"));

    // Nothing moves, so there is nothing to call off, and that is said in one line.
    demo.ask(&["abort", "--reason", "a test"]).assert_one_line(&["twinsite: "]);
    demo.ask(&["abort", "--json"]).assert_one_line(&["twinsite: "]);
}

fn configuring(demo: &Demo) {
    let file = demo.directory().join("cluster.toml");
    let name = file.display().to_string();
    assert!(demo.text(&["apply", &name]).contains("nothing changes"));
    let text = fs::read_to_string(&file).unwrap();
    let robots =
        "[[route]]\nname = \"robots\"\npath = \"/robots.txt\"\nrespond = { body = \"none\" }\n\n[[route]]";
    let changed = demo.directory().join("changed.toml");
    fs::write(&changed, text.replacen("[[route]]", robots, 1)).unwrap();
    let changed_name = changed.display().to_string();

    let dry = demo.text(&["apply", &changed_name, "--dry-run"]);
    assert!(dry.contains("+ route (robots): {") && dry.contains("nothing was changed"), "{dry}");
    let dry = demo.json(&["apply", &changed_name, "--dry-run"]);
    assert_eq!(
        (dry["changes"].as_array().map(Vec::len), &dry["changes"][0]["before"]),
        (Some(1), &Value::Null)
    );
    assert!(demo.text(&["apply", &name]).contains("nothing changes"), "a dry run changed something");
    let same = demo.json(&["apply", &name, "--dry-run"]);
    assert_eq!(same["changes"].as_array().map(Vec::len), Some(0), "{same}");

    // A node that has just begun to read the newest format may not have said so yet.
    let deadline = Instant::now() + SOON;
    while demo.ask(&["apply", &changed_name]).code != 0 {
        assert!(Instant::now() < deadline, "{:?}", demo.ask(&["apply", &changed_name]));
    }
    assert!(demo.text(&["apply", &changed_name]).contains("nothing changes"), "it is agreed");
    let back = demo.json(&["apply", &name]);
    assert!(back["revision"].is_u64(), "{back}");

    fs::write(&changed, text.replacen("[[route]]", "[[rout]]", 1)).unwrap();
    demo.ask(&["apply", &changed_name]).assert_one_line(&["changed.toml", "rout"]);
    demo.ask(&["apply", "/nonexistent.toml"]).assert_one_line(&["/nonexistent.toml", "No such file"]);
}

fn keeping(demo: &Demo) {
    assert!(demo.text(&["pause", "--for", "5m", "--reason", "a test"]).contains("paused"));
    assert!(demo.text(&["status"]).contains("a test"));
    assert!(demo.json(&["pause", "--for", "6m"])["revision"].is_u64());
    assert!(demo.text(&["resume"]).contains("may happen again"));
    assert!(demo.json(&["resume"])["revision"].is_u64());
    assert!(!demo.text(&["status"]).contains("a test"));

    assert!(demo.text(&["breaker", "reset"]).contains("closed"));
    assert!(demo.json(&["breaker", "reset"])["revision"].is_u64());

    assert!(demo.text(&["upstream", "list"]).contains("sbg-meet-3"));
    let drains = || {
        let list = demo.json(&["upstream", "list"]);
        let found = list.as_array().unwrap().iter().find(|one| one["name"] == "gra-meet-1").cloned();
        found.unwrap()["drain"].as_bool()
    };
    assert_eq!(drains(), Some(false));
    assert!(demo.text(&["upstream", "drain", "gra-meet-1", "--deadline", "1h"]).contains("drains"));
    assert_eq!(drains(), Some(true));
    assert!(demo.text(&["upstream", "undrain", "gra-meet-1"]).contains("takes new rooms"));
    assert!(demo.json(&["upstream", "drain", "gra-meet-1"])["revision"].is_u64());
    assert!(demo.json(&["upstream", "undrain", "gra-meet-1"])["revision"].is_u64());
    assert_eq!(drains(), Some(false));

    assert!(demo.text(&["members", "list"]).contains("leader"));
    let follower = || {
        let members = demo.json(&["members", "list"]);
        let found = members.as_array().unwrap().iter().find(|one| one["leads"] == false).cloned();
        found.unwrap()["name"].as_str().unwrap().to_owned()
    };
    let next = follower();
    assert!(demo.text(&["members", "lead", &next]).contains(&next));
    let next = follower();
    assert_eq!(demo.json(&["members", "lead", &next])["leader"], *next);
    demo.ask(&["members", "remove", "nobody"]).assert_one_line(&["nobody", "gra-1"]);
    let removed = "gra-2";
    assert!(demo.text(&["members", "remove", removed]).contains("never comes back"));
    let deadline = Instant::now() + SOON;
    while demo.text(&["members", "list"]).contains(removed) {
        assert!(Instant::now() < deadline, "{removed} is still a member");
    }
    let fragment = demo.directory().join("again.toml");
    fs::write(
        &fragment,
        "[[node]]\nid = 2\nname = \"gra-2\"\nsite = \"gra\"\nkind = \"proxy\"\npeer = \"127.0.0.1:1\"\napi = \"127.0.0.1:2\"\n",
    )
    .unwrap();
    demo.ask(&["members", "add", &fragment.display().to_string()]).assert_one_line(&["2"]);
}

#[test]
fn every_command_has_help_with_examples() {
    let commands: [&[&str]; 30] = [
        &["demo"],
        &["node"],
        &["guardian"],
        &["status"],
        &["watch"],
        &["events"],
        &["explain"],
        &["switchover"],
        &["failover"],
        &["abort"],
        &["drill", "run"],
        &["drill", "abort"],
        &["drill", "history"],
        &["drill", "report"],
        &["breaker", "reset"],
        &["pause"],
        &["resume"],
        &["upstream", "list"],
        &["upstream", "drain"],
        &["upstream", "undrain"],
        &["sessions"],
        &["members", "list"],
        &["members", "add"],
        &["members", "remove"],
        &["members", "lead"],
        &["check"],
        &["recover"],
        &["completion"],
        &["help"],
        &[],
    ];
    for command in commands {
        let arguments = if command == ["help"] { vec!["help"] } else { [command, &["--help"]].concat() };
        let said = run(&arguments);
        assert_eq!(said.code, 0, "{command:?}: {said:?}");
        let examples =
            said.out.split_once("Examples:").unwrap_or_else(|| panic!("{command:?}: {}", said.out)).1;
        let own = format!("twinsite {}", if command == ["help"] { String::new() } else { command.join(" ") });
        assert!(examples.contains(own.trim_end()), "{command:?}: {examples}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let mut demo = Demo::start();
    let (directory, block) = (demo.directory(), demo.block());
    assert!(directory.starts_with(demo.temporary.path()), "{}", directory.display());
    assert!(processes_about(&directory) >= 10, "guardians, nodes and instances name their folders");
    assert!(listening_in(block) >= 10, "nodes and relays listen in 127.{block}.0.0/16");

    kill_process(Pid::from_child(&demo.process), Signal::INT).unwrap();
    let deadline = Instant::now() + SOON;
    let status = loop {
        if let Some(status) = demo.process.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the demo does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{status}");
    assert_eq!(processes_about(&directory), 0, "processes outlive the demo");
    assert_eq!(listening_in(block), 0, "something still listens in 127.{block}.0.0/16");
    let left: Vec<_> =
        fs::read_dir(demo.temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "files outlive the demo");
    assert!(demo.out.all(|line| line.is_ok()), "its output ended in order");
}

/// How many processes have a path below this one on their command line.
fn processes_about(directory: &Path) -> usize {
    let wanted = directory.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains(&wanted).then_some(())
    });
    processes.count()
}

/// How many sockets listen on addresses of this block.
fn listening_in(block: u8) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = table.lines().skip(1).filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let address = fields[1].split(':').next().unwrap();
        let address = u32::from_str_radix(address, 16).unwrap().to_ne_bytes();
        fields[3] == "0A" && address[..2] == [127, block]
    });
    ours.count()
}
