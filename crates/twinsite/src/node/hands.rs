//! With what this node holds a floating IP: a provider that listens, the proxy that serves, the guardian that watches.

use super::connections;
use super::guard::Guard;
use crate::config::Loaded;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use twinsite_agents::{Connections, DataPlane, Guarded, Tools};
use twinsite_controller::StopReason;
use twinsite_floating_ip::guardian::{GuardianError, Holding};
use twinsite_floating_ip::{Accepted, Lease, Loopback, Netlink, Provider, ProviderError, Work, take_over};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{BootTime, FloatingIpName, InterfaceName, Token};
use twinsite_proxy::{Authority, Closing, Proxy};

/// The tools for one address.
pub fn tools(
    spec: &FloatingIpSpec,
    interface: Option<InterfaceName>,
    proxy: &Proxy,
    guard: &Guard,
    connections: &Connections,
) -> Tools {
    let (ip, taker) = (spec.name.clone(), proxy.clone());
    let accepted = move |lease| {
        let authority = Arc::new(Floating { ip: ip.clone(), lease });
        Arc::new(Taker { proxy: taker.clone(), authority }) as Arc<dyn Accepted>
    };
    let provider: Arc<dyn Provider> = match &interface {
        Some(interface) => {
            let earlier = connections::earlier(spec.name.clone(), connections.clone());
            Arc::new(Netlink::new(&spec.name, spec.address, interface, &spec.ports, accepted, earlier))
        }
        None => Arc::new(Loopback::new(spec.address, &spec.ports, accepted)),
    };
    Tools { provider, data_plane: Arc::new(Served(proxy.clone())), guard: Arc::new(guard.clone()), interface }
}

/// Makes this host ready for the addresses that it may hold, before it votes: nothing of an earlier life answers any
/// more, and what is missing is said now and not in the middle of a failover.
pub fn make_ready(loaded: &Loaded) -> Result<(), ProviderError> {
    for ip in loaded.spec.floating_ips.iter().filter(|ip| may_hold(loaded, ip)) {
        if let Some(interface) = loaded.node.interface(ip) {
            take_over(&ip.name, ip.address, &interface)?;
        }
    }
    Ok(())
}

/// Whether the specification lets this node hold the address.
pub fn may_hold(loaded: &Loaded, ip: &FloatingIpSpec) -> bool {
    loaded.me.kind.may_own() && loaded.spec.owner_sites(ip).contains(&&loaded.me.site)
}

impl Guarded for Guard {
    fn holding(&self, holding: Holding, until: BootTime, slack: Duration) -> Result<(), GuardianError> {
        Self::holding(self, holding, until, slack)
    }

    fn released(&self, ip: &FloatingIpName, token: Token) -> Result<(), GuardianError> {
        Self::released(self, ip, token)
    }
}

/// What the proxy serves.
struct Served(Proxy);

impl DataPlane for Served {
    fn close<'a>(&'a self, ip: &'a FloatingIpName, why: StopReason, within: Duration) -> Work<'a, ()> {
        let closing = match why {
            StopReason::Planned => Closing::Planned,
            StopReason::Involuntary => Closing::Involuntary,
        };
        Box::pin(self.0.close_floating(ip, closing, within))
    }
}

/// Hands accepted connections to the proxy.
struct Taker {
    proxy: Proxy,
    authority: Arc<Floating>,
}

impl Accepted for Taker {
    fn accept(&self, stream: TcpStream) {
        self.proxy.accept_floating(stream, Arc::clone(&self.authority) as Arc<dyn Authority>);
    }
}

/// The right to answer, as the proxy asks for it.
struct Floating {
    ip: FloatingIpName,
    lease: Lease,
}

impl Authority for Floating {
    fn ip(&self) -> &FloatingIpName {
        &self.ip
    }

    fn token(&self) -> Token {
        self.lease.token()
    }

    fn holds(&self) -> bool {
        self.lease.holds()
    }
}
