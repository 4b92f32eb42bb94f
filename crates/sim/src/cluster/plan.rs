//! What one seed is about: which cluster, which misfortunes, how often, and in what weather.

use super::disk::Health;
use super::holding::Pace;
use super::net::Weather;
use super::provider::Habits;
use crate::clock::TrueTime;
use crate::scenario::base;
use std::sync::Arc;
use std::time::Duration;
use twinsite_model::spec::{AnnounceMode, Failback, HumanDuration, ProviderKind, SessionStoreKind};
use twinsite_model::{ClusterSpec, Format, Profile};

const MS: TrueTime = 1_000_000;
/// The longest way of the quickest message between sites that are far apart. There and back it must fit into the round
/// trip that the `wan` timings allow (0.35 s), with what a healthy network spreads.
const WIDE_DELAY_MAX: TrueTime = 160 * MS;
/// How much later the slowest message comes there.
const WIDE_MORE_MAX: TrueTime = 60 * MS;

/// What can happen to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfortune {
    /// A process ends without a word, and is started again. Its guardian says so.
    Crash,
    /// All of them do.
    CrashOfAll,
    /// The power of a machine is cut: nobody says anything.
    PowerLoss,
    /// The power of a whole site is cut.
    SiteLoss,
    /// A process is stopped in good order, and started again.
    Restart,
    /// SIGSTOP and SIGCONT.
    Freeze,
    /// A machine stands still; its boot clock goes on.
    Suspend,
    /// A machine stands still with its clock.
    GuestPause,
    /// A clock changes its rate.
    Drift,
    /// A wall clock is set wrong, or right.
    WallClock,
    /// Nothing passes between two nodes, in one direction.
    OneWayCut,
    /// One node is cut off from all the others.
    Isolation,
    /// A site is cut off from everything else.
    SiteIsolation,
    /// Two parts do not hear each other.
    Split,
    /// Two parts do not hear each other, but one node hears both.
    Bridge,
    /// Each node hears its two neighbours only.
    Ring,
    /// A disk takes longer than the voters' lease.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// A disk is gone with everything on it, and the machine joins again under a new id.
    LostDisk,
    /// All machines but one are lost for good, and a person has that one go on alone.
    Disaster,
    /// Upstreams fail: one, or all of a site.
    Upstreams,
    /// Nobody at a site, or anywhere, gets through to the provider.
    ProviderAway,
    /// Somebody moves an address at the provider's console.
    MovedByHand,
    /// A node ends in good order and comes back as a newer program.
    Upgrade,
    /// A bit of a disk has flipped, and the machine joins again under a new id.
    FlippedBit,
    /// Somebody edits or deletes what an instance is told to announce.
    TouchedFile,
    /// The Redis is started again and has lost everything.
    RedisEmptied,
    /// The Redis is killed, and its replica takes its place without the last writes.
    RedisPromoted,
    /// The Redis stands still.
    RedisHangs,
    /// The Redis takes no writes.
    RedisRefuses,
}

impl Misfortune {
    const fn is_of_redis(self) -> bool {
        matches!(self, Self::RedisEmptied | Self::RedisPromoted | Self::RedisHangs | Self::RedisRefuses)
    }
}

/// How rooms are kept, and how many people come.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoomsPlan {
    /// In a Redis, or in the replicated state.
    pub(super) redis: bool,
    pub(super) settle: Duration,
    pub(super) keep_interval: Duration,
    pub(super) visit_every: Duration,
}

const ALL: [Misfortune; 30] = [
    Misfortune::Crash,
    Misfortune::CrashOfAll,
    Misfortune::PowerLoss,
    Misfortune::SiteLoss,
    Misfortune::Restart,
    Misfortune::Freeze,
    Misfortune::Suspend,
    Misfortune::GuestPause,
    Misfortune::Drift,
    Misfortune::WallClock,
    Misfortune::OneWayCut,
    Misfortune::Isolation,
    Misfortune::SiteIsolation,
    Misfortune::Split,
    Misfortune::Bridge,
    Misfortune::Ring,
    Misfortune::SlowDisk,
    Misfortune::FullDisk,
    Misfortune::LostDisk,
    Misfortune::Disaster,
    Misfortune::Upstreams,
    Misfortune::ProviderAway,
    Misfortune::MovedByHand,
    Misfortune::Upgrade,
    Misfortune::FlippedBit,
    Misfortune::TouchedFile,
    Misfortune::RedisEmptied,
    Misfortune::RedisPromoted,
    Misfortune::RedisHangs,
    Misfortune::RedisRefuses,
];

