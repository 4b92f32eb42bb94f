//! What one seed is about: the cluster, its clocks, its network, and which misfortunes it meets. Each seed enables a
//! random part of them, so that every mixture comes up and each one alone does, too.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use twinsite_model::ClusterSpec;
use twinsite_model::Profile;
use twinsite_model::spec::{
    AnnounceMode, Failback, HumanDuration, SessionStoreKind, TimingOverrides, from_toml,
};

/// Nodes of every simulated cluster: two at each site, and the witness.
pub(crate) const NODES: usize = 5;

const MS: u64 = 1_000_000;
const US: u64 = 1_000;

/// Two sites with two proxies and two upstreams each, a witness, four floating IPs (of which a seed keeps some).
const SPEC: &str = r#"
version = 1
cluster = "sim"
profile = "lan"
site = [
  { name = "gra", announced_ip = "192.0.2.10" },
  { name = "sbg", announced_ip = "198.51.100.10" },
  { name = "wit", witness = true },
]
node = [
  { id = 1, name = "gra-1", site = "gra", peer = "10.1.0.1:7100", api = "10.1.0.1:7101" },
  { id = 2, name = "gra-2", site = "gra", peer = "10.1.0.2:7100", api = "10.1.0.2:7101" },
  { id = 3, name = "sbg-1", site = "sbg", peer = "10.2.0.1:7100", api = "10.2.0.1:7101" },
  { id = 4, name = "sbg-2", site = "sbg", peer = "10.2.0.2:7100", api = "10.2.0.2:7101" },
  { id = 5, name = "wit-1", site = "wit", kind = "witness", peer = "10.3.0.1:7100", api = "10.3.0.1:7101" },
]
upstream = [
  { name = "gra-meet-1", site = "gra", address = "10.1.0.11:3443" },
  { name = "gra-meet-2", site = "gra", address = "10.1.0.12:3443" },
  { name = "sbg-meet-1", site = "sbg", address = "10.2.0.11:3443" },
  { name = "sbg-meet-2", site = "sbg", address = "10.2.0.12:3443" },
]
floating_ip = [
  { name = "public", address = "127.0.0.10", ports = [8080], provider = "loopback" },
  { name = "second", address = "127.0.0.11", ports = [8080], provider = "loopback", sites = ["sbg", "gra"] },
  { name = "third", address = "127.0.0.12", ports = [8080], provider = "loopback" },
  { name = "fourth", address = "127.0.0.13", ports = [8080], provider = "loopback" },
]
route = [{ name = "all", path = "/*" }]
"#;

/// The misfortunes that a seed may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Misfortune {
    /// A process ends, and is started again.
    Crash,
    /// A machine ends with everything on it, the guardian included.
    HostCrash,
    /// A process stands still; its guardian lives.
    Freeze,
    /// A machine stands still and its boot clock goes on.
    Suspend,
    /// A guest stands still together with its clocks, and finds out afterwards for how long.
    GuestPause,
    /// Nodes are cut off from one another.
    Partition,
    /// Messages pass in one direction only.
    OneWayCut,
    /// A site is cut off from the others.
    SiteIsolation,
    /// A site is lost.
    SiteLoss,
    /// Clocks change their rate; wall clocks jump.
    Clocks,
    /// Upstreams fail, one or a whole site's.
    Upstreams,
    /// A process is stopped in good order, and started again.
    Restart,
}

impl Misfortune {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Crash,
        Self::HostCrash,
        Self::Freeze,
        Self::Suspend,
        Self::GuestPause,
        Self::Partition,
        Self::OneWayCut,
        Self::SiteIsolation,
        Self::SiteLoss,
        Self::Clocks,
        Self::Upstreams,
        Self::Restart,
    ];
}

/// How long something takes, in nanoseconds: mostly between the two ends, sometimes up to `tail` more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) tail: u64,
    /// How often the tail is drawn from.
    pub(crate) tail_chance: f64,
}

impl Span {
    const fn new(min: u64, max: u64) -> Self {
        Self { min, max, tail: 0, tail_chance: 0.0 }
    }

