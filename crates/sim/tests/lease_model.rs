//! The lease, small enough to be looked at exhaustively: every order of messages, elections, crashes and clock ticks
//! within the bounds below. With all rules no two nodes ever answer at once; with any single rule removed some order
//! exists in which they do, so every rule is needed.
//!
//! What is small: two candidate owners, two leaders (the second elected while the first goes on believing), two tokens,
//! one restart of the first owner, one renewal of each node under way, one forced recovery, a few ticks. A lease lasts [`LEASE`] ticks from its renewal's *send*
//! time; a holder's clock may be slow, so that it really ends up to [`DRIFT`] later; a fence waits [`WAIT`].

use stateright::{Checker, Model, Property};
use std::collections::BTreeSet;

const LEASE: u8 = 1;
const DRIFT: u8 = 1;
const WAIT: u8 = LEASE + DRIFT;
const LAST_TICK: u8 = 4;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Grants follow a quorum round that confirms the leader.
    FreshRound,
    /// A proposed revoke stops grants.
    ProposedRevoke,
    /// A committed revoke stops grants, of a leader of a later term too.
    CommittedRevoke,
    /// Only the recorded life may renew.
    Incarnation,
    /// A released token is final, for who released it and for who grants.
    ReleasedIsFinal,
    /// An address moves only when its owner released it, or after the wait.
    Fence,
    /// The wait allows for slow clocks.
    Drift,
    /// A leader of a new term waits from its election, because it knows no earlier grant.
    NewTermWaits,
    /// The lease counts from the send time of the renewal.
    LeaseFromSend,
    /// `Released` is said only when nothing answers any more.
    StopBeforeReleased,
    /// A node of an older generation asks the survivor before it takes part, and then does not.
    Generation,
}

