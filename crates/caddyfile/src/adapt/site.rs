//! Sites: who asks for them, and what they do.

use super::address;
use super::directive::{self, Item, Level};
use super::matcher::Named;
use super::notes::{Notes, shown};
use super::options::Options;
use super::proxy::Backends;
use super::tls::Certificates;
use crate::document::{Document, Site as Written};
use crate::place::Place;
use twinsite_model::spec::{CertificateSpec, Scheme};

/// All sites of a file.
#[derive(Debug)]
pub(super) struct Sites<'d> {
    pub(super) list: Vec<Site<'d>>,
    /// For whom there is TLS and nothing without it, with the place of the first.
    pub(super) redirected: Option<(Vec<String>, Place)>,
    pub(super) certificates: Vec<(CertificateSpec, Place)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Site<'d> {
    pub(super) place: &'d Place,
    /// Whom it is for; its hosts of one kind together.
    pub(super) targets: Vec<Target>,
    pub(super) items: Vec<Item<'d>>,
}

/// Whom a site is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    /// Those of one rank. Empty for any.
    pub(super) hosts: Vec<String>,
    /// Less is looked at before: hosts, then those with `*`, the longer ones first, then any.
    pub(super) rank: usize,
}

/// Of a site for any host.
const RANK_OF_ANY: usize = usize::MAX;

impl Target {
    /// Whether it is for any host.
    pub(super) fn is_any(&self) -> bool {
        self.rank == RANK_OF_ANY
    }
}

fn rank(host: Option<&str>) -> usize {
    match host {
        None => RANK_OF_ANY,
        Some(host) if host.starts_with('*') => RANK_OF_ANY / 2 - host.split('.').count(),
        Some(_) => 0,
    }
}

/// A host with the scheme by which a site has it, and where it says so.
type Known<'d> = (Scheme, Option<String>, &'d Place);

impl<'d> Sites<'d> {
    /// Reads them.
    pub(super) fn read(
        document: &'d Document,
        options: &Options,
        backends: &mut Backends,
        notes: &mut Notes,
    ) -> Self {
        let mut known: Vec<Known<'d>> = Vec::new();
        let mut certificates = Certificates::default();
        let mut list = Vec::new();
        for site in &document.sites {
            list.extend(one(site, &mut known, &mut certificates, backends, notes));
        }
        let redirected = if options.redirects { redirected(&known) } else { None };
        Self { list, redirected, certificates: certificates.list }
    }
}

fn one<'d>(
    site: &'d Written,
    known: &mut Vec<Known<'d>>,
    certificates: &mut Certificates,
    backends: &mut Backends,
    notes: &mut Notes,
) -> Option<Site<'d>> {
    let place = &site.addresses.first()?.place;
    let mut targets: Vec<Target> = Vec::new();
    let mut first_host = None;
    for word in &site.addresses {
        let Some(address) = address::read(word, notes) else { continue };
        let is_same = |(scheme, host, _): &&Known<'d>| *scheme == address.scheme && *host == address.host;
        if let Some((_, _, other)) = known.iter().find(is_same) {
            let what = format!("`{}` is a site at line {} already", shown(&word.text), other.line);
            notes.error::<()>(&word.place, what, "put both into one site");
            continue;
        }
        known.push((address.scheme, address.host.clone(), &word.place));
        if address.host.as_ref().is_some_and(|host| host.starts_with('*')) {
            let what = format!(
                "`{}` stands for one more label to Caddy, and for any number of them to twinsite",
                word.text
            );
            notes.trap(&word.place, what, "write the hosts one by one if that is not meant");
        }
        first_host = first_host.or_else(|| address.host.clone());
        let rank = rank(address.host.as_deref());
        match targets.iter_mut().find(|target| target.scheme == address.scheme && target.rank == rank) {
            Some(target) => target.hosts.extend(address.host),
            None => {
                targets.push(Target {
                    scheme: address.scheme,
                    hosts: address.host.into_iter().collect(),
                    rank,
                });
            }
        }
    }
    let mut has_files = false;
    for directive in &site.directives {
        let place = &directive.name.place;
        match directive.name.text.as_str() {
            "tls" => {
                has_files |= certificates.read(directive, first_host.as_deref().unwrap_or_default(), notes);
            }
            "log" => notes.trap(
                place,
                "`log` has no meaning here",
                "remove it; `access_log` in the node.toml of each node writes a line for each request",
            ),
            _ => {}
        }
    }
    if !has_files && targets.iter().any(|target| target.scheme == Scheme::Https) {
        let what =
            "this site is for HTTPS and names no certificate, and twinsite gets none by itself yet (no ACME)";
        let remedy = "write `tls /CERTIFICATE.pem /KEY.pem` here, or a [[certificate]] in cluster.toml, and `tls_ports` at the \
                      [[floating_ip]]";
        notes.trap(place, what, remedy);
    }
    let items = directive::block(&site.directives, &Named::new(), Level::Site, backends, notes);
    Some(Site { place, targets, items })
}

/// Hosts that are sent from HTTP to HTTPS.
fn redirected(known: &[Known<'_>]) -> Option<(Vec<String>, Place)> {
    let is_in_clear = |host: &String| {
        known.iter().any(|(scheme, other, _)| *scheme == Scheme::Http && other.as_ref() == Some(host))
    };
    let mut hosts = Vec::new();
    let mut first = None;
    for (scheme, host, place) in known {
        if let (Scheme::Https, Some(host)) = (scheme, host)
            && !is_in_clear(host)
        {
            first = first.or(Some(*place));
            hosts.push(host.clone());
        }
    }
    first.map(|place| (hosts, place.clone()))
}
