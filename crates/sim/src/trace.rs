//! What happened, as a hash always and as a timeline on demand.

use crate::clock::TrueTime;

/// The record of one simulation.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the timeline only if it is wanted: it costs more than the simulation.
    pub(crate) fn new(timeline: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: timeline.then(Vec::new) }
    }

    /// Something happened: numbers that tell it from everything else.
    pub(crate) fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// Something that belongs into the timeline.
    pub(crate) fn note(&mut self, now: TrueTime, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6}  {}", now as f64 / 1e9, line()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
