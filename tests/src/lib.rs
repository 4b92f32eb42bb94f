//! End-to-end tests: whole processes, from outside.
//!
//! This library is what the tests have in common: where the program is, how a cluster is started and asked.

#![allow(clippy::panic, reason = "a test's tools end the test")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use twinsite_drill::layout::{Layout, Shape, Store};
use twinsite_drill::process::{Authority, Cluster, ClusterOptions, Launcher, ProcessName};
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
    command.args(arguments).env("RUST_LOG", "error").env_remove("TWINSITE_CLIENT");
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
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
            panic!("twinsite {arguments:?} did not end within a minute");
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
        let options = ClusterOptions {
            launcher: Launcher::new(program()),
            directory: None,
            profile: Profile::Lan,
            shape: Shape::default(),
            store,
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

/// The files of one node that is not running: to be spoilt and then tried.
pub struct LoneNode {
    /// The folder.
    pub folder: tempfile::TempDir,
    /// The layout that the files follow.
    pub layout: Layout,
}

impl LoneNode {
    /// Writes good files for the first node of a standard cluster in this block of addresses.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn new(block: u8) -> Self {
        let layout = Layout::paired(block, Profile::Lan, &Shape::default(), Store::Embedded);
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let authority = Authority::new(&layout.cluster).unwrap_or_else(|error| panic!("{error}"));
        let this = Self { folder, layout };
        let node = &this.layout.nodes[0];
        let identity = authority.node(node.id, &this.layout.addresses_of(node));
        let identity = identity.unwrap_or_else(|error| panic!("{error}"));
        this.write("cluster.toml", &toml(&this.layout));
        this.write("ca.pem", authority.pem());
        this.write("node.pem", &identity.certificate);
        this.write("node.key", &identity.key);
        this.write_node("data");
        this
    }

    /// Writes `node.toml` with this folder of data.
    pub fn write_node(&self, data: &str) {
        let name = &self.layout.nodes[0].name;
        self.write(
            "node.toml",
            &format!(
                "node = \"{name}\"\ncluster_file = \"cluster.toml\"\nbootstrap = true\ndata = \"{data}\"\n\n\
                 [tls]\nca = \"ca.pem\"\ncert = \"node.pem\"\nkey = \"node.key\"\n\n[lab]\nexit_with_stdin = false\n"
            ),
        );
    }

    /// Writes a file of the folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Reads a file of the folder.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Replaces text that must be there.
    ///
    /// # Panics
    /// If it is not there.
    pub fn replace(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} does not hold {old:?}: {text}");
        self.write(file, &text.replacen(old, new, 1));
    }

    /// The path of a file.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Tries to run the node; it must end by itself.
    pub fn run(&self) -> Said {
        run(&["node", "--config", &self.path("node.toml").display().to_string()])
    }
}

fn toml(layout: &Layout) -> String {
    toml::to_string(&layout.spec()).unwrap_or_else(|error| panic!("{error}"))
}
