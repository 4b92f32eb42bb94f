//! What can be drawn: a line that breaks something, and the lines that mend it.

use crate::layout::{Ground, Layout};
use fastrand::Rng;

/// What must not be broken in two places at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Domain {
    /// Nodes, their hosts, and the links between sites.
    Cluster,
    /// Meeting instances.
    Instances,
    /// Both of a site.
    Site,
    /// Redis.
    Store,
}

impl Domain {
    /// Whether both may be broken at the same time.
    fn goes_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Site, other) | (other, Self::Site) => other == Self::Store,
            (one, other) => one != other,
        }
    }
}

/// A fault, in the words of the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) domain: Domain,
    pub(super) breaks: String,
    pub(super) mends: Vec<String>,
}

/// Everything that can be drawn for a cluster.
pub(super) struct Menu {
    faults: Vec<Fault>,
}

/// What stands still goes on; what has ended is started after every fault. `victims` are all that were ever hit; those that
/// are well stay as they are.
const NODES_GO_ON: [&str; 1] = ["do.thaw = { guardians = \"victims\", nodes = \"victims\" }"];
const INSTANCES_GO_ON: [&str; 3] = [
    "do.thaw = { instances = \"victims\" }",
    "do.start = { instances = \"victims\" }",
    "do.upstream = { instances = \"victims\", answer = \"well\" }",
];
const HEAL: &str = "do = \"heal-links\"";

impl Menu {
    pub(super) fn new(layout: &Layout, own_redis: bool) -> Self {
        let mut menu = Self { faults: Vec::new() };
        menu.add_processes(layout);
        menu.add_sites();
        menu.add_links(layout);
        menu.add_instances(layout);
        if layout.ground == Ground::Lab {
            menu.add_hosts(layout);
        }
        if own_redis {
            menu.add_redis();
        }
        menu
    }

    /// Any fault.
    pub(super) fn draw(&self, rng: &mut Rng) -> Fault {
        self.faults[rng.usize(..self.faults.len())].clone()
    }

    /// One that may happen while this one is not mended.
    pub(super) fn draw_beside(&self, fault: &Fault, rng: &mut Rng) -> Option<Fault> {
        let fits = |other: &&Fault| fault.domain.goes_with(other.domain);
        let fitting: Vec<_> = self.faults.iter().filter(fits).collect();
        rng.choice(fitting).cloned()
    }

    fn add(&mut self, domain: Domain, breaks: String, mends: &[&str]) {
        let mends = mends.iter().map(|mend| (*mend).to_owned()).collect();
        self.faults.push(Fault { domain, breaks, mends });
    }

    fn add_processes(&mut self, layout: &Layout) {
        let names: Vec<_> = layout.nodes.iter().map(|node| node.name.as_str()).collect();
        for node in ["owner", "leader"].into_iter().chain(names) {
            for breaks in [
                format!("do.kill = {{ nodes = \"{node}\" }}"),
                format!("do.kill = {{ guardians = \"{node}\" }}"),
                format!("do.kill = {{ guardians = \"{node}\", nodes = \"{node}\" }}"),
                format!("do.freeze = {{ nodes = \"{node}\" }}"),
                format!("do.freeze = {{ guardians = \"{node}\" }}"),
                format!("do.stop = {{ nodes = \"{node}\" }}"),
            ] {
                self.add(Domain::Cluster, breaks, &NODES_GO_ON);
            }
        }
    }

    fn add_sites(&mut self) {
        for site in ["owner-site", "other-site"] {
            let nodes = format!("do.kill = {{ guardians = \"{site}\", nodes = \"{site}\" }}");
            self.add(Domain::Cluster, nodes, &NODES_GO_ON);
            let all =
                format!("do.kill = {{ guardians = \"{site}\", nodes = \"{site}\", instances = \"{site}\" }}");
            let mends = [&NODES_GO_ON[..], &INSTANCES_GO_ON[..]].concat();
            self.add(Domain::Site, all, &mends);
        }
    }

    fn add_links(&mut self, layout: &Layout) {
        let heal = &[HEAL];
        for site in &layout.sites {
            self.add(Domain::Cluster, format!("do.isolate = \"{site}\""), heal);
            // Shorter than a lease, and about as long as an election.
            let flaps = format!(
                "do.repeat = {{ times = 4, every = \"600ms\", steps = [{{ do.isolate = \"{site}\" }}, \
                 {{ after = \"200ms\", do = \"heal-links\" }}] }}"
            );
            self.add(Domain::Cluster, flaps, heal);
        }
        let pairs = layout.sites.iter().flat_map(|from| layout.sites.iter().map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            self.add(Domain::Cluster, format!("do.cut = {{ from = \"{from}\", to = \"{to}\" }}"), heal);
            // So much as both profiles bear.
            let slow = format!(
                "do.shape = {{ from = \"{from}\", to = \"{to}\", delay = \"3ms\", jitter = \"3ms\" }}"
            );
            self.add(Domain::Cluster, slow, heal);
            if layout.ground == Ground::Lab {
                let lossy = format!("do.shape = {{ from = \"{from}\", to = \"{to}\", loss_percent = 10 }}");
                self.add(Domain::Cluster, lossy, heal);
            }
        }
    }

    fn add_instances(&mut self, layout: &Layout) {
        let names: Vec<_> = layout.instances.iter().map(|instance| instance.name.as_str()).collect();
        for instance in ["busiest"].into_iter().chain(names) {
            let mut breaks = vec![
                format!("do.kill = {{ instances = \"{instance}\" }}"),
                format!("do.freeze = {{ instances = \"{instance}\" }}"),
            ];
            breaks.extend(["slow", "errors", "wrong", "truncated"].map(|answer| {
                format!("do.upstream = {{ instances = \"{instance}\", answer = \"{answer}\" }}")
            }));
            for breaks in breaks {
                self.add(Domain::Instances, breaks, &INSTANCES_GO_ON);
            }
        }
        for site in ["owner-site", "other-site"] {
            self.add(Domain::Instances, format!("do.kill = {{ instances = \"{site}\" }}"), &INSTANCES_GO_ON);
        }
    }

    fn add_hosts(&mut self, layout: &Layout) {
        let names: Vec<_> = layout.nodes.iter().map(|node| node.name.as_str()).collect();
        for node in ["owner", "leader"].into_iter().chain(names) {
            self.add(Domain::Cluster, format!("do.cut-host = {{ nodes = \"{node}\" }}"), &[HEAL]);
            self.add(Domain::Cluster, format!("do.freeze-host = {{ nodes = \"{node}\" }}"), &NODES_GO_ON);
        }
        self.add(Domain::Cluster, "do.flush-firewall = { nodes = \"owner\" }".to_owned(), &[]);
    }

    fn add_redis(&mut self) {
        // Each twice, or they would seldom be drawn.
        for (breaks, mend) in [("kill", "start"), ("freeze", "thaw"), ("replica", "promote")].repeat(2) {
            let mends: &[&str] = &[&format!("do.redis = \"{mend}\"")];
            self.add(Domain::Store, format!("do.redis = \"{breaks}\""), mends);
        }
        self.add(Domain::Store, "do.redis = \"flush\"".to_owned(), &[]);
    }
}
