use super::*;
use twinsite_controller::Alarm;
use twinsite_drill::engine::{Origin, Verdict};
use twinsite_model::{Fence, Incarnation, Owner, Reason, Step, StepRecord, StepResult, Token};

const ID: OperationId = OperationId(40);
/// When the move began.
const BEGAN: WallTime = WallTime(1_800_000_000_000);

fn ip() -> FloatingIpName {
    "public".parse().unwrap()
}

fn owner(node: u64, token: Token) -> Owner {
    Owner { node: NodeId(node), incarnation: Incarnation(1), token, since: WallTime(1), revoked: false }
}

fn operation(kind: OperationKind, outcome: Outcome) -> Operation {
    let record = |step, from: u64, to: u64, detail: &str| StepRecord {
        step,
        started: BEGAN.plus(Duration::from_millis(from)),
        finished: Some((BEGAN.plus(Duration::from_millis(to)), StepResult::Done)),
        detail: detail.to_owned(),
    };
    Operation {
        id: ID,
        ip: ip(),
        kind,
        reason: Reason::OwnerReleased,
        evidence: vec!["the guardian of gra-1 saw the holder of token 1.1 end".to_owned()],
        from: Some(owner(1, Token::new(1, 1))),
        target: NodeId(2),
        target_incarnation: Incarnation(1),
        by: "controller".to_owned(),
        overrides: Vec::new(),
        fence: Some(Fence::Released),
        token: (outcome != Outcome::Aborted).then(|| Token::new(1, 2)),
        steps: vec![
            record(Step::Fence, 1, 4, ""),
            record(Step::Observe, 5, 12, ""),
            record(Step::Verify, 12, 60, "sbg-1 saw it"),
        ],
        ended: Some((BEGAN.plus(Duration::from_millis(60)), outcome)),
    }
}

struct Watched {
    lookout: Lookout,
    state: State,
}

impl Watched {
    fn new() -> Self {
        let spec =
            twinsite_model::spec::from_toml(include_str!("../../../../../deploy/example/cluster.toml"));
        let state = State { spec: Some(Arc::new(spec.unwrap())), ..State::default() };
        Self { lookout: Lookout::new(Arc::new(state.clone())), state }
    }

    fn change(&mut self, after_ms: u64, event: Event) {
        let seen = Seen::Change { events: vec![event], state: Arc::new(self.state.clone()) };
        assert!(self.lookout.see(at(after_ms), seen).is_none());
    }

    fn outside(&mut self, after_ms: u64, answer: OutsideAnswer) {
        let seen = Seen::Outside(Arc::new(BTreeMap::from([(ip(), answer)])));
        assert!(self.lookout.see(at(after_ms), seen).is_none());
    }

    /// The move begins and ends, as everybody sees it.
    fn moved(&mut self, kind: OperationKind, outcome: Outcome) {
        let began = Event::OperationBegan {
            ip: ip(),
            operation: ID,
            kind,
            reason: Reason::OwnerReleased,
            target: NodeId(2),
            evidence: Vec::new(),
        };
        self.change(5, began);
        self.state.history.push_back(operation(kind, outcome));
        self.change(65, Event::OperationEnded { ip: ip(), operation: ID, outcome });
    }
}

fn at(after_ms: u64) -> WallTime {
    BEGAN.plus(Duration::from_millis(after_ms))
}

fn answered(node: u64, epoch: u64) -> OutsideAnswer {
    OutsideAnswer::Answered {
        cluster: "meeting".to_owned(),
        node: NodeId(node),
        token: Token::new(1, epoch),
        incarnation: Incarnation(1),
    }
}

#[test]
fn a_failover_is_reported_with_what_was_seen_around_it() {
    let mut watched = Watched::new();
    watched.outside(0, answered(1, 1));
    watched.outside(3, OutsideAnswer::Silent { detail: "refused".to_owned() });
    watched.moved(OperationKind::Failover, Outcome::Verified);
    watched.outside(70, answered(2, 2));
    assert!(watched.lookout.take_due(at(1_000)).is_none(), "it is looked on for a while");
    let report = watched.lookout.take_due(at(3_000)).unwrap();
    assert!(watched.lookout.take_due(at(9_000)).is_none(), "it is reported once");
    assert_eq!((report.origin, report.verdict), (Origin::Real, Verdict::Pass));
    assert_eq!(report.scenario, "failover");
    assert_eq!(report.description, "public: gra-1 -> gra-2 by controller, because owner-released");
    assert_eq!(report.began_ms, at(5).0, "by this node's clock");
    let [run] = &report.runs[..] else { panic!("{:?}", report.runs) };
    assert_eq!(
        (run.phases_ms.fence, run.phases_ms.observe, run.phases_ms.verify),
        (Some(3), Some(7), Some(48))
    );
    assert_eq!(run.gap_ms.http, Some(67));
    assert_eq!(run.owner_before.as_deref(), Some("gra-1 (1.1)"));
    assert_eq!(run.owner_after.as_deref(), Some("gra-2 (1.2)"));
    let times: Vec<_> = run.timeline.iter().map(|entry| entry.at_ms).collect();
    assert_eq!(times, [-5, -2, 0, 60, 65]);
    assert!(report.audit.evidence.iter().any(|line| line.contains("saw the holder of token 1.1 end")));
    assert!(report.audit.evidence.iter().any(|line| line == "verify: sbg-1 saw it"));
}

