//! Who lives where in a cluster on one machine.
//!
//! On loopback addresses: one block `127.P.0.0/16` for a cluster: the floating address is `127.P.0.10`; site number `s` lives in
//! `127.P.s.0/24` (node N at `.N`, meeting instance N at `.(10+N)`, Redis at the last site's `.9`); from site `a`,
//! site `b` is reached at `127.P.(10a+b).0/24`, where the WAN relay listens, and the floating address at
//! `127.P.(10a).10`. Clients come from
//! `127.(P+128).0.0/16`.
//!
//! In a lab everything has the same places in `10.88.0.0/16`, on a network where all reach all: nothing is dialled through
//! a relay. Clients come from `10.88.128.0/18`. In a lab of IPv6 alone the places are `fd88::S:H`, and clients come from
//! `fd88:0:0:1::/64`, which is behind the lab's gateway: a kernel takes packets for a whole network, and answers for its own
//! addresses only when neighbours ask.

use crate::lab::INTERFACE;
use crate::wan::{FloatingPassage, Passage};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use twinsite_model::dial::DialRule;
use twinsite_model::spec::{
    AnnounceMode, CertificateSpec, Cidr, FloatingIpSpec, HealthSpec, HumanDuration, NodeKind, NodeSpec,
    PolicySpec, ProviderKind, RouteSpec, SessionStoreKind, SessionsSpec, SiteSpec, UpstreamSpec,
};
use twinsite_model::{
    ClusterName, ClusterSpec, FloatingIpName, InterfaceName, NodeId, NodeName, Profile, SiteName,
    UpstreamName,
};

/// The port of the consensus between nodes.
pub const PEER_PORT: u16 = 7100;
/// The port of the public API.
pub const API_PORT: u16 = 7101;
/// The port of the metrics.
pub const METRICS_PORT: u16 = 7102;
/// The port on which nodes and the floating address serve HTTP.
pub const HTTP_PORT: u16 = 8080;
/// The same by TLS, where that is spoken.
pub const HTTPS_PORT: u16 = 8443;
/// The port of the meeting instances.
pub const MEETING_PORT: u16 = 3443;
/// The port of Redis.
pub const REDIS_PORT: u16 = 6379;

/// The blocks from which a cluster takes its own.
pub const BLOCKS: std::ops::RangeInclusive<u8> = 64..=119;
/// The first two numbers of all addresses of a lab.
const LAB_NETWORK: [u8; 2] = [10, 88];
/// The first number of all addresses of a lab of IPv6.
const LAB_NETWORK_V6: u16 = 0xfd88;
/// The first third number of the clients' addresses in a lab.
const LAB_CLIENTS: u8 = 128;
/// The third number of the floating address.
const FLOATING_NETWORK: u8 = 0;
/// How far the clients' block is from the cluster's.
const CLIENT_BLOCK_OFFSET: u8 = 128;

/// The family of all addresses of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

/// What a scenario asks of a cluster. The default is the standard shape: two sites with two proxies and three
/// meeting instances each, and a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Proxy nodes at each of the two sites, 1 or 2 and up to 8.
    pub nodes_per_site: u8,
    /// Meeting instances at each of the two sites, up to 8.
    pub instances_per_site: u8,
    /// Which address the meeting instances announce.
    pub announce: AnnounceMode,
    /// In a lab: the size in MiB of a file system of its own for the data of each node; none for this machine's.
    pub disk_mib: Option<u32>,
    /// In a lab: of which family all addresses are. Loopback addresses are of IPv4.
    pub family: Family,
    /// Whether the nodes speak TLS too, at ports of its own, with a certificate for `localhost`.
    pub https: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes_per_site: 2,
            instances_per_site: 3,
            announce: AnnounceMode::Floating,
            disk_mib: None,
            family: Family::Ipv4,
            https: false,
        }
    }
}

/// On what the cluster's addresses are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ground {
    /// Loopback addresses of this machine. No privileges are needed.
    #[default]
    Loopback,
    /// A network of the machine's own, with a namespace for every host.
    Lab,
}

