//! Keeping a virtual machine's processors from falling asleep while something is measured in milliseconds.
//!
//! A virtual processor with nothing to do for a moment is given back to the hypervisor, and comes late when it is wanted
//! again. A cluster with its clients on one machine sleeps and wakes some thousand times a second, so that a hypervisor
//! with other guests took up to half of its time away, and next to nothing of a busy loop's. Here such a loop runs in the class of
//! the scheduler below all others (`SCHED_IDLE` of sched(7)): whoever has work takes the processor from it at once.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use thread_priority::{Error, ThreadPriority};

/// Turns between two looks at whether it is over: some microseconds.
const TURNS: u32 = 10_000;

/// Keeps all processors that this process may use from sleeping, until it is dropped. On real ones it does nothing, and
/// where the time of this process is limited (`cpu.max` of cgroups v2): there it would use up what is to be measured.
#[derive(Debug)]
pub struct Awake {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Begins, if it helps here.
    pub fn keep() -> Self {
        let mut awake = Self { ends: Arc::default(), threads: Vec::new() };
        let allowed = sched_getaffinity(None).unwrap_or_default();
        if !is_virtual() || is_limited() {
            return awake;
        }
        for processor in (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)) {
            let ends = Arc::clone(&awake.ends);
            let spinner = thread::Builder::new().name("awake".to_owned());
            // Without it the measurement is less even, and `Pulse` says so.
            awake.threads.extend(spinner.spawn(move || spin(processor, &ends)));
        }
        awake
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked keeps nothing awake any more.
            thread.join().ok();
        }
    }
}

fn spin(processor: usize, ends: &AtomicBool) {
    let mut only = CpuSet::new();
    only.set(processor);
    // In any other class it would take time from those who have work, and two on one processor leave the other asleep.
    if sched_setaffinity(None, &only).is_err() || yield_to_all().is_err() {
        return;
    }
    while !ends.load(Ordering::Relaxed) {
        // Not `spin_loop`, whose hint tells a hypervisor that this processor can be taken away.
        for turn in 0..TURNS {
            black_box(turn);
        }
    }
}

/// This thread runs from now on only where nobody else wants to.
fn yield_to_all() -> Result<(), Error> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
}

/// Whether a hypervisor says that it is there (CPUID leaf 1, ECX bit 31). On other architectures nothing says so.
fn is_virtual() -> bool {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = information.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// Whether the control group of this process, or one above it, may use a part of the processors' time only.
fn is_limited() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    is_limited_in(Path::new("/sys/fs/cgroup"), own)
}

fn is_limited_in(root: &Path, own: &str) -> bool {
    Path::new(own).ancestors().any(|group| {
        let limit = fs::read_to_string(root.join(group).join("cpu.max")).unwrap_or_default();
        !limit.is_empty() && !limit.starts_with("max")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use thread_priority::unix::thread_schedule_policy;

    #[test]
    fn a_limit_of_any_group_above_counts() {
        let root = std::env::temp_dir().join(format!("twinsite-awake-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        assert!(!is_limited_in(&root, "a/b"), "nothing is said");
        fs::write(root.join("a/b/cpu.max"), "max 100000\n").unwrap();
        assert!(!is_limited_in(&root, "a/b"));
        fs::write(root.join("a/cpu.max"), "150000 100000\n").unwrap();
        assert!(is_limited_in(&root, "a/b") && is_limited_in(&root, "a"));
        assert!(!is_limited_in(&root, ""));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn who_keeps_a_processor_awake_is_below_all_others() {
        thread::spawn(|| {
            yield_to_all().unwrap();
            let policy = thread_schedule_policy().unwrap();
            assert_eq!(policy, ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn it_ends_when_it_is_dropped() {
        let awake = Awake::keep();
        let began = Instant::now();
        drop(awake);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
