//! What holds after any commands in any order.

use super::{Fence, Outcome, Step, StepResult};
use crate::command::{Command, NewVerdict, Proposal};
use crate::drill::{DRILL_LENGTH_MAX, DRILLS_MAX, DrillOutcome, SUMMARY_BYTES_MAX};
use crate::encoding::{decode_proposal, decode_state, encode_proposal, encode_state};
use crate::event::Event;
use crate::ids::{
    DrillId, FloatingIpName, Generation, Incarnation, NodeId, OperationId, Revision, RoomKey, Token,
};
use crate::operation::{OperationKind, Reason};
use crate::samples;
use crate::state::{EMBEDDED_PINS_MAX, EVIDENCE_MAX, Format, HISTORY_MAX, REQUESTS_MAX, State, Verdict};
use crate::time::WallTime;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// A command in the making. Ids and tokens are taken from the state at hand where `fits`, so that long sequences get
/// somewhere; otherwise they are off by one.
#[derive(Debug, Clone)]
struct Draft {
    what: u8,
    ip: usize,
    node: u64,
    upstream: usize,
    number: u64,
    fits: bool,
    request: Option<u8>,
    by_person: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let request = prop_oneof![4 => Just(None), 1 => (0..20_u8).prop_map(Some)];
    (0..26_u8, 0..2_usize, 1..7_u64, 0..5_usize, 0..6_u64, prop::bool::weighted(0.9), request, any::<bool>())
        .prop_map(|(what, ip, node, upstream, number, fits, request, by_person)| Draft {
            what,
            ip,
            node,
            upstream,
            number,
            fits,
            request,
            by_person,
        })
}

/// Drafts in which the commands of the journal are as frequent as all others together.
fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let journal = draft().prop_map(|draft| Draft { what: 7 + draft.what % 8, ..draft });
    vec(prop_oneof![journal, draft()], 1..120)
}

fn ip(draft: &Draft) -> FloatingIpName {
    ["public", "second"][draft.ip].parse().unwrap()
}

impl Draft {
    fn command(&self, state: &State) -> Command {
        let ip = ip(self);
        let off = u64::from(!self.fits);
        let entry = state.floating_ips.get(&ip);
        let running = entry.and_then(|entry| entry.operation.as_ref());
        let operation = OperationId(running.map_or(0, |operation| operation.id.0) + off);
        let node = NodeId(self.node);
        let incarnation =
            Incarnation(state.nodes.get(&node).map_or(1, |life| life.incarnation.0).wrapping_sub(off));
        let names = ["gra-meet-1", "gra-meet-2", "sbg-meet-1", "sbg-meet-2", "not-there"];
        let upstream = samples::upstream(names[self.upstream]);
        let session = state.session_token();
        let token = Token::new(session.generation.0, session.epoch.0.wrapping_sub(off));
        let room = RoomKey([self.number as u8; 16]);
        let current = running.and_then(crate::Operation::current);
        let step =
            if self.fits { current.unwrap_or(Step::Announce) } else { Step::ALL[self.number as usize] };
        match self.what {
            0 => Command::ApplySpec { spec: Arc::new(self.spec()) },
            1 => Command::PutNode { node: samples::spec().nodes[(self.node as usize - 1) % 5].clone() },
            2 if self.number == 0 => Command::RetireNode { node },
            2 => Command::RaiseFormat { format: Format(self.number as u32 % 5) },
            3 => Command::RecordLife {
                node,
                incarnation: Incarnation(self.number),
                format_max: if self.fits { Format::NEWEST } else { Format::FIRST },
                version: String::new(),
            },
            4 => Command::SetVerdicts {
                verdicts: vec![NewVerdict {
                    upstream,
                    health: [Verdict::Unknown, Verdict::Healthy, Verdict::Unhealthy]
                        [self.number as usize % 3],
                    evidence: vec![String::new(); 20],
                }],
            },
            5 => Command::SetDrain { upstream, draining: self.fits, deadline: None },
            6 => Command::ResetBreaker,
            7 | 8 => Command::BeginOperation {
                ip,
                kind: [
                    OperationKind::Placement,
                    OperationKind::Failover,
                    OperationKind::Switchover,
                    OperationKind::Failback,
                    OperationKind::Forced,
                    OperationKind::Failover,
                ][self.number as usize],
                reason: Reason::Operator,
                evidence: Vec::new(),
                from: if self.fits {
                    entry.and_then(|entry| entry.owner.as_ref()).map(|owner| owner.token)
                } else {
                    Some(token)
                },
                target: node,
                target_incarnation: incarnation,
                overrides: Vec::new(),
            },
            9 => Command::StartStep {
                ip,
                operation,
                step: [Step::Fence, Step::Announce, Step::Verify][self.number as usize % 3],
            },
            10 => {
                Command::FinishStep { ip, operation, step, result: StepResult::Done, detail: String::new() }
            }
            11 => Command::CompleteFence { ip, operation, fence: Fence::LeaseEnded, detail: String::new() },
            12 => Command::Assign { ip, operation },
            13 if self.number < 3 => Command::Retarget {
                ip,
                operation,
                target: node,
                target_incarnation: incarnation,
                detail: String::new(),
            },
            13 if self.number < 4 => Command::AbortOperation { ip, operation, detail: String::new() },
            13 | 14 => Command::CloseOperation { ip, operation, outcome: Outcome::Verified },
            15 => Command::Pause { until: WallTime(self.number * 1_000), reason: String::new() },
            16 => Command::Resume { expired: self.fits },
            17 => Command::RaiseGeneration {
                generation: Generation(state.generation.0 + self.number % 2),
                statement: String::new(),
            },
            18 => Command::RecordAnnounced {
                by: node,
                announced: vec![(upstream, [192, 0, 2, self.number as u8].into(), token)],
            },
            19 | 20 => Command::PinRoom { room, upstream, replace: None, token },
            23 => Command::BeginDrill {
                name: "a".repeat(if self.fits { 8 } else { 500 }),
                by: "operator anna".to_owned(),
                runner: node,
                incarnation,
                until: state.wall.plus(Duration::from_millis(self.number * 2_000_000)),
            },
            24 => Command::StopDrill { drill: drill(state, off), reason: String::new() },
            25 => Command::EndDrill {
                drill: drill(state, off),
                outcome: DrillOutcome::ALL[self.number as usize % 4],
                summary: "x".repeat(self.number as usize * 4_000),
            },
            21 => Command::TouchRooms { rooms: vec![room], token },
            _ => Command::ExpireRooms { before: WallTime(self.number * 10) },
        }
    }

