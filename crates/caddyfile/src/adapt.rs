//! What a Caddyfile means here: its sites as routes, its backends as upstreams, and what twinsite does otherwise.
//!
//! ```text
//!  Document ── options.rs (global options) ── address.rs (sites) ── directive.rs (directives, put in order by order.rs)
//!           ── walk.rs (every way through a site's directives is a route) ── check.rs ──► Adapted
//! ```
//!
//! Nothing is dropped in silence. What cannot be said here is an error, and all errors are found at once; what can be said and
//! yet surprises is a [`Trap`].

mod address;
mod answer;
mod check;
mod condition;
mod directive;
mod duration;
mod headers;
mod health;
mod host;
mod line;
mod matcher;
mod merge;
mod names;
mod notes;
mod options;
mod order;
mod path;
mod proxy;
mod route;
mod site;
mod template;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod upstream;
mod walk;

pub use notes::{AdaptError, Trap};

use crate::document::Document;
use notes::Notes;
use site::Sites;
use std::collections::BTreeMap;
use twinsite_model::SiteName;
use twinsite_model::spec::{CertificateSpec, Cidr, HealthSpec, RouteSpec, UpstreamSpec};

/// What the Caddyfile does not know and whoever adapts it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The site of each upstream that is named here by its `host:port`.
    pub upstream_sites: BTreeMap<String, SiteName>,
    /// The sites that there are; an upstream whose host begins with the name of one is at that one.
    pub known_sites: Vec<SiteName>,
    /// The site of all other upstreams.
    pub site: Option<SiteName>,
    /// Leaves Socket.IO to the client's address where the Caddyfile does, although people in one room may then be on
    /// different instances.
    pub keep_ip_hash: bool,
}

/// What a Caddyfile says of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapted {
    /// Every backend that it names, once.
    pub upstreams: Vec<UpstreamSpec>,
    /// Its sites, the most specific routes first.
    pub routes: Vec<RouteSpec>,
    /// How upstreams are probed, if it says anything about that.
    pub health: Option<HealthSpec>,
    /// The files that it names.
    pub certificates: Vec<CertificateSpec>,
    /// Whose word on a client's address counts, if it says so.
    pub trusted_proxies: Vec<Cidr>,
    /// How many idle connections are kept, if it says so.
    pub idle_per_upstream_max: Option<u32>,
    /// What is supported and surprises, in the order of their places.
    pub traps: Vec<Trap>,
}

/// Says what a document means, or everything that stands in the way.
pub fn adapt(document: &Document, wishes: &Wishes) -> Result<Adapted, Vec<AdaptError>> {
    let mut notes = Notes::default();
    let options = options::read(&document.options, &mut notes);
    let mut backends = proxy::Backends::default();
    let sites = Sites::read(document, &options, &mut backends, &mut notes);
    let health = backends.health.spec();
    let idle_per_upstream_max = backends.idle.map(|(idle, _)| idle);
    let upstreams = upstream::named(&backends.pool, wishes, &mut notes);
    let routes = walk::routes(&sites, &upstreams, wishes, &mut notes);
    let adapted = Adapted {
        upstreams: upstreams.into_iter().filter_map(|upstream| upstream.spec).collect(),
        routes: routes.iter().map(|route| route.spec.clone()).collect(),
        health,
        certificates: sites.certificates.iter().map(|(certificate, _)| certificate.clone()).collect(),
        trusted_proxies: options.trusted_proxies,
        idle_per_upstream_max,
        traps: Vec::new(),
    };
    if notes.errors.is_empty() {
        let places =
            check::Places { routes: &routes, pool: &backends.pool, sites: &sites, health: &backends.health };
        check::check(&adapted, &places, &mut notes);
    }
    let (errors, traps) = notes.into_parts();
    if errors.is_empty() { Ok(Adapted { traps, ..adapted }) } else { Err(errors) }
}
