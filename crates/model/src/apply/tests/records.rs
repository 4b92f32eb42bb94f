//! What is merely recorded: specification, nodes, verdicts, drains, pauses, announcements; and repetitions.

use super::{
    Applied, Cluster, Command, Effect, Event, Format, NewVerdict, NodeId, OperationKind, Proposal, Refusal,
    Revision, State, Token, Verdict, WallTime, ip, life, samples, verdict,
};
use crate::ids::RequestId;
use crate::samples::upstream;
use crate::state::{EVIDENCE_MAX, REQUESTS_MAX};
use std::sync::Arc;

fn empty() -> Cluster {
    Cluster { state: State::default(), index: 0, wall: 0 }
}

#[test]
fn a_specification_is_applied_once_and_never_anothers() {
    let mut cluster = Cluster::new();
    cluster.unchanged(Command::ApplySpec { spec: Arc::new(samples::spec()) });
    let mut other = samples::spec();
    other.cluster = "other".parse().unwrap();
    cluster.refused(Command::ApplySpec { spec: Arc::new(other) }, &Refusal::OtherCluster);
}

#[test]
fn what_a_specification_no_longer_names_is_forgotten() {
    let mut cluster = Cluster::new();
    let name = upstream("gra-meet-2");
    let token = cluster.state.session_token();
    let room = crate::ids::RoomKey([1; 16]);
    cluster.done(verdict("gra-meet-2", Verdict::Healthy));
    cluster.done(Command::SetDrain { upstream: name.clone(), draining: true, deadline: None });
    let address = "192.0.2.1".parse().unwrap();
    cluster.done(Command::RecordAnnounced { by: NodeId(1), announced: vec![(name.clone(), address, token)] });
    cluster.done(Command::PinRoom { room, upstream: name.clone(), replace: None, token });
    let mut fewer = samples::spec();
    fewer.upstreams.remove(1);
    cluster.done(Command::RetireNode { node: NodeId(2) });
    fewer.nodes.remove(1);
    let events = cluster.done(Command::ApplySpec { spec: Arc::new(fewer) });
    assert_eq!(events, [Event::SpecApplied]);
    assert_eq!(cluster.state.spec_revision, Revision(cluster.index));
    assert!(!cluster.state.verdicts.contains_key(&name));
    assert!(!cluster.state.drains.contains_key(&name));
    assert!(!cluster.state.announced.contains_key(&name));
    assert!(cluster.state.sessions.pins.is_empty());
    assert!(!cluster.state.nodes.contains_key(&NodeId(2)));
}

#[test]
fn nodes_are_put_and_retired_for_good() {
    let mut cluster = Cluster::new();
    let mut node = samples::spec().nodes[1].clone();
    cluster.unchanged(Command::PutNode { node: node.clone() });
    node.peer.set_port(7_200);
    assert_eq!(cluster.done(Command::PutNode { node: node.clone() }), [Event::NodePut(NodeId(2))]);
    assert_eq!(cluster.state.spec.as_ref().unwrap().node(NodeId(2)), Some(&node));
    node.id = NodeId(6);
    node.name = "gra-3".parse().unwrap();
    node.peer.set_port(7_300);
    node.api.set_port(7_301);
    cluster.done(Command::PutNode { node: node.clone() });
    cluster.done(life(6, 60));
    assert_eq!(cluster.done(Command::RetireNode { node: NodeId(6) }), [Event::NodeRetired(NodeId(6))]);
    assert!(!cluster.state.nodes.contains_key(&NodeId(6)));
    cluster.unchanged(Command::RetireNode { node: NodeId(6) });
    cluster.refused(Command::PutNode { node: node.clone() }, &Refusal::RetiredNode(NodeId(6)));
    cluster.refused(life(6, 61), &Refusal::RetiredNode(NodeId(6)));
    let mut with = samples::spec();
    with.nodes.push(node);
    cluster.refused(Command::ApplySpec { spec: Arc::new(with) }, &Refusal::RetiredNode(NodeId(6)));
}

#[test]
fn lives_only_grow() {
    let mut cluster = Cluster::new();
    cluster.unchanged(life(1, 10));
    cluster.unchanged(life(1, 9));
    cluster.done(life(1, 11));
    cluster.refused(life(8, 1), &Refusal::UnknownNode(NodeId(8)));
}

