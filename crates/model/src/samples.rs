//! Values for tests: a usual specification, one command of every kind, a state with something in every field.
//!
//! The golden files are made of these: what is here is never changed, only added to.

use crate::command::{Command, NewVerdict, Proposal};
use crate::drill::{DrillOutcome, DrillRecord, DrillStop, RunningDrill};
use crate::errand::{Errand, ErrandEnd};
use crate::ids::{
    DrillId, Epoch, ErrandId, Generation, Incarnation, NodeId, OperationId, RequestId, Revision, RoomKey,
    Token, UpstreamName,
};
use crate::operation::{
    Fence, Operation, OperationKind, Outcome, Reason, SafetyRule, Step, StepRecord, StepResult,
};
use crate::spec::{ClusterSpec, HumanDuration, ProviderKind, from_toml};
use crate::state::{
    AnnouncedRecord, Drain, EarlierSpec, EmbeddedSessions, FloatingIpState, Format, NodeLife, Owner, Pause,
    Pin, State, Verdict, VerdictRecord,
};
use crate::ticket_keys::{TicketKey, TicketSecret};
use crate::time::WallTime;
use crate::timing::LeaseBound;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Two sites with two proxies and two upstreams each, a witness, two floating IPs.
pub(crate) const SPEC: &str = r#"
version = 1
cluster = "meet"
profile = "lan"

[[site]]
name = "gra"
announced_ip = "192.0.2.10"

[[site]]
name = "sbg"
announced_ip = "198.51.100.10"
announce = "floating"

[[site]]
name = "wit"
witness = true

[[node]]
id = 1
name = "gra-1"
site = "gra"
peer = "10.1.0.1:7100"
api = "10.1.0.1:7101"
http = ["10.1.0.1:8080"]

[[node]]
id = 2
name = "gra-2"
site = "gra"
peer = "10.1.0.2:7100"
api = "10.1.0.2:7101"

[[node]]
id = 3
name = "sbg-1"
site = "sbg"
peer = "10.2.0.1:7100"
api = "10.2.0.1:7101"

[[node]]
id = 4
name = "sbg-2"
site = "sbg"
peer = "[2001:db8::4]:7100"
api = "[2001:db8::4]:7101"

[[node]]
id = 5
name = "wit-1"
site = "wit"
kind = "witness"
peer = "10.3.0.1:7100"
api = "10.3.0.1:7101"

[[upstream]]
name = "gra-meet-1"
site = "gra"
address = "10.1.0.11:3443"

[[upstream]]
name = "gra-meet-2"
site = "gra"
address = "10.1.0.12:3443"

[[upstream]]
name = "sbg-meet-1"
site = "sbg"
address = "10.2.0.11:3443"

[[upstream]]
name = "sbg-meet-2"
site = "sbg"
address = "10.2.0.12:3443"

[[floating_ip]]
name = "public"
address = "127.0.0.10"
ports = [8080]
provider = "loopback"
sites = ["gra", "sbg"]

[[floating_ip]]
name = "second"
address = "127.0.0.11"
ports = [8080, 8081]
provider = "loopback"
failback = { after = "10m" }
on_quorum_unknown = "serve-frozen"

[[route]]
name = "signalling"
hosts = ["meet.example.org", "*.meet.example.org"]
path = "/socket.io/*"
room_query = "roomId"

[[route]]
name = "static"
path = "/static/*"
upstreams = ["gra-meet-1", "sbg-meet-1"]
balance = "round_robin"

[[route]]
name = "all"
path = "/*"
"#;

/// As it stands, without judging it: the second floating IP is of a time when any `on_quorum_unknown` was allowed.
pub(crate) fn spec() -> ClusterSpec {
    toml::from_str(SPEC).unwrap()
}

/// The same with times in which no drill may run.
pub(crate) fn spec_with_windows() -> ClusterSpec {
    let windows = "[drills]\nblocked = [{ days = [\"mon\", \"tue\"], from = \"08:00\", to = \"18:00\" }]\n";
    toml::from_str(&format!("{SPEC}\n{windows}")).unwrap()
}

