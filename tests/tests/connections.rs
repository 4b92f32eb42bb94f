//! What the clients of a floating IP hear when it moves between hosts: a cluster in a lab, with the timings of a wide-area
//! network, and clients that wait for messages and say nothing themselves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twinsite_drill::layout::{Ground, Layout, METRICS_PORT, Shape, Store};
use twinsite_model::Profile;
use twinsite_tests::{Said, connections_noted, in_namespace, lab_is_possible, owner, program, run_command};

const SOON: Duration = Duration::from_secs(60);
/// A close frame with the status 1012, "Service Restart", as a server sends it.
const SERVICE_RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// A cluster in a lab. It ends when this is dropped.
struct Running {
    demo: Child,
    directory: TempDir,
    layout: Layout,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Reset,
    /// The other side has said all that it wanted to say.
    Finished,
}

impl Running {
    /// Starts it and waits until all is well.
    fn start(environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program());
        command.args(["demo", "--lab", "--embedded", "--profile", "wan", "--directory"]);
        command.arg(directory.path()).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut demo = command.spawn().unwrap();
        let said = BufReader::new(demo.stdout.take().unwrap());
        let layout = Layout::on(Ground::Lab, 0, Profile::Wan, &Shape::default(), Store::Embedded);
        let running = Self { demo, directory, layout };
        let (tell, told) = channel();
        // Read to the end: nobody waits for who does not read.
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let _nobody_waits = tell.send(line);
            }
        });
        let deadline = Instant::now() + SOON;
        loop {
            let line = told.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
            if line.starts_with("All healthy") {
                return running;
            }
        }
    }

    fn namespace(&self, host: &str) -> String {
        format!("twinsite-lab-{}-{host}", self.demo.id())
    }

    /// Runs a command on a host.
    fn at(&self, host: &str, command: &[&str]) -> Said {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.namespace(host)]).args(command);
        run_command(there)
    }

    /// Asks the cluster from where its clients are.
    fn ask(&self, arguments: &[&str]) -> Said {
        let (program, file) = (program(), self.directory.path().join("client.toml"));
        let (program, file) = (program.to_str().unwrap(), file.to_str().unwrap());
        self.at("clients", &[&[program], arguments, &["--client", file]].concat())
    }

    fn owner(&self) -> Option<String> {
        let said = self.ask(&["status", "--json"]);
        (said.code == 0).then(|| owner(&said.json()))?
    }

    /// Waits until this becomes true.
    fn wait(&self, what: &str, wanted: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !wanted() {
            assert!(Instant::now() < deadline, "{what}: not within {SOON:?}; {:?}", self.ask(&["status"]));
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Does something on a thread where the clients are.
    fn as_client<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        in_namespace(&self.namespace("clients"), work)
    }

    /// A participant's WebSocket through the floating IP.
    fn participant(&self) -> TcpStream {
        let floating = self.layout.floating;
        self.as_client(move || {
            let mut stream = TcpStream::connect_timeout(&floating, SOON).unwrap();
            let request = format!(
                "GET /socket.io/?EIO=4&transport=websocket&roomId=quiet&peerId=p1 HTTP/1.1\r\nHost: {floating}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
            stream
        })
    }

    /// Waits until every node that may own the address but this one knows of a connection on another.
    fn wait_until_known(&self, owner: &str) {
        let others =
            self.layout.nodes.iter().filter(|node| node.kind.may_own() && node.name.as_str() != owner);
        for node in others {
            let metrics = SocketAddr::new(node.ip, METRICS_PORT);
            self.wait("the others know the connection", || {
                self.as_client(move || connections_noted(metrics)).is_some_and(|noted| noted > 0.0)
            });
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.demo), Signal::TERM).ok();
        self.demo.wait().ok();
    }
}