    fn spec(&self) -> crate::ClusterSpec {
        let mut spec = samples::spec();
        match self.number {
            0 => drop(spec.floating_ips.remove(0)),
            1 => drop(spec.upstreams.remove(self.upstream.min(3))),
            2 => drop(spec.nodes.remove(0)),
            5 => spec.floating_ips[self.ip].name = "renamed".parse().unwrap(),
            3 => spec.cluster = "other".parse().unwrap(),
            _ => {}
        }
        spec
    }

    fn proposal(&self, state: &State, wall: u64) -> Proposal {
        Proposal {
            at: WallTime(wall),
            by: if self.by_person { "anna" } else { "controller" }.to_owned(),
            request: self.request.and_then(|id| crate::RequestId::new(format!("r{id}"))),
            expected_revision: (!self.fits && self.request.is_some()).then_some(Revision(self.number)),
            command: self.command(state),
        }
    }
}

fn drill(state: &State, off: u64) -> DrillId {
    DrillId(state.drill.as_ref().map_or(0, |drill| drill.id.0) + off)
}

fn started() -> State {
    let mut state = State::default();
    let first = Command::ApplySpec { spec: Arc::new(samples::spec()) };
    state.apply(1, &Proposal::by_controller(WallTime(1), first)).result.unwrap();
    for node in 1..=5 {
        let life = Command::RecordLife {
            node: NodeId(node),
            incarnation: Incarnation(1),
            format_max: Format::NEWEST,
            version: String::new(),
        };
        state.apply(1 + node, &Proposal::by_controller(WallTime(1), life)).result.unwrap();
    }
    let raise = Command::RaiseFormat { format: Format::NEWEST };
    state.apply(7, &Proposal::by_controller(WallTime(1), raise)).result.unwrap();
    state
}

