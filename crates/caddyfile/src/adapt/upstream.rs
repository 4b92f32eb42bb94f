//! Backends: their addresses, and what all routes together say of each.

use super::Wishes;
use super::names::Names;
use super::notes::{Notes, shown};
use crate::document::Word;
use crate::place::Place;
use std::collections::BTreeSet;
use std::net::IpAddr;
use twinsite_model::spec::validate::host_and_port;
use twinsite_model::spec::{UpstreamProtocol, UpstreamSpec, UpstreamTlsSpec};
use twinsite_model::{SiteName, UpstreamName};

/// Ports of one range.
const RANGE_MAX: u16 = 1_000;
/// Ports behind which usually somebody speaks TLS.
const PORTS_OF_TLS: [u16; 3] = [443, 3_443, 8_443];

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    H2c,
    Https,
}

/// One backend as a word names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// None if the word does not say.
    pub(super) speaks: Option<Speaks>,
    host: String,
    port: u16,
}

/// The backends that a word names: several if it has a range of ports.
pub(super) fn addresses(word: &Word, notes: &mut Notes) -> Option<Vec<Address>> {
    let wrong = |what: &str, notes: &mut Notes| {
        let remedy = "write `host:port`, `http://host:port`, `https://host:port`, `h2c://host:port` or `host:3443-3445`";
        notes.error(&word.place, format!("`{}`: {what}", shown(&word.text)), remedy)
    };
    let (speaks, rest) = match word.text.split_once("://") {
        None => (None, word.text.as_str()),
        Some(("http", rest)) => (Some(Speaks::Http), rest),
        Some(("https", rest)) => (Some(Speaks::Https), rest),
        Some(("h2c", rest)) => (Some(Speaks::H2c), rest),
        Some(_) => return wrong("the scheme is not supported", notes),
    };
    if rest.contains('{') {
        return wrong("an upstream has a fixed address, and this is a placeholder", notes);
    }
    if rest.contains('/') {
        return wrong("only TCP is supported, and no path", notes);
    }
    let usual = if speaks == Some(Speaks::Https) { "443" } else { "80" };
    // The last colon, unless it is one within an IPv6 address.
    let (host, ports) = match rest.rsplit_once(':') {
        Some((host, ports)) if !ports.ends_with(']') => (host, ports),
        _ => (rest, usual),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
        return wrong("the port is not a number from 1 to 65535", notes);
    };
    if first > last || last - first >= RANGE_MAX {
        return wrong("the range of ports is empty, or too long", notes);
    }
    for port in first..=last {
        if let Err(problem) = host_and_port(&format!("{host}:{port}")) {
            return wrong(problem, notes);
        }
    }
    Some((first..=last).map(|port| Address { speaks, host: host.to_owned(), port }).collect())
}

/// One backend, and what is said of it.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) place: Place,
    host: String,
    port: u16,
    /// By each `reverse_proxy` that has it.
    speaks: Vec<(Speaks, Place)>,
    tls: Option<UpstreamTlsSpec>,
    weight: Option<u32>,
}

impl Backend {
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What it speaks, all in all.
    fn protocol(&self) -> UpstreamProtocol {
        let all = |wanted| self.speaks.iter().all(|(speaks, _)| *speaks == wanted);
        if all(Speaks::Https) {
            UpstreamProtocol::Https
        } else if all(Speaks::H2c) {
            UpstreamProtocol::H2c
        } else {
            UpstreamProtocol::Http
        }
    }
}

/// All backends, each once.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Backend>);

impl Pool {
    /// The backend at this place in the list.
    pub(super) fn place(&self, index: usize) -> Option<&Place> {
        self.0.get(index).map(|backend| &backend.place)
    }

    /// Adds what one `reverse_proxy` says of a backend; gives its place in the list.
    pub(super) fn add(
        &mut self,
        address: &Address,
        at: &Place,
        (speaks, said_at): (Speaks, &Place),
        tls: &UpstreamTlsSpec,
        notes: &mut Notes,
    ) -> usize {
        let is_same = |backend: &Backend| backend.host == address.host && backend.port == address.port;
        let index = self.0.iter().position(is_same).unwrap_or_else(|| {
            self.0.push(Backend {
                place: at.clone(),
                host: address.host.clone(),
                port: address.port,
                speaks: Vec::new(),
                tls: None,
                weight: None,
            });
            self.0.len() - 1
        });
        let Some(backend) = self.0.get_mut(index) else { return index };
        let is_other = |(other, _): &&(Speaks, Place)| (*other == Speaks::Https) != (speaks == Speaks::Https);
        if let Some((_, other)) = backend.speaks.iter().find(is_other) {
            let what = format!(
                "`{}` is spoken to by TLS here and in clear at line {}, or the other way round",
                backend.address(),
                other.line
            );
            notes.error::<()>(said_at, what, "write one of them for all routes");
        }
        backend.speaks.push((speaks, said_at.clone()));
        if speaks == Speaks::Https {
            if backend.tls.as_ref().is_some_and(|other| other != tls) {
                let what = format!("the certificate of `{}` is looked at in two ways", backend.address());
                notes.error::<()>(said_at, what, "write the same `tls_...` lines wherever it is an upstream");
            }
            backend.tls = Some(tls.clone());
        }
        index
    }

