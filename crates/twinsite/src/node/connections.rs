//! The connections of floating IPs, wired to this node: from its proxy to the nodes that may hold them next, and from
//! them to whoever holds one here.

use super::Raft;
use super::run::Shared;
use crate::peer::Peers;
use twinsite_agents::{ChangedConnections, Connections, Listeners, OpenConnections, Spreading};
use twinsite_floating_ip::Connection;
use twinsite_model::spec::ProviderKind;
use twinsite_model::{FloatingIpName, NodeId, Token};
use twinsite_proxy::{Changed, Proxy};

/// Set to `off` in a node's environment, clients of an earlier owner are not told: for drills that measure the difference.
const SWITCH: &str = "TWINSITE_TICKLE_ACKS";

/// Tells the other nodes of this one's connections.
pub fn spreading(shared: &Shared, proxy: Proxy) -> Spreading<Served, Heirs, Peers> {
    Spreading {
        connections: shared.connections.clone(),
        source: Served(proxy),
        listeners: Heirs { me: shared.me, raft: shared.raft.clone() },
        way: shared.peers.clone(),
    }
}

/// The connections that were open at an address under earlier tokens than one.
pub fn earlier(
    ip: FloatingIpName,
    connections: Connections,
) -> impl Fn(Token) -> Vec<Connection> + Send + Sync + 'static {
    let is_off = std::env::var(SWITCH).is_ok_and(|value| value == "off");
    if is_off {
        tracing::warn!(%ip, "{SWITCH}=off: the clients of an earlier owner are not told that it is gone");
    }
    move |token| if is_off { Vec::new() } else { connections.before(&ip, token) }
}

/// What the proxy serves.
pub struct Served(Proxy);

impl OpenConnections for Served {
    fn changed(&self) -> Vec<ChangedConnections> {
        let changed = self.0.changed_connections().into_iter().map(|Changed { ip, token, connections }| {
            let connection = |((client, port), is_open)| (Connection::new(client, port), is_open);
            ChangedConnections { ip, token, connections: connections.into_iter().map(connection).collect() }
        });
        changed.collect()
    }

    fn served(&self) -> Vec<(FloatingIpName, Token)> {
        self.0.served()
    }
}

/// The other nodes that may hold an address, where its clients can be told at all.
pub struct Heirs {
    me: NodeId,
    raft: Raft,
}

impl Listeners for Heirs {
    fn of(&self, ip: &FloatingIpName) -> Vec<NodeId> {
        let state = self.raft.state();
        let Some(spec) = &state.spec else { return Vec::new() };
        let Some(ip) = spec.floating_ip(ip).filter(|ip| ip.provider == ProviderKind::Netlink) else {
            return Vec::new();
        };
        let sites = spec.owner_sites(ip);
        let may_own = spec.nodes.iter().filter(|node| node.kind.may_own() && sites.contains(&&node.site));
        may_own.map(|node| node.id).filter(|node| *node != self.me).collect()
    }
}
