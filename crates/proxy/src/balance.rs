//! Which upstream a request goes to.

use crate::table::{Route, RoutingTable, Upstream};
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use twinsite_model::spec::Balance;
use twinsite_model::{FloatingIpName, RoomKey, UpstreamName, rendezvous};

/// What this core remembers from one request to the next.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    round_robin: Cell<usize>,
}

/// The best upstream for a request that belongs to no room, leaving out those that were tried in vain.
pub(crate) fn choose<'a>(
    table: &'a RoutingTable,
    route: &'a Route,
    ip: Option<&FloatingIpName>,
    client: IpAddr,
    tried: &[UpstreamName],
    turns: &Turns,
) -> Option<&'a Upstream> {
    table.tiers(route, ip).find_map(|tier| {
        let left = || {
            tier.iter()
                .map(|index| &table.upstreams[*index])
                .filter(|upstream| !tried.contains(&upstream.name))
        };
        match route.balance {
            Balance::IpHash => by_hash(left(), client.to_canonical().to_string().as_bytes()),
            Balance::RoundRobin => {
                let count = left().count();
                let turn = turns.round_robin.get();
                turns.round_robin.set(turn.wrapping_add(1));
                left().nth(turn.checked_rem(count)?)
            }
            Balance::LeastConn => left().min_by_key(|upstream| upstream.load.open.load(Ordering::Relaxed)),
            Balance::First => left().next(),
        }
    })
}

/// The place that a new room should get. The same on every node, whatever the client.
pub(crate) fn place_of_room<'a>(
    table: &'a RoutingTable,
    route: &'a Route,
    ip: Option<&FloatingIpName>,
    room: RoomKey,
) -> Option<&'a Upstream> {
    let tier = table.tiers(route, ip).next()?;
    by_hash(tier.iter().map(|index| &table.upstreams[*index]), &room.0)
}

fn by_hash<'a>(candidates: impl Iterator<Item = &'a Upstream>, key: &[u8]) -> Option<&'a Upstream> {
    rendezvous::choose(candidates, |upstream| &*upstream.address, key)
}