#[test]
fn what_was_planned_and_went_well_is_not_reported_and_what_did_not_is() {
    let planned = |outcome| {
        let mut watched = Watched::new();
        watched.moved(OperationKind::Switchover, outcome);
        watched.lookout.take_due(at(10_000))
    };
    assert!(planned(Outcome::Verified).is_none());
    let aborted = planned(Outcome::Aborted).unwrap();
    assert_eq!((aborted.verdict, &*aborted.broken), (Verdict::Fail, &["it was called off".to_owned()][..]));
    assert_eq!(planned(Outcome::Unverified).unwrap().verdict, Verdict::Fail);
}

#[test]
fn near_and_forbidden_failovers_are_reported_too() {
    let mut watched = Watched::new();
    let nearly = Notice::NearlyMoved {
        ip: ip(),
        owner: NodeId(1),
        token: Token::new(1, 1),
        silent_for: Duration::from_millis(2_100),
        lease: Duration::from_secs(3),
    };
    watched.lookout.see(at(0), Seen::Notice(nearly));
    watched.lookout.see(at(10), Seen::Notice(Notice::AlarmRaised(Alarm::NoStandby { ip: ip() })));
    let blocked = Notice::Blocked {
        ip: ip(),
        reason: Reason::OwnerSilent,
        rules: Vec::new(),
        unfit: vec!["gra-2 is not heard".to_owned()],
    };
    watched.lookout.see(at(20), Seen::Notice(blocked));
    let nearly = watched.lookout.take_due(at(5_000)).unwrap();
    assert_eq!((nearly.scenario.as_str(), nearly.verdict), ("near-failover", Verdict::Pass));
    assert!(nearly.description.contains("gra-1 was silent for 2100 ms"), "{}", nearly.description);
    assert!(nearly.runs[0].timeline.iter().any(|entry| entry.what == "no-standby began"));
    let blocked = watched.lookout.take_due(at(5_000)).unwrap();
    assert_eq!((blocked.scenario.as_str(), blocked.verdict), ("blocked-failover", Verdict::Fail));
    assert_eq!(blocked.broken, ["gra-2 is not heard"]);
}

#[test]
fn what_is_kept_is_bounded_and_what_is_due_is_not_lost() {
    let mut watched = Watched::new();
    let answers = [answered(1, 1), OutsideAnswer::Silent { detail: "refused".to_owned() }];
    for round in 0..2_000 {
        watched.outside(round, answers[usize::from(round % 2 == 0)].clone());
    }
    assert_eq!(watched.lookout.lines.len(), LINES_MAX);
    let mut at_once = 0;
    for round in 0..40 {
        let unfit = vec!["gra-2 is not heard".to_owned()];
        let blocked = Notice::Blocked { ip: ip(), reason: Reason::OwnerSilent, rules: Vec::new(), unfit };
        at_once += u32::from(watched.lookout.see(at(2_000 + round), Seen::Notice(blocked)).is_some());
    }
    let mut later = 0;
    while watched.lookout.take_due(at(60_000)).is_some() {
        later += 1;
    }
    assert_eq!(at_once + later, 40);
    assert_eq!(later, DUE_MAX as u32);
}

#[test]
fn an_owner_that_is_nearly_replaced_again_and_again_is_reported_once_a_minute() {
    let mut watched = Watched::new();
    let mut reported = 0;
    for second in 0..90 {
        let nearly = Notice::NearlyMoved {
            ip: ip(),
            owner: NodeId(1),
            token: Token::new(1, 1),
            silent_for: Duration::from_millis(170),
            lease: Duration::from_millis(320),
        };
        watched.lookout.see(at(second * 1_000), Seen::Notice(nearly));
        reported += u32::from(watched.lookout.take_due(at(second * 1_000)).is_some());
    }
    assert_eq!(reported, 2);
    let told = watched.lookout.lines.iter().filter(|line| line.what.contains("was silent for 170 ms"));
    assert_eq!(told.count(), 90, "every time is in the timeline");
}
