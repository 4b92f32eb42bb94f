//! The links between sites, as rules of the bridge.

use super::{Host, LabError, feed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use twinsite_model::SiteName;

/// Which directions are cut.
#[derive(Debug)]
pub(super) struct Links {
    /// Each site's ends at the bridge.
    ports: BTreeMap<SiteName, Vec<String>>,
    cut: Mutex<BTreeSet<(SiteName, SiteName)>>,
}

impl Links {
    pub(super) fn new(hosts: &[Host]) -> Self {
        let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for host in hosts {
            ports.entry(host.site.clone()).or_default().push(host.port.clone());
        }
        Self { ports, cut: Mutex::default() }
    }

    /// Nothing is cut.
    pub(super) fn make(&self, namespace: &str) -> Result<(), LabError> {
        self.apply(namespace, &BTreeSet::new())
    }

    pub(super) fn is_cut(&self, from: &SiteName, to: &SiteName) -> bool {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.contains(&(from.clone(), to.clone()))
    }

    pub(super) fn cut(
        &self,
        namespace: &str,
        from: &SiteName,
        to: &SiteName,
        cut: bool,
    ) -> Result<(), LabError> {
        let mut known = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = known.clone();
        if cut {
            wanted.insert((from.clone(), to.clone()));
        } else {
            wanted.remove(&(from.clone(), to.clone()));
        }
        self.apply(namespace, &wanted)?;
        *known = wanted;
        Ok(())
    }

    /// All cuts in one transaction.
    fn apply(&self, namespace: &str, cut: &BTreeSet<(SiteName, SiteName)>) -> Result<(), LabError> {
        let rules = cut.iter().map(|(from, to)| {
            let ports = |site| self.ports.get(site).map(|ports| ports.join(", ")).unwrap_or_default();
            format!("    iifname {{ {} }} oifname {{ {} }} drop\n", ports(from), ports(to))
        });
        let text = format!(
            "table bridge links\ndelete table bridge links\ntable bridge links {{\n  chain forward {{\n    \
             type filter hook forward priority 0\n{}  }}\n}}\n",
            rules.collect::<String>()
        );
        feed("ip", &["netns", "exec", namespace, "nft", "-f", "-"], &text)
    }
}
