//! Whether the machine that measures ran evenly: drills judge milliseconds, and a machine that stood still for a third of
//! a second (its hypervisor gave the processors to others, somebody suspended it) has measured itself. `OVERVIEW.md` has
//! the argument and the numbers.

mod awake;
mod stolen;

pub use awake::Awake;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use stolen::Stolen;

/// A machine that stood still for this long or longer, of any half second, disturbs what is measured in milliseconds.
pub const DISTURBS: Duration = Duration::from_millis(100);

/// Stalls within so long add up: what is asked for every 25 ms and given up after 120 fails of three short ones as of one
/// that is long.
const TOGETHER: Duration = Duration::from_millis(500);

/// How often the threads want to wake.
const EVERY: Duration = Duration::from_millis(5);
/// What is less is the ordinary lateness of a scheduler with work to do, and not kept.
const KEPT: Duration = Duration::from_millis(20);
/// Stalls that are kept; beyond it the earlier half is forgotten, which by then says enough.
const KEPT_MAX: usize = 100_000;
/// Processors that are watched; on larger machines a part stands for the whole.
const PROCESSORS_MAX: usize = 16;

/// A time in which a processor did not run what it should have.
#[derive(Debug)]
struct Stall {
    /// Which processor it was, of those that are watched.
    processor: usize,
    /// When the thread should have woken.
    from: Instant,
    /// When it did.
    to: Instant,
}

impl Stall {
    fn length(&self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }

    fn within(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && from <= self.to
    }
}

/// How evenly the machine has run since this began, until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    stalls: Arc<Mutex<Vec<Stall>>>,
    stolen: Arc<Stolen>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Begins to watch.
    pub fn start() -> std::io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        let mut pulse = Self {
            stalls: Arc::default(),
            stolen: Arc::default(),
            ends: Arc::default(),
            threads: Vec::new(),
        };
        for processor in processors.take(PROCESSORS_MAX) {
            let (stalls, ends) = (Arc::clone(&pulse.stalls), Arc::clone(&pulse.ends));
            let beat = thread::Builder::new().name("pulse".to_owned());
            pulse.threads.push(beat.spawn(move || beat_on(processor, &stalls, &ends))?);
        }
        let (stolen, ends) = (Arc::clone(&pulse.stolen), Arc::clone(&pulse.ends));
        let reader = thread::Builder::new().name("stolen".to_owned());
        pulse.threads.push(reader.spawn(move || stolen.watch(&ends))?);
        Ok(pulse)
    }

    /// For how long one processor stood still, of the half second between two moments in which it was longest; or longer,
    /// if that was at one go. What is less than 20 ms counts as nothing, unless the kernel's account says that a hypervisor
    /// gave more than that of half a second to others, in however short pieces.
    pub fn most_lost(&self, from: Instant, to: Instant) -> Duration {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut meanwhile: Vec<_> = stalls.iter().filter(|stall| stall.within(from, to)).collect();
        meanwhile.sort_unstable_by_key(|stall| stall.from);
        let lost_from = |first: usize| {
            let (first, later) = (meanwhile[first], &meanwhile[first..]);
            let together = later.iter().take_while(|stall| stall.from < first.from + TOGETHER);
            together.filter(|stall| stall.processor == first.processor).map(|stall| stall.length()).sum()
        };
        let stood: Duration = (0..meanwhile.len()).map(lost_from).max().unwrap_or_default();
        let stolen = self.stolen.most_lost(from, to);
        stood.max(if stolen < KEPT { Duration::ZERO } else { stolen })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to tell.
            thread.join().ok();
        }
    }
}

fn beat_on(processor: usize, stalls: &Mutex<Vec<Stall>>, ends: &AtomicBool) {
    let mut only = CpuSet::new();
    only.set(processor);
    // Where it is not allowed the thread watches whichever processor it is given.
    sched_setaffinity(None, &only).ok();
    while !ends.load(Ordering::Relaxed) {
        let due = Instant::now() + EVERY;
        thread::sleep(EVERY);
        let stall = Stall { processor, from: due, to: Instant::now() };
        if stall.length() >= KEPT {
            let mut stalls = stalls.lock().unwrap_or_else(PoisonError::into_inner);
            if stalls.len() >= KEPT_MAX {
                stalls.drain(..KEPT_MAX / 2);
            }
            stalls.push(stall);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most_lost(stalls: &[(usize, u64, u64)], from: u64, to: u64) -> u128 {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let stall = |&(processor, from, to)| Stall { processor, from: at(from), to: at(to) };
        let pulse = Pulse {
            stalls: Arc::default(),
            stolen: Arc::default(),
            ends: Arc::default(),
            threads: Vec::new(),
        };
        *pulse.stalls.lock().unwrap() = stalls.iter().map(stall).collect();
        pulse.most_lost(at(from), at(to)).as_millis()
    }

    #[test]
    fn the_longest_stall_of_a_time_is_found_and_no_other() {
        let stalls = [(0, 100, 250), (1, 600, 630), (0, 1_500, 2_500)];
        assert_eq!(most_lost(&stalls, 0, 1_200), 150);
        assert_eq!(most_lost(&stalls, 300, 1_200), 30);
        assert_eq!(most_lost(&stalls, 700, 1_200), 0);
        assert_eq!(most_lost(&stalls, 1_600, 1_700), 1_000, "it reaches into it");
    }

    #[test]
    fn short_stalls_of_a_processor_add_up_within_half_a_second() {
        let stalls = [(0, 100, 140), (1, 110, 170), (0, 300, 345), (0, 590, 620), (0, 700, 750)];
        assert_eq!(most_lost(&stalls, 0, 1_000), 45 + 30 + 50, "from the second on");
        assert_eq!(most_lost(&stalls, 0, 650), 40 + 45 + 30);
        assert_eq!(most_lost(&stalls, 0, 200), 60, "the other one's");
    }

    #[test]
    fn a_pulse_ends_when_it_is_dropped() {
        let pulse = Pulse::start().unwrap();
        assert!(!pulse.threads.is_empty());
        let stalls = Arc::clone(&pulse.stalls);
        drop(pulse);
        assert_eq!(Arc::strong_count(&stalls), 1, "its threads are gone");
    }
}
