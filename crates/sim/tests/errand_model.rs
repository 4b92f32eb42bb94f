//! Errands at a provider, small enough to be looked at exhaustively: every order of decisions, questions, calls, crashes,
//! elections and clock ticks within the bounds below. With all rules no two calls are ever under way and none is made
//! after a newer one; with any single rule removed some order exists in which that happens, so every rule is needed.
//!
//! What is small: two nodes that call, two leaders, three errands, one restart, a few ticks. A call may be under way for
//! [`WITHIN`] ticks from before its node asked whether the errand stands; that node's clock may be slow, so that it
//! really ends up to [`DRIFT`] later; who recalls waits [`WAIT`].

use stateright::{Checker, Model, Property};

const WITHIN: u8 = 1;
const DRIFT: u8 = 1;
const WAIT: u8 = WITHIN + DRIFT;
const LAST_TICK: u8 = 5;
const ERRANDS: u8 = 3;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Of one address, one errand is under way.
    OneAtATime,
    /// A node asks a quorum before it calls.
    Recheck,
    /// A recalled errand does not stand.
    Recall,
    /// What was recalled is waited out.
    Wait,
    /// The wait allows for slow clocks.
    Drift,
    /// A leader of a new term waits from its election, because it does not know when the recall was.
    NewTermWaits,
    /// The time of a call counts from before the question.
    FromTheQuestion,
    /// No call is begun when its time is over.
    BeginInTime,
    /// A call is given up when its time is over.
    GiveUp,
    /// An errand is one life's: another one knows nothing of it.
    Incarnation,
}

