//! Rooms whose participants were on two meeting instances at the same time.

use super::Tunnel;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use twinsite_model::UpstreamName;

/// A room in two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The room's number.
    pub room: usize,
    /// For how long, at least.
    pub overlap: Duration,
    /// Where it was, and where somebody else met it later.
    pub places: [Place; 2],
}

/// Where one participant met a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Who.
    pub participant: usize,
    /// Where.
    pub instance: UpstreamName,
    /// From its welcome,
    pub from: Instant,
    /// to the last that was heard there.
    pub to: Instant,
}

impl Place {
    fn of(tunnel: &Tunnel) -> Self {
        Self {
            participant: tunnel.participant,
            instance: tunnel.instance.clone(),
            from: tunnel.opened,
            to: tunnel.last,
        }
    }
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
            found.push(Split { room, overlap, places: [Place::of(a), Place::of(b)] });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let times = found[0].places.clone().map(|place| (place.from - start, place.to - start));
        assert_eq!(found[0].overlap, 200 * MS);
        assert_eq!(times, [(Duration::ZERO, 900 * MS), (700 * MS, 1_000 * MS)]);
        // Whoever is written down first.
        let reversed: Vec<_> = seen.into_iter().rev().collect();
        assert_eq!(splits(&reversed, 20 * MS)[0].overlap, 200 * MS);
    }
}
