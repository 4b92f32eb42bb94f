//! `twinsite lab`, from outside: labs that stand by themselves, are looked at, entered, broken and taken down.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use twinsite_drill::lab::life::{Life, ProcessState};
use twinsite_tests::{Said, lab_is_possible, lab_namespaces, program, run, run_command};

/// How long anything may take to be seen.
const SOON: Duration = Duration::from_secs(60);
/// Where labs are noted.
const ROOT: &str = "/run/twinsite-lab";

/// A lab of this test. It goes with it.
struct Lab {
    name: String,
    /// What `lab up --json` said.
    up: Value,
}

impl Lab {
    fn up(name: &str, more: &[&str]) -> Self {
        let name = called(name);
        let said = run(&[&["lab", "up", "--embedded", "--json", "--name", &name], more].concat());
        assert_eq!(said.code, 0, "{said:?}");
        Self { up: said.json(), name }
    }

    fn pid(&self) -> u32 {
        u32::try_from(self.up["pid"].as_u64().unwrap()).unwrap()
    }

    fn folder(&self) -> PathBuf {
        Path::new(ROOT).join(&self.name)
    }

    /// `twinsite lab VERB --name NAME ...`.
    fn ask(&self, verb: &str, arguments: &[&str]) -> Said {
        run(&[&["lab", verb, "--name", &self.name], arguments].concat())
    }

    #[track_caller]
    fn done(&self, verb: &str, arguments: &[&str]) -> String {
        let said = self.ask(verb, arguments);
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    }