impl Without {
    const ALL: [Self; 11] = [
        Self::FreshRound,
        Self::ProposedRevoke,
        Self::CommittedRevoke,
        Self::Incarnation,
        Self::ReleasedIsFinal,
        Self::Fence,
        Self::Drift,
        Self::NewTermWaits,
        Self::LeaseFromSend,
        Self::StopBeforeReleased,
        Self::Generation,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Token {
    generation: u8,
    epoch: u8,
}

/// What a quorum agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Agreed {
    owner: usize,
    life: u8,
    token: Token,
    revoked: bool,
    /// That the owner can no longer answer.
    fenced: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Leader {
    /// It believes that it leads.
    believes: bool,
    elected_at: u8,
    /// The newest epoch that it knows to be given.
    knows: u8,
    last_grant: Option<u8>,
    proposed_revoke: bool,
    heard_released: bool,
    /// A renewal whose quorum round is under way, and whether the revoke was committed when the round began.
    round: Option<(Message, bool)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Node {
    life: u8,
    /// It answers under this token until then, by true time.
    answers: Option<(Token, u8)>,
    /// The tokens that this life has given up.
    ended: Option<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Renew { node: usize, life: u8, token: Token, sent: u8 },
    Grant { node: usize, life: u8, token: Token, sent: u8 },
    Released { node: usize, life: u8, token: Token },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    /// The leader that a quorum follows.
    elected: usize,
    leaders: [Leader; 2],
    agreed: Agreed,
    nodes: [Node; 2],
    messages: BTreeSet<Message>,
    recovered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    /// Whether the new leader's log holds what the former one had proposed.
    Elect(bool),
    Send(usize),
    RoundBegins(usize, Message),
    RoundEnds(usize),
    GrantArrives(Message),
    ReleaseArrives(usize, Message),
    ProposeRevoke(usize),
    CommitRevoke,
    Stop(usize),
    SayReleased(usize),
    Restart(usize),
    CompleteFence,
    Assign,
    Recover,
    OldLeaderReturns,
}

struct Lease(Option<Without>);

impl Lease {
    fn rule(&self, rule: Without) -> bool {
        self.0 != Some(rule)
    }

    /// Whether a leader grants a renewal when its quorum round has ended. The round may have been confirmed before a
    /// successor was elected, and its answer be worked on only now.
    fn grants(&self, world: &World, leader: usize, renewal: Message, was_revoked: bool) -> bool {
        let Message::Renew { node, life, token, .. } = renewal else { return false };
        let this = &world.leaders[leader];
        // A leader that nobody follows any more judges by the newest that it knows.
        let agreed = &world.agreed;
        let in_time = this.knows == token.epoch && (token.epoch == 1) == (node == 0);
        let same_life = agreed.life == life || agreed.token != token || !self.rule(Without::Incarnation);
        let not_revoked = !was_revoked || !self.rule(Without::CommittedRevoke);
        let not_proposed = !this.proposed_revoke || !self.rule(Without::ProposedRevoke);
        let not_released = !this.heard_released || !self.rule(Without::ReleasedIsFinal);
        this.believes && in_time && same_life && not_revoked && not_proposed && not_released
    }

    fn has_ended(&self, node: &Node, token: Token) -> bool {
        self.rule(Without::ReleasedIsFinal) && node.ended.is_some_and(|ended| token <= ended)
    }

    /// Whether the former owner can no longer answer, as far as the leader can tell.
    fn is_fenced(&self, world: &World) -> bool {
        let leader = &world.leaders[world.elected];
        let wait = if self.rule(Without::Drift) { WAIT } else { LEASE };
        let since = match leader.last_grant {
            Some(granted) => granted,
            None if self.rule(Without::NewTermWaits) => leader.elected_at,
            None => 0,
        };
        leader.heard_released || world.now >= since + wait || !self.rule(Without::Fence)
    }
}

impl Model for Lease {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let leader = Leader { believes: true, knows: 1, ..Leader::default() };
        vec![World {
            now: 0,
            elected: 0,
            leaders: [leader, Leader::default()],
            agreed: Agreed {
                owner: 0,
                life: 0,
                token: Token { generation: 1, epoch: 1 },
                revoked: false,
                fenced: false,
            },
            nodes: [Node::default(), Node::default()],
            messages: BTreeSet::new(),
            recovered: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < LAST_TICK {
            actions.push(Action::Tick);
        }
        if world.elected == 0 && !world.recovered {
            actions.extend([Action::Elect(false), Action::Elect(true), Action::Recover]);
        }
        if world.recovered && !world.leaders[0].believes {
            actions.push(Action::OldLeaderReturns);
        }
        for node in 0..2 {
            let waits = |message: &Message| matches!(message, Message::Renew { node: of, .. } | Message::Grant { node: of, .. } if *of == node);
            let asked =
                world.leaders.iter().any(|leader| leader.round.is_some_and(|(renewal, _)| waits(&renewal)));
            if !asked && !world.messages.iter().any(waits) {
                actions.push(Action::Send(node));
            }
            if world.nodes[node].answers.is_some() {
                actions.push(Action::Stop(node));
            }
            actions.push(Action::SayReleased(node));
            if node == 0 && world.nodes[node].life == 0 {
                actions.push(Action::Restart(node));
            }
        }
        for message in &world.messages {
            match message {
                Message::Renew { .. } => {
                    actions.extend((0..2).map(|leader| Action::RoundBegins(leader, *message)));
                }
                Message::Grant { .. } => actions.push(Action::GrantArrives(*message)),
                Message::Released { .. } => {
                    actions.extend((0..2).map(|leader| Action::ReleaseArrives(leader, *message)));
                }
            }
        }
        actions.extend((0..2).map(Action::RoundEnds));
        actions.extend((0..2).map(Action::ProposeRevoke));
        actions.extend([Action::CommitRevoke, Action::CompleteFence, Action::Assign]);
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Tick => {
                world.now += 1;
                for node in &mut world.nodes {
                    node.answers = node.answers.filter(|(_, end)| *end > world.now);
                }
            }
            Action::Elect(inherits) => {
                if inherits && !world.leaders[0].proposed_revoke {
                    return None;
                }
                world.elected = 1;
                world.leaders[1] = Leader {
                    believes: true,
                    elected_at: world.now,
                    knows: world.agreed.token.epoch,
                    proposed_revoke: inherits,
                    ..Leader::default()
                };
            }
            Action::Recover => {
                // The old majority is gone; the survivor begins a new generation, and waits as any new leader does.
                world.recovered = true;
                world.leaders[0].believes = false;
                world.elected = 1;
                world.leaders[1] = Leader {
                    believes: true,
                    elected_at: world.now,
                    knows: world.agreed.token.epoch,
                    ..Leader::default()
                };
                world.agreed.revoked = true;
            }
            Action::OldLeaderReturns => {
                // The old majority: enough to elect this leader again and to confirm it, as far as its own generation goes.
                let asks_first = self.rule(Without::Generation);
                if asks_first {
                    return None;
                }
                world.leaders[0].believes = true;
            }
            Action::Send(node) => {
                let this = &world.nodes[node];
                // A node renews what it was given and has not given up, whether or not that still counts.
                let token = match this.answers {
                    Some((token, _)) => token,
                    None if world.agreed.owner == node => world.agreed.token,
                    None => Token { generation: 1, epoch: 1 },
                };
                let given = node == 0 || token.epoch > 1 && world.agreed.owner == node;
                let its_life =
                    this.life == 0 || world.agreed.life == this.life || !self.rule(Without::Incarnation);
                if !given || !its_life || self.has_ended(this, token) {
                    return None;
                }
                let (life, sent) = (this.life, world.now);
                world.messages.insert(Message::Renew { node, life, token, sent });
            }
            Action::RoundBegins(leader, message) => {
                let confirmed = leader == world.elected || !self.rule(Without::FreshRound);
                let old = self.grants_of_older_generation(&world, leader, message);
                if !world.leaders[leader].believes
                    || !confirmed && !old
                    || world.leaders[leader].round.is_some()
                {
                    return None;
                }
                world.messages.remove(&message);
                let was_revoked = world.agreed.revoked && leader == world.elected;
                world.leaders[leader].round = Some((message, was_revoked));
            }
            Action::RoundEnds(leader) => {
                let (message, was_revoked) = world.leaders[leader].round.take()?;
                let Message::Renew { node, life, token, sent } = message else { return None };
                let old = self.grants_of_older_generation(&world, leader, message);
                if !self.grants(&world, leader, message, was_revoked) && !old {
                    return Some(world);
                }
                world.messages.insert(Message::Grant { node, life, token, sent });
                world.leaders[leader].last_grant = Some(world.now);
            }
            Action::GrantArrives(message) => {
                let Message::Grant { node, life, token, sent } = message else { return None };
                world.messages.remove(&message);
                let from = if self.rule(Without::LeaseFromSend) { sent } else { world.now };
                let end = from + LEASE + DRIFT;
                let this = &mut world.nodes[node];
                let counts = this.life == life && !self.has_ended(this, token);
                if counts && end > world.now && this.answers.is_none_or(|(_, known)| end > known) {
                    this.answers = Some((token, end));
                }
            }
            Action::ProposeRevoke(leader) => {
                let this = &mut world.leaders[leader];
                if !this.believes || this.proposed_revoke {
                    return None;
                }
                this.proposed_revoke = true;
            }
            Action::CommitRevoke => {
                let proposed = world.leaders[world.elected].proposed_revoke;
                if !proposed || world.agreed.revoked || world.agreed.token.epoch > 1 {
                    return None;
                }
                world.agreed.revoked = true;
            }
            Action::Stop(node) => {
                let this = &mut world.nodes[node];
                let (token, _) = this.answers.take()?;
                this.ended = Some(token);
            }
            Action::SayReleased(node) => {
                let life = world.nodes[node].life;
                let token = match (world.nodes[node].ended, world.nodes[node].answers) {
                    (Some(token), _) => token,
                    (None, Some((token, _))) if !self.rule(Without::StopBeforeReleased) => token,
                    _ => return None,
                };
                if !world.messages.insert(Message::Released { node, life, token }) {
                    return None;
                }
            }
            Action::ReleaseArrives(leader, message) => {
                let Message::Released { node, token, .. } = message else { return None };
                let this = &mut world.leaders[leader];
                if !this.believes
                    || this.heard_released
                    || world.agreed.token != token
                    || world.agreed.owner != node
                {
                    return None;
                }
                this.heard_released = true;
                world.messages.remove(&message);
            }
            Action::Restart(node) => {
                // The process is gone, and what it held with it; its guardian says so.
                let this = &mut world.nodes[node];
                let held = this.answers.take();
                let life = this.life;
                this.life += 1;
                this.ended = None;
                if let Some((token, _)) = held {
                    world.messages.insert(Message::Released { node, life, token });
                }
            }
            Action::CompleteFence => {
                if !world.agreed.revoked || world.agreed.fenced || !self.is_fenced(&world) {
                    return None;
                }
                world.agreed.fenced = true;
            }
            Action::Assign => {
                if !world.agreed.fenced {
                    return None;
                }
                let owner = 1 - world.agreed.owner;
                let generation = if world.recovered { 2 } else { 1 };
                let token = Token { generation, epoch: 2 };
                world.agreed =
                    Agreed { owner, life: world.nodes[owner].life, token, revoked: false, fenced: false };
                let leader = &mut world.leaders[world.elected];
                leader.knows = 2;
                (leader.proposed_revoke, leader.heard_released, leader.last_grant) = (false, false, None);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one node answers", |_, world: &World| {
                world.nodes.iter().filter(|node| node.answers.is_some()).count() <= 1
            }),
            // The bounds are wide enough for the interesting ends to be reached.
            Property::sometimes("the address moves and the new owner answers", |_, world: &World| {
                world.nodes[1].answers.is_some_and(|(token, _)| token.epoch == 2)
            }),
            Property::sometimes("a recovered cluster answers", |_, world: &World| {
                world.nodes[1].answers.is_some_and(|(token, _)| token.generation == 2)
            }),
            Property::sometimes("a released address moves at once", |_, world: &World| {
                world.agreed.token.epoch == 2 && world.now == 0
            }),
        ]
    }
}

impl Lease {
    /// Without generations, the old majority comes back as if nothing had happened: its leader, elected by it, grants by
    /// the state of its own generation, in which the old owner owns.
    fn grants_of_older_generation(&self, world: &World, leader: usize, renewal: Message) -> bool {
        let Message::Renew { node, token, .. } = renewal else { return false };
        let old =
            world.recovered && leader == 0 && world.leaders[0].believes && !self.rule(Without::Generation);
        old && node == 0 && token.generation == 1
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[test]
fn with_every_rule_no_two_nodes_ever_answer() {
    let checker = Lease(None).checker().threads(threads()).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn without_any_one_rule_two_nodes_answer() {
    for rule in Without::ALL {
        let checker = Lease(Some(rule)).checker().threads(threads()).spawn_bfs().join();
        let found = checker.discovery("at most one node answers");
        let path = found.unwrap_or_else(|| panic!("{rule:?} can be left out, and nothing is ever wrong"));
        println!("without {rule:?}: {:?}", path.into_actions());
    }
}