#[test]
fn the_format_rises_when_every_member_reads_it() {
    let mut cluster = Cluster::new();
    let raise = Command::RaiseFormat { format: Format(2) };
    cluster.unchanged(Command::RaiseFormat { format: Format(1) });
    cluster.refused(raise.clone(), &Refusal::FormatUnsupported(Format(2)));
    for node in 1..=5 {
        cluster.refused(raise.clone(), &Refusal::FormatUnsupported(Format(2)));
        cluster.done(Command::RecordLife {
            node: NodeId(node),
            incarnation: crate::ids::Incarnation(node * 10 + 1),
            format_max: Format(2),
            version: "0.2.0".to_owned(),
        });
    }
    assert_eq!(cluster.done(raise), [Event::FormatRaised(Format(2))]);
}

#[test]
fn verdicts_change_with_their_evidence() {
    let mut cluster = Cluster::new();
    let name = upstream("gra-meet-1");
    cluster.unchanged(verdict("gra-meet-1", Verdict::Unknown));
    let evidence: Vec<_> = (0..30).map(|n| format!("line {n}")).collect();
    let new = NewVerdict { upstream: name.clone(), health: Verdict::Healthy, evidence };
    let events = cluster.done(Command::SetVerdicts { verdicts: vec![new] });
    let [Event::VerdictChanged { from: Verdict::Unknown, to: Verdict::Healthy, evidence, .. }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(evidence.len(), EVIDENCE_MAX);
    cluster.unchanged(verdict("gra-meet-1", Verdict::Healthy));
    // `Draining` is a person's wish and not a finding: as a verdict it counts as healthy.
    cluster.unchanged(verdict("gra-meet-1", Verdict::Draining));
    cluster.unchanged(verdict("not-there", Verdict::Healthy));
    cluster.unchanged(Command::SetVerdicts { verdicts: Vec::new() });
    cluster.done(verdict("gra-meet-1", Verdict::Unhealthy));
    assert_eq!(cluster.state.verdict(&name), Verdict::Unhealthy);
}

#[test]
fn a_drain_shows_in_the_verdict_of_a_healthy_upstream() {
    let mut cluster = Cluster::new();
    let name = upstream("gra-meet-1");
    let drain = |draining, deadline| Command::SetDrain { upstream: name.clone(), draining, deadline };
    cluster.done(verdict("gra-meet-1", Verdict::Healthy));
    cluster.unchanged(drain(false, None));
    let events = cluster.done(drain(true, None));
    assert!(matches!(
        &events[..],
        [Event::VerdictChanged { from: Verdict::Healthy, to: Verdict::Draining, .. }]
    ));
    cluster.unchanged(drain(true, None));
    cluster.done(drain(true, Some(WallTime(9_000))));
    assert_eq!(cluster.state.drains[&name].deadline, Some(WallTime(9_000)));
    cluster.done(verdict("gra-meet-1", Verdict::Unhealthy));
    assert_eq!(cluster.state.verdict(&name), Verdict::Unhealthy);
    cluster.done(drain(false, None));
    assert!(cluster.state.drains.is_empty());
    let unknown = upstream("nope");
    let command = Command::SetDrain { upstream: unknown.clone(), draining: true, deadline: None };
    cluster.refused(command, &Refusal::UnknownUpstream(unknown));
}

#[test]
fn a_pause_begins_and_ends_once() {
    let mut cluster = Cluster::new();
    let pause = Command::Pause { until: WallTime(99_000), reason: "update".to_owned() };
    let resume = Command::Resume { expired: false };
    cluster.unchanged(resume.clone());
    let events = cluster.done(pause);
    assert!(matches!(&events[..], [Event::Paused { until: WallTime(99_000), .. }]));
    assert_eq!(cluster.state.pause.as_ref().unwrap().reason, "update");
    let events = cluster.done(resume.clone());
    assert_eq!(events, [Event::Resumed { expired: false, by: "controller".to_owned() }]);
    cluster.unchanged(resume);
}

#[test]
fn announcements_are_noted_when_they_change() {
    let mut cluster = Cluster::new();
    let name = upstream("gra-meet-1");
    let note = |name: &crate::UpstreamName, address: &str, epoch| Command::RecordAnnounced {
        by: NodeId(1),
        announced: vec![(name.clone(), address.parse().unwrap(), Token::new(1, epoch))],
    };
    assert_eq!(cluster.done(note(&name, "192.0.2.1", 1)).len(), 1);
    cluster.unchanged(note(&name, "192.0.2.1", 1));
    cluster.done(note(&name, "192.0.2.1", 2));
    cluster.done(note(&name, "192.0.2.2", 2));
    cluster.unchanged(note(&upstream("nope"), "192.0.2.2", 2));
    assert_eq!(cluster.state.announced[&name].token, Token::new(1, 2));
    empty().unchanged(note(&name, "192.0.2.1", 1));
}

#[test]
fn most_commands_need_a_specification() {
    let mut cluster = empty();
    let name = upstream("gra-meet-1");
    cluster.refused(Command::PutNode { node: samples::spec().nodes[0].clone() }, &Refusal::NoSpec);
    cluster.refused(Command::RetireNode { node: NodeId(1) }, &Refusal::NoSpec);
    cluster.refused(Command::RaiseFormat { format: Format(2) }, &Refusal::NoSpec);
    cluster.refused(life(1, 1), &Refusal::NoSpec);
    cluster.refused(verdict("gra-meet-1", Verdict::Healthy), &Refusal::NoSpec);
    cluster.refused(
        Command::SetDrain { upstream: name.clone(), draining: true, deadline: None },
        &Refusal::NoSpec,
    );
    let room = crate::ids::RoomKey([1; 16]);
    let token = Token::new(1, 0);
    cluster.refused(Command::PinRoom { room, upstream: name, replace: None, token }, &Refusal::NoSpec);
}

fn request(cluster: &mut Cluster, id: &str, expected: Option<u64>, command: Command) -> Applied {
    let proposal = Proposal {
        request: RequestId::new(id),
        expected_revision: expected.map(Revision),
        ..Proposal::by_controller(WallTime(cluster.wall), command)
    };
    cluster.apply(&proposal)
}

fn pause(until: u64) -> Command {
    Command::Pause { until: WallTime(until), reason: String::new() }
}

#[test]
fn a_repeated_request_is_carried_out_once() {
    let mut cluster = Cluster::new();
    let first = request(&mut cluster, "a", None, pause(5_000));
    assert_eq!(first.result, Ok(Effect::Done));
    cluster.done(Command::Resume { expired: false });
    let again = request(&mut cluster, "a", Some(1), pause(5_000));
    assert_eq!(again.result, Ok(Effect::Repeated(first.revision)));
    assert_eq!(again.events, []);
    assert_eq!(cluster.state.pause, None);
}

#[test]
fn a_refused_request_may_be_repeated() {
    let mut cluster = Cluster::new();
    let refused = request(&mut cluster, "a", Some(1), pause(5_000));
    let actual = cluster.state.revision;
    let refusal = Refusal::RevisionMismatch { expected: Revision(1), actual };
    assert_eq!(refused.result, Err(refusal));
    let again = request(&mut cluster, "a", Some(actual.0), pause(5_000));
    assert_eq!(again.result, Ok(Effect::Done));
}

#[test]
fn the_newest_requests_are_remembered() {
    let mut cluster = Cluster::new();
    for n in 0..=REQUESTS_MAX {
        request(&mut cluster, &format!("r{n}"), None, pause(5_000 + n as u64));
    }
    assert_eq!(cluster.state.requests.len(), REQUESTS_MAX);
    assert_eq!(cluster.state.request(&RequestId::new("r0").unwrap()), None);
    assert!(cluster.state.request(&RequestId::new("r1").unwrap()).is_some());
}

#[test]
fn the_wall_clock_never_goes_back() {
    let mut cluster = Cluster::new();
    let at = cluster.state.wall;
    cluster.apply(&Proposal::by_controller(WallTime(1), pause(5_000)));
    assert_eq!(cluster.state.wall, at);
    assert_eq!(cluster.state.pause.as_ref().unwrap().since, at);
}

#[test]
fn the_session_token_counts_every_change_of_any_owner() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.state.session_token(), Token::new(1, 0));
    cluster.move_to(OperationKind::Placement, 1);
    assert_eq!(cluster.state.session_token(), Token::new(1, 1));
    assert_eq!(cluster.state.owner_site(&ip()).unwrap().as_str(), "gra");
}
