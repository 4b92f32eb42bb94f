use super::roll::{Limits, ROLL_MAX};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::time::{Instant, sleep};
use twinsite_consensus::TokioRuntime;

const SOON: Duration = Duration::from_secs(10);
const HOLDER: NodeId = NodeId(1);

fn connection(number: u32) -> Connection {
    let client = std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
    Connection { client, client_port: 40_000, port: 443 }
}

fn public() -> FloatingIpName {
    FloatingIpName::new("public").unwrap()
}

fn token(epoch: u64) -> Token {
    Token::new(1, epoch)
}

fn all(connections: impl Iterator<Item = Connection>) -> Vec<Connection> {
    connections.collect()
}

fn changed(connections: Vec<(Connection, bool)>) -> ChangedConnections {
    ChangedConnections { ip: public(), token: token(1), connections }
}

/// An empty roll that keeps so many changes and tells so many at a time.
fn roll_of(changes: usize, piece: usize) -> Roll {
    let mut roll = Roll::default();
    let limits = &mut roll.limits;
    *limits = Limits { changes, piece };
    roll
}

/// Something that happens to a roll, or on the way to its copy.
#[derive(Debug, Clone)]
enum Happens {
    Changes(u32, bool),
    /// A message is told and answered.
    Told,
    RequestLost,
    AnswerLost,
    /// Lost, as it seems, and comes later.
    Late,
    /// What was late comes now.
    Comes,
    /// The other node begins a new life.
    Forgotten,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => (0_u32..24, any::<bool>()).prop_map(|(number, is_open)| Happens::Changes(number, is_open)),
        6 => Just(Happens::Told),
        1 => Just(Happens::RequestLost),
        1 => Just(Happens::AnswerLost),
        1 => Just(Happens::Late),
        1 => Just(Happens::Comes),
        1 => Just(Happens::Forgotten),
    ]
}

proptest! {
    /// Whatever is lost, late or forgotten: a copy never says that it is further than it is, and once the way is free it is
    /// the same as the roll, within twice as many messages as there are pieces.
    #[test]
    fn a_copy_becomes_the_roll(history in prop::collection::vec(happens(), 0..200), changes in 1_usize..12, piece in 1_usize..5) {
        let mut roll = roll_of(changes, piece);
        let (mut told, mut copy) = (Told::default(), Copy::default());
        let mut late = Vec::new();
        for event in history {
            match event {
                Happens::Changes(number, is_open) => prop_assert!(roll.note(connection(number), is_open)),
                Happens::Told => {
                    let piece = told.next(&roll);
                    let has = copy.take(piece.clone()).unwrap();
                    told.answered(&piece, has);
                    if told.is_up_to_date(&roll) {
                        prop_assert_eq!(all(copy.connections()), all(roll.connections()));
                    }
                }
                Happens::RequestLost => {
                    told.next(&roll);
                    told.unanswered();
                }
                Happens::AnswerLost => {
                    copy.take(told.next(&roll)).unwrap();
                    told.unanswered();
                }
                Happens::Late => {
                    late.push(told.next(&roll));
                    told.unanswered();
                }
                Happens::Comes => {
                    for piece in late.drain(..) {
                        copy.take(piece).unwrap();
                    }
                }
                Happens::Forgotten => copy = Copy::default(),
            }
        }
        // To begin with it may be thought to be further than it is, or has forgotten the parts that came before: these end in
        // vain, then everything goes again in parts, and what they mix.
        let enough = 4 + 2 * (roll.len() / piece + 1) + changes;
        let mut messages = 0;
        loop {
            let next = told.next(&roll);
            let has = copy.take(next.clone()).unwrap();
            let leads_on = told.answered(&next, has);
            messages += 1;
            if leads_on && told.is_up_to_date(&roll) {
                break;
            }
            prop_assert!(messages <= enough, "{:?} after {} messages", told, messages);
        }
        prop_assert_eq!(all(copy.connections()), all(roll.connections()));
    }
}