/// Which store keeps session placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A Redis of the cluster's own, started and stopped with it.
    OwnRedis,
    /// A Redis that runs already; faults are never injected into it.
    OtherRedis(String),
    /// The table in the replicated state.
    Embedded,
}

/// A node with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlace {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its site.
    pub site: SiteName,
    /// What it is for.
    pub kind: NodeKind,
    /// Its own address.
    pub ip: IpAddr,
}

/// A meeting instance with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePlace {
    /// Its name.
    pub name: UpstreamName,
    /// Its site.
    pub site: SiteName,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A whole cluster on one machine.
#[derive(Debug, Clone)]
pub struct Layout {
    /// On what its addresses are.
    pub ground: Ground,
    /// The family of its addresses.
    pub family: Family,
    /// The second number of the cluster's addresses.
    pub block: u8,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The timings.
    pub profile: Profile,
    /// The sites, in the order of preference, the witness last.
    pub sites: Vec<SiteName>,
    /// The nodes.
    pub nodes: Vec<NodePlace>,
    /// The meeting instances.
    pub instances: Vec<InstancePlace>,
    /// The name of the floating IP.
    pub floating_ip: FloatingIpName,
    /// The floating address, with the HTTP port.
    pub floating: SocketAddr,
    /// Where session placement is kept.
    pub store: Store,
    /// Which address the meeting instances announce.
    pub announce: AnnounceMode,
    /// The folder of the certificate for clients, `tls.pem` and `tls.key`; none if no TLS is spoken.
    pub https: Option<PathBuf>,
}

/// The names of the sites; the last is the witness.
const SITES: [&str; 3] = ["gra", "sbg", "wit"];

#[allow(clippy::expect_used)] // every argument below is built from the constants above and small numbers
fn name<T: std::str::FromStr<Err = twinsite_model::ids::NameError>>(text: &str) -> T {
    text.parse().expect("lower-case letters, digits and dashes make a name")
}

impl Layout {
    /// The standard cluster on loopback, in a block of addresses.
    pub fn paired(block: u8, profile: Profile, shape: &Shape, store: Store) -> Self {
        Self::on(Ground::Loopback, block, profile, shape, store)
    }

    /// The standard cluster. In a lab the block is only a part of its name.
    pub fn on(ground: Ground, block: u8, profile: Profile, shape: &Shape, store: Store) -> Self {
        let family = match ground {
            Ground::Loopback => Family::Ipv4,
            Ground::Lab => shape.family,
        };
        let address = |network, host| address(ground, family, block, network, host);
        let sites: Vec<SiteName> = SITES.iter().map(|site| name(site)).collect();
        let mut nodes = Vec::new();
        let mut instances = Vec::new();
        for (site, number) in sites.iter().zip(1_u8..) {
            let witness = usize::from(number) == sites.len();
            let count = if witness { 1 } else { shape.nodes_per_site.clamp(1, 8) };
            for n in 1..=count {
                nodes.push(NodePlace {
                    id: NodeId(nodes.len() as u64 + 1),
                    name: name(&format!("{site}-{n}")),
                    site: site.clone(),
                    kind: if witness { NodeKind::Witness } else { NodeKind::Proxy },
                    ip: address(number, n),
                });
            }
            for n in 1..=if witness { 0 } else { shape.instances_per_site.clamp(1, 8) } {
                instances.push(InstancePlace {
                    name: name(&format!("{site}-meet-{n}")),
                    site: site.clone(),
                    address: SocketAddr::new(address(number, 10 + n), MEETING_PORT),
                });
            }
        }
        Self {
            ground,
            family,
            block,
            cluster: name(&format!("demo-{block}")),
            profile,
            sites,
            nodes,
            instances,
            floating_ip: name("public"),
            floating: SocketAddr::new(address(FLOATING_NETWORK, 10), HTTP_PORT),
            store,
            announce: shape.announce,
            https: None, // nobody has made a certificate yet
        }
    }