/// What must hold between a state and the one after it.
fn check_step(before: &State, after: &State, proposal: &Proposal, events: &[Event]) {
    assert!(after.revision >= before.revision);
    assert!(after.wall >= before.wall);
    assert!(after.generation >= before.generation);
    assert!(after.session_token() >= before.session_token());
    assert!(after.sessions.token >= before.sessions.token);
    assert!(after.sessions.token <= after.session_token());
    assert!(after.retired_nodes.is_superset(&before.retired_nodes));
    if after.revision == before.revision {
        assert!(events.is_empty());
        assert_eq!(State { wall: before.wall, ..after.clone() }, *before, "no trace without a revision");
    }
    // Whether a drill runs is of no consequence to anything but drills.
    if let (None, Some(drill)) = (&before.drill, &after.drill) {
        assert!(before.floating_ips.values().all(|ip| ip.operation.is_none()), "begun while something moves");
        assert!(drill.until > after.wall && drill.until <= after.wall.plus(DRILL_LENGTH_MAX));
        assert_eq!((drill.id.0, drill.since), (after.revision.0, after.wall));
    }
    if let (Some(drill), None) = (&before.drill, &after.drill) {
        assert_eq!(after.drills.back().map(|record| record.id), Some(drill.id), "no drill ends unrecorded");
    }
    if let (Some(was), Some(is)) = (&before.spec, &after.spec) {
        let same = |ip: &&crate::spec::FloatingIpSpec| {
            was.floating_ip(&ip.name).is_some_and(|was| (was.address, &was.ports) == (ip.address, &ip.ports))
        };
        let coming: Vec<_> = is.floating_ips.iter().filter(|ip| !same(ip)).map(|ip| &ip.name).collect();
        for (name, entry) in &before.floating_ips {
            let goes = is.floating_ip(name).is_none() || coming.contains(&name);
            assert!(
                coming.is_empty() || !goes || entry.owner.is_none(),
                "{name} is held, and {coming:?} come"
            );
        }
    }
    for (name, old) in &before.floating_ips {
        let new = &after.floating_ips[name];
        assert!(new.epoch >= old.epoch);
        let (was, is) = (&old.owner, &new.owner);
        if let (Some(was), Some(is)) = (was, is)
            && (was.node, was.incarnation) != (is.node, is.incarnation)
        {
            assert!(is.token > was.token, "a new owner without a larger token");
        }
        let token_of = |owner: &Option<crate::Owner>| owner.as_ref().map(|owner| owner.token);
        if is.is_some() && token_of(is) != token_of(was) {
            assert!(matches!(proposal.command, Command::Assign { .. }), "only Assign gives a token");
            let operation = old.operation.as_ref().expect("a token is given within an operation");
            assert!(operation.fence.is_some(), "never before the fence");
            assert_eq!(operation.from.as_ref().map(|owner| owner.token), token_of(was));
            assert!(was.as_ref().is_none_or(|was| was.revoked), "the old owner may still renew");
            assert!(is.as_ref().is_some_and(|is| is.token.epoch > old.epoch));
        }
    }
}

/// What must hold of every state.
fn check_state(state: &State) {
    for entry in state.floating_ips.values() {
        if let Some(owner) = &entry.owner {
            assert_eq!(owner.token.epoch, entry.epoch, "the owner holds the newest token");
            assert!(owner.token.generation <= state.generation);
            assert!(!owner.revoked || entry.operation.is_some(), "revoked for nothing");
        }
        if let Some(operation) = &entry.operation {
            assert!(operation.ended.is_none());
            assert!(operation.token.is_none() || operation.fence.is_some());
            let open = operation.steps.iter().filter(|record| record.finished.is_none()).count();
            assert!(open <= 1, "one step at a time: {operation:?}");
            assert!(operation.steps.windows(2).all(|pair| pair[0].step < pair[1].step));
        }
    }
    assert!(state.history.iter().all(|operation| operation.ended.is_some()));
    assert!(state.history.len() <= HISTORY_MAX);
    assert!(state.requests.len() <= REQUESTS_MAX);
    assert!(state.sessions.pins.len() <= EMBEDDED_PINS_MAX);
    assert!(state.verdicts.values().all(|record| record.evidence.len() <= EVIDENCE_MAX));
    assert!(state.drills.len() <= DRILLS_MAX);
    assert!(state.drills.iter().all(|drill| drill.summary.len() <= SUMMARY_BYTES_MAX));
    let spec = state.spec.as_ref().expect("applied first");
    assert!(spec.nodes.iter().all(|node| !state.retired_nodes.contains(&node.id)));
    assert!(state.nodes.keys().all(|node| spec.node(*node).is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_commands_keep_the_invariants(drafts in drafts(), restart in 0..120_usize) {
        let mut state = started();
        let mut replica = state.clone();
        let mut wall = 10_u64;
        for (number, draft) in drafts.iter().enumerate() {
            wall = (wall + 25).saturating_sub(draft.number * 10);
            let proposal = draft.proposal(&state, wall);
            let index = 100 + number as u64;
            let before = state.clone();
            let applied = state.apply(index, &proposal);
            check_step(&before, &state, &proposal, &applied.events);
            check_state(&state);
            // Another node reads the entry from its log, and may have begun from a snapshot.
            if number == restart {
                replica = decode_state(&encode_state(&replica)).unwrap();
            }
            let read = decode_proposal(&encode_proposal(&proposal)).unwrap();
            prop_assert_eq!(&applied, &replica.apply(index, &read));
            prop_assert_eq!(&state, &replica);
        }
    }
}

/// The property test above is worth something only if its sequences get through whole moves.
#[test]
fn the_drafts_complete_moves() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut moves, mut drills_ended) = (0, 0);
    for _ in 0..150 {
        let drafts = drafts().new_tree(&mut runner).unwrap().current();
        let mut state = started();
        for (number, draft) in drafts.iter().enumerate() {
            let proposal = draft.proposal(&state, 10);
            state.apply(100 + number as u64, &proposal);
        }
        moves += state.moves.0;
        drills_ended += state.drills.len();
    }
    assert!(moves > 50, "{moves} moves in 150 sequences");
    assert!(drills_ended > 0, "no drill in 150 sequences");
}