/// Changes that come while everything is on its way in parts are neither lost nor taken for damage.
#[test]
fn what_changes_while_everything_is_told_is_told_too() {
    let mut roll = roll_of(4, 2);
    for number in 0..8 {
        roll.note(connection(number), true);
    }
    let (mut told, mut copy) = (Told::default(), Copy::default());
    let mut changes = [(7, false), (100, true), (0, false)].into_iter();
    let mut messages = 0;
    while !told.is_up_to_date(&roll) {
        let piece = told.next(&roll);
        let has = copy.take(piece.clone()).unwrap();
        assert!(told.answered(&piece, has), "{piece:?}");
        if let Some((number, is_open)) = changes.next() {
            roll.note(connection(number), is_open);
        }
        messages += 1;
        assert!(messages < 20);
    }
    assert_eq!(all(copy.connections()), all(roll.connections()));
}

/// While it is told anew, what was known before is still known: the holder may die in the middle.
#[test]
fn nothing_is_forgotten_while_it_is_told_anew() {
    let mut roll = roll_of(1, 1);
    let (mut told, mut copy) = (Told::default(), Copy::default());
    let tell = |roll: &Roll, told: &mut Told, copy: &mut Copy| {
        let piece = told.next(roll);
        let has = copy.take(piece.clone()).unwrap();
        told.answered(&piece, has);
        piece
    };
    for number in 0..3 {
        roll.note(connection(number), true);
        tell(&roll, &mut told, &mut copy);
    }
    for number in 3..6 {
        roll.note(connection(number), true);
    }
    let first = tell(&roll, &mut told, &mut copy);
    assert!(matches!(first, Piece::Part { number: 0, last: false, .. }), "{first:?}");
    for number in 0..3 {
        assert!(copy.connections().any(|known| known == connection(number)));
    }
}

#[test]
fn a_copy_that_cannot_be_right_begins_anew() {
    let mut roll = Roll::default();
    roll.note(connection(1), true);
    let (mut told, mut copy) = (Told::default(), Copy::default());
    let Piece::Changes { from, changes, sum } = told.next(&roll) else { panic!("one change is kept") };
    let wrong = Piece::Changes { from, changes, sum: sum ^ 1 };
    assert_eq!(copy.take(wrong.clone()), Ok(0));
    assert!(!told.answered(&wrong, 0));
    let right = told.next(&roll);
    assert_eq!(copy.take(right), Ok(1));
    assert_eq!(all(copy.connections()), [connection(1)]);
}

#[test]
fn a_roll_and_its_copies_are_bounded() {
    let mut roll = Roll::default();
    let max = u32::try_from(ROLL_MAX).unwrap();
    for number in 0..max {
        assert!(roll.note(connection(number), true));
    }
    assert!(!roll.note(connection(max), true), "those that were there first stay");
    assert!(roll.note(connection(0), false) && roll.note(connection(max), true));

    let mut copy = Copy::default();
    let mut number = 0;
    let refused = loop {
        let connections = (0..2_048).map(|each| connection(number * 2_048 + each)).collect();
        let piece = Piece::Part { at: 1, number, connections, until: 1, last: false };
        match copy.take(piece) {
            Ok(_) => number += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, copy.len()), (TooMany, 0));
    assert!(number as usize * 2_048 <= ROLL_MAX);
}

fn opened(number: u32, count: u64) -> Piece {
    Piece::Part { at: count, number: 0, connections: vec![connection(number)], until: count, last: true }
}

#[test]
fn only_older_tokens_of_the_address_are_before_and_the_newest_are_kept() {
    let connections = Connections::default();
    let now = BootTime(SOON);
    let receive = |epoch, number| {
        let call = RollCall { ip: public(), token: token(epoch), piece: opened(number, 1) };
        connections.receive(HOLDER, call, now)
    };
    for epoch in 2..=5 {
        assert_eq!(receive(epoch, epoch as u32), Ok(1));
    }
    assert_eq!(connections.before(&public(), token(4)), [connection(2), connection(3)]);
    assert_eq!(receive(6, 6), Ok(1));
    assert_eq!(receive(1, 1), Err(RollRefused::Old));
    let all: Vec<_> = (3..=6).map(connection).collect();
    assert_eq!(connections.before(&public(), token(9)), all, "the oldest made room");
    assert_eq!(connections.before(&FloatingIpName::new("second").unwrap(), token(9)), []);

    let call = RollCall { ip: public(), token: token(6), piece: opened(7, 2) };
    assert_eq!(connections.receive(NodeId(2), call, now), Err(RollRefused::NotTheHolder));
    connections.forget(now + KEPT / 2);
    assert_eq!(connections.before(&public(), token(9)), all);
    connections.forget(now + KEPT);
    assert_eq!(connections.before(&public(), token(9)), []);
}