    /// One upstream has one weight, whatever routes it has.
    pub(super) fn weigh(&mut self, index: usize, weight: u32, at: &Place, notes: &mut Notes) {
        let Some(backend) = self.0.get_mut(index) else { return };
        if backend.weight.is_some_and(|other| other != weight) {
            let what =
                format!("`{}` has another weight elsewhere, and an upstream has one", backend.address());
            notes.error::<()>(at, what, "write the same weight for all routes");
        }
        backend.weight = Some(weight);
    }
}

/// An upstream with its name; without what belongs to it if it cannot be said at which site it is.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: UpstreamName,
    pub(super) spec: Option<UpstreamSpec>,
}

/// Every backend as an upstream.
pub(super) fn named(pool: &Pool, wishes: &Wishes, notes: &mut Notes) -> Vec<Upstream> {
    let mut names = Names::default();
    let mut upstreams = Vec::new();
    let mut ports_told = BTreeSet::new();
    for backend in &pool.0 {
        let is_alone = pool.0.iter().filter(|other| other.host == backend.host).count() == 1;
        let like = if is_alone { backend.host.clone() } else { backend.address() };
        let Ok(name) = UpstreamName::new(names.free(&like, "upstream")) else { continue };
        warn(backend, &mut ports_told, notes);
        let spec = site(backend, wishes, notes).map(|site| UpstreamSpec {
            protocol: backend.protocol(),
            tls: backend.tls.clone().unwrap_or_default(),
            weight: backend.weight.unwrap_or(1),
            ..UpstreamSpec::new(name.clone(), site, backend.address())
        });
        upstreams.push(Upstream { name, spec });
    }
    upstreams
}

/// At which site it is.
fn site(backend: &Backend, wishes: &Wishes, notes: &mut Notes) -> Option<SiteName> {
    let address = backend.address();
    let begins = |site: &&SiteName| {
        let after = backend.host.strip_prefix(site.as_str());
        // `gra-1`, `gra1` and `gra.example.org`, but not `grafana`.
        after.is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    let like = wishes.known_sites.iter().filter(begins).max_by_key(|site| site.as_str().len());
    let site = wishes.upstream_sites.get(&address).or(like).or(wishes.site.as_ref());
    if site.is_none() {
        let remedy = format!(
            "say it with `--upstream-site {address}=SITE`, or `--site SITE` for all upstreams, or give it a name that begins \
             with the name of a site of the `--cluster` file, as in `gra-1`"
        );
        return notes.error(&backend.place, format!("it is not known at which site `{address}` is"), remedy);
    }
    site.cloned()
}

fn warn(backend: &Backend, ports_told: &mut BTreeSet<u16>, notes: &mut Notes) {
    let protocol = backend.protocol();
    for (_, place) in backend.speaks.iter().filter(|(speaks, _)| *speaks == Speaks::H2c) {
        let what = "`h2c` makes Caddy speak HTTP/2 only, and no HTTP/1.1, which WebSockets and Node's servers need; twinsite \
                    speaks HTTP/1.1 for WebSockets always";
        let remedy = if protocol == UpstreamProtocol::H2c {
            "every route to this upstream says so, so it gets `protocol = \"h2c\"`; remove `h2c` if it is a Node server"
        } else {
            "another route to this upstream does not say so, so it is spoken to in HTTP/1.1; remove `h2c`"
        };
        notes.trap(place, what, remedy);
    }
    let is_clear = protocol != UpstreamProtocol::Https;
    if is_clear && PORTS_OF_TLS.contains(&backend.port) && ports_told.insert(backend.port) {
        let what = format!("port {} is spoken to in clear, and usually speaks TLS", backend.port);
        let remedy = if backend.port == 3_443 {
            "write `https://` before it, unless multiparty-meeting has `httpOnly: true` in its configuration"
        } else {
            "write `https://` before it, unless the upstream really speaks HTTP there"
        };
        notes.trap(&backend.place, what, remedy);
    }
    let inner = backend.host.trim_start_matches('[').trim_end_matches(']');
    if backend.host == "localhost" || inner.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
        let what = format!("`{}` is another machine for each node", backend.address());
        notes.trap(&backend.place, what, "write the address at which all nodes reach the upstream");
    }
}