/// The same with a proxy in front that is trusted, and routes that do more than to choose an upstream.
pub(crate) fn spec_with_routes() -> ClusterSpec {
    let more = r#"
[[route]]
name = "to-tls"
match = { methods = ["GET", "HEAD"], scheme = "http", headers = { Host = "meet.*" }, query = { a = "*b" } }
redirect = { to = "https://{host}{uri}", status = 301 }

[[route]]
name = "robots"
path = "/robots.txt"
respond = { status = 200, body = "{{{path}}}" }
response_headers = { remove = ["server"], set = { cache-control = "no-store" }, add = { x-id = "{request_id}" } }

[[route]]
name = "edited"
compress = ["zstd", "gzip"]
request_headers = { set = { x-client = "{client_ip} {remote_ip} {header.User-Agent} {query.a}" } }

[proxy]
trusted_proxies = ["10.9.0.0/24", "2001:db8::/32"]
"#;
    toml::from_str(&format!("{SPEC}\n{more}")).unwrap()
}

/// The same with TLS towards clients and upstreams.
pub(crate) fn spec_with_edge() -> ClusterSpec {
    let more = r#"
[[certificate]]
name = "meet"
chain = "/etc/twinsite/tls/meet.pem"
key = "/etc/twinsite/tls/meet.key"

[proxy]
proxy_protocol_from = ["10.8.0.0/24"]
retry_percent = 10

[[upstream]]
name = "gra-tls"
site = "gra"
address = "meet-9.internal:8443"
protocol = "https"
tls = { name = "meet.internal", authorities = "/etc/twinsite/tls/upstreams.pem" }
weight = 3

[[upstream]]
name = "sbg-h2c"
site = "sbg"
address = "meet-8.internal:3443"
protocol = "h2c"
"#;
    let mut spec: ClusterSpec = toml::from_str(&format!("{SPEC}\n{more}")).unwrap();
    spec.nodes[0].https = vec!["10.1.0.11:8443".parse().unwrap()];
    spec.floating_ips[0].ports.push(443);
    spec.floating_ips[0].tls_ports.push(443);
    spec.health.eject_after = 5;
    spec.health.slow_start = HumanDuration(Duration::from_secs(30));
    spec
}

/// The same without what is not allowed any more.
pub(crate) fn sound_spec() -> ClusterSpec {
    from_toml(&sound_text()).unwrap()
}

/// The text of [`sound_spec`].
pub(crate) fn sound_text() -> String {
    SPEC.replace("on_quorum_unknown = \"serve-frozen\"\n", "")
}

pub(crate) fn upstream(name: &str) -> UpstreamName {
    UpstreamName::new(name).unwrap()
}