/// What was open here under an older token of this very node is told to its clients too when it holds the address again.
#[test]
fn what_this_node_lost_itself_is_before_as_well() {
    let connections = Connections::default();
    connections.note(changed(vec![(connection(1), true), (connection(2), true)]), BootTime(SOON));
    connections.note(changed(vec![(connection(2), false)]), BootTime(SOON));
    assert_eq!(connections.before(&public(), token(3)), [connection(1)]);
    assert_eq!(connections.before(&public(), token(1)), [], "those that are served now");
}

/// A proxy whose connections the test opens and closes.
#[derive(Clone, Default)]
struct Door(Arc<Mutex<Vec<(Connection, bool)>>>);

impl Door {
    fn set(&self, number: u32, is_open: bool) {
        self.0.lock().unwrap().push((connection(number), is_open));
    }
}

impl OpenConnections for Door {
    fn changed(&self) -> Vec<ChangedConnections> {
        vec![changed(std::mem::take(&mut *self.0.lock().unwrap()))]
    }

    fn served(&self) -> Vec<(FloatingIpName, Token)> {
        vec![(public(), token(1))]
    }
}

/// Two other nodes, to which every other message or answer is lost.
#[derive(Clone)]
struct Lossy {
    others: Arc<BTreeMap<NodeId, Mutex<Connections>>>,
    sent: Arc<AtomicU32>,
}

impl Listeners for Lossy {
    fn of(&self, ip: &FloatingIpName) -> Vec<NodeId> {
        assert_eq!(*ip, public());
        self.others.keys().copied().collect()
    }
}

impl TellRolls for Lossy {
    type Error = &'static str;

    async fn tell(&self, to: NodeId, call: RollCall, _: Duration) -> Result<u64, Self::Error> {
        let number = self.sent.fetch_add(1, Ordering::SeqCst) % 4;
        if number == 0 {
            return Err("lost on its way");
        }
        let there = self.others[&to].lock().unwrap().clone();
        let has = there.receive(HOLDER, call, TokioRuntime::boot_now()).map_err(|_| "refused")?;
        if number == 1 { Err("the answer was lost") } else { Ok(has) }
    }
}

impl Lossy {
    async fn know(&self, wanted: &[u32]) {
        let wanted: Vec<_> = wanted.iter().copied().map(connection).collect();
        let deadline = Instant::now() + SOON;
        for (node, there) in &*self.others {
            loop {
                let known = there.lock().unwrap().before(&public(), token(2));
                if known == wanted {
                    break;
                }
                assert!(Instant::now() < deadline, "{node} knows {known:?}, not {wanted:?}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// The task itself, over a bad way: nothing else is needed for it, no store and no quorum, and what the others know
/// outlives the holder.
#[tokio::test]
async fn the_other_nodes_know_the_connections_whatever_is_lost_and_after_the_holders_end() {
    let others = [NodeId(2), NodeId(3)].map(|node| (node, Mutex::default()));
    let way = Lossy { others: Arc::new(others.into()), sent: Arc::default() };
    let (door, stop) = (Door::default(), CancellationToken::new());
    let connections = Connections::default();
    let spreading = Spreading { connections, source: door.clone(), listeners: way.clone(), way: way.clone() };
    let running = tokio::spawn(spreading.run::<TokioRuntime>(stop.clone()));
    for number in 1..=5 {
        door.set(number, true);
    }
    way.know(&[1, 2, 3, 4, 5]).await;
    door.set(3, false);
    door.set(6, true);
    way.know(&[1, 2, 4, 5, 6]).await;

    // One of them begins a new life, and nothing changes here: it is found by what is said again.
    *way.others[&NodeId(2)].lock().unwrap() = Connections::default();
    way.know(&[1, 2, 4, 5, 6]).await;
    stop.cancel();
    running.await.unwrap();
    way.know(&[1, 2, 4, 5, 6]).await;
}
