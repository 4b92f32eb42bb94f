//! What one seed is about: which misfortunes, how often, and in what weather.

use super::disk::Health;
use super::net::Weather;
use crate::clock::TrueTime;
use std::time::Duration;

const MS: TrueTime = 1_000_000;

/// What can happen to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfortune {
    /// A process ends without a word, and is started again.
    Crash,
    /// All of them do.
    CrashOfAll,
    /// SIGSTOP and SIGCONT.
    Freeze,
    /// A machine stands still with its clock.
    StandStill,
    /// A clock changes its rate.
    Drift,
    /// Nothing passes between two nodes, in one direction.
    OneWayCut,
    /// One node is cut off from all the others.
    Isolation,
    /// Two parts do not hear each other.
    Split,
    /// A disk takes longer than the voters' lease.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// A disk is gone with everything on it, and the machine joins again under a new id.
    LostDisk,
}

const ALL: [Misfortune; 11] = [
    Misfortune::Crash,
    Misfortune::CrashOfAll,
    Misfortune::Freeze,
    Misfortune::StandStill,
    Misfortune::Drift,
    Misfortune::OneWayCut,
    Misfortune::Isolation,
    Misfortune::Split,
    Misfortune::SlowDisk,
    Misfortune::FullDisk,
    Misfortune::LostDisk,
];

/// One seed's mixture.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) nodes: u64,
    pub(super) misfortunes: Vec<Misfortune>,
    /// The time between two of them, on average.
    pub(super) every: Duration,
    pub(super) weather: Weather,
    pub(super) disk: Health,
    /// The clocks are off by at most so many parts per million.
    pub(super) drift_ppm: i32,
    /// Entries after which a snapshot is taken.
    pub(super) snapshot_after: u64,
    /// How often somebody asks for something.
    pub(super) ask_every: Duration,
}

impl Plan {
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let misfortunes = ALL.into_iter().filter(|_| random.u32(..3) > 0).collect();
        let delay_min = random.u64(20_000..=MS);
        let far = random.u32(..4) == 0;
        Self {
            nodes: if random.bool() { 3 } else { 5 },
            misfortunes,
            every: Duration::from_millis(random.u64(50..=1_500)),
            weather: Weather {
                delay_min,
                delay_max: delay_min + if far { random.u64(MS..=40 * MS) } else { random.u64(..=3 * MS) },
                lost: if random.bool() { random.u32(..=100) } else { 0 },
                doubled: if random.bool() { random.u32(..=200) } else { 0 },
            },
            disk: Health {
                sync_min: Duration::from_micros(random.u64(50..=500)),
                sync_max: Duration::from_micros(random.u64(500..=8_000)),
                is_full: false,
                lies: false,
            },
            drift_ppm: random.i32(0..=1_000),
            snapshot_after: random.u64(10..=200),
            ask_every: Duration::from_millis(random.u64(2..=60)),
        }
    }
}