    /// The node with this name.
    pub fn node(&self, name: &NodeName) -> Option<&NodePlace> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The nodes of a site.
    pub fn nodes_at<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a NodePlace> {
        self.nodes.iter().filter(move |node| node.site == *site)
    }

    /// The meeting instances of a site.
    pub fn instances_at<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a InstancePlace> {
        self.instances.iter().filter(move |instance| instance.site == *site)
    }

    /// The sites that serve.
    pub fn serving_sites(&self) -> impl Iterator<Item = &SiteName> {
        self.sites.iter().filter(|site| self.instances_at(site).next().is_some())
    }

    /// Where the clients' HTTP goes on a node's own address.
    pub fn own_http(&self, node: &NodePlace) -> SocketAddr {
        SocketAddr::new(node.ip, HTTP_PORT)
    }

    /// Where a node's API answers.
    pub fn api(&self, node: &NodePlace) -> SocketAddr {
        SocketAddr::new(node.ip, API_PORT)
    }

    /// The own address of a site, which its instances announce when they do not announce the floating one.
    pub fn site_address(&self, site: &SiteName) -> IpAddr {
        self.address(self.site_number(site), 100)
    }

    /// What the instances of `site` should announce while `owner_site` holds the floating address.
    pub fn announced(&self, site: &SiteName, owner_site: Option<&SiteName>) -> IpAddr {
        match self.announce {
            AnnounceMode::Floating if owner_site == Some(site) => self.floating.ip(),
            _ => self.site_address(site),
        }
    }

    /// The address of client number `n`, of 16,000.
    pub fn client(&self, n: usize) -> IpAddr {
        let (high, low) = ((n / 250 % 64) as u8, (n % 250) as u8 + 1);
        match (self.ground, self.family) {
            (Ground::Loopback, _) => {
                IpAddr::V4(Ipv4Addr::new(127, self.block + CLIENT_BLOCK_OFFSET, high, low))
            }
            (Ground::Lab, Family::Ipv4) => self.address(LAB_CLIENTS + high, low),
            (Ground::Lab, Family::Ipv6) => {
                IpAddr::V6(Ipv6Addr::new(LAB_NETWORK_V6, 0, 0, 1, 0, 0, high.into(), low.into()))
            }
        }
    }

    /// Where all clients of a lab come from.
    pub(crate) fn client_network(&self) -> String {
        match self.family {
            Family::Ipv4 => format!("{}/18", self.address(LAB_CLIENTS, 0)),
            Family::Ipv6 => format!("{}/64", Ipv6Addr::new(LAB_NETWORK_V6, 0, 0, 1, 0, 0, 0, 0)),
        }
    }

    /// How many bits of an address of a lab are the network's.
    pub(crate) fn network_bits(&self) -> u8 {
        match self.family {
            Family::Ipv4 => 16,
            Family::Ipv6 => 64,
        }
    }

