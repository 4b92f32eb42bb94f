//! Sites.

use super::{Findings, SITES, key, unique, unusable};
use crate::spec::{AnnounceMode, ClusterSpec};

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    findings.count("site", spec.sites.len(), SITES);
    let sites = || spec.sites.iter().enumerate();
    unique(
        sites().map(|(index, site)| (&site.name, key("site", index, &site.name, "name"))),
        "give each site its own name",
        findings,
    );
    unique(
        sites().filter_map(|(index, site)| {
            Some((site.announced_ip?, key("site", index, &site.name, "announced_ip")))
        }),
        "give each site its own public address",
        findings,
    );
    if !spec.sites.is_empty() && spec.sites.iter().all(|site| site.witness) {
        findings.add("site", "every site is a witness", "take `witness` away from the sites that serve");
    }
    for (index, site) in sites() {
        let announced = key("site", index, &site.name, "announced_ip");
        let has_upstreams = spec.upstreams.iter().any(|upstream| upstream.site == site.name);
        match site.announced_ip {
            Some(_) if site.witness => {
                findings.add(announced, "a witness site serves nothing", "remove it, or remove `witness`");
            }
            None if has_upstreams && !site.witness => findings.add(
                announced,
                "it is missing, and the site has upstreams",
                "write the public address that they announce for media",
            ),
            Some(address) => {
                if let Some(why) = unusable(address) {
                    findings.add(announced, format!("{address} {why}"), "write the site's own address");
                } else if let Some(ip) = spec.floating_ips.iter().find(|ip| ip.address == address) {
                    let problem = format!("{address} is the floating IP `{}`", ip.name);
                    let remedy =
                        "write the site's own address; `announce = \"floating\"` announces the floating one";
                    findings.add(announced, problem, remedy);
                }
            }
            None => {}
        }
        let may_own = spec.floating_ips.iter().any(|ip| spec.owner_sites(ip).contains(&&site.name));
        if site.announce == AnnounceMode::Floating && !site.witness && !may_own {
            findings.add(
                key("site", index, &site.name, "announce"),
                "the site may not own any floating IP, so it has none to announce",
                "write `announce = \"site\"`, or add the site to a [[floating_ip]]",
            );
        }
    }
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    let serving = || spec.sites.iter().enumerate().filter(|(_, site)| !site.witness);
    if serving().count() == 1 {
        findings.add(
            "site",
            "only one site serves: its loss cannot be repaired",
            "add a second site with proxies and upstreams",
        );
    }
    for (index, site) in serving() {
        if !spec.upstreams.iter().any(|upstream| upstream.site == site.name) {
            findings.add(
                key("site", index, &site.name, "name"),
                "the site has no upstreams: it can only relay to other sites",
                "add an [[upstream]] with this site, or mark the site as a witness",
            );
        }
    }
}
