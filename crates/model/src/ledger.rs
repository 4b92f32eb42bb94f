//! The ledger of past moves: how long each phase of them took. What is foretold rests on it where it has enough to say,
//! and on the timings where it has not.
//!
//! Times are those of the journal, by the leaders' wall clocks: good to a few milliseconds while one node leads, and off
//! by the difference of two clocks where the leader changed in the middle of a move.

use crate::operation::{Fence, Operation, OperationKind, Step};
use crate::state::State;
use crate::time::WallTime;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many moves of one way must be remembered before anything is foretold from them.
pub const MOVES_MIN: usize = 3;

/// In which way an address left its owner. Moves of one way take similar times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Planned, and the owner let go.
    Planned,
    /// Unplanned, and the owner or its guardian let go: a process ended.
    Released,
    /// The owner's lease was waited out: its host was silent.
    Silent,
    /// A person attested that the owner's machine is off.
    Attested,
}

impl Way {
    /// All ways, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Planned, Self::Released, Self::Silent, Self::Attested];

    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Released => "released",
            Self::Silent => "silent",
            Self::Attested => "attested",
        }
    }

    /// The way of a move; none if nobody was there to leave, or it was called off.
    fn of(operation: &Operation) -> Option<Self> {
        operation.token?;
        match (operation.fence?, operation.kind) {
            (Fence::NoOwner, _) => None,
            (Fence::Released, OperationKind::Switchover | OperationKind::Failback) => Some(Self::Planned),
            (Fence::Released, _) => Some(Self::Released),
            (Fence::LeaseEnded, _) => Some(Self::Silent),
            (Fence::Attested, _) => Some(Self::Attested),
        }
    }
}

/// How durations are spread: by nearest rank, so that each of these is one that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// How many there are; at least 1.
    pub count: usize,
    /// Half of them are no longer.
    pub median: Duration,
    /// Nine of ten are no longer.
    pub p90: Duration,
    /// 99 of 100 are no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// None of nothing.
    pub fn of(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        let at = |percent: usize| {
            let rank = (durations.len() * percent).div_ceil(100);
            durations.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { count: durations.len(), median: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
    }
}

/// What is known of the moves of one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Each step that any of them had, in the order of steps.
    pub steps: Vec<(Step, Spread)>,
    /// From the beginning of the fence until the target was seen to hold the address: about how long new connections found
    /// nobody, once it was decided.
    pub handover: Option<Spread>,
    /// From the move of the token until the target was seen to hold the address.
    pub arrival: Option<Spread>,
    /// From the decision to the end.
    pub whole: Spread,
}

/// The ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    rows: BTreeMap<Way, Row>,
}

impl Ledger {
    /// Of all the moves that the state remembers.
    pub fn of(state: &State) -> Self {
        let mut by_way: BTreeMap<Way, Vec<&Operation>> = BTreeMap::new();
        for operation in &state.history {
            if let Some(way) = Way::of(operation) {
                by_way.entry(way).or_default().push(operation);
            }
        }
        let rows = by_way.into_iter().filter_map(|(way, moves)| Some((way, Row::of(&moves)?)));
        Self { rows: rows.collect() }
    }

    /// The ways of which there was any move.
    pub fn rows(&self) -> impl Iterator<Item = (Way, &Row)> {
        self.rows.iter().map(|(way, row)| (*way, row))
    }

    /// How long the address was away in most moves of this way, if there were enough.
    pub fn handover(&self, way: Way) -> Option<Spread> {
        self.rows.get(&way)?.handover.filter(|spread| spread.count >= MOVES_MIN)
    }

    /// How long the target took to hold the address, over all ways, if there were enough moves.
    pub fn arrival(&self) -> Option<Spread> {
        // The ways differ in how an address leaves, not in how it arrives: that of the most moves tells most.
        let arrivals = self.rows.values().filter_map(|row| row.arrival);
        arrivals.max_by_key(|spread| spread.count).filter(|spread| spread.count >= MOVES_MIN)
    }
}

impl Row {
    fn of(moves: &[&Operation]) -> Option<Self> {
        let spread = |measure: &dyn Fn(&Operation) -> Option<Duration>| {
            Spread::of(moves.iter().filter_map(|operation| measure(operation)).collect())
        };
        let steps = Step::ALL
            .into_iter()
            .filter_map(|step| Some((step, spread(&|operation| between(operation, step, step))?)));
        Some(Self {
            steps: steps.collect(),
            handover: spread(&|operation| between(operation, Step::Fence, Step::Observe)),
            arrival: spread(&|operation| between(operation, Step::Move, Step::Observe)),
            whole: spread(&whole)?,
        })
    }
}

