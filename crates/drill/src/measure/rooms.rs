//! Rooms whose participants were on two meeting instances at the same time.

use super::{Evidence, Tunnel};
use std::collections::BTreeMap;
use std::time::Duration;

/// A room in two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The room's number.
    pub room: usize,
    /// For how long, at least.
    pub overlap: Duration,
    /// When, and who.
    pub evidence: Evidence,
}

/// Finds every room that was in two places for longer than `slack`, once each, with its longest overlap. A
/// tunnel counts from its welcome to its last message: a dead one that nobody has noticed yet is not a place.
pub fn splits(tunnels: &[Tunnel], slack: Duration) -> Vec<Split> {
    let mut rooms: BTreeMap<usize, Vec<&Tunnel>> = BTreeMap::new();
    for tunnel in tunnels {
        rooms.entry(tunnel.room).or_default().push(tunnel);
    }
    let mut found = Vec::new();
    for (room, tunnels) in rooms {
        let pairs = tunnels.iter().flat_map(|a| tunnels.iter().map(move |b| (a, b)));
        let apart = pairs.filter(|(a, b)| a.instance != b.instance && a.opened <= b.opened);
        let overlaps = apart.map(|(a, b)| (a.last.min(b.last).saturating_duration_since(b.opened), a, b));
        if let Some((overlap, a, b)) = overlaps.max_by_key(|(overlap, ..)| *overlap)
            && overlap > slack
        {
            let line = format!(
                "room {room}: participant {} on {} and participant {} on {} for {overlap:?}",
                a.participant, a.instance, b.participant, b.instance
            );
            found.push(Split { room, overlap, evidence: Evidence { at: b.opened, line } });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const MS: Duration = Duration::from_millis(1);

    fn tunnel(start: Instant, room: usize, instance: &str, opened: u32, last: u32) -> Tunnel {
        Tunnel {
            participant: 0,
            room,
            instance: instance.parse().unwrap(),
            opened: start + opened * MS,
            last: start + last * MS,
            lost: None,
        }
    }

    #[test]
    fn a_room_that_moves_as_a_whole_is_not_split() {
        let start = Instant::now();
        let seen = [
            tunnel(start, 1, "a", 0, 500),
            tunnel(start, 1, "a", 10, 505),
            tunnel(start, 1, "b", 700, 900),
            tunnel(start, 2, "c", 0, 900),
        ];
        assert_eq!(splits(&seen, 20 * MS), []);
    }

    #[test]
    fn a_room_on_two_instances_is_found_once() {
        let start = Instant::now();
        let seen = [
            tunnel(start, 1, "a", 0, 900),
            tunnel(start, 1, "b", 700, 1_000),
            tunnel(start, 1, "b", 800, 1_000),
        ];
        let found = splits(&seen, 20 * MS);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].overlap, found[0].evidence.at), (200 * MS, start + 700 * MS));
        // Whoever is written down first.
        let reversed: Vec<_> = seen.into_iter().rev().collect();
        assert_eq!(splits(&reversed, 20 * MS)[0].overlap, 200 * MS);
    }
}
