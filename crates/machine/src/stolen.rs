//! Time that a hypervisor gave to others while this machine had work: the column `steal` of `/proc/stat`, for each processor.
//!
//! Many short pieces do as much harm as one long one, and no thread that wakes now and then sees them.

use crate::{PROCESSORS_MAX, TOGETHER};
use std::collections::VecDeque;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the account is read, which the kernel keeps in hundredths of a second.
const EVERY: Duration = Duration::from_millis(100);
/// Readings that are kept: three hours.
const KEPT_MAX: usize = 100_000;

/// The account at one moment: what was stolen of each processor until then.
#[derive(Debug)]
struct Reading {
    at: Instant,
    stolen: Vec<Duration>,
}

/// The account over time.
#[derive(Debug, Default)]
pub(crate) struct Stolen(Mutex<VecDeque<Reading>>);

impl Stolen {
    /// Reads the account until `ends`.
    pub(crate) fn watch(&self, ends: &AtomicBool) {
        let tick =
            Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
        while !ends.load(Ordering::Relaxed) {
            let statistics = fs::read_to_string("/proc/stat").unwrap_or_default();
            self.note(Reading { at: Instant::now(), stolen: stolen(&statistics, tick) });
            thread::sleep(EVERY);
        }
    }

    fn note(&self, reading: Reading) {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if readings.len() >= KEPT_MAX {
            readings.pop_front();
        }
        readings.push_back(reading);
    }

    /// The most that was stolen of one processor within half a second between these moments.
    pub(crate) fn most_lost(&self, from: Instant, to: Instant) -> Duration {
        let readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meanwhile: Vec<_> = readings
            .iter()
            .filter(|reading| from <= reading.at + EVERY && reading.at <= to + EVERY)
            .collect();
        let lost_from = |first: usize| {
            let (first, later) = (meanwhile[first], &meanwhile[first..]);
            let last = later.iter().take_while(|reading| reading.at <= first.at + TOGETHER).last()?;
            let lost = |(before, after): (&Duration, &Duration)| after.saturating_sub(*before);
            first.stolen.iter().zip(&last.stolen).map(lost).max()
        };
        (0..meanwhile.len()).filter_map(lost_from).max().unwrap_or_default()
    }
}

/// What was stolen of each processor since the machine started, in the order of `/proc/stat`.
fn stolen(statistics: &str, tick: Duration) -> Vec<Duration> {
    let processors = statistics.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    let ticks = |line: &str| line.split_whitespace().nth(8).and_then(|ticks| ticks.parse::<u32>().ok());
    processors.take(PROCESSORS_MAX).map(|line| tick * ticks(line).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_account_is_read_for_each_processor() {
        let text =
            "cpu  9 9 9 9 9 9 9 12 0 0\ncpu0 9 9 9 9 9 9 9 5 0 0\ncpu1 9 9 9 9 9 9 9 7 0 0\nintr 1 2\n";
        assert_eq!(stolen(text, MS(10)), [MS(50), MS(70)]);
        assert_eq!(stolen("cpu0 1 2 3\n", MS(10)), [Duration::ZERO], "an old kernel that keeps none");
        let here = fs::read_to_string("/proc/stat").unwrap();
        assert!(!stolen(&here, MS(10)).is_empty());
    }

    #[test]
    fn pieces_of_half_a_second_add_up() {
        let account = Stolen::default();
        let zero = Instant::now();
        for (turn, stolen) in [0, 10, 30, 60, 80, 90, 90, 90, 90, 300].into_iter().enumerate() {
            let at = zero + EVERY * u32::try_from(turn).unwrap();
            account.note(Reading { at, stolen: vec![Duration::ZERO, MS(stolen)] });
        }
        assert_eq!(account.most_lost(zero, zero + MS(500)), MS(90));
        assert_eq!(account.most_lost(zero + MS(600), zero + MS(650)), MS(0));
        assert_eq!(account.most_lost(zero, zero + MS(900)), MS(220), "from the fourth reading on");
        assert_eq!(account.most_lost(zero + MS(2_000), zero + MS(3_000)), Duration::ZERO, "nothing was read");
    }
}
