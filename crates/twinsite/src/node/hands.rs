//! With what this node holds a floating IP: a provider that listens, the proxy that serves, the guardian that watches.

use super::guard::Guard;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use twinsite_agents::{DataPlane, Guarded, Tools};
use twinsite_controller::StopReason;
use twinsite_floating_ip::guardian::{GuardianError, Holding};
use twinsite_floating_ip::{Accepted, Lease, Loopback, Work};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{BootTime, FloatingIpName, Token};
use twinsite_proxy::{Authority, Closing, Proxy};

/// The tools for one address.
pub fn tools(spec: &FloatingIpSpec, proxy: &Proxy, guard: &Guard) -> Tools {
    let (ip, taker) = (spec.name.clone(), proxy.clone());
    let provider = Loopback::new(spec.address, &spec.ports, move |lease| {
        let authority = Arc::new(Floating { ip: ip.clone(), lease });
        Arc::new(Taker { proxy: taker.clone(), authority }) as Arc<dyn Accepted>
    });
    Tools {
        provider: Arc::new(provider),
        data_plane: Arc::new(Served(proxy.clone())),
        guard: Arc::new(guard.clone()),
    }
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