/// One proposal for every command, with the name of its golden file.
pub(crate) fn proposals() -> Vec<(&'static str, Proposal)> {
    let ip = || "public".parse().unwrap();
    let operation = OperationId(40);
    let room = RoomKey([7; 16]);
    let token = Token::new(1, 7);
    let commands = vec![
        ("apply-spec", Command::ApplySpec { spec: Arc::new(spec()) }),
        ("put-node", Command::PutNode { node: spec().nodes[3].clone() }),
        ("retire-node", Command::RetireNode { node: NodeId(4) }),
        ("raise-format", Command::RaiseFormat { format: Format(2) }),
        (
            "record-life",
            Command::RecordLife {
                node: NodeId(1),
                incarnation: Incarnation(0xdead_beef_0000_0001),
                format_max: Format(1),
                version: "0.1.0".to_owned(),
            },
        ),
        (
            "set-verdicts",
            Command::SetVerdicts {
                verdicts: vec![
                    NewVerdict {
                        upstream: upstream("gra-meet-1"),
                        health: Verdict::Unhealthy,
                        evidence: vec!["gra-1: refused".to_owned(), "sbg-1: timed out".to_owned()],
                    },
                    NewVerdict {
                        upstream: upstream("sbg-meet-1"),
                        health: Verdict::Healthy,
                        evidence: Vec::new(),
                    },
                    NewVerdict {
                        upstream: upstream("sbg-meet-2"),
                        health: Verdict::Unknown,
                        evidence: Vec::new(),
                    },
                ],
            },
        ),
        (
            "set-drain",
            Command::SetDrain {
                upstream: upstream("gra-meet-2"),
                draining: true,
                deadline: Some(WallTime(1_800_000_600_000)),
            },
        ),
        (
            "begin-operation",
            Command::BeginOperation {
                ip: ip(),
                kind: OperationKind::Failover,
                reason: Reason::OwnerSilent,
                evidence: vec!["no renewal for 3.1 s".to_owned()],
                from: Some(Token::new(1, 6)),
                target: NodeId(3),
                target_incarnation: Incarnation(33),
                overrides: SafetyRule::ALL.to_vec(),
            },
        ),
        ("start-step", Command::StartStep { ip: ip(), operation, step: Step::Announce }),
        (
            "finish-step",
            Command::FinishStep {
                ip: ip(),
                operation,
                step: Step::Observe,
                result: StepResult::TimedOut,
                detail: "not seen in 5 s".to_owned(),
            },
        ),
        (
            "complete-fence",
            Command::CompleteFence {
                ip: ip(),
                operation,
                fence: Fence::LeaseEnded,
                detail: "W = 3.106 s".to_owned(),
            },
        ),
        ("assign", Command::Assign { ip: ip(), operation }),
        (
            "retarget",
            Command::Retarget {
                ip: ip(),
                operation,
                target: NodeId(4),
                target_incarnation: Incarnation(44),
                detail: "sbg-1 died".to_owned(),
            },
        ),
        ("close-operation", Command::CloseOperation { ip: ip(), operation, outcome: Outcome::Unverified }),
        ("abort-operation", Command::AbortOperation { ip: ip(), operation, detail: "asked to".to_owned() }),
        ("pause", Command::Pause { until: WallTime(1_800_000_000_001), reason: "kernel update".to_owned() }),
        ("resume", Command::Resume { expired: true }),
        ("reset-breaker", Command::ResetBreaker),
        (
            "raise-generation",
            Command::RaiseGeneration {
                generation: Generation(2),
                statement: "gra is off: gra-1 gra-2".to_owned(),
            },
        ),
        (
            "record-announced",
            Command::RecordAnnounced {
                by: NodeId(1),
                announced: vec![
                    (upstream("gra-meet-1"), "192.0.2.10".parse().unwrap(), token),
                    (upstream("gra-meet-2"), "2001:db8::10".parse().unwrap(), token),
                ],
            },
        ),
        (
            "pin-room",
            Command::PinRoom {
                room,
                upstream: upstream("gra-meet-1"),
                replace: Some(upstream("gra-meet-2")),
                token,
            },
        ),
        ("touch-rooms", Command::TouchRooms { rooms: vec![room, RoomKey([8; 16])], token }),
        ("expire-rooms", Command::ExpireRooms { before: WallTime(1_799_999_999_999) }),
        (
            "send-errand",
            Command::SendErrand {
                ip: "public".parse().unwrap(),
                by: NodeId(2),
                incarnation: Incarnation(22),
                token,
                to: NodeId(1),
                within: Duration::from_secs(10),
            },
        ),
        ("recall-errand", Command::RecallErrand { ip: "public".parse().unwrap(), errand: ErrandId(3) }),
        (
            "end-errand",
            Command::EndErrand {
                ip: "public".parse().unwrap(),
                errand: ErrandId(3),
                end: ErrandEnd::WaitedOut,
            },
        ),
        (
            "begin-drill",
            Command::BeginDrill {
                name: "switchover-and-back".to_owned(),
                by: "operator anna".to_owned(),
                runner: NodeId(3),
                incarnation: Incarnation(33),
                until: WallTime(1_800_000_060_000),
            },
        ),
        ("stop-drill", Command::StopDrill { drill: DrillId(50), reason: "a big meeting begins".to_owned() }),
        (
            "end-drill",
            Command::EndDrill {
                drill: DrillId(50),
                outcome: DrillOutcome::Failed,
                summary: "{\"version\":1}".to_owned(),
            },
        ),
        ("apply-spec-drills", Command::ApplySpec { spec: Arc::new(spec_with_windows()) }),
        ("apply-spec-routes", Command::ApplySpec { spec: Arc::new(spec_with_routes()) }),
        ("apply-spec-edge", Command::ApplySpec { spec: Arc::new(spec_with_edge()) }),
        ("put-node-https", Command::PutNode { node: spec_with_edge().nodes[0].clone() }),
        ("rotate-ticket-key", Command::RotateTicketKey { secret: TicketSecret::new([9; 32]) }),
    ];
    let proposal = |(name, command)| {
        let proposal = Proposal {
            at: WallTime(1_800_000_000_000),
            by: "anna".to_owned(),
            request: RequestId::new("4d1c"),
            expected_revision: Some(Revision(39)),
            command,
        };
        (name, proposal)
    };
    commands.into_iter().map(proposal).collect()
}