    /// The address of a lab's bridge.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.address(FLOATING_NETWORK, 1)
    }

    fn address(&self, network: u8, host: u8) -> IpAddr {
        address(self.ground, self.family, self.block, network, host)
    }

    /// Where the cluster's own Redis listens.
    pub fn redis(&self) -> SocketAddr {
        SocketAddr::new(self.address(self.sites.len() as u8, 9), REDIS_PORT)
    }

    /// The URL of the session store, if it is a Redis.
    pub fn redis_url(&self) -> Option<String> {
        match &self.store {
            Store::OwnRedis => Some(format!("redis://{}/0", self.redis())),
            Store::OtherRedis(url) => Some(url.clone()),
            Store::Embedded => None,
        }
    }

    /// A site's number, from 1.
    pub fn site_number(&self, site: &SiteName) -> u8 {
        self.sites.iter().position(|known| known == site).map_or(0, |index| index as u8 + 1)
    }

    /// The dial map of the nodes of a site.
    pub fn dial_rules(&self, from: &SiteName) -> Vec<DialRule> {
        if self.ground == Ground::Lab {
            return Vec::new();
        }
        let others = self.sites.iter().filter(|site| *site != from);
        let to_others = others.map(|to| DialRule {
            prefix: network(self.block, self.site_number(to)),
            via: network(self.block, self.view(from, to)),
        });
        let to_floating = DialRule {
            prefix: network(self.block, FLOATING_NETWORK),
            via: network(self.block, 10 * self.site_number(from)),
        };
        to_others.chain([to_floating]).collect()
    }

    /// The floating address as the nodes of each site dial it, wherever it is.
    pub fn floating_passages(&self) -> Vec<FloatingPassage> {
        let (Ground::Loopback, IpAddr::V4(floating)) = (self.ground, self.floating.ip()) else {
            return Vec::new();
        };
        let [.., host] = floating.octets();
        let passages = self.sites.iter().map(|from| FloatingPassage {
            from: from.clone(),
            via: SocketAddr::new(self.address(10 * self.site_number(from), host), self.floating.port()),
            target: self.floating,
        });
        passages.collect()
    }

    /// An address of site `to` as the nodes of site `from` dial it.
    pub fn seen_from(&self, from: &SiteName, to: &SiteName, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if from != to && self.ground == Ground::Loopback => {
                let [first, block, _, host] = ip.octets();
                let ip = Ipv4Addr::new(first, block, self.view(from, to), host);
                SocketAddr::new(ip.into(), address.port())
            }
            _ => address,
        }
    }

    fn view(&self, from: &SiteName, to: &SiteName) -> u8 {
        10 * self.site_number(from) + self.site_number(to)
    }

    /// Every address that some site dials across the WAN.
    pub fn passages(&self) -> Vec<Passage> {
        let mut passages = Vec::new();
        if self.ground == Ground::Lab {
            return passages;
        }
        let pairs = self.sites.iter().flat_map(|from| self.sites.iter().map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let mut targets = Vec::new();
            for node in self.nodes_at(to) {
                let ports = [Some(PEER_PORT), Some(API_PORT), node.kind.serves().then_some(HTTP_PORT)];
                targets.extend(ports.into_iter().flatten().map(|port| SocketAddr::new(node.ip, port)));
            }
            targets.extend(self.instances_at(to).map(|instance| instance.address));
            if self.store == Store::OwnRedis && Some(to) == self.sites.last() {
                targets.push(self.redis());
            }
            passages.extend(targets.into_iter().map(|target| Passage {
                from: from.clone(),
                to: to.clone(),
                via: self.seen_from(from, to, target),
                target,
            }));
        }
        passages
    }

    /// The addresses at which a node is reached, from its own site and from the others.
    pub fn addresses_of(&self, node: &NodePlace) -> Vec<IpAddr> {
        let own = SocketAddr::new(node.ip, 0);
        let mut seen: Vec<_> =
            self.sites.iter().map(|from| self.seen_from(from, &node.site, own).ip()).collect();
        seen.dedup(); // in a lab it is the same from everywhere
        seen
    }

    /// The cluster's specification.
    pub fn spec(&self) -> ClusterSpec {
        let ms = |ms| HumanDuration(Duration::from_millis(ms));
        // Drills break things more often than the breaker of a live cluster would let pass.
        let policy = PolicySpec { failovers_max: 10_000, drain_timeout: ms(5_000), ..PolicySpec::default() };
        let health = match self.profile {
            Profile::Lan => HealthSpec { interval: ms(250), timeout: ms(400), ..HealthSpec::default() },
            Profile::Wan => HealthSpec::default(),
        };
        let store = match self.store {
            Store::Embedded => SessionStoreKind::Embedded,
            Store::OwnRedis | Store::OtherRedis(_) => SessionStoreKind::Redis,
        };
        let tls_port = self.https.as_ref().map(|_| HTTPS_PORT);
        ClusterSpec {
            version: twinsite_model::spec::SPEC_VERSION,
            cluster: self.cluster.clone(),
            profile: self.profile,
            timing: twinsite_model::spec::TimingOverrides::default(),
            sites: self.sites.iter().map(|site| self.site_spec(site)).collect(),
            nodes: self.nodes.iter().map(|node| self.node_spec(node)).collect(),
            upstreams: self.instances.iter().map(upstream_spec).collect(),
            floating_ips: vec![FloatingIpSpec {
                name: self.floating_ip.clone(),
                address: self.floating.ip(),
                ports: std::iter::once(self.floating.port()).chain(tls_port).collect(),
                tls_ports: tls_port.into_iter().collect(),
                provider: match self.ground {
                    Ground::Loopback => ProviderKind::Loopback,
                    Ground::Lab => ProviderKind::Netlink,
                },
                interface: match self.ground {
                    Ground::Loopback => None,
                    Ground::Lab => Some(lab_interface()),
                },
                sites: self.serving_sites().cloned().collect(),
                failback: twinsite_model::spec::Failback::Manual,
                on_quorum_unknown: None,
            }],
            certificates: self.https.as_deref().map(certificate).into_iter().collect(),
            routes: vec![RouteSpec {
                room_query: Some("roomId".to_owned()),
                connect_timeout: ms(500),
                response_timeout: ms(10_000),
                body_idle_timeout: ms(10_000),
                ..RouteSpec::new(name("meeting"))
            }],
            health,
            sessions: SessionsSpec { store, url: self.redis_url(), audit: true, ..SessionsSpec::default() },
            policy,
            proxy: twinsite_model::spec::ProxySpec::default(),
            drills: twinsite_model::spec::DrillsSpec::default(),
        }
    }

    fn site_spec(&self, site: &SiteName) -> SiteSpec {
        let witness = self.instances_at(site).next().is_none();
        SiteSpec {
            name: site.clone(),
            witness,
            announced_ip: (!witness).then(|| self.site_address(site)),
            announce: self.announce,
        }
    }

    fn node_spec(&self, node: &NodePlace) -> NodeSpec {
        let (serves, https) = (node.kind.serves(), SocketAddr::new(node.ip, HTTPS_PORT));
        NodeSpec {
            id: node.id,
            name: node.name.clone(),
            site: node.site.clone(),
            kind: node.kind,
            peer: SocketAddr::new(node.ip, PEER_PORT),
            api: self.api(node),
            http: serves.then(|| self.own_http(node)).into_iter().collect(),
            https: self.https.as_ref().filter(|_| serves).map(|_| https).into_iter().collect(),
        }
    }

    /// Each node's number by name, as answers and tokens name them.
    pub fn sites_by_node(&self) -> BTreeMap<NodeName, SiteName> {
        self.nodes.iter().map(|node| (node.name.clone(), node.site.clone())).collect()
    }
}

