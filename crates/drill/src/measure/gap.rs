//! How long clients got no answer.

use super::hosts::Period;
use super::{Answer, Kind, Tunnel};
use std::time::{Duration, Instant};

/// The longest time without an answer that touches the window, given the moments of all answers in any order. The
/// last answer before the window counts as its beginning; an outage that lasts to the window's end counts up to
/// there.
pub fn longest(moments: impl IntoIterator<Item = Instant>, from: Instant, to: Instant) -> Period {
    let mut moments: Vec<_> = moments.into_iter().filter(|moment| *moment <= to).collect();
    moments.sort_unstable();
    let first_inside = moments.partition_point(|moment| *moment <= from);
    let before = first_inside.checked_sub(1).and_then(|index| moments.get(index)).copied().unwrap_or(from);
    let mut last = before;
    let mut longest = Period { from: before, to: before };
    for moment in moments.drain(..).skip(first_inside).chain([to]) {
        if moment.duration_since(last) > longest.lasts() {
            longest = Period { from: last, to: moment };
        }
        last = moment;
    }
    longest
}

/// The gap that HTTP clients of one kind saw: when none of them got any answer.
pub fn http(answers: &[Answer], kind: Kind, from: Instant, to: Instant) -> Option<Period> {
    let mut moments = answers.iter().filter(|answer| answer.kind == kind && answer.floating).peekable();
    moments.peek()?;
    Some(longest(moments.map(|answer| answer.received), from, to))
}

/// The gap that WebSocket clients saw: when no participant got any answer to what it said.
pub fn websocket(answers: &[Answer], from: Instant, to: Instant) -> Option<Period> {
    let answers = answers.iter().filter(|answer| answer.kind == Kind::Tunnel && answer.sent.is_some());
    let mut moments = answers.map(|answer| answer.received).peekable();
    moments.peek()?;
    Some(longest(moments, from, to))
}

/// How participants lost their `WebSockets` and got new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tunnels {
    /// How many were lost within the window.
    pub lost: usize,
    /// How many of those participants had a new one by the end of the window.
    pub back: usize,
    /// The longest time that a participant was without.
    pub longest: Duration,
}

/// Counts what was lost between the two moments, and what came back.
pub fn tunnels(tunnels: &[Tunnel], from: Instant, to: Instant) -> Tunnels {
    let mut found = Tunnels::default();
    for tunnel in tunnels {
        let Some(lost) = tunnel.lost.filter(|lost| (from..=to).contains(lost)) else { continue };
        found.lost += 1;
        let successors = tunnels.iter().filter(|other| {
            other.participant == tunnel.participant && other.opened > tunnel.opened && other.opened <= to
        });
        // What the participant noticed begins with the last message, not with its noticing the end.
        let silent_since = tunnel.last.min(lost).max(from);
        let back = successors.map(|other| other.opened).min();
        found.back += usize::from(back.is_some());
        found.longest = found.longest.max(back.unwrap_or(to).duration_since(silent_since));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_gap_is_between_the_last_answer_before_and_the_first_after() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let moments = [10, 12, 14, 380, 382].map(at);
        assert_eq!(longest(moments, at(15), at(400)), Period { from: at(14), to: at(380) });
        // An earlier hole is not of this fault.
        let moments = [10, 200, 202, 230, 240].map(at);
        assert_eq!(longest(moments, at(203), at(241)).lasts(), 28 * MS);
    }

    #[test]
    fn an_outage_without_end_counts_to_the_end_of_the_window() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        assert_eq!(longest([at(10)], at(11), at(500)), Period { from: at(10), to: at(500) });
        assert_eq!(longest([], at(100), at(500)).lasts(), 400 * MS);
        // What comes after the window is not looked at.
        assert_eq!(longest([at(10), at(900)], at(11), at(500)).lasts(), 490 * MS);
    }

    #[test]
    fn a_participant_is_without_from_its_last_message_to_the_next_welcome() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let tunnel = |participant, opened, last, lost: Option<u32>| Tunnel {
            participant,
            room: 0,
            instance: "gra-meet-1".parse().unwrap(),
            opened: at(opened),
            last: at(last),
            lost: lost.map(at),
        };
        let seen = [
            tunnel(0, 0, 100, Some(150)),
            tunnel(0, 400, 900, None),
            tunnel(1, 0, 900, None),
            tunnel(2, 0, 100, Some(120)),
        ];
        let found = tunnels(&seen, at(100), at(900));
        assert_eq!(found, Tunnels { lost: 2, back: 1, longest: 800 * MS });
    }
}
