//! Which upstream a request goes to.

use crate::table::{Route, RoutingTable, Upstream};
use http::HeaderValue;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use twinsite_model::spec::Balance;
use twinsite_model::{FloatingIpName, RoomKey, UpstreamName, rendezvous};

/// What this core remembers from one request to the next.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    round_robin: Cell<u32>,
}

impl Turns {
    fn next(&self) -> u32 {
        self.round_robin.replace(self.round_robin.get().wrapping_add(1))
    }
}

/// The best upstream for a request that belongs to no room, leaving out those that were tried in vain. One that this node has
/// left out for its failures is taken only if there is no other. `client` is the client's address as text.
pub(crate) fn choose<'a>(
    table: &'a RoutingTable,
    route: &'a Route,
    ip: Option<&FloatingIpName>,
    client: &HeaderValue,
    tried: &[UpstreamName],
    turns: &Turns,
) -> Option<&'a Upstream> {
    let among = |takes: &dyn Fn(&Upstream) -> bool| {
        table.tiers(route, ip).find_map(|tier| {
            let upstreams = tier.iter().map(|index| &table.upstreams[*index]);
            let left = upstreams.filter(|upstream| !tried.contains(&upstream.name) && takes(upstream));
            one_of(left, route, client, turns)
        })
    };
    if !table.ejects() {
        return among(&|_| true);
    }
    among(&|upstream| !upstream.load.strikes.is_out()).or_else(|| among(&|_| true))
}

fn one_of<'a>(
    left: impl Iterator<Item = &'a Upstream> + Clone,
    route: &Route,
    client: &HeaderValue,
    turns: &Turns,
) -> Option<&'a Upstream> {
    // Nearly always all are alike, and nothing needs to be weighed.
    let alike = !route.is_uneven && left.clone().all(|upstream| upstream.load.warmth.share().is_none());
    match route.balance {
        Balance::First => left.clone().next(),
        Balance::IpHash if alike => by_hash(left, client.as_bytes()),
        Balance::IpHash => by_weighted_hash(left, client.as_bytes()),
        Balance::RoundRobin if alike => {
            let count = u32::try_from(left.clone().count()).unwrap_or(u32::MAX);
            left.clone().nth(turns.next().checked_rem(count)? as usize)
        }
        Balance::RoundRobin => by_weighted_turn(left, turns.next()),
        Balance::LeastConn => {
            // The fewest for its weight: fractions compared without dividing.
            left.min_by(|one, other| {
                let burden = |upstream: &Upstream| f64::from(upstream.load.open.load(Ordering::Relaxed) + 1);
                let of = |one: &Upstream, other: &Upstream| burden(one) * share(other);
                of(one, other).total_cmp(&of(other, one))
            })
        }
    }
}

/// How much an upstream is to get: its weight, less while it is getting warm.
fn share(upstream: &Upstream) -> f64 {
    f64::from(upstream.weight) * upstream.load.warmth.share().unwrap_or(1.0)
}

/// The place that a new room should get. The same on every node, whatever the client.
pub(crate) fn place_of_room<'a>(
    table: &'a RoutingTable,
    route: &'a Route,
    ip: Option<&FloatingIpName>,
    room: RoomKey,
) -> Option<&'a Upstream> {
    let tier = table.tiers(route, ip).next()?;
    let upstreams = tier.iter().map(|index| &table.upstreams[*index]);
    if route.is_uneven {
        // Without a look at how warm each is: that differs from node to node.
        return rendezvous::choose_weighted(upstreams, |upstream| weighed(upstream), &room.0);
    }
    by_hash(upstreams, &room.0)
}

fn by_hash<'a>(candidates: impl Iterator<Item = &'a Upstream>, key: &[u8]) -> Option<&'a Upstream> {
    rendezvous::choose(candidates, |upstream| &*upstream.target.address, key)
}

/// By weight; of one that is getting warm only as large a part of those that it would get. Who has come to it stays.
fn by_weighted_hash<'a>(
    candidates: impl Iterator<Item = &'a Upstream> + Clone,
    key: &[u8],
) -> Option<&'a Upstream> {
    let warm = candidates.clone().filter(|upstream| {
        let Some(share) = upstream.load.warmth.share() else { return true };
        // Another number than the one that chooses, or those who score high would come first.
        let part = rendezvous::score(upstream.name.as_str(), key);
        rendezvous::fraction(part) < share
    });
    rendezvous::choose_weighted(warm, |upstream| weighed(upstream), key)
        .or_else(|| rendezvous::choose_weighted(candidates, |upstream| weighed(upstream), key))
}

fn weighed(upstream: &Upstream) -> (&str, u32) {
    (&upstream.target.address, upstream.weight)
}

/// Turns in proportion to the shares: multiples of the golden ratio fall evenly over any division (Weyl's sequence).
fn by_weighted_turn<'a>(
    candidates: impl Iterator<Item = &'a Upstream> + Clone,
    turn: u32,
) -> Option<&'a Upstream> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let total: f64 = candidates.clone().map(share).sum();
    let mut at = (f64::from(turn) * GOLDEN).fract() * total;
    let last = candidates.clone().last();
    let mut candidates = candidates;
    candidates
        .find(|upstream| {
            at -= share(upstream);
            at < 0.0
        })
        .or(last)
}