impl Without {
    const ALL: [Self; 10] = [
        Self::OneAtATime,
        Self::Recheck,
        Self::Recall,
        Self::Wait,
        Self::Drift,
        Self::NewTermWaits,
        Self::FromTheQuestion,
        Self::BeginInTime,
        Self::GiveUp,
        Self::Incarnation,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Errand {
    id: u8,
    by: usize,
    life: u8,
    recalled: bool,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// It knows of the errand, and has asked at that time.
    Asked {
        id: u8,
        at: u8,
    },
    /// A quorum has said whether the errand stands; the answer is on its way.
    Answered {
        id: u8,
        at: u8,
        stands: bool,
    },
    /// It may call.
    Confirmed {
        id: u8,
        at: u8,
    },
    /// It calls, until then by true time.
    Calling {
        id: u8,
        until: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    life: u8,
    phase: Phase,
    /// The newest errand that this life has ended.
    ended: u8,
    /// The errand that it knows of, recalled or not by now.
    knows: Option<Errand>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    term: u8,
    /// What a quorum agreed on.
    errand: Option<Errand>,
    errands: u8,
    /// Since when the present leader knows of the recall.
    recalled_at: Option<u8>,
    nodes: [Node; 2],
    /// The newest errand for which a call was made.
    newest_call: u8,
    /// A call was made after a newer one, or twice.
    out_of_order: bool,
    waited_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Elect,
    Send(usize),
    Recall,
    WaitOut,
    /// A node's report that its errand has ended reaches the leader.
    HearEnd(usize),
    Learn(usize),
    Ask(usize),
    QuorumAnswers(usize),
    AnswerArrives(usize),
    Call(usize),
    ProviderAnswers(usize),
    Restart(usize),
}

struct Errands(Option<Without>);

impl Errands {
    fn rule(&self, rule: Without) -> bool {
        self.0 != Some(rule)
    }

    /// Whether a node's own copy shows an errand that it is to go on.
    fn is_mine(&self, world: &World, node: usize) -> Option<Errand> {
        let this = &world.nodes[node];
        let errand = this.knows?;
        let same_life = errand.life == this.life || !self.rule(Without::Incarnation);
        (errand.by == node && same_life && this.ended < errand.id).then_some(errand)
    }

    fn waited(&self, world: &World) -> bool {
        let wait = if self.rule(Without::Drift) { WAIT } else { WITHIN };
        let since = match world.recalled_at {
            Some(at) => at,
            None if self.rule(Without::NewTermWaits) => return false,
            None => 0,
        };
        world.now >= since + wait || !self.rule(Without::Wait)
    }
}

impl Model for Errands {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let node = Node { life: 0, phase: Phase::Idle, ended: 0, knows: None };
        vec![World {
            now: 0,
            term: 1,
            errand: None,
            errands: 0,
            recalled_at: None,
            nodes: [node.clone(), node],
            newest_call: 0,
            out_of_order: false,
            waited_out: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < LAST_TICK {
            actions.push(Action::Tick);
        }
        if world.term == 1 {
            actions.push(Action::Elect);
        }
        actions.extend([Action::Recall, Action::WaitOut]);
        for node in 0..2 {
            actions.extend([
                Action::Send(node),
                Action::HearEnd(node),
                Action::Learn(node),
                Action::Ask(node),
                Action::QuorumAnswers(node),
                Action::AnswerArrives(node),
                Action::Call(node),
                Action::ProviderAnswers(node),
            ]);
            if world.nodes[node].life == 0 && node == 0 {
                actions.push(Action::Restart(node));
            }
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Tick => {
                world.now += 1;
                for node in &mut world.nodes {
                    if let Phase::Calling { id, until } = node.phase
                        && world.now >= until
                        && self.rule(Without::GiveUp)
                    {
                        (node.phase, node.ended) = (Phase::Idle, id);
                    }
                }
            }
            Action::Elect => {
                world.term = 2;
                // It sees what is agreed, and from now on counts by its own clock.
                let recalled = world.errand.is_some_and(|errand| errand.recalled);
                world.recalled_at = (recalled && self.rule(Without::NewTermWaits)).then_some(world.now);
            }
            Action::Send(by) => {
                if world.errands == ERRANDS || (world.errand.is_some() && self.rule(Without::OneAtATime)) {
                    return None;
                }
                world.errands += 1;
                let life = world.nodes[by].life;
                world.errand = Some(Errand { id: world.errands, by, life, recalled: false });
                world.recalled_at = None;
            }
            Action::Recall => {
                let errand = world.errand.as_mut().filter(|errand| !errand.recalled)?;
                errand.recalled = true;
                world.recalled_at = Some(world.now);
            }
            Action::WaitOut => {
                if !world.errand?.recalled || !self.waited(&world) {
                    return None;
                }
                (world.errand, world.recalled_at, world.waited_out) = (None, None, true);
            }
            Action::HearEnd(node) => {
                let errand = world.errand?;
                let this = &world.nodes[node];
                if errand.by != node || errand.life != this.life || this.ended != errand.id {
                    return None;
                }
                (world.errand, world.recalled_at) = (None, None);
            }
            Action::Learn(node) => {
                if world.errand.is_none() || world.nodes[node].knows == world.errand {
                    return None;
                }
                world.nodes[node].knows = world.errand;
            }
            Action::Ask(node) => {
                let errand = self.is_mine(&world, node)?;
                if world.nodes[node].phase != Phase::Idle {
                    return None;
                }
                world.nodes[node].phase = if self.rule(Without::Recheck) {
                    Phase::Asked { id: errand.id, at: world.now }
                } else {
                    Phase::Confirmed { id: errand.id, at: world.now }
                };
            }
            Action::QuorumAnswers(node) => {
                let Phase::Asked { id, at } = world.nodes[node].phase else { return None };
                let recalled = |errand: &Errand| errand.recalled && self.rule(Without::Recall);
                let stands = world.errand.is_some_and(|errand| errand.id == id && !recalled(&errand));
                world.nodes[node].phase = Phase::Answered { id, at, stands };
            }
            Action::AnswerArrives(node) => {
                let Phase::Answered { id, at, stands } = world.nodes[node].phase else { return None };
                let this = &mut world.nodes[node];
                if stands {
                    let at = if self.rule(Without::FromTheQuestion) { at } else { world.now };
                    this.phase = Phase::Confirmed { id, at };
                } else {
                    (this.phase, this.ended) = (Phase::Idle, id);
                }
            }
            Action::Call(node) => {
                let Phase::Confirmed { id, at } = world.nodes[node].phase else { return None };
                let until = at + WITHIN + DRIFT;
                if world.now >= until && self.rule(Without::BeginInTime) {
                    (world.nodes[node].phase, world.nodes[node].ended) = (Phase::Idle, id);
                    return Some(world);
                }
                world.out_of_order |= id <= world.newest_call;
                world.newest_call = world.newest_call.max(id);
                world.nodes[node].phase = Phase::Calling { id, until };
            }
            Action::ProviderAnswers(node) => {
                let Phase::Calling { id, .. } = world.nodes[node].phase else { return None };
                (world.nodes[node].phase, world.nodes[node].ended) = (Phase::Idle, id);
            }
            Action::Restart(node) => {
                // Its connection ends with it.
                world.nodes[node] =
                    Node { life: 1, phase: Phase::Idle, ended: 0, knows: world.nodes[node].knows };
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one call at a time, and in order", |_, world: &World| {
                let calling = |node: &&Node| matches!(node.phase, Phase::Calling { .. });
                world.nodes.iter().filter(calling).count() <= 1 && !world.out_of_order
            }),
            // The bounds are wide enough for the interesting ends to be reached.
            Property::sometimes("a call follows one that was waited out", |_, world: &World| {
                world.waited_out && world.newest_call > 1
            }),
            Property::sometimes("a new leader waits one out", |_, world: &World| {
                world.waited_out && world.term == 2
            }),
            Property::sometimes("all errands end in a call", |_, world: &World| world.newest_call == ERRANDS),
        ]
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[test]
fn with_every_rule_one_call_is_made_at_a_time_and_in_order() {
    let checker = Errands(None).checker().threads(threads()).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn without_any_one_rule_calls_meet_or_overtake_each_other() {
    for rule in Without::ALL {
        let checker = Errands(Some(rule)).checker().threads(threads()).spawn_bfs().join();
        let found = checker.discovery("one call at a time, and in order");
        let path = found.unwrap_or_else(|| panic!("{rule:?} can be left out, and nothing is ever wrong"));
        println!("without {rule:?}: {:?}", path.into_actions());
    }
}