/// All that a participant hears until its connection ends, and how that ends; nothing, if it does not end in this time.
fn listen(mut stream: TcpStream, within: Duration) -> (Vec<u8>, Option<End>) {
    let (mut heard, deadline) = (Vec::new(), Instant::now() + within);
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return (heard, None);
        }
        stream.set_read_timeout(Some(rest)).unwrap();
        let mut bytes = [0; 4_096];
        match stream.read(&mut bytes) {
            Ok(0) => return (heard, Some(End::Finished)),
            Ok(count) => heard.extend(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (heard, Some(End::Reset)),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted),
                "{error}"
            ),
        }
    }
}

/// The owner's host is cut off from everybody, without a word. The new owner knows its connections and ends them; without
/// that nothing would tell a participant who waits, until its own patience is over.
#[test]
fn a_participant_of_a_lost_host_is_reset_by_the_next_owner() {
    if !lab_is_possible("clients of a lost host") {
        return;
    }
    for (setting, end) in [("on", Some(End::Reset)), ("off", None)] {
        let running = Running::start(&[("TWINSITE_TICKLE_ACKS", setting)]);
        let lost = running.owner().unwrap();
        let participant = running.participant();
        running.wait_until_known(&lost);
        assert_eq!(running.at(&lost, &["ip", "link", "set", "eth0", "down"]).code, 0);
        let cut = Instant::now();
        let listening = thread::spawn(move || {
            let heard = listen(participant, Duration::from_secs(13));
            (heard.1, cut.elapsed())
        });
        running.wait("another node owns the address", || running.owner().is_some_and(|owner| owner != lost));
        let owned = cut.elapsed();
        let (ended, after) = listening.join().unwrap();
        assert_eq!(ended, end, "tickle ACKs are {setting}; owned after {owned:?}, ended after {after:?}");
        println!("tickle ACKs {setting}: owned after {owned:?}, heard of after {after:?}");
    }
}

/// A planned move: the close frame of a service that is about to be back, everything delivered, the end, and only then is
/// the old host dark.
#[test]
fn a_participant_is_told_of_a_planned_move() {
    if !lab_is_possible("a planned move in a lab") {
        return;
    }
    let running = Running::start(&[]);
    let before = running.owner().unwrap();
    let participant = running.participant();
    let listening = thread::spawn(move || listen(participant, SOON));
    let to = if before.starts_with("gra") { "sbg" } else { "gra" };
    let moved = running.ask(&["switchover", "--to", to]);
    assert_eq!(moved.code, 0, "{moved:?}");
    let (heard, end) = listening.join().unwrap();
    assert!(heard.ends_with(&SERVICE_RESTART), "{heard:x?}");
    assert_eq!(end, Some(End::Finished), "nothing was cut off");
    running.wait("the other site owns the address", || {
        running.owner().is_some_and(|owner| owner.starts_with(to))
    });
}

/// Somebody has put the address on a host that is no node: it is said, by its hardware address, and nothing else changes.
#[test]
fn an_address_that_another_host_has_too_is_said() {
    if !lab_is_possible("an address that another host has too") {
        return;
    }
    let running = Running::start(&[]);
    let owner = running.owner().unwrap();
    let stranger = running.layout.instances[0].name.to_string();
    let floating = format!("{}/32", running.layout.floating.ip());
    let hardware = running.at(&stranger, &["cat", "/sys/class/net/eth0/address"]).out.trim().to_owned();
    assert_eq!(running.at(&stranger, &["ip", "address", "add", &floating, "dev", "eth0"]).code, 0);
    // It is found when it is next asked for, or when the address begins to be held, as here.
    let to = if owner.starts_with("gra") { "sbg" } else { "gra" };
    let moved = running.ask(&["switchover", "--to", to]);
    let status = || running.ask(&["status", "--json"]);
    running.wait("the stranger is found", || {
        let said = status();
        said.code == 0 && said.json()["floating_ips"][0]["stranger"] == *hardware
    });
    let said = running.ask(&["status"]).out;
    assert!(said.contains("CONFLICT") && said.contains(&hardware), "{said}; {moved:?}");
}
