//! Any proposal and any state, for property tests: what the types allow, not what makes sense.

use crate::command::{Command, NewVerdict, Proposal};
use crate::drill::{DrillOutcome, DrillRecord, DrillStop, RunningDrill};
use crate::errand::{Errand, ErrandEnd};
use crate::ids::{
    DrillId, Epoch, ErrandId, FloatingIpName, Generation, Incarnation, NodeId, OperationId, RequestId,
    Revision, RoomKey, Token, UpstreamName,
};
use crate::operation::{
    Fence, Operation, OperationKind, Outcome, Reason, SafetyRule, Step, StepRecord, StepResult,
};
use crate::samples;
use crate::spec::{ClusterSpec, HumanDuration, NodeSpec};
use crate::state::{
    AnnouncedRecord, Drain, EarlierSpec, EmbeddedSessions, FloatingIpState, Format, NodeLife, Owner, Pause,
    Pin, State, Verdict, VerdictRecord,
};
use crate::ticket_keys::{TicketKey, TicketSecret};
use crate::time::WallTime;
use crate::timing::{LeaseBound, Profile};
use proptest::collection::{btree_map, btree_set, vec, vec_deque};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn wall() -> impl Strategy<Value = WallTime> {
    any::<u64>().prop_map(WallTime)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation)
}

fn operation_id() -> impl Strategy<Value = OperationId> {
    any::<u64>().prop_map(OperationId)
}

fn format() -> impl Strategy<Value = Format> {
    any::<u32>().prop_map(Format)
}

fn token() -> impl Strategy<Value = Token> {
    any::<(u64, u64)>().prop_map(|(generation, epoch)| Token::new(generation, epoch))
}

fn upstream() -> impl Strategy<Value = UpstreamName> {
    "[a-z0-9][a-z0-9-]{0,10}".prop_map(|name| UpstreamName::new(name).unwrap())
}

fn ip() -> impl Strategy<Value = FloatingIpName> {
    "[a-z0-9][a-z0-9-]{0,10}".prop_map(|name| FloatingIpName::new(name).unwrap())
}

fn room() -> impl Strategy<Value = RoomKey> {
    any::<[u8; 16]>().prop_map(RoomKey)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 4]>().prop_map(|v4| IpAddr::V6(std::net::Ipv4Addr::from(v4).to_ipv6_mapped())),
    ]
}

fn request() -> impl Strategy<Value = RequestId> {
    "[ -~]{1,64}".prop_map(|id| RequestId::new(id).unwrap())
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(vec![Verdict::Unknown, Verdict::Healthy, Verdict::Unhealthy, Verdict::Draining])
}

fn kind() -> impl Strategy<Value = OperationKind> {
    use OperationKind::{Failback, Failover, Forced, Placement, Switchover};
    select(vec![Placement, Failover, Switchover, Failback, Forced])
}

