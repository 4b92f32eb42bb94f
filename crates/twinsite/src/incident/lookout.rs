//! What was seen lately, and of what a report is due. Pure: time is given.

use super::report;
use crate::cli::events::{Names, told};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use twinsite_controller::Notice;
use twinsite_drill::engine::Report;
use twinsite_health::{OutsideAnswer, OutsideAnswers};
use twinsite_model::{
    Event, FloatingIpName, NodeId, Operation, OperationId, OperationKind, Outcome, State, WallTime,
};

/// Lines that are kept: the newest.
const LINES_MAX: usize = 512;
/// How far back a report goes before the decision.
const BEFORE: Duration = Duration::from_secs(30);
/// How long is looked on after the end, before the report is made.
const AFTER: Duration = Duration::from_secs(2);
/// An owner that is nearly replaced again and again is reported once in so long; every time is in the timeline.
const NEARLY_EVERY: Duration = Duration::from_mins(1);
/// Reports that are due at once at most; of more the oldest are made at once.
const DUE_MAX: usize = 16;

/// Something that this node saw.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A change of the agreed state.
    Change {
        /// What changed.
        events: Vec<Event>,
        /// The state after it.
        state: Arc<State>,
    },
    /// What the addresses answer to this node's probes now.
    Outside(OutsideAnswers),
    /// What this node's controller says, while it leads.
    Notice(Notice),
}

/// One line of what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When, by this node's clock.
    pub(super) at: WallTime,
    /// Who says so, in the words of a report's timeline.
    pub(super) source: &'static str,
    pub(super) what: String,
    pub(super) kind: LineKind,
}

/// What a line means for the numbers of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Nothing.
    Other,
    /// This move began.
    Began(OperationId),
    /// This node answers for the address, or nobody.
    Answers(FloatingIpName, Option<String>),
}

/// What a report is about.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A move that ended.
    Moved(Box<Operation>),
    /// An owner that was back in time.
    Nearly { ip: FloatingIpName, owner: NodeId, silent_for: Duration, lease: Duration },
    /// A move that something forbids.
    Blocked { ip: FloatingIpName, reason: &'static str, why: Vec<String> },
}

#[derive(Debug)]
struct Due {
    at: WallTime,
    seen: WallTime,
    subject: Subject,
}

/// Keeps what this node saw.
#[derive(Debug)]
pub(super) struct Lookout {
    lines: VecDeque<Line>,
    outside: BTreeMap<FloatingIpName, OutsideAnswer>,
    state: Arc<State>,
    names: Names,
    due: VecDeque<Due>,
    /// When an owner was last reported to have been nearly replaced.
    nearly: BTreeMap<FloatingIpName, WallTime>,
}

/// Whether a change is one that reports tell of. Rooms come and go all the time.
pub(super) fn is_told(event: &Event) -> bool {
    !matches!(event, Event::RoomPinned { .. } | Event::RoomsExpired { .. } | Event::StepStarted { .. })
}

