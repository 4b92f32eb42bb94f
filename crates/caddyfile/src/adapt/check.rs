//! What is left to find wrong once everything is there: each bound that a specification has and no directive was asked
//! about.

use super::Adapted;
use super::health::Health;
use super::notes::Notes;
use super::route::Route;
use super::site::Sites;
use super::upstream::Pool;
use crate::place::Place;
use twinsite_model::spec::validate::{self, Finding};

/// Where what was made comes from.
pub(super) struct Places<'a> {
    pub(super) routes: &'a [Route],
    pub(super) pool: &'a Pool,
    pub(super) sites: &'a Sites<'a>,
    pub(super) health: &'a Health,
}

/// Says what a specification with this in it would be refused for.
pub(super) fn check(adapted: &Adapted, places: &Places<'_>, notes: &mut Notes) {
    let Some(spec) = adapted.alone() else { return };
    for finding in validate::check(&spec) {
        if let Some(place) = places.of(&finding) {
            notes.error::<()>(place, format!("{}: {}", finding.key, finding.problem), finding.remedy);
        }
    }
}

impl Places<'_> {
    /// Where a finding comes from; none if it is about what a Caddyfile does not say.
    fn of(&self, finding: &Finding) -> Option<&Place> {
        let first = || self.sites.list.first().map(|site| site.place);
        let (list, index) =
            finding.key.split_once('[').map_or((finding.key.as_str(), None), |(list, rest)| {
                let number = rest.split_once(']').and_then(|(number, _)| number.parse::<usize>().ok());
                (list, number.and_then(|number| number.checked_sub(1)))
            });
        match (list, index) {
            ("route", Some(index)) => self.routes.get(index).map(|route| &route.place),
            ("upstream", Some(index)) => self.pool.place(index),
            ("certificate", Some(index)) => self.sites.certificates.get(index).map(|(_, place)| place),
            ("route" | "upstream" | "certificate", None) => first(),
            (key, _) if key.starts_with("health.") => self.health.place().or_else(first),
            (key, _) if key.starts_with("proxy.") => first(),
            _ => None,
        }
    }
}