    const fn with_tail(self, tail: u64, tail_chance: f64) -> Self {
        Self { tail, tail_chance, ..self }
    }

    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> u64 {
        let usual = rng.u64(self.min..=self.max);
        let late = self.tail > 0 && rng.f64() < self.tail_chance;
        if late { usual + rng.u64(0..=self.tail) } else { usual }
    }
}

/// What one seed is about.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) spec: Arc<ClusterSpec>,
    /// Timings that an operator may switch to; empty if none does.
    pub(crate) other_timings: Vec<TimingOverrides>,
    pub(crate) misfortunes: Vec<Misfortune>,
    /// The pause between two misfortunes.
    pub(crate) pace: Span,
    /// How long one lasts.
    pub(crate) lasting: Span,
    /// How long misfortunes go on.
    pub(crate) faulty_for: u64,
    /// The pause between two wishes of people; none if nobody wants anything.
    pub(crate) people: Option<Span>,
    /// Whether clocks are as wrong as they may be, rather than somewhere within the bound.
    pub(crate) extreme_clocks: bool,
    pub(crate) near: Span,
    pub(crate) far: Span,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// Whether what was sent before a cut still arrives after it.
    pub(crate) stragglers: bool,
    /// Whether a frozen process finds in its buffers what was sent to it.
    pub(crate) buffers: bool,
    /// From a decision to its entry in the log.
    pub(crate) to_log: Span,
    /// Whether proposals of one step may enter the log in another order.
    pub(crate) disorder: bool,
    /// From the confirmation of a round, or the fate of a proposal, to the controller's notice.
    pub(crate) to_notice: Span,
    /// From the end of a quorum round to the controller's notice.
    pub(crate) to_round_notice: Span,
    /// From commitment to application.
    pub(crate) to_apply: Span,
    /// From a change of leadership to the controller's notice.
    pub(crate) to_lead: Span,
    /// From the order to hold an address to answering for it.
    pub(crate) to_attach: Span,
    /// From the order to stop, when there is time, to the last answer.
    pub(crate) to_stop: Span,
    /// From the end of a process to its guardian's word.
    pub(crate) to_detect: Span,
    /// From the end of a process to its next life.
    pub(crate) to_restart: Span,
    /// How often a node's opinion is wrong.
    pub(crate) noise: f64,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        let wan = rng.f64() < 0.06;
        let spec = spec(rng, wan);
        let unit = if wan { 8 } else { 1 };
        let mut misfortunes: Vec<_> = Misfortune::ALL.into_iter().filter(|_| rng.f64() < 0.4).collect();
        if misfortunes.is_empty() {
            misfortunes.push(Misfortune::ALL[rng.usize(0..Misfortune::ALL.len())]);
        }
        let mut slow = |usual: Span, tail: u64| match rng.u32(0..4) {
            0 => usual.with_tail(tail * unit, 0.1),
            1 => usual.with_tail(tail * unit, 0.01),
            _ => usual,
        };
        let to_log = slow(Span::new(1_000, 300 * US), 250 * MS);
        let to_notice = slow(Span::new(1_000, 200 * US), 250 * MS);
        let to_round_notice = slow(Span::new(1_000, 200 * US), 600 * MS);
        let to_apply = slow(Span::new(1_000, 500 * US), 200 * MS);
        let to_lead = slow(Span::new(1_000, MS), 150 * MS);
        let to_attach = slow(Span::new(50 * US, 3 * MS), 60 * MS);
        let to_stop = slow(Span::new(100 * US, 20 * MS), 700 * MS);
        let to_detect = slow(Span::new(MS, 30 * MS), 900 * MS);
        let (mut near, mut far) =
            (slow(Span::new(30 * US, 200 * US), 40 * MS), slow(Span::new(300 * US, 3 * MS * unit), 120 * MS));
        if rng.f64() < 0.15 {
            (near, far) = (Span::new(500, 5 * US), Span::new(US, 10 * US));
        }
        Self {
            other_timings: if rng.f64() < 0.2 { other_timings(wan) } else { Vec::new() },
            misfortunes,
            pace: Span::new(20 * MS * unit, rng.u64(150..=900) * MS * unit),
            lasting: Span::new(5 * MS * unit, 400 * MS * unit).with_tail(1_200 * MS * unit, 0.25),
            faulty_for: rng.u64(1_500..=3_500) * MS * unit,
            people: (rng.f64() < 0.6).then(|| Span::new(10 * MS * unit, 700 * MS * unit)),
            extreme_clocks: rng.bool(),
            near,
            far,
            loss: if rng.bool() { 0.0 } else { rng.f64() * 0.05 },
            duplication: if rng.bool() { 0.0 } else { rng.f64() * 0.05 },
            stragglers: rng.bool(),
            buffers: rng.bool(),
            to_log,
            disorder: rng.f64() < 0.25,
            to_notice,
            to_round_notice,
            to_apply,
            to_lead,
            to_attach,
            to_stop,
            to_detect,
            to_restart: Span::new(nanos_of(spec.timing().election_max), 600 * MS * unit),
            noise: if rng.bool() { 0.0 } else { rng.f64() * 0.03 },
            spec: Arc::new(spec),
        }
    }
}

