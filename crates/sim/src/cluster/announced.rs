//! What meeting instances may announce: a floating address only where it was really answered for, as freshly as was
//! agreed; nothing older after something newer; and in the end what follows from the agreed owners.

use super::instances::{Files, Written};
use super::oracle::Oracle;
use super::provider::SimProvider;
use super::sight::Sight;
use crate::clock::TrueTime;
use crate::violation::Rule;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twinsite_model::spec::AnnounceMode;
use twinsite_model::{ClusterSpec, FloatingIpName, NodeId, SiteName, State, Token};

/// How old what a node saw at a provider may be when it is written down, at most.
const SEEN_WITHIN: TrueTime = 8_000_000_000;

/// Under which token every address was owned, by the token that counts all moves.
#[derive(Default)]
pub(super) struct Agreed(BTreeMap<Token, BTreeMap<FloatingIpName, Token>>);

impl Agreed {
    /// A node has this state.
    pub(super) fn note(&mut self, state: &State) {
        self.0.entry(state.session_token()).or_insert_with(|| {
            let entries = state.floating_ips.iter();
            entries.filter_map(|(ip, entry)| Some((ip.clone(), entry.owner.as_ref()?.token))).collect()
        });
    }

    /// The token of an address when that was the count. A count that nobody was seen with is taken for the one before.
    fn at(&self, count: Token, ip: &FloatingIpName) -> Option<Token> {
        self.0.range(..=count).next_back()?.1.get(ip).copied()
    }
}

/// Looks at what was written.
pub(super) fn look(
    written: &Written,
    spec: &ClusterSpec,
    (provider, sight): (&SimProvider, &Sight),
    now: TrueTime,
    oracle: &mut Oracle,
) {
    let Written { upstream, site, by, wanted, newest, answered } = written;
    if let Some(newest) = newest.filter(|newest| *newest > wanted.token) {
        let detail = format!("{upstream}: {by} writes under {} after {newest}", wanted.token);
        oracle.report(Rule::AnnouncedGrows, now, detail);
    }
    let Some(ip) = spec.floating_ips.iter().find(|ip| ip.address == wanted.address) else { return };
    if provider.routes(&ip.name) {
        let is_there = |node: NodeId| sight.is_at(node, site);
        if !provider.has_routed(&ip.name, now.saturating_sub(SEEN_WITHIN), is_there) {
            let detail = format!("{upstream} is told {} by {by}, and it was not routed to {site}", ip.name);
            oracle.report(Rule::AnnouncedFollows, now, detail);
        }
        return;
    }
    let agreed = oracle.agreed.at(wanted.token, &ip.name);
    if answered.is_none() || *answered < agreed {
        let detail = format!(
            "{upstream} is told {} by {by} under {}, when it was owned under {agreed:?}: at {site} it was last answered for under {answered:?}",
            ip.name, wanted.token
        );
        oracle.report(Rule::AnnouncedFollows, now, detail);
    }
}

/// The first instance of these sites that does not announce what it should, or is not agreed to.
pub(super) fn misannounced(files: &Files, state: &State, sites: &BTreeSet<SiteName>) -> Option<String> {
    let spec = state.spec.as_ref()?;
    let mut tended = files.announced().into_iter().filter(|(_, site, _)| sites.contains(site));
    tended.find_map(|(upstream, site, address)| {
        let expected = expected(state, spec, &site);
        let agreed = state.announced.get(&upstream).map(|record| record.address);
        (address != expected || agreed != expected)
            .then(|| format!("{upstream} announces {address:?}, is agreed to {agreed:?}, not {expected:?}"))
    })
}

fn expected(state: &State, spec: &ClusterSpec, site: &SiteName) -> Option<IpAddr> {
    let site = spec.site(site)?;
    let owned = |ip: &FloatingIpName| state.owner_site(ip) == Some(&site.name);
    let floating = spec.floating_ips.iter().find(|ip| owned(&ip.name)).map(|ip| ip.address);
    floating.filter(|_| site.announce == AnnounceMode::Floating).or(site.announced_ip)
}
