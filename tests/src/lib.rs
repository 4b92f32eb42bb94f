//! End-to-end tests: whole processes, from outside.
//!
//! This library is what the tests have in common: where the program is, how a cluster is started and asked.

#![allow(clippy::panic, reason = "a test's tools end the test")]

mod lab_ground;
mod lone;
mod socketio;

pub use lab_ground::{connections_noted, in_namespace, lab_is_possible, lab_namespaces, metric};
pub use lone::LoneNode;
pub use socketio::SocketIo;

use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use twinsite_api::{Client, ClientOptions, ClientTls};
use twinsite_drill::layout::{Layout, NodePlace, Shape, Store};
use twinsite_drill::process::{Cluster, ClusterOptions, Launcher, ProcessName};
use twinsite_model::{NodeName, Profile};

/// The program, built in the same profile as this test.
///
/// # Panics
/// If it was not built.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let program = folder.join("twinsite");
    assert!(program.exists(), "{}: build it first: cargo build [--release]", program.display());
    program
}

/// How often a test repeats itself: its sample, or what the environment asks for.
pub fn count(variable: &str, sample: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(sample)
}

/// Says that a check cannot run on this machine, where `cargo xtask test` finds it for its summary.
///
/// # Panics
/// If that cannot be written down.
pub fn left_out(what: &str, why: &str) {
    let Some(path) = std::env::var_os("TWINSITE_LEFT_OUT") else {
        #[allow(clippy::print_stderr, reason = "a test run by hand says it on the terminal")]
        {
            eprintln!("left out: {what}: {why}");
        }
        return;
    };
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{what}: {why}"));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
}

impl Said {
    fn new(output: &Output) -> Self {
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// The error, which must be one line that holds all of these. Log lines may stand before it: they begin with their
    /// time.
    ///
    /// # Panics
    /// If it is anything else.
    #[track_caller]
    pub fn assert_one_line(&self, wanted: &[&str]) {
        assert_ne!(self.code, 0, "{self:?}");
        let is_log =
            |line: &str| line.starts_with(|first: char| first.is_ascii_digit()) && line.contains("Z ERROR ");
        let lines: Vec<_> = self.err.lines().filter(|line| !is_log(line)).collect();
        let [line] = lines.as_slice() else { panic!("one line of error, please: {self:?}") };
        assert!(line.starts_with("twinsite: "), "{line}");
        for part in wanted {
            assert!(line.contains(part), "{part:?} is missing in: {line}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the program to its end, for at most a minute.
///
/// # Panics
/// If it cannot be started or does not end.
pub fn run(arguments: &[&str]) -> Said {
    let mut command = Command::new(program());
    command.args(arguments);
    run_command(command)
}

/// Runs the program as this command says, to its end, for at most a minute.
///
/// # Panics
/// If it cannot be started or does not end.
pub fn run_command(mut command: Command) -> Said {
    command.env("RUST_LOG", "error").env_remove("TWINSITE_CLIENT");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}"));
    let pid = child.id();
    let watchdog = std::thread::spawn(move || child.wait_with_output());
    let deadline = Instant::now() + Duration::from_mins(1);
    while !watchdog.is_finished() {
        if Instant::now() > deadline {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            panic!("{command:?} did not end within a minute");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    match watchdog.join() {
        Ok(Ok(output)) => Said::new(&output),
        other => panic!("{other:?}"),
    }
}

/// A running cluster with an operator's client file.
pub struct Lab {
    /// The cluster.
    pub cluster: Cluster,
    client: PathBuf,
}

impl Lab {
    /// Starts the standard cluster and waits until it is healthy.
    ///
    /// # Panics
    /// If it does not become healthy.
    pub async fn start(store: Store) -> Self {
        Self::start_with(store, Profile::Lan).await
    }

    /// The same with other timings: the patient ones are for what is not about speed.
    ///
    /// # Panics
    /// If it does not become healthy.
    pub async fn start_with(store: Store, profile: Profile) -> Self {
        Self::start_shaped(store, profile, Shape::default()).await
    }

    /// The same in another shape.
    ///
    /// # Panics
    /// If it does not become healthy.
    pub async fn start_shaped(store: Store, profile: Profile, shape: Shape) -> Self {
        let options = ClusterOptions {
            launcher: Launcher::new(program()),
            directory: None,
            profile,
            shape,
            store,
            lab: None,
        };
        let cluster = Cluster::start(options, &mut |_| {}).await.unwrap_or_else(|error| panic!("{error}"));
        let client = write_client_file(cluster.directory(), cluster.layout());
        Self { cluster, client }
    }

    /// Asks the cluster something on the command line.
    pub fn ask(&self, arguments: &[&str]) -> Said {
        let client = self.client.display().to_string();
        run(&[arguments, &["--client", &client]].concat())
    }

    /// What an operator's program shows to the cluster, and expects of it.
    ///
    /// # Panics
    /// If the cluster's files are not there.
    pub fn tls(&self) -> ClientTls {
        let read = |file: &str| {
            let path = self.cluster.directory().join(file);
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        ClientTls { ca: read("ca.pem"), cert: read("operator.pem"), key: read("operator.key") }
    }

    /// The name that every node's certificate holds.
    pub fn domain(&self) -> String {
        format!("{}.twinsite.internal", self.cluster.layout().cluster)
    }

    /// A program's way to the cluster, through these nodes.
    ///
    /// # Panics
    /// If its certificates are unusable.
    pub fn client(&self, nodes: &[NodePlace]) -> Client {
        let endpoints = nodes.iter().map(|node| self.cluster.layout().api(node)).collect();
        let options = ClientOptions::new(endpoints, self.tls(), self.domain());
        Client::new(options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// `status --json`; `None` while nobody with a quorum answers.
    pub fn status(&self) -> Option<Value> {
        let said = self.ask(&["status", "--json"]);
        (said.code == 0).then(|| said.json())
    }

    /// Waits until `status` says what is wanted.
    ///
    /// # Panics
    /// If that does not happen in time.
    pub fn wait(&self, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        let mut last = None;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            last = status.or(last);
            assert!(Instant::now() < deadline, "{what}: not within {within:?}; last: {last:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `status` says what is wanted, and meanwhile starts what ends, as a supervisor would.
    ///
    /// # Panics
    /// If that does not happen in time.
    pub fn wait_supervised(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + within;
        let mut last = None;
        loop {
            self.start_missing();
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            last = status.or(last);
            assert!(Instant::now() < deadline, "{what}: not within {within:?}; last: {last:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts whatever does not run.
    ///
    /// # Panics
    /// If something cannot be started.
    pub fn start_missing(&mut self) {
        for process in self.cluster.processes() {
            self.cluster.start_process(&process).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// A node's process.
    pub fn node(name: &NodeName) -> ProcessName {
        ProcessName::Node(name.clone())
    }
}

/// The name of the floating IP's owner.
pub fn owner(status: &Value) -> Option<String> {
    Some(status["floating_ips"][0]["owner"]["node"].as_str()?.to_owned())
}

/// Writes how commands reach a cluster.
fn write_client_file(directory: &Path, layout: &Layout) -> PathBuf {
    let endpoints: Vec<_> = layout.nodes.iter().map(|node| format!("\"{}\"", layout.api(node))).collect();
    let text = format!(
        "cluster = \"{}\"\nendpoints = [{}]\n\n[tls]\nca = \"ca.pem\"\ncert = \"operator.pem\"\nkey = \"operator.key\"\n",
        layout.cluster,
        endpoints.join(", ")
    );
    let path = directory.join("client.toml");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{error}"));
    path
}
