//! Whether the machine that measures ran evenly: drills judge milliseconds, and a machine that stood still for a third of
//! a second (its hypervisor gave the processors to others, somebody suspended it) has measured itself. `OVERVIEW.md` has
//! the argument and the numbers.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A machine that stood still for this long or longer disturbs what is measured in milliseconds.
pub const DISTURBS: Duration = Duration::from_millis(100);

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
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Begins to watch.
    pub fn start() -> std::io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        let mut pulse = Self { stalls: Arc::default(), ends: Arc::default(), threads: Vec::new() };
        for processor in processors.take(PROCESSORS_MAX) {
            let (stalls, ends) = (Arc::clone(&pulse.stalls), Arc::clone(&pulse.ends));
            let beat = thread::Builder::new().name("pulse".to_owned());
            pulse.threads.push(beat.spawn(move || beat_on(processor, &stalls, &ends))?);
        }
        Ok(pulse)
    }

    /// The longest time between two moments, or reaching into it, for which a processor stood still. What is less than
    /// 20 ms counts as nothing.
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        let meanwhile = stalls.iter().filter(|stall| stall.within(from, to));
        meanwhile.map(Stall::length).max().unwrap_or_default()
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
        let stall = Stall { from: due, to: Instant::now() };
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

    #[test]
    fn the_longest_stall_of_a_time_is_found_and_no_other() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let pulse = Pulse { stalls: Arc::default(), ends: Arc::default(), threads: Vec::new() };
        let stalls = [(100, 250), (400, 430), (900, 1_900)];
        *pulse.stalls.lock().unwrap() = stalls.map(|(from, to)| Stall { from: at(from), to: at(to) }).into();
        let longest = |from, to| pulse.longest(at(from), at(to)).as_millis();
        assert_eq!(longest(0, 800), 150);
        assert_eq!(longest(300, 800), 30);
        assert_eq!(longest(500, 800), 0);
        assert_eq!(longest(1_000, 1_100), 1_000, "it reaches into it");
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