/// One seed's mixture.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) misfortunes: Vec<Misfortune>,
    /// The time between two of them, on average.
    pub(super) every: Duration,
    pub(super) weather: Weather,
    pub(super) disk: Health,
    pub(super) pace: Pace,
    /// The clocks are off by at most so many parts per million.
    pub(super) drift_ppm: i32,
    /// Whether each is as wrong as it may be, and not somewhere in between.
    pub(super) extreme_clocks: bool,
    /// Entries after which a snapshot is taken.
    pub(super) snapshot_after: u64,
    /// How often somebody asks for something.
    pub(super) ask_every: Duration,
    /// Of a hundred questions, how many are a person's wish.
    pub(super) wishes: u32,
    /// Of a hundred questions, how many are followed by a wish about drills.
    pub(super) drills: u32,
    /// How the provider behaves, where an address has one.
    pub(super) habits: Habits,
    /// The newest format that the nodes read at first.
    pub(super) format: Format,
    /// How long a guardian needs to notice the end of a process, at most.
    pub(super) noticed_within: Duration,
    pub(super) rooms: RoomsPlan,
}

impl Plan {
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        // Chance of its own, so that the other seeds are what they were before there were such distances.
        let mut apart = fastrand::Rng::with_seed(!random.get_seed());
        let few = random.u32(1..=3);
        let misfortunes = ALL.into_iter().filter(|_| random.u32(..4) < few);
        let mut misfortunes: Vec<_> = misfortunes.collect();
        let rooms = RoomsPlan {
            redis: random.bool(),
            settle: Duration::from_millis(random.u64(500..=5_000)),
            keep_interval: Duration::from_millis(random.u64(500..=2_000)),
            visit_every: Duration::from_millis(random.u64(50..=500)),
        };
        misfortunes.retain(|misfortune| rooms.redis || !misfortune.is_of_redis());
        let delay_min = random.u64(20_000..=MS);
        let far = random.u32(..4) == 0;
        let drift_ppm = if random.u32(..3) == 0 { 99_000 } else { random.i32(0..=1_000) };
        let mut spec = spec(random, drift_ppm, rooms.redis);
        let (delay_min, delay_more) = if apart.u32(..5) == 0 {
            spec.profile = Profile::Wan;
            (apart.u64(MS..=WIDE_DELAY_MAX), apart.u64(..=WIDE_MORE_MAX))
        } else {
            (delay_min, if far { random.u64(MS..=40 * MS) } else { random.u64(..=3 * MS) })
        };
        Self {
            spec: Arc::new(spec),
            misfortunes,
            every: Duration::from_millis(random.u64(50..=1_500)),
            weather: Weather {
                delay_min,
                delay_max: delay_min + delay_more,
                lost: if random.bool() { random.u32(..=100) } else { 0 },
                doubled: if random.bool() { random.u32(..=200) } else { 0 },
            },
            disk: Health {
                sync_min: Duration::from_micros(random.u64(50..=500)),
                sync_max: Duration::from_micros(random.u64(500..=8_000)),
                is_full: false,
                lies: false,
                loses_votes: false,
                guesses: false,
            },
            pace: Pace {
                rule_max: Duration::from_micros(if random.bool() { 500 } else { random.u64(500..=60_000) }),
                goodbye_max: Duration::from_millis(random.u64(1..=400)),
            },
            drift_ppm,
            extreme_clocks: random.bool(),
            snapshot_after: random.u64(10..=200),
            ask_every: Duration::from_millis(random.u64(2..=60)),
            wishes: if random.bool() { random.u32(1..=10) } else { 0 },
            drills: if apart.u32(..3) == 0 { apart.u32(1..=6) } else { 0 },
            noticed_within: Duration::from_millis(if random.bool() { 20 } else { 600 }),
            habits: habits(random),
            format: if random.u32(..3) == 0 { Format::FIRST } else { Format::NEWEST },
            rooms,
        }
    }
}

