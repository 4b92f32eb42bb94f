//! Keeping a machine's processors from falling asleep while something is measured in milliseconds.
//!
//! A virtual processor with nothing to do for a moment is given back to the hypervisor, and comes late when it is wanted
//! again. A cluster with its clients on one machine sleeps and wakes some thousand times a second, so that a hypervisor
//! with other guests took up to half of its time away, and next to nothing of a busy loop's. The kernel can wait in such a
//! loop itself, in the idle task: whoever asks for a latency of nothing gets that (`Documentation/power/pm_qos_interface.rst`,
//! `/dev/cpu_dma_latency`), where there is a driver of `cpuidle`, like `haltpoll` in guests of KVM.
//!
//! Loops of one's own do harm, also in the class below all others (`SCHED_IDLE`): beside them Linux 6.18 let work of
//! the kernel's wait for up to ten seconds (RCU, and the threads that changes of the packet filter wait for).

use std::fs::File;
use std::io::Write;

/// Where a latency can be asked for; by root only, as a rule.
const LATENCY: &str = "/dev/cpu_dma_latency";

/// Keeps all processors from sleeping until it is dropped, or the process ends however it does. Where that may not be asked
/// for it does nothing, and the measurement is less even, which a `Pulse` says.
#[derive(Debug)]
pub struct Awake {
    /// The kernel takes its closing for the end of the wish.
    _wish: Option<File>,
}

impl Awake {
    /// Begins, if it can be asked for here.
    pub fn keep() -> Self {
        Self { _wish: wish(LATENCY) }
    }
}

fn wish(file: &str) -> Option<File> {
    let mut wish = File::options().write(true).open(file).ok()?;
    // In microseconds, as the kernel keeps it.
    wish.write_all(&0_i32.to_ne_bytes()).ok()?;
    Some(wish)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn nothing_less_than_no_latency_is_wished_for() {
        let file = std::env::temp_dir().join(format!("twinsite-latency-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        assert!(wish(&file.to_string_lossy()).is_some());
        assert_eq!(fs::read(&file).unwrap(), [0; 4]);
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn who_may_not_wish_goes_on() {
        assert!(wish("/nonexistent/latency").is_none());
    }
}
