//! Real Socket.IO clients on real Socket.IO meeting instances, in a lab, when the host of the floating IP's owner is cut off
//! without a word: all are back in their rooms, and soon, because the next owner ends their dead connections.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers end the test, and say what was measured"
)]

use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use twinsite_drill::layout::{Ground, Layout, METRICS_PORT, Shape, Store};
use twinsite_model::Profile;
use twinsite_tests::{
    Said, SocketIo, connections_noted, in_namespace, lab_is_possible, owner, program, run, run_command,
};

const SOON: Duration = Duration::from_secs(60);
const ROOMS: usize = 6;
const PARTICIPANTS: usize = 24;
/// With the timings of a wide-area network.
const LEASE_MS: u64 = 3_000;

/// What a participant says of itself.
#[derive(Debug, Clone, Deserialize)]
struct Event {
    at_ms: u64,
    peer: usize,
    room: usize,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
enum What {
    Connected { instance: String },
    Heard { from: usize, instance: String },
    Disconnected { reason: String },
}

impl Event {
    fn instance(&self) -> Option<&str> {
        match &self.what {
            What::Connected { instance } | What::Heard { instance, .. } => Some(instance),
            What::Disconnected { .. } => None,
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.what, What::Connected { .. })
    }
}

/// A lab whose meeting instances are on Socket.IO. It goes with this.
struct Lab {
    name: String,
    up: Value,
    layout: Layout,
}

impl Lab {
    fn up(name: &str, programs: &SocketIo, tickle_acks: &str) -> Self {
        let name = format!("test-{}-{name}", std::process::id());
        let mut command = Command::new(program());
        command.args(["lab", "up", "--json", "--embedded", "--profile", "wan", "--name", &name]);
        command.args(["--nodes-per-site", "1", "--instances-per-site", "2"]);
        command.args(["--meeting-program", &programs.meeting()]);
        command.env("TWINSITE_TICKLE_ACKS", tickle_acks);
        let said = run_command(command);
        assert_eq!(said.code, 0, "{said:?}");
        let shape = Shape { nodes_per_site: 1, instances_per_site: 2, ..Shape::default() };
        let layout = Layout::on(Ground::Lab, 0, Profile::Wan, &shape, Store::Embedded);
        Self { up: said.json(), name, layout }
    }

    fn text(&self, key: &str) -> &str {
        self.up[key].as_str().unwrap()
    }

    fn owner(&self) -> Option<String> {
        let said = run(&["status", "--json", "--client", self.text("client_file")]);
        (said.code == 0).then(|| owner(&said.json()))?
    }

    fn cut(&self, host: &str) -> Said {
        run(&["lab", "cut", "--name", &self.name, host])
    }

    /// The connections on other nodes that a node knows of.
    fn noted_at(&self, metrics: SocketAddr) -> f64 {
        in_namespace(self.text("clients"), move || connections_noted(metrics)).unwrap_or_default()
    }

    fn participants(&self, programs: &SocketIo) -> Participants {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.text("clients"), "node"]).arg(programs.participants());
        command.args(["--url", &format!("http://{}", self.layout.floating)]);
        command.args(["--participants", &PARTICIPANTS.to_string(), "--rooms", &ROOMS.to_string()]);
        // By their addresses alone, those of one room would be spread over the instances.
        let from: Vec<_> = (0..PARTICIPANTS).map(|n| self.layout.client(n).to_string()).collect();
        command.args(["--from", &from.join(",")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                told.lock().unwrap().push(serde_json::from_str::<Event>(&line).unwrap());
            }
        });
        Participants { child, events }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(run(&["lab", "down", "--name", &self.name]));
    }
}