fn reason() -> impl Strategy<Value = Reason> {
    select(vec![
        Reason::NoOwner,
        Reason::OwnerReleased,
        Reason::OwnerSilent,
        Reason::OwnerRestarted,
        Reason::SiteUnhealthy,
        Reason::OwnerIneligible,
        Reason::Operator,
        Reason::Preference,
        Reason::Recovery,
        Reason::OwnerStopped,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    select(Step::ALL.to_vec())
}

fn step_result() -> impl Strategy<Value = StepResult> {
    select(vec![StepResult::Done, StepResult::Skipped, StepResult::TimedOut])
}

fn fence() -> impl Strategy<Value = Fence> {
    select(vec![Fence::NoOwner, Fence::Released, Fence::LeaseEnded, Fence::Attested])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(vec![Outcome::Verified, Outcome::Unverified, Outcome::Aborted])
}

fn rules() -> impl Strategy<Value = Vec<SafetyRule>> {
    vec(select(SafetyRule::ALL.to_vec()), 0..4)
}

fn duration() -> impl Strategy<Value = HumanDuration> {
    (0..10_000_000_000_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| HumanDuration(Duration::new(seconds, nanos)))
}

fn node_spec() -> impl Strategy<Value = NodeSpec> {
    (0..5_usize, any::<u64>(), vec((address(), any::<u16>()), 0..3)).prop_map(|(like, id, http)| NodeSpec {
        id: NodeId(id),
        https: http.iter().skip(1).map(|at| (*at).into()).collect(),
        http: http.into_iter().map(Into::into).collect(),
        ..samples::spec().nodes[like].clone()
    })
}

fn spec() -> impl Strategy<Value = Arc<ClusterSpec>> {
    let parts = (
        select(vec![Profile::Lan, Profile::Wan]),
        of(duration()),
        duration(),
        vec(node_spec(), 0..3),
        of(text()),
        any::<bool>(),
    );
    parts.prop_map(|(profile, lease, room_ttl, nodes, url, audit)| {
        let mut spec = samples::spec();
        spec.profile = profile;
        spec.timing.lease = lease;
        spec.sessions.room_ttl = room_ttl;
        spec.sessions.url = url;
        spec.sessions.audit = audit;
        spec.nodes.extend(nodes);
        Arc::new(spec)
    })
}

fn owner() -> impl Strategy<Value = Owner> {
    (node(), incarnation(), token(), wall(), any::<bool>()).prop_map(
        |(node, incarnation, token, since, revoked)| Owner { node, incarnation, token, since, revoked },
    )
}

fn step_record() -> impl Strategy<Value = StepRecord> {
    (step(), wall(), of((wall(), step_result())), text())
        .prop_map(|(step, started, finished, detail)| StepRecord { step, started, finished, detail })
}

fn operation() -> impl Strategy<Value = Operation> {
    let what = (operation_id(), ip(), kind(), reason(), texts());
    let who = (of(owner()), node(), incarnation(), text(), rules());
    let how = (of(fence()), of(token()), vec(step_record(), 0..4), of((wall(), outcome())));
    (what, who, how).prop_map(|(what, who, how)| Operation {
        id: what.0,
        ip: what.1,
        kind: what.2,
        reason: what.3,
        evidence: what.4,
        from: who.0,
        target: who.1,
        target_incarnation: who.2,
        by: who.3,
        overrides: who.4,
        fence: how.0,
        token: how.1,
        steps: how.2,
        ended: how.3,
    })
}

fn new_verdict() -> impl Strategy<Value = NewVerdict> {
    (upstream(), verdict(), texts()).prop_map(|(upstream, health, evidence)| NewVerdict {
        upstream,
        health,
        evidence,
    })
}

fn journal_command() -> BoxedStrategy<Command> {
    prop_oneof![
        ((ip(), kind(), reason(), texts()), of(token()), node(), incarnation(), rules()).prop_map(
            |((ip, kind, reason, evidence), from, target, target_incarnation, overrides)| {
                Command::BeginOperation {
                    ip,
                    kind,
                    reason,
                    evidence,
                    from,
                    target,
                    target_incarnation,
                    overrides,
                }
            }
        ),
        (ip(), operation_id(), step()).prop_map(|(ip, operation, step)| Command::StartStep {
            ip,
            operation,
            step
        }),
        (ip(), operation_id(), step(), step_result(), text()).prop_map(
            |(ip, operation, step, result, detail)| Command::FinishStep {
                ip,
                operation,
                step,
                result,
                detail
            }
        ),
        (ip(), operation_id(), fence(), text()).prop_map(|(ip, operation, fence, detail)| {
            Command::CompleteFence { ip, operation, fence, detail }
        }),
        (ip(), operation_id()).prop_map(|(ip, operation)| Command::Assign { ip, operation }),
        (ip(), operation_id(), node(), incarnation(), text()).prop_map(
            |(ip, operation, target, target_incarnation, detail)| Command::Retarget {
                ip,
                operation,
                target,
                target_incarnation,
                detail
            }
        ),
        (ip(), operation_id(), outcome()).prop_map(|(ip, operation, outcome)| Command::CloseOperation {
            ip,
            operation,
            outcome
        }),
        (ip(), operation_id(), text()).prop_map(|(ip, operation, detail)| Command::AbortOperation {
            ip,
            operation,
            detail
        }),
    ]
    .boxed()
}

fn other_command() -> BoxedStrategy<Command> {
    prop_oneof![
        spec().prop_map(|spec| Command::ApplySpec { spec }),
        node_spec().prop_map(|node| Command::PutNode { node }),
        node().prop_map(|node| Command::RetireNode { node }),
        format().prop_map(|format| Command::RaiseFormat { format }),
        (node(), incarnation(), format(), text()).prop_map(|(node, incarnation, format_max, version)| {
            Command::RecordLife { node, incarnation, format_max, version }
        }),
        vec(new_verdict(), 0..3).prop_map(|verdicts| Command::SetVerdicts { verdicts }),
        (upstream(), any::<bool>(), of(wall()))
            .prop_map(|(upstream, draining, deadline)| Command::SetDrain { upstream, draining, deadline }),
        (wall(), text()).prop_map(|(until, reason)| Command::Pause { until, reason }),
        any::<bool>().prop_map(|expired| Command::Resume { expired }),
        Just(Command::ResetBreaker),
        ticket_secret().prop_map(|secret| Command::RotateTicketKey { secret }),
        (any::<u64>(), text()).prop_map(|(generation, statement)| Command::RaiseGeneration {
            generation: Generation(generation),
            statement
        }),
        (node(), vec((upstream(), address(), token()), 0..3))
            .prop_map(|(by, announced)| Command::RecordAnnounced { by, announced }),
        (room(), upstream(), of(upstream()), token()).prop_map(|(room, upstream, replace, token)| {
            Command::PinRoom { room, upstream, replace, token }
        }),
        (vec(room(), 0..4), token()).prop_map(|(rooms, token)| Command::TouchRooms { rooms, token }),
        wall().prop_map(|before| Command::ExpireRooms { before }),
        errand_command(),
        drill_command(),
    ]
    .boxed()
}

fn drill_id() -> impl Strategy<Value = DrillId> {
    any::<u64>().prop_map(DrillId)
}

fn drill_outcome() -> impl Strategy<Value = DrillOutcome> {
    select(DrillOutcome::ALL.to_vec())
}

fn drill_command() -> BoxedStrategy<Command> {
    prop_oneof![
        running_drill().prop_map(|drill| {
            let RunningDrill { name, by, runner, incarnation, until, .. } = drill;
            Command::BeginDrill { name, by, runner, incarnation, until }
        }),
        (drill_id(), text()).prop_map(|(drill, reason)| Command::StopDrill { drill, reason }),
        (drill_id(), drill_outcome(), text()).prop_map(|(drill, outcome, summary)| Command::EndDrill {
            drill,
            outcome,
            summary
        }),
    ]
    .boxed()
}

fn running_drill() -> impl Strategy<Value = RunningDrill> {
    let stop = (text(), text()).prop_map(|(by, reason)| DrillStop { by, reason });
    ((drill_id(), text(), text()), node(), incarnation(), wall(), wall(), of(stop)).prop_map(
        |((id, name, by), runner, incarnation, since, until, stop)| RunningDrill {
            id,
            name,
            by,
            runner,
            incarnation,
            since,
            until,
            stop,
        },
    )
}

fn drill_record() -> impl Strategy<Value = DrillRecord> {
    ((drill_id(), text(), text()), node(), wall(), wall(), drill_outcome(), text()).prop_map(
        |((id, name, by), runner, since, ended, outcome, summary)| DrillRecord {
            id,
            name,
            by,
            runner,
            since,
            ended,
            outcome,
            summary,
        },
    )
}

fn errand_id() -> impl Strategy<Value = ErrandId> {
    any::<u64>().prop_map(ErrandId)
}

fn errand_command() -> BoxedStrategy<Command> {
    prop_oneof![
        (ip(), errand()).prop_map(|(ip, errand)| {
            let Errand { by, incarnation, token, to, within, .. } = errand;
            Command::SendErrand { ip, by, incarnation, token, to, within }
        }),
        (ip(), errand_id()).prop_map(|(ip, errand)| Command::RecallErrand { ip, errand }),
        (ip(), errand_id(), select(ERRAND_ENDS)).prop_map(|(ip, errand, end)| Command::EndErrand {
            ip,
            errand,
            end
        }),
    ]
    .boxed()
}

const ERRAND_ENDS: &[ErrandEnd] = &[
    ErrandEnd::Accepted,
    ErrandEnd::Refused,
    ErrandEnd::Unanswered,
    ErrandEnd::NotMade,
    ErrandEnd::WaitedOut,
];

fn errand() -> impl Strategy<Value = Errand> {
    let ids = (errand_id(), node(), incarnation(), token(), node());
    (ids, any::<u64>(), wall(), any::<bool>()).prop_map(
        |((id, by, incarnation, token, to), within, since, recalled)| Errand {
            id,
            by,
            incarnation,
            token,
            to,
            within: Duration::from_nanos(within),
            since,
            recalled,
        },
    )
}

/// Any proposal.
pub(crate) fn proposal() -> impl Strategy<Value = Proposal> {
    let command = prop_oneof![journal_command(), other_command()];
    (wall(), text(), of(request()), of(any::<u64>()), command).prop_map(
        |(at, by, request, expected, command)| Proposal {
            at,
            by,
            request,
            expected_revision: expected.map(Revision),
            command,
        },
    )
}

fn node_life() -> impl Strategy<Value = NodeLife> {
    (incarnation(), format(), text(), wall()).prop_map(|(incarnation, format_max, version, since)| NodeLife {
        incarnation,
        format_max,
        version,
        since,
    })
}

fn floating_ip() -> impl Strategy<Value = FloatingIpState> {
    let errands = (errand_id(), of(errand()));
    (any::<u64>(), of(owner()), of(operation()), errands).prop_map(
        |(epoch, owner, operation, (errands, errand))| FloatingIpState {
            epoch: Epoch(epoch),
            owner,
            operation,
            errands,
            errand,
        },
    )
}

fn pin() -> impl Strategy<Value = Pin> {
    let placed = of((0..u64::MAX).prop_map(Revision));
    (upstream(), token(), wall(), placed).prop_map(|(upstream, token, touched, placed)| Pin {
        upstream,
        token,
        touched,
        placed,
    })
}

fn ticket_secret() -> impl Strategy<Value = TicketSecret> {
    any::<[u8; 32]>().prop_map(TicketSecret::new)
}

fn ticket_key() -> impl Strategy<Value = TicketKey> {
    (ticket_secret(), wall()).prop_map(|(secret, since)| TicketKey { secret, since })
}

fn earlier_spec() -> impl Strategy<Value = EarlierSpec> {
    (any::<u64>(), wall(), text(), spec()).prop_map(|(revision, until, replaced_by, spec)| EarlierSpec {
        revision: Revision(revision),
        until,
        replaced_by,
        spec,
    })
}

/// Any state of a format that this program writes.
pub(crate) fn state() -> impl Strategy<Value = State> {
    let numbers = (any::<[u64; 7]>(), of(spec()));
    let verdict = (verdict(), wall(), texts()).prop_map(|(health, since, evidence)| VerdictRecord {
        health,
        since,
        evidence,
    });
    let drain = (wall(), text(), of(wall())).prop_map(|(since, by, deadline)| Drain { since, by, deadline });
    let announced = (address(), token(), wall(), node())
        .prop_map(|(address, token, since, by)| AnnouncedRecord { address, token, since, by });
    let pause = (wall(), wall(), text(), text()).prop_map(|(until, since, by, reason)| Pause {
        until,
        since,
        by,
        reason,
    });
    let tables = (
        btree_map(node(), node_life(), 0..3),
        btree_set(node(), 0..3),
        btree_map(upstream(), verdict, 0..3),
        btree_map(upstream(), drain, 0..3),
        btree_map(ip(), floating_ip(), 0..3),
        btree_map(upstream(), announced, 0..3),
    );
    let rest = (
        of(pause),
        vec_deque(wall(), 0..3),
        vec_deque(operation(), 0..3),
        (token(), btree_map(room(), pin(), 0..3)),
        vec_deque((request(), any::<u64>()), 0..3),
        (
            of(running_drill()),
            vec_deque(drill_record(), 0..3),
            vec_deque(ticket_key(), 0..3),
            vec_deque(earlier_spec(), 0..3),
        ),
    );
    (numbers, tables, rest).prop_map(|((numbers, spec), tables, rest)| {
        in_its_format(State {
            revision: Revision(numbers[0]),
            format: if numbers[4] % 4 == 0 { Format::FIRST } else { Format::NEWEST },
            generation: Generation(numbers[1]),
            wall: WallTime(numbers[2]),
            spec,
            spec_revision: Revision(numbers[3]),
            longest: LeaseBound {
                lease: Duration::from_nanos(numbers[5]),
                wait: Duration::from_nanos(numbers[6]),
            },
            nodes: tables.0,
            retired_nodes: tables.1,
            verdicts: tables.2,
            drains: tables.3,
            floating_ips: tables.4,
            moves: Epoch(numbers[4]),
            pause: rest.0,
            automatic_failovers: rest.1,
            history: rest.2,
            announced: tables.5,
            sessions: EmbeddedSessions { token: rest.3.0, pins: rest.3.1 },
            requests: rest.4.into_iter().map(|(id, revision)| (id, Revision(revision))).collect(),
            drill: rest.5.0,
            drills: rest.5.1,
            ticket_keys: rest.5.2,
            earlier_specs: rest.5.3,
        })
    })
}

/// Without what the state's format does not have.
fn in_its_format(mut state: State) -> State {
    if state.format < Format::ERRANDS {
        for ip in state.floating_ips.values_mut() {
            (ip.errands, ip.errand) = (ErrandId(0), None);
        }
    }
    if state.format < Format::DRILLS {
        state.drill = None;
        state.drills.clear();
    }
    if state.format < Format::PLACES {
        state.sessions.pins.values_mut().for_each(|pin| pin.placed = None);
    }
    if state.format < Format::EDGE {
        state.ticket_keys.clear();
        state.earlier_specs.clear();
    }
    state
}