impl Lookout {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            lines: VecDeque::new(),
            outside: BTreeMap::new(),
            names: Names::agreed(&state),
            state,
            due: VecDeque::new(),
            nearly: BTreeMap::new(),
        }
    }

    /// Takes in what was seen; gives what must be reported without waiting for it to be due.
    pub(super) fn see(&mut self, at: WallTime, seen: Seen) -> Option<Report> {
        match seen {
            Seen::Change { events, state } => {
                self.state = state;
                self.names = Names::agreed(&self.state);
                for event in events.iter().filter(|event| is_told(event)) {
                    self.change(at, event);
                }
            }
            Seen::Outside(answers) => self.answers(at, &answers),
            Seen::Notice(notice) => self.notice(at, &notice),
        }
        let crowded = self.due.len() > DUE_MAX;
        crowded.then(|| self.due.pop_front()).flatten().map(|due| self.report(&due))
    }

    /// When the next report is due.
    pub(super) fn next_due(&self) -> Option<WallTime> {
        self.due.front().map(|due| due.at)
    }

    /// A report that is due by now.
    pub(super) fn take_due(&mut self, now: WallTime) -> Option<Report> {
        let due = self.due.pop_front_if(|due| due.at <= now)?;
        Some(self.report(&due))
    }

    fn report(&self, due: &Due) -> Report {
        let of_subject = |line: &&Line| match (&due.subject, &line.kind) {
            (Subject::Moved(operation), LineKind::Began(id)) => operation.id == *id,
            _ => false,
        };
        let zero = self.lines.iter().rev().find(of_subject).map_or(due.seen, |line| line.at);
        let since = WallTime(zero.0.saturating_sub(u64::try_from(BEFORE.as_millis()).unwrap_or(u64::MAX)));
        let lines: Vec<_> = self.lines.iter().filter(|line| line.at >= since).collect();
        report::of(&due.subject, &lines, zero, &self.state, &self.names)
    }

    fn note(&mut self, at: WallTime, source: &'static str, what: String, kind: LineKind) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { at, source, what, kind });
    }

    fn change(&mut self, at: WallTime, event: &Event) {
        let kind = match event {
            Event::OperationBegan { operation, .. } => LineKind::Began(*operation),
            _ => LineKind::Other,
        };
        let line = told(&self.names, event);
        self.note(at, "cluster", line, kind);
        if let Event::OperationEnded { operation, .. } = event
            && let Some(operation) = self.state.operation(*operation)
            && is_news(operation)
        {
            let subject = Subject::Moved(Box::new(operation.clone()));
            self.put_due(at, subject);
        }
    }

    fn answers(&mut self, at: WallTime, answers: &OutsideAnswers) {
        for (ip, answer) in answers.iter() {
            if self.outside.get(ip) == Some(answer) {
                continue;
            }
            let (what, answers) = match answer {
                OutsideAnswer::Answered { node, token, .. } => {
                    let name = self.names.name(*node);
                    (format!("{ip}: {name} answers ({token})"), Some(name))
                }
                OutsideAnswer::Silent { detail } => (format!("{ip}: no answer: {detail}"), None),
            };
            self.outside.insert(ip.clone(), answer.clone());
            self.note(at, "probes", what, LineKind::Answers(ip.clone(), answers));
        }
    }

    fn notice(&mut self, at: WallTime, notice: &Notice) {
        let subject = match notice {
            Notice::NearlyMoved { ip, owner, silent_for, lease, .. } => {
                let name = self.names.name(*owner);
                let line = format!("{ip}: {name} was silent for {} ms, and is back", silent_for.as_millis());
                self.note(at, "cluster", line, LineKind::Other);
                if self.nearly.get(ip).is_some_and(|last| at.since(*last) < NEARLY_EVERY) {
                    return;
                }
                self.nearly.insert(ip.clone(), at);
                Subject::Nearly { ip: ip.clone(), owner: *owner, silent_for: *silent_for, lease: *lease }
            }
            Notice::Blocked { ip, reason, rules, unfit } => {
                let rules = rules.iter().filter(|rule| !rule.holds()).map(|rule| rule.detail.clone());
                let why = rules.chain(unfit.iter().cloned()).collect();
                Subject::Blocked { ip: ip.clone(), reason: reason.as_str(), why }
            }
            Notice::AlarmRaised(alarm) => {
                self.note(at, "alarms", format!("{} began", alarm.as_str()), LineKind::Other);
                return;
            }
            Notice::AlarmCleared(alarm) => {
                self.note(at, "alarms", format!("{} is over", alarm.as_str()), LineKind::Other);
                return;
            }
            Notice::Decided(_) | Notice::WouldHave(_) | Notice::LeadershipMoves { .. } => return,
        };
        self.put_due(at, subject);
    }

    fn put_due(&mut self, seen: WallTime, subject: Subject) {
        self.due.push_back(Due { at: seen.plus(AFTER), seen, subject });
    }
}

/// Whether people should read about a move: not if it was planned and went well, nor of the first placement.
fn is_news(operation: &Operation) -> bool {
    let went_well = operation.ended.is_some_and(|(_, outcome)| outcome == Outcome::Verified);
    match operation.kind {
        OperationKind::Failover | OperationKind::Forced | OperationKind::Failback => true,
        OperationKind::Switchover | OperationKind::Placement => !went_well,
    }
}

#[cfg(test)]
mod tests;
