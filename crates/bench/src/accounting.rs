//! What the kernel says that processes used.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;

/// A process and all below it.
pub(crate) fn family(root: u32) -> io::Result<BTreeSet<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Who has ended meanwhile is nobody's child any more.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some(parent) = parent(&stat) {
            parents.push((pid, parent));
        }
    }
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        let children = parents.iter().filter(|(_, parent)| family.contains(parent)).map(|(pid, _)| *pid);
        let children: Vec<_> = children.collect();
        family.extend(children);
        if family.len() == before {
            return Ok(family);
        }
    }
}

/// The field after the state, behind a name that may contain anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The time that all threads of these processes have been on a processor, in user and system mode.
pub(crate) fn on_processor(processes: &BTreeSet<u32>) -> Duration {
    let threads = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// The memory of these processes, shared pages by their part, in bytes.
pub(crate) fn memory(processes: &BTreeSet<u32>) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    processes.iter().filter_map(of).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};
    use std::time::Instant;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (a) b (c) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12"), None);
    }

    #[test]
    fn children_belong_to_the_family() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let family = family(id()).unwrap();
        assert!(family.contains(&child.id()) && family.contains(&id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn time_and_memory_are_of_this_process() {
        let own = BTreeSet::from([id()]);
        let (before, began) = (on_processor(&own), Instant::now());
        while began.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(on_processor(&own) > before);
        assert!(memory(&own) > 100 * 1024);
    }
}
