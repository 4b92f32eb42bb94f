//! The hosts' ends at their bridges: what cuts a host off, and nobody there is told.

use super::{Lab, LabError, run};
use std::sync::PoisonError;

impl Lab {
    /// Cuts a host off: nothing comes to it or from it any more, and it does not notice, for its interface stays up.
    pub(crate) fn cut_host(&self, host: &str) -> Result<(), LabError> {
        let place = self.place(host)?;
        self.set_port(place, "disabled")?;
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
        Ok(())
    }

    /// Gives a host that was cut off the network back.
    pub(crate) fn heal_host(&self, host: &str) -> Result<(), LabError> {
        let place = self.place(host)?;
        self.set_port(place, "forwarding")?;
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
        Ok(())
    }

    /// Gives all hosts that were cut off the network back.
    pub(crate) fn heal_hosts(&self) -> Result<(), LabError> {
        let mut hosts = self.hosts.iter().filter(|host| host.site.is_some());
        hosts.try_for_each(|host| self.heal_host(&host.name))
    }

    /// Whether a host is cut off.
    pub(crate) fn is_cut(&self, host: &str) -> bool {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        self.place(host).is_ok_and(|place| cut.contains(&place))
    }

    fn place(&self, host: &str) -> Result<usize, LabError> {
        let place = self.hosts.iter().position(|known| known.name == host && known.site.is_some());
        place.ok_or_else(|| LabError::NoHost(host.to_owned()))
    }

    fn set_port(&self, place: usize, state: &str) -> Result<(), LabError> {
        let clients = self.clients();
        // `ip link set ... type bridge_slave state` says nothing and does nothing.
        run("bridge", &["-netns", &clients, "link", "set", "dev", &port(place), "state", state])
    }
}

/// A port of a bridge that reaches those ports only that are not isolated, before anything goes through it.
pub(super) fn isolated(port: &str, bridge: &str) -> [String; 3] {
    [
        format!("link set {port} master {bridge}"),
        format!("link set {port} type bridge_slave isolated on"),
        format!("link set {port} up"),
    ]
}

/// A host's end at its bridge, by its place among the hosts; interfaces have short names.
pub(super) fn port(host: usize) -> String {
    format!("port{host}")
}