    #[track_caller]
    fn status(&self) -> Value {
        let said = self.ask("status", &["--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// `twinsite status --json` of its cluster, from here.
    fn cluster(&self) -> Option<Value> {
        let client = self.up["client_file"].as_str().unwrap();
        let said = run(&["status", "--json", "--client", client]);
        (said.code == 0).then(|| said.json())
    }

    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.cluster();
            if status.as_ref().is_some_and(&wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: never; last {status:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that runs, as the status says.
    fn processes(&self) -> Vec<Life> {
        processes(&self.status()).iter().map(|process| life(&process["pid"])).collect()
    }

    #[track_caller]
    fn is_whole(&self) {
        let status = self.status();
        let all = processes(&status);
        assert!(all.iter().all(|process| process["state"] == "running"), "{status:#}");
        assert!(self.cluster().is_some(), "its cluster answers");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(run(&["lab", "down", "--name", &self.name]));
    }
}

/// Names of labs are the machine's: another run of this test may be under way.
fn called(name: &str) -> String {
    format!("test-{}-{name}", std::process::id())
}

fn life(pid: &Value) -> Life {
    Life::of(u32::try_from(pid.as_u64().unwrap()).unwrap()).unwrap()
}

fn processes(status: &Value) -> Vec<&Value> {
    let hosts = status["hosts"].as_array().unwrap().iter();
    hosts.flat_map(|host| host["processes"].as_array().unwrap()).collect()
}

fn process<'a>(status: &'a Value, name: &str) -> &'a Value {
    processes(status).into_iter().find(|process| process["name"] == name).unwrap()
}

/// The hosts that have the floating address, with what their kernels say.
fn holders(status: &Value) -> Vec<(&str, &Value)> {
    let hosts = status["hosts"].as_array().unwrap().iter();
    let holders = hosts.filter(|host| host["floating"]["present"] == true);
    holders.map(|host| (host["name"].as_str().unwrap(), &host["floating"])).collect()
}

fn link<'a>(status: &'a Value, from: &str, to: &str) -> &'a Value {
    let mut links = status["links"].as_array().unwrap().iter();
    links.find(|link| link["from"] == from && link["to"] == to).unwrap()
}

fn is_heard(status: &Value, name: &str) -> bool {
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.any(|node| node["name"] == name && node["heard"] == true)
}

/// Nothing of a lab is there any more.
#[track_caller]
fn assert_gone(name: &str, pid: u32, lived: &[Life]) {
    assert_eq!(lab_namespaces(pid), Vec::<String>::new());
    let alive: Vec<_> = lived.iter().filter(|life| life.goes_on()).collect();
    assert!(alive.is_empty(), "{alive:?}");
    assert_eq!(ProcessState::of(pid), ProcessState::Gone);
    for path in [Path::new(ROOT).join(name), Path::new(ROOT).join(format!("{name}.log"))] {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_lab_is_made_looked_at_entered_broken_and_taken_down() {
    if !lab_is_possible("a lab that stands by itself") {
        return;
    }
    let lab = Lab::up("whole", &[]);
    let (name, pid) = (lab.name.clone(), lab.pid());
    let status = lab.status();
    assert_eq!((&status["state"], &status["pid"]), (&Value::from("up"), &lab.up["pid"]));
    lab.is_whole();
    // Two proxies, a guardian for each node, three instances at either site, and the witness.
    assert_eq!(processes(&status).len(), 2 * (2 * 2 + 3) + 2);
    assert_eq!(lab_namespaces(pid).len(), 2 * (2 + 3) + 1 + 2, "redis and the clients have one each too");
    assert!(status["links"].as_array().unwrap().iter().all(|link| link["cut"] == false));
    assert_eq!(lab.cluster().unwrap()["cluster"], *name);
    let text = lab.done("status", &[]);
    for part in
        ["gra-1/guardian", "running", "whole", &format!("twinsite-lab-{pid}-gra-1"), "light, listening"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    run(&["lab", "up", "--embedded", "--name", &name]).assert_one_line(&[&name, "is up already", "--name"]);
    lab.is_whole();

    it_is_entered(&lab);
    its_processes_are_broken(&lab);
    its_links_are_changed(&lab);
    nonsense_hurts_nobody(&lab);

    let lived = lab.processes();
    // A shell that somebody has left open there.
    let mut shell = Command::new(program());
    shell.args(["lab", "shell", "--name", &name, "sbg-1", "--", "sleep", "1000"]);
    let mut shell = shell.stdin(Stdio::null()).spawn().unwrap();
    let namespace = fs::metadata(format!("/run/netns/twinsite-lab-{pid}-sbg-1")).unwrap();
    let place = PathBuf::from(format!("/proc/{}/ns/net", shell.id()));
    let same = |one: &fs::Metadata| {
        std::os::unix::fs::MetadataExt::ino(one) == std::os::unix::fs::MetadataExt::ino(&namespace)
    };
    until("the shell is there", || fs::metadata(&place).is_ok_and(|here| same(&here)));
    let inside =
        lab.ask("shell", &["clients", "--", program().to_str().unwrap(), "lab", "down", "--name", &name]);
    inside.assert_one_line(&["within the lab", "leave the shell first"]);

    assert!(lab.done("down", &[]).contains("is down"));
    assert_gone(&name, pid, &lived);
    assert!(!shell.wait().unwrap().success(), "the shell ended with it");
    assert!(lab.done("down", &[]).contains("no lab called"), "and once more");
    lab.ask("status", &[]).assert_one_line(&[&name, "there is no lab"]);
    assert_eq!(lab.ask("status", &[]).code, 4);
    let client = lab.up["client_file"].as_str().unwrap();
    assert_ne!(run(&["status", "--client", client]).code, 0);
}

fn it_is_entered(lab: &Lab) {
    let there = |host: &str, script: &str| lab.ask("shell", &[host, "--", "sh", "-c", script]);
    let said =
        there("sbg-2", "ip -oneline -4 address show eth0; echo $TWINSITE_LAB $TWINSITE_LAB_HOST; exit 7");
    assert_eq!(said.code, 7, "{said:?}");
    assert!(
        said.out.contains("10.88.2.2/16") && said.out.contains(&format!("{} sbg-2", lab.name)),
        "{said:?}"
    );
    let said = there("clients", "twinsite status --json");
    assert_eq!((said.code, &said.json()["cluster"]), (0, &Value::from(lab.name.as_str())), "{said:?}");
    let mut shell = Command::new(program());
    shell.args(["lab", "shell", "--name", &lab.name, "redis"]).env("SHELL", "/bin/sh");
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"echo \"$PS1\"; exit 3\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let prompt = String::from_utf8(output.stdout).unwrap();
    assert!(prompt.contains(&format!("({} redis)", lab.name)), "{prompt}");
    there("nowhere", "true").assert_one_line(&["no host `nowhere`", "gra-1", "clients"]);
}

fn its_processes_are_broken(lab: &Lab) {
    let state = |name: &str| process(&lab.status(), name)["state"].clone();
    assert!(lab.done("freeze", &["gra-meet-1"]).contains("frozen"));
    assert_eq!(state("gra-meet-1"), "frozen");
    lab.done("thaw", &["gra-meet-1"]);
    assert_eq!(state("gra-meet-1"), "running");
    lab.ask("kill", &["gra-meet-9"]).assert_one_line(&["no process `gra-meet-9`", "gra-1/guardian"]);

    let before = lab.status();
    let [(owner, holding)] = holders(&before)[..] else { panic!("{before:#}") };
    assert_eq!((&holding["gate"], &holding["listening"]), (&Value::from("light"), &Value::from(true)));
    lab.done("kill", &[owner]);
    assert_eq!(state(owner), "gone");
    lab.ask("freeze", &[owner]).assert_one_line(&["does not run", "lab start"]);
    until("another host has the address", || {
        let now = lab.status();
        let now = holders(&now);
        now.iter().any(|(name, holding)| *name != owner && holding["gate"] == "light")
    });
    lab.done("start", &[owner]);
    lab.wait("it is back", |status| is_heard(status, owner));
    lab.is_whole();
}

fn its_links_are_changed(lab: &Lab) {
    lab.done("link", &["gra", "sbg", "--delay", "15ms", "--loss", "1", "--rate", "1000000"]);
    lab.done("link", &["gra", "sbg", "--jitter", "2ms"]);
    let status = lab.status();
    let changed = link(&status, "gra", "sbg");
    let wanted: [(&str, Value); 4] = [
        ("delay", "15ms".into()),
        ("jitter", "2ms".into()),
        ("loss_percent", 1.into()),
        ("rate", 1_000_000.into()),
    ];
    for (key, value) in wanted {
        assert_eq!(changed[key], value, "{changed:#}");
    }
    assert_eq!(link(&status, "sbg", "gra")["delay"], "0s", "the other direction is as it was");
    lab.done("link", &["gra", "sbg", "--heal"]);
    assert_eq!(link(&lab.status(), "gra", "sbg")["rate"], Value::Null);

    lab.wait("the witness is heard", |status| is_heard(status, "wit-1"));
    for site in ["gra", "sbg"] {
        lab.done("link", &["wit", site, "--cut"]);
    }
    lab.wait("the witness is not heard", |status| !is_heard(status, "wit-1"));
    assert_eq!(link(&lab.status(), "wit", "gra")["cut"], true);
    lab.done("link", &["--heal", "--all"]);
    lab.wait("the witness is heard again", |status| is_heard(status, "wit-1"));

    assert!(lab.done("cut", &["wit-1"]).contains("wit-1: cut off"));
    lab.wait("the witness's host is cut off", |status| !is_heard(status, "wit-1"));
    assert!(lab.done("status", &[]).contains("CUT OFF"));
    lab.done("cut", &["wit-1", "--heal"]);
    lab.wait("the witness is on the network again", |status| is_heard(status, "wit-1"));
    let hosts = lab.status()["hosts"].as_array().unwrap().clone();
    assert!(hosts.iter().all(|host| host["cut"] == false), "{hosts:#?}");
    lab.ask("cut", &["clients"]).assert_one_line(&[
        "no host `clients` that can be cut off",
        "gra-1",
        "redis",
    ]);

    lab.ask("link", &["gra", "mars", "--cut"]).assert_one_line(&["no link gra -> mars", "gra, sbg, wit"]);
    lab.ask("link", &["gra", "sbg", "--delay", "2m"]).assert_one_line(&["delay", "1m"]);
    let wrong: [&[&str]; 5] = [
        &["gra", "sbg"],
        &["gra", "sbg", "--loss", "101"],
        &["gra", "sbg", "--heal", "--cut"],
        &["gra", "sbg", "--rate", "0"],
        &["--all"],
    ];
    for arguments in wrong {
        let said = lab.ask("link", arguments);
        assert_eq!(said.code, 2, "{said:?}");
    }
}

fn nonsense_hurts_nobody(lab: &Lab) {
    let control = lab.folder().join("control");
    assert_eq!(fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o600);
    let long = vec![b'{'; 1_000_000];
    let nonsense: [&[u8]; 5] = [
        b"\n",
        b"\xfe\xff\x00\n",
        b"{\"version\":7,\"wish\":\"down\"}\n",
        b"{\"version\":1,\"wish\":{\"process\":{\"name\":\"gra-1\",\"act\":\"explode\"}}}\n",
        &long,
    ];
    for bytes in nonsense {
        let mut stream = UnixStream::connect(&control).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        drop(stream.write_all(bytes));
        drop(stream.shutdown(Shutdown::Write));
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["answer"]["refused"].is_string(), "{answer}");
    }
    lab.is_whole();
}

#[test]
fn a_lab_whose_keeper_was_killed_says_so_and_is_removed() {
    if !lab_is_possible("a lab whose keeper was killed") {
        return;
    }
    let lab = Lab::up("killed", &["--nodes-per-site", "1", "--instances-per-site", "1"]);
    let (name, pid, lived) = (lab.name.clone(), lab.pid(), lab.processes());
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    until("all its processes have ended with it", || lived.iter().all(|life| !life.goes_on()));
    assert!(!lab_namespaces(pid).is_empty(), "nobody was there to remove them");
    let said = lab.ask("status", &[]);
    said.assert_one_line(&[&name, "is gone", "lab down"]);
    assert_eq!(said.code, 4);
    assert!(said.out.contains("NOBODY KEEPS IT"), "{said:?}");
    let said = lab.ask("status", &["--json"]);
    assert_eq!((&said.json()["state"], said.code), (&Value::from("killed"), 4));
    lab.ask("shell", &["gra-1", "--", "true"]).assert_one_line(&["is gone", "lab down"]);

    assert!(lab.done("down", &[]).contains("what was left"));
    assert_gone(&name, pid, &lived);
    assert!(lab.done("down", &[]).contains("no lab called"));
}

/// Who stops the command while the lab starts, and a lab that cannot start, leave nothing.
#[test]
fn a_lab_that_does_not_come_up_leaves_nothing() {
    if !lab_is_possible("a lab that does not come up") {
        return;
    }
    let name = called("stopped");
    let mut up = Command::new(program());
    up.args(["lab", "up", "--embedded", "--name", &name]).stdin(Stdio::null());
    let mut up = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut words = BufReader::new(up.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("meeting instances") {
        assert_ne!(words.read_line(&mut said).unwrap(), 0, "{said}");
    }
    let record = fs::read_to_string(Path::new(ROOT).join(&name).join("lab.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let pid = u32::try_from(record["keeper"]["pid"].as_u64().unwrap()).unwrap();
    assert!(!lab_namespaces(pid).is_empty());
    kill_process(Pid::from_child(&up), Signal::INT).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(1));
    drop(words.read_to_string(&mut said));
    assert_gone(&name, pid, &[]);

    let name = called("broken");
    let folder = tempfile::tempdir().unwrap();
    let redis = folder.path().join("redis-server");
    fs::write(&redis, "#!/bin/sh\necho no memory for this >&2\nexit 3\n").unwrap();
    fs::set_permissions(&redis, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program());
    command.args(["lab", "up", "--redis", "--name", &name]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    let said = run_command(command);
    assert_eq!(said.code, 1, "{said:?}");
    for part in ["redis ended (exit status: 3)", "no memory for this"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    assert!(!Path::new(ROOT).join(&name).exists() && !Path::new(ROOT).join(format!("{name}.log")).exists());
}

#[test]
fn two_labs_and_a_demo_do_not_touch_each_other() {
    if !lab_is_possible("several labs at once") {
        return;
    }
    let small = ["--nodes-per-site", "1", "--instances-per-site", "1"];
    let (one, two) = (Lab::up("one", &small), Lab::up("two", &small));
    one.done("link", &["gra", "sbg", "--delay", "10ms"]);
    assert_eq!(link(&one.status(), "gra", "sbg")["delay"], "10ms");
    assert_eq!(link(&two.status(), "gra", "sbg")["delay"], "0s");
    let mut demo = Command::new(program());
    demo.args(["demo", "--lab", "--embedded", "--profile", "wan"]).stdin(Stdio::null());
    let mut demo = demo.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut introduction = String::new();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    while !introduction.contains("Ctrl-C ends everything") {
        assert_ne!(out.read_line(&mut introduction).unwrap(), 0, "{introduction}");
    }
    for lab in [&one, &two] {
        lab.is_whole();
        assert_eq!(lab.cluster().unwrap()["cluster"], *lab.name);
    }
    let lived = one.processes();
    assert!(one.done("down", &[]).contains("is down"));
    assert_gone(&one.name, one.pid(), &lived);
    two.is_whole();
    assert!(!lab_namespaces(demo.id()).is_empty(), "the demo goes on");
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    drop(out.read_to_string(&mut introduction));
    assert!(demo.wait().unwrap().success());
    assert_eq!(lab_namespaces(demo.id()), Vec::<String>::new());
    two.is_whole();
}

#[test]
fn without_root_it_is_said_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("twinsite");
    fs::copy(program(), &own).unwrap();
    for path in [folder.path(), &own] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let commands: [&[&str]; 6] = [
        &["up"],
        &["status"],
        &["down", "--all"],
        &["shell", "gra-1"],
        &["link", "--heal", "--all"],
        &["kill", "gra-1"],
    ];
    for arguments in commands {
        let mut command = Command::new(&own);
        command.arg("lab").args(arguments).current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        run_command(command).assert_one_line(&["needs root", "sudo", "twinsite demo"]);
    }
}