fn certificate(folder: &Path) -> CertificateSpec {
    CertificateSpec { name: name("clients"), chain: folder.join("tls.pem"), key: folder.join("tls.key") }
}

fn upstream_spec(instance: &InstancePlace) -> UpstreamSpec {
    UpstreamSpec::new(instance.name.clone(), instance.site.clone(), instance.address.to_string())
}

/// An address and no other one, as `ip` writes it.
pub(crate) fn alone(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn address(ground: Ground, family: Family, block: u8, network: u8, host: u8) -> IpAddr {
    let [first, second] = match (ground, family) {
        (Ground::Loopback, _) => [127, block],
        (Ground::Lab, Family::Ipv4) => LAB_NETWORK,
        (Ground::Lab, Family::Ipv6) => {
            return Ipv6Addr::new(LAB_NETWORK_V6, 0, 0, 0, 0, 0, network.into(), host.into()).into();
        }
    };
    IpAddr::V4(Ipv4Addr::new(first, second, network, host))
}

#[allow(clippy::expect_used)] // a constant
fn lab_interface() -> InterfaceName {
    InterfaceName::new(INTERFACE).expect("four letters and digits make an interface's name")
}

#[allow(clippy::expect_used)] // built from numbers
fn network(block: u8, network: u8) -> Cidr {
    format!("127.{block}.{network}.0/24").parse().expect("four numbers and a length make a prefix")
}

#[cfg(test)]
mod tests;