fn owner(node: u64, epoch: u64) -> Owner {
    Owner {
        node: NodeId(node),
        incarnation: Incarnation(node * 11),
        token: Token::new(2, epoch),
        since: WallTime(1_800_000_000_500),
        revoked: epoch == 6,
    }
}

fn operation(id: u64, ended: Option<Outcome>) -> Operation {
    let at = |ms: u64| WallTime(1_800_000_000_000 + ms);
    Operation {
        id: OperationId(id),
        ip: "public".parse().unwrap(),
        kind: OperationKind::Switchover,
        reason: Reason::Operator,
        evidence: vec!["asked by anna".to_owned()],
        from: Some(owner(1, 6)),
        target: NodeId(3),
        target_incarnation: Incarnation(33),
        by: "anna".to_owned(),
        overrides: vec![SafetyRule::BreakerClosed],
        fence: ended.map(|_| Fence::Released),
        token: ended.map(|_| Token::new(2, 7)),
        steps: vec![
            StepRecord {
                step: Step::Decide,
                started: at(1),
                finished: Some((at(1), StepResult::Done)),
                detail: "operator".to_owned(),
            },
            StepRecord { step: Step::Drain, started: at(2), finished: None, detail: String::new() },
        ],
        ended: ended.map(|outcome| (at(900), outcome)),
    }
}

/// A state with something in every field.
pub(crate) fn rich_state() -> State {
    let life = NodeLife {
        incarnation: Incarnation(11),
        format_max: Format(1),
        version: "0.1.0".to_owned(),
        since: WallTime(1_800_000_000_000),
    };
    let verdict = VerdictRecord {
        health: Verdict::Healthy,
        since: WallTime(1_800_000_000_000),
        evidence: vec!["gra-1: 200 in 2 ms".to_owned()],
    };
    let drain =
        Drain { since: WallTime(1_800_000_000_100), by: "anna".to_owned(), deadline: Some(WallTime(9)) };
    let moving = FloatingIpState {
        epoch: Epoch(6),
        owner: Some(owner(1, 6)),
        operation: Some(operation(41, None)),
        ..Default::default()
    };
    let announced = AnnouncedRecord {
        address: "192.0.2.10".parse().unwrap(),
        token: Token::new(2, 6),
        since: WallTime(1_800_000_000_600),
        by: NodeId(1),
    };
    let pin = Pin {
        upstream: upstream("gra-meet-1"),
        token: Token::new(2, 12),
        touched: WallTime(1_800_000_000_700),
        placed: None,
    };
    State {
        revision: Revision(42),
        format: Format(1),
        generation: Generation(2),
        wall: WallTime(1_800_000_000_999),
        spec: Some(Arc::new(spec())),
        spec_revision: Revision(3),
        longest: LeaseBound::default(),
        nodes: BTreeMap::from([(NodeId(1), life)]),
        retired_nodes: BTreeSet::from([NodeId(9), NodeId(10)]),
        verdicts: BTreeMap::from([(upstream("gra-meet-1"), verdict)]),
        drains: BTreeMap::from([(upstream("gra-meet-2"), drain)]),
        floating_ips: BTreeMap::from([
            ("public".parse().unwrap(), moving),
            ("second".parse().unwrap(), FloatingIpState::default()),
        ]),
        moves: Epoch(12),
        pause: Some(Pause {
            until: WallTime(1_800_003_600_000),
            since: WallTime(1_800_000_000_000),
            by: "anna".to_owned(),
            reason: "kernel update".to_owned(),
        }),
        automatic_failovers: VecDeque::from([WallTime(1_799_999_000_000), WallTime(1_799_999_500_000)]),
        history: VecDeque::from([
            operation(30, Some(Outcome::Aborted)),
            operation(35, Some(Outcome::Verified)),
        ]),
        announced: BTreeMap::from([(upstream("gra-meet-1"), announced)]),
        sessions: EmbeddedSessions {
            token: Token::new(2, 12),
            pins: BTreeMap::from([(RoomKey([1; 16]), pin.clone()), (RoomKey([2; 16]), pin)]),
        },
        requests: VecDeque::from([(RequestId::new("4d1c").unwrap(), Revision(40))]),
        drill: None,
        drills: VecDeque::new(),
        ticket_keys: VecDeque::new(),
        earlier_specs: VecDeque::new(),
    }
}