/// From the beginning of one step to the end of another one.
fn between(operation: &Operation, from: Step, to: Step) -> Option<Duration> {
    let (finished, _) = operation.step(to)?.finished?;
    Some(finished.since(operation.step(from)?.started))
}

fn whole(operation: &Operation) -> Option<Duration> {
    let (ended, _) = operation.ended?;
    let began: WallTime = operation.steps.first()?.started;
    Some(ended.since(began))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Outcome, Reason, StepRecord, StepResult};
    use crate::samples;

    /// A move whose steps end at these times.
    fn moved(kind: OperationKind, fence: Fence, ends: &[(Step, u64, u64)]) -> Operation {
        let mut operation = samples::rich_state().history[1].clone();
        (operation.kind, operation.reason, operation.fence) = (kind, Reason::OwnerReleased, Some(fence));
        let record = |(step, started, finished): &(Step, u64, u64)| StepRecord {
            step: *step,
            started: WallTime(*started),
            finished: Some((WallTime(*finished), StepResult::Done)),
            detail: String::new(),
        };
        operation.steps = ends.iter().map(record).collect();
        operation.ended = ends.last().map(|(_, _, end)| (WallTime(*end), Outcome::Verified));
        operation
    }

    fn crash(fence_ms: u64) -> Operation {
        let steps = [
            (Step::Decide, 1_000, 1_000),
            (Step::Fence, 1_002, 1_002 + fence_ms),
            (Step::Move, 1_002 + fence_ms, 1_003 + fence_ms),
            (Step::Observe, 1_003 + fence_ms, 1_010 + fence_ms),
            (Step::Verify, 1_010 + fence_ms, 1_030 + fence_ms),
        ];
        moved(OperationKind::Failover, Fence::Released, &steps)
    }

    fn ledger(history: impl IntoIterator<Item = Operation>) -> Ledger {
        let mut state = samples::rich_state();
        state.history = history.into_iter().collect();
        Ledger::of(&state)
    }

    #[test]
    fn phases_are_measured_from_the_journal() {
        let ledger = ledger([crash(5), crash(1), crash(3)]);
        let rows: Vec<_> = ledger.rows().collect();
        let [(Way::Released, row)] = rows[..] else { panic!("{rows:?}") };
        let ms = Duration::from_millis;
        let fence = row.steps.iter().find(|(step, _)| *step == Step::Fence).map(|(_, spread)| *spread);
        assert_eq!(fence, Some(Spread { count: 3, median: ms(3), p90: ms(5), p99: ms(5), max: ms(5) }));
        assert_eq!(row.handover.map(|spread| spread.median), Some(ms(11)), "8 ms after the fence");
        assert_eq!(row.whole.max, ms(35));
        assert_eq!(ledger.arrival().map(|spread| spread.median), Some(ms(8)));
    }

    #[test]
    fn nothing_is_foretold_from_a_few_moves_or_from_moves_of_another_way() {
        let few = ledger([crash(5), crash(1)]);
        assert_eq!(few.handover(Way::Released), None, "two are not enough");
        let enough = ledger([crash(5), crash(1), crash(3)]);
        assert!(enough.handover(Way::Released).is_some());
        assert_eq!(enough.handover(Way::Planned), None);
    }

    #[test]
    fn moves_that_were_called_off_or_had_nobody_to_leave_are_not_in_it() {
        let mut aborted = crash(5);
        aborted.token = None;
        let placement = moved(OperationKind::Placement, Fence::NoOwner, &[(Step::Fence, 0, 1)]);
        assert_eq!(ledger([aborted, placement]), Ledger::default());
    }

    #[test]
    fn a_spread_names_what_was_measured() {
        let spread = Spread::of((1..=100).map(Duration::from_millis).collect()).unwrap();
        let ms = |spread: Duration| spread.as_millis();
        assert_eq!((ms(spread.median), ms(spread.p90), ms(spread.p99), ms(spread.max)), (50, 90, 99, 100));
        assert_eq!(Spread::of(Vec::new()), None);
        let one = Spread::of(vec![Duration::from_millis(7)]).unwrap();
        assert_eq!((one.median, one.max), (Duration::from_millis(7), Duration::from_millis(7)));
    }
}
