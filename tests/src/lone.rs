//! One node without a cluster, for tests of what it says when something is wrong.

use crate::{Said, program, run};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use twinsite_drill::layout::{Layout, Shape, Store};
use twinsite_drill::process::Authority;
use twinsite_model::Profile;

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
        Self::of(Layout::paired(block, Profile::Lan, &Shape::default(), Store::Embedded))
    }

    /// The same for the first node of a layout.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn of(layout: Layout) -> Self {
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

    /// Starts `twinsite COMMAND` with this node's files.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(&self, command: &str) -> Child {
        let mut child = Command::new(program());
        child.args([command, "--config"]).arg(self.path("node.toml")).env("RUST_LOG", "error");
        child.spawn().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until the node's API can be reached.
    ///
    /// # Panics
    /// If that does not happen in time.
    pub fn wait_until_listening(&self) {
        let api = self.layout.api(&self.layout.nodes[0]);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(api).is_err() {
            assert!(Instant::now() < deadline, "nothing listens on {api}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives the node data of its own: it starts, and ends in good order. Says with which code.
    pub fn start_and_stop(&self) -> i32 {
        let mut guardian = self.spawn("guardian");
        let mut process = self.spawn("node");
        self.wait_until_listening();
        let code = Self::end(&mut process);
        Self::end(&mut guardian);
        code
    }

    /// Asks a process to end. Says with which code it did.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn end(child: &mut Child) -> i32 {
        let pid = rustix::process::Pid::from_child(child);
        // An error means that it has ended already.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        child.wait().unwrap_or_else(|error| panic!("{error}")).code().unwrap_or(-1)
    }
}

fn toml(layout: &Layout) -> String {
    toml::to_string(&layout.spec()).unwrap_or_else(|error| panic!("{error}"))
}