fn nanos_of(duration: Duration) -> u64 {
    crate::clock::nanos(duration)
}

/// The text above, as a specification.
pub(crate) fn base() -> ClusterSpec {
    static BASE: OnceLock<ClusterSpec> = OnceLock::new();
    let parsed = BASE.get_or_init(|| {
        from_toml(SPEC).unwrap_or_else(|error| unreachable!("the text above is a specification: {error}"))
    });
    parsed.clone()
}

fn spec(rng: &mut fastrand::Rng, wan: bool) -> ClusterSpec {
    let ms = |ms| HumanDuration(Duration::from_millis(ms));
    let mut spec = base();
    if wan {
        spec.profile = Profile::Wan;
    }
    spec.floating_ips.truncate(match rng.u32(0..10) {
        0..6 => 1,
        6..9 => 2,
        _ => 4,
    });
    spec.timing.drift_ppm = match rng.u32(0..10) {
        0..6 => None,
        6..8 => Some(20_000),
        _ => Some(100_000),
    };
    spec.policy.failovers_max = [64, 64, 64, 3, 1][rng.usize(0..5)];
    if rng.bool() {
        spec.policy.failover_window = ms(1_500);
    }
    spec.policy.drain_timeout = ms([0, 150, 1_000][rng.usize(0..3)]);
    spec.policy.healthy_upstreams_min = rng.u32(0..=2);
    if rng.f64() < 0.2 {
        for ip in &mut spec.floating_ips {
            ip.failback = Failback::After(ms(1_000));
        }
    }
    if rng.f64() < 0.3 {
        for site in &mut spec.sites {
            site.announce = AnnounceMode::Floating;
        }
    }
    if rng.bool() {
        spec.sessions.store = SessionStoreKind::Redis;
        spec.sessions.url = Some("redis://10.9.0.1:6379/0".to_owned());
    }
    spec
}

/// Shorter and longer leases than the profile's, and back.
fn other_timings(wan: bool) -> Vec<TimingOverrides> {
    let leases = if wan { [2_000, 4_000, 6_000] } else { [310, 500, 900] };
    let lease = |ms| TimingOverrides {
        lease: Some(HumanDuration(Duration::from_millis(ms))),
        ..TimingOverrides::default()
    };
    leases.into_iter().map(lease).chain([TimingOverrides::default()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::spec::validate;

    #[test]
    fn every_scenario_has_a_specification_that_an_operator_could_apply() {
        for seed in 0..300 {
            let mut scenario = Scenario::draw(&mut fastrand::Rng::with_seed(seed));
            let mut specs = vec![ClusterSpec::clone(&scenario.spec)];
            for timing in scenario.other_timings.drain(..) {
                let drift_ppm = scenario.spec.timing.drift_ppm;
                specs.push(ClusterSpec {
                    timing: TimingOverrides { drift_ppm, ..timing },
                    ..ClusterSpec::clone(&scenario.spec)
                });
            }
            for spec in specs {
                assert_eq!(validate::check(&spec), []);
            }
        }
    }
}
