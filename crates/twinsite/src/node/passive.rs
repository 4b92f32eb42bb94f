//! What real traffic says: upstreams that failed a request are probed at once; live tunnels prove where rooms are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use twinsite_health::UpstreamProbes;
use twinsite_model::{RoomKey, UpstreamName};
use twinsite_proxy::Proxy;
use twinsite_sessions::{NodeConnections, PinEvent, Sessions};

/// How often live tunnels are told to the session service.
const LIVE_EVERY: Duration = Duration::from_secs(1);

/// Passes both on until cancelled.
pub async fn run(proxy: Proxy, probes: Arc<UpstreamProbes>, sessions: Sessions, stop: CancellationToken) {
    let mut rooms = sessions.subscribe();
    let mut failures = proxy.upstream_failures();
    let mut live = tokio::time::interval(LIVE_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            failed = failures.recv() => match failed {
                Ok(upstream) => probes.suspect(&upstream),
                Err(RecvError::Lagged(_)) => {} // the probes find out by themselves
                Err(RecvError::Closed) => return,
            },
            _ = live.tick() => tell(&proxy, &sessions),
            event = rooms.next() => match event {
                Some(PinEvent::Changed { room, upstream }) => proxy.room_moved(room, &upstream),
                Some(PinEvent::Removed { .. }) => {}
                Some(PinEvent::Resync) => gather(&proxy, &sessions),
                None => return,
            },
        }
    }
}

/// Brings every tunnel to where its room is.
fn gather(proxy: &Proxy, sessions: &Sessions) {
    for (room, place) in strayed(proxy.live_rooms(), |room| sessions.answer(room).map(|pin| pin.upstream)) {
        proxy.room_moved(room, &place);
    }
}

/// The rooms with a tunnel to somewhere else than where they are, and where they are. Only rooms with a tunnel are
/// looked at: a node remembers many more.
fn strayed(
    tunnels: Vec<(RoomKey, UpstreamName)>,
    place: impl Fn(RoomKey) -> Option<UpstreamName>,
) -> BTreeMap<RoomKey, UpstreamName> {
    let stray = |(room, at): (RoomKey, UpstreamName)| Some((room, place(room).filter(|place| *place != at)?));
    tunnels.into_iter().filter_map(stray).collect()
}

fn tell(proxy: &Proxy, sessions: &Sessions) {
    let rooms = proxy.live_rooms();
    let mut counts: BTreeMap<_, u32> = BTreeMap::new();
    for (room, _) in &rooms {
        *counts.entry(*room).or_default() += 1;
    }
    sessions.put_connections(NodeConnections { rooms: counts, upstreams: proxy.connections() });
    sessions.observe_live(rooms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rooms_with_a_tunnel_elsewhere_are_gathered() {
        let name = |text: &str| UpstreamName::new(text).unwrap();
        let (here, strayed_one, unknown) = (RoomKey([1; 16]), RoomKey([2; 16]), RoomKey([3; 16]));
        let tunnels = vec![
            (here, name("one")),
            (strayed_one, name("one")),
            (strayed_one, name("two")),
            (strayed_one, name("one")),
            (unknown, name("one")),
        ];
        let place = |room| match room {
            room if room == here => Some(name("one")),
            room if room == strayed_one => Some(name("two")),
            _ => None,
        };
        assert_eq!(strayed(tunnels, place), BTreeMap::from([(strayed_one, name("two"))]));
    }
}