/// With keys of TLS session tickets and an earlier specification; the first format that has them.
pub(crate) fn state_with_edge() -> State {
    let mut state = State { format: Format::EDGE, ..rich_state() };
    state.spec = Some(Arc::new(spec_with_edge()));
    let key = |byte, since| TicketKey { secret: TicketSecret::new([byte; 32]), since: WallTime(since) };
    state.ticket_keys = VecDeque::from([key(1, 1_799_950_000_000), key(2, 1_800_000_000_000)]);
    state.earlier_specs.push_back(EarlierSpec {
        revision: Revision(17),
        until: WallTime(1_800_000_000_100),
        replaced_by: "operator anna".to_owned(),
        spec: Arc::new(spec()),
    });
    state
}

/// A room that got its place at a known revision; the first format that has such.
pub(crate) fn state_with_places() -> State {
    let mut state = State { format: Format::PLACES, ..rich_state() };
    for pin in state.sessions.pins.values_mut() {
        pin.placed = Some(Revision(41));
    }
    state
}

/// A drill runs, and there was one before; the first format that has them.
pub(crate) fn state_with_drill() -> State {
    let mut state = State { format: Format::DRILLS, ..rich_state() };
    state.spec = Some(Arc::new(spec_with_windows()));
    state.drill = Some(RunningDrill {
        id: DrillId(50),
        name: "switchover-and-back".to_owned(),
        by: "operator anna".to_owned(),
        runner: NodeId(3),
        incarnation: Incarnation(33),
        since: WallTime(1_800_000_000_900),
        until: WallTime(1_800_000_060_900),
        stop: Some(DrillStop { by: "operator bob".to_owned(), reason: "a big meeting begins".to_owned() }),
    });
    state.drills.push_back(DrillRecord {
        id: DrillId(20),
        name: "leader-handover".to_owned(),
        by: "operator anna".to_owned(),
        runner: NodeId(1),
        since: WallTime(1_799_000_000_000),
        ended: WallTime(1_799_000_010_000),
        outcome: DrillOutcome::Passed,
        summary: "{\"version\":1}".to_owned(),
    });
    state
}

/// A node is on an errand; the first format that has them.
pub(crate) fn state_with_errand() -> State {
    let mut state = State { format: Format::ERRANDS, ..rich_state() };
    let mut spec = spec();
    spec.floating_ips[0].provider = ProviderKind::Ovh;
    state.spec = Some(Arc::new(spec));
    if let Some(ip) = state.floating_ips.get_mut(&"public".parse().unwrap()) {
        ip.errands = ErrandId(3);
        ip.errand = Some(Errand {
            id: ErrandId(3),
            by: NodeId(2),
            incarnation: Incarnation(22),
            token: Token::new(2, 6),
            to: NodeId(1),
            within: Duration::from_secs(10),
            since: WallTime(1_800_000_000_800),
            recalled: true,
        });
    }
    state
}

/// The same once a longer lease than the present one was agreed, with a move after a stop in good order.
pub(crate) fn state_with_longer_lease() -> State {
    let mut state = rich_state();
    state.longest = LeaseBound { lease: Duration::from_secs(3), wait: Duration::from_millis(3_107) };
    if let Some(last) = state.history.back_mut() {
        last.reason = Reason::OwnerStopped;
    }
    state
}