/// They end with this.
struct Participants {
    child: Child,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Participants {
    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Waits until this is so of all that has happened.
    fn wait(&self, what: &str, within: Duration, wanted: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + within;
        while !wanted(&self.events()) {
            assert!(Instant::now() < deadline, "{what}: not within {within:?}; {:#?}", self.last());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What each participant said last that is not about words.
    fn last(&self) -> BTreeMap<usize, Event> {
        let events = self.events().into_iter();
        events
            .filter(|event| !matches!(event.what, What::Heard { .. }))
            .map(|event| (event.peer, event))
            .collect()
    }

    /// Has each say a word, until each has heard all that are in its room, since then.
    fn roll_call(&mut self) {
        let since = now_ms();
        let deadline = Instant::now() + SOON;
        loop {
            // A word that is said in the moment when a transport is upgraded is lost, as its sender allows.
            self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            thread::sleep(Duration::from_millis(250));
            let events = self.events();
            let heard: BTreeSet<_> = events
                .iter()
                .filter(|event| event.at_ms >= since)
                .filter_map(|event| match event.what {
                    What::Heard { from, .. } => Some((event.peer, from)),
                    _ => None,
                })
                .collect();
            let mates = |peer: usize| (0..PARTICIPANTS).filter(move |other| other % ROOMS == peer % ROOMS);
            let mut missing = (0..PARTICIPANTS)
                .flat_map(|peer| mates(peer).map(move |from| (peer, from)))
                .filter(|pair| !heard.contains(pair));
            let Some(first) = missing.next() else { return };
            assert!(Instant::now() < deadline, "{first:?}: who is not heard by whom; {:#?}", self.last());
        }
    }
}

impl Drop for Participants {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// The moment at which each was in its room again after `cut`.
fn returns(events: &[Event], cut: u64) -> BTreeMap<usize, u64> {
    let mut returns = BTreeMap::new();
    for event in events.iter().filter(|event| event.at_ms >= cut && event.is_connected()) {
        returns.entry(event.peer).or_insert(event.at_ms);
    }
    returns
}

/// Rooms of which two participants had a sign of life of two instances in the same time: from entering the one until the
/// last that was heard there.
fn split_rooms(events: &[Event]) -> BTreeSet<usize> {
    let mut stays: Vec<(usize, usize, &str, u64, u64)> = Vec::new();
    for event in events {
        let Some(instance) = event.instance() else { continue };
        let last = stays.iter_mut().rev().find(|stay| stay.1 == event.peer);
        match last.filter(|stay| stay.2 == instance && !event.is_connected()) {
            Some(stay) => stay.4 = event.at_ms,
            None => stays.push((event.room, event.peer, instance, event.at_ms, event.at_ms)),
        }
    }
    let pairs = stays.iter().flat_map(|one| stays.iter().map(move |other| (one, other)));
    let split = pairs.filter(|(one, other)| {
        one.0 == other.0 && one.2 != other.2 && one.3.max(other.3) < one.4.min(other.4)
    });
    split.map(|(one, _)| one.0).collect()
}

/// How long each was without its room after the host of the owner was cut off, sorted, in milliseconds.
fn lost_host(programs: &SocketIo, tickle_acks: &str) -> Vec<u64> {
    let lab = Lab::up(&format!("socketio-{tickle_acks}"), programs, tickle_acks);
    let lost = lab.owner().unwrap();
    let mut participants = lab.participants(programs);
    participants.wait("all are in their rooms", SOON, |events| returns(events, 0).len() == PARTICIPANTS);
    participants.roll_call();
    let others = lab.layout.nodes.iter().filter(|node| node.kind.may_own() && node.name.as_str() != lost);
    for node in others {
        let metrics = SocketAddr::new(node.ip, METRICS_PORT);
        let deadline = Instant::now() + SOON;
        while lab.noted_at(metrics) < PARTICIPANTS as f64 {
            assert!(Instant::now() < deadline, "{} knows {}", node.name, lab.noted_at(metrics));
            thread::sleep(Duration::from_millis(50));
        }
    }

    let cut = now_ms();
    let said = lab.cut(&lost);
    assert_eq!(said.code, 0, "{said:?}");
    participants
        .wait("all are back in their rooms", SOON, |events| returns(events, cut).len() == PARTICIPANTS);
    participants.roll_call();

    assert!(lab.owner().is_some_and(|owner| owner != lost));
    let events = participants.events();
    assert_eq!(split_rooms(&events), BTreeSet::new());
    let instances: BTreeSet<_> = events.iter().filter_map(Event::instance).collect();
    assert!(instances.len() > 1, "the rooms are spread: {instances:?}");
    let reasons: BTreeMap<_, _> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Disconnected { reason } => Some((event.peer, reason.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), PARTICIPANTS, "each has lost its connection: {reasons:?}");
    let mut without: Vec<_> = returns(&events, cut).values().map(|back| back - cut).collect();
    without.sort_unstable();
    let (median, p95, max) = (percentile(&without, 50), percentile(&without, 95), percentile(&without, 100));
    let reasons: BTreeSet<_> = reasons.values().collect();
    println!(
        "tickle ACKs {tickle_acks}: without a room for {median} ms (median), {p95} ms (p95), {max} ms (longest); {reasons:?}"
    );
    without
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[test]
fn participants_of_a_lost_host_are_soon_back_in_their_rooms() {
    let what = "real Socket.IO clients of a lost host";
    if !lab_is_possible(what) {
        return;
    }
    let Some(programs) = SocketIo::installed(what) else { return };
    let with = lost_host(&programs, "on");
    assert!(percentile(&with, 95) <= LEASE_MS + 3_000, "{with:?}");
    let without = lost_host(&programs, "off");
    // Who only listens believes in a dead connection for 20 to 45 s, until a ping of the server is overdue.
    assert!(percentile(&without, 50) > 2 * percentile(&with, 95), "{without:?}, and with them {with:?}");
}