impl Plan {
    /// How wrong a clock is.
    pub(super) fn rate(&self, random: &mut fastrand::Rng) -> i32 {
        let most = self.drift_ppm;
        match (self.extreme_clocks, random.bool()) {
            (true, true) => most,
            (true, false) => -most,
            (false, _) => random.i32(-most..=most),
        }
    }

    /// How soon everything must be well when nothing is wrong any more: a few leases, and what people and probes take.
    pub(super) fn well_within(&self) -> TrueTime {
        match self.spec.profile {
            Profile::Lan => 10_000 * MS,
            Profile::Wan => 30_000 * MS,
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let Self { spec, misfortunes, every, weather, disk, pace, drift_ppm, rooms, .. } = self;
        format!(
            "{} nodes, {} addresses, {}; {misfortunes:?} every {every:?}; {weather:?}; {disk:?}; {pace:?}; {rooms:?}; clocks within {drift_ppm} ppm",
            spec.nodes.len(),
            spec.floating_ips.len(),
            spec.profile
        )
    }
}

fn habits(random: &mut fastrand::Rng) -> Habits {
    let mut chance = |max| if random.bool() { 0 } else { random.u32(..=max) };
    let (lost, refused, fail, hang, twice) = (chance(30), chance(20), chance(30), chance(20), chance(30));
    let restless = chance(6);
    Habits {
        way_max: Duration::from_millis(random.u64(1..=200)),
        connect_max: Duration::from_millis(if random.u32(..3) == 0 { 20 } else { random.u64(20..=1_500) }),
        task_max: Duration::from_millis(if random.bool() { 100 } else { random.u64(100..=1_500) }),
        lost,
        refused,
        fail,
        hang,
        restless,
        twice,
    }
}

/// Two sites and a witness, with one or two nodes at each site.
fn spec(random: &mut fastrand::Rng, drift_ppm: i32, redis: bool) -> ClusterSpec {
    let mut spec = base();
    if redis {
        spec.sessions.store = SessionStoreKind::Redis;
        spec.sessions.url = Some("redis://10.9.0.1:6379/0".to_owned());
    }
    if random.bool() {
        spec.nodes.retain(|node| [1, 3, 5].contains(&node.id.0));
    }
    spec.floating_ips.truncate(random.usize(1..=2));
    if random.bool() {
        let all = random.bool();
        let routed = random.usize(..spec.floating_ips.len());
        for (place, ip) in spec.floating_ips.iter_mut().enumerate() {
            if all || place == routed {
                ip.provider = ProviderKind::Ovh;
            }
        }
        let call = Duration::from_millis(random.u64(400..=1_200));
        spec.timing.provider_call = Some(HumanDuration(call));
    }
    if drift_ppm > 1_000 {
        spec.timing.drift_ppm = Some(100_000);
    }
    spec.policy.failovers_max = 1_000;
    spec.policy.drain_timeout = HumanDuration(Duration::from_millis([0, 150, 1_000][random.usize(..3)]));
    spec.policy.healthy_upstreams_min = random.u32(0..=2);
    if random.u32(..5) == 0 {
        for ip in &mut spec.floating_ips {
            ip.failback = Failback::After(HumanDuration(Duration::from_secs(1)));
        }
    }
    for site in spec.sites.iter_mut().filter(|site| !site.witness) {
        if random.u32(..3) > 0 {
            site.announce = AnnounceMode::Floating;
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::spec::validate;

    #[test]
    fn every_seed_has_a_specification_that_an_operator_could_apply() {
        for seed in 0..200 {
            let plan = Plan::draw(&mut fastrand::Rng::with_seed(seed));
            assert_eq!(validate::check(&plan.spec), []);
            let allowed = plan.spec.timing().drift_ppm;
            assert!(plan.drift_ppm.unsigned_abs() <= allowed, "{} of {allowed}", plan.drift_ppm);
        }
    }
}
