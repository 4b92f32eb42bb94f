//! What a leader keeps in order beside the addresses: lives, pauses, the encoding, announcements, rooms.

use crate::report::{AnnouncedView, NodeReport};
use crate::tenure::{Subject, rooms_before};
use crate::view::View;
use std::time::Duration;
use twinsite_model::spec::SessionStoreKind;
use twinsite_model::{BootTime, Command, Fault, Faults, Format, RoomKey, WallTime};

/// Rooms confirmed by one command.
pub(crate) const TOUCH_MAX: usize = 512;

/// What follows from one node's report.
pub(crate) fn from_report(view: &View<'_>, report: &NodeReport) -> Vec<(Subject, Command)> {
    life(view, report).into_iter().chain(announced(view, report)).collect()
}

/// A life that is not yet the recorded one. A report of an earlier life than the recorded one is late.
fn life(view: &View<'_>, report: &NodeReport) -> Option<(Subject, Command)> {
    view.node(report.node)?;
    if view.state.retired_nodes.contains(&report.node) {
        return None;
    }
    if report.format_max < view.state.format {
        return None; // it would be refused; `rules::unfit` says so to people
    }
    let known = view.state.nodes.get(&report.node);
    known.is_none_or(|life| life.incarnation < report.incarnation).then(|| {
        let command = Command::RecordLife {
            node: report.node,
            incarnation: report.incarnation,
            format_max: report.format_max,
            version: report.version.clone(),
        };
        (Subject::Life(report.node), command)
    })
}

/// What instances announce, where the state says something else. An instance may be read back by several nodes of its
/// site, one a moment before a change and one after it: only what all of them say is recorded.
fn announced(view: &View<'_>, report: &NodeReport) -> Option<(Subject, Command)> {
    view.heard(report.node)?;
    let differs = |seen: &&AnnouncedView| {
        let known = view.state.announced.get(&seen.upstream);
        known.is_none_or(|known| {
            seen.token > known.token || (seen.token == known.token && seen.address != known.address)
        })
    };
    let differing = report.announced.iter().filter(differs);
    let known = differing.filter(|seen| view.index.upstream_site(&seen.upstream).is_some());
    let news: Vec<_> = known
        .filter(|seen| {
            let reports = view.tenure.reports().filter_map(|(_, other)| view.heard(other.node));
            let mut others = reports.flat_map(|other| &other.announced);
            others.all(|other| other.upstream != seen.upstream || other.address == seen.address)
        })
        .map(|seen| (seen.upstream.clone(), seen.address, seen.token))
        .collect();
    (!news.is_empty())
        .then_some((Subject::Announced, Command::RecordAnnounced { by: report.node, announced: news }))
}

/// A pause ends by itself.
pub(crate) fn pause(view: &View<'_>) -> Option<(Subject, Command)> {
    let pause = view.state.pause.as_ref()?;
    (view.wall() >= pause.until).then_some((Subject::Pause, Command::Resume { expired: true }))
}

/// When the pause ends, as far as this node's own clock can tell.
pub(crate) fn pause_wake(view: &View<'_>) -> Option<BootTime> {
    let pause = view.state.pause.as_ref()?;
    Some(view.now + pause.until.since(view.wall()))
}

/// The encoding is raised when every member reads the newer one.
pub(crate) fn format(view: &View<'_>) -> Option<(Subject, Command)> {
    let format = common_format(view, Format::NEWEST)?;
    (format > view.state.format).then_some((Subject::Format, Command::RaiseFormat { format }))
}

/// The newest format that every member reads, and this program too.
fn common_format(view: &View<'_>, newest: Format) -> Option<Format> {
    if Faults::here().has(Fault::FormatRaisedTooEarly) {
        return Some(newest);
    }
    let lives = view.spec.nodes.iter().map(|node| view.state.nodes.get(&node.id));
    let common = lives.map(|life| life.map_or(Format::FIRST, |life| life.format_max)).min()?;
    Some(common.min(newest))
}

/// How often the rooms of the embedded store are tended.
pub(crate) fn rooms_interval(view: &View<'_>) -> Option<Duration> {
    let sessions = &view.spec.sessions;
    (sessions.store == SessionStoreKind::Embedded)
        .then(|| (sessions.room_ttl.0 / 8).clamp(Duration::from_millis(500), Duration::from_mins(1)))
}

/// Confirms rooms in use, and forgets those that nobody has used for the agreed time.
pub(crate) fn rooms(view: &View<'_>) -> Vec<(Subject, Command)> {
    let ttl = view.spec.sessions.room_ttl.0;
    let pins = &view.state.sessions.pins;
    let quarter = rooms_before(view.wall(), ttl / 4).unwrap_or(WallTime(0));
    let token = view.state.session_token();
    // Rooms are placed and confirmed at the time of the state, which nobody but the leader moves.
    let late = view.wall().since(view.state.wall) >= ttl / 8;
    let tick = late.then_some(Command::ExpireRooms { before: WallTime(0) });
    // In use and not confirmed for a while; those about to be forgotten are confirmed first.
    let mut stale: Vec<(WallTime, RoomKey)> = view
        .tenure
        .rooms_in_use
        .iter()
        .filter_map(|room| Some((pins.get(room)?.touched, *room)))
        .filter(|(touched, _)| *touched < quarter)
        .collect();
    stale.sort_unstable();
    let stale: Vec<_> = stale.into_iter().map(|(_, room)| room).collect();
    let touches = stale.chunks(TOUCH_MAX).map(|rooms| Command::TouchRooms { rooms: rooms.to_vec(), token });
    let before = rooms_before(view.wall(), ttl);
    let expire = before.filter(|before| {
        pins.iter().any(|(room, pin)| pin.touched < *before && !view.tenure.rooms_in_use.contains(room))
    });
    // Touches come first in the log; should they come late, live rooms are pinned anew where they are.
    let expire = expire.map(|before| Command::ExpireRooms { before });
    tick.into_iter().chain(touches).chain(expire).map(|command| (Subject::Rooms, command)).collect()
}

/// A command that changes nothing, whose fate tells the fate of those before it.
pub(crate) fn barrier() -> (Subject, Command) {
    (Subject::Barrier, Command::ExpireRooms { before: WallTime(0) })
}
