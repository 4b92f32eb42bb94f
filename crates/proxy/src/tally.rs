//! What is counted of each request, by route and by upstream: kept by each core for itself, and added up when somebody asks.
//! A core writes its own numbers only, so that counting is a plain addition, and no line of memory goes from core to core.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The upper ends of the buckets of durations, in microseconds; one more is for what takes longer.
const BUCKETS: [u64; 12] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000];
/// The same as Prometheus has them, in seconds.
const BUCKET_NAMES: [&str; BUCKETS.len() + 1] =
    ["0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "1", "2.5", "10", "+Inf"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One core's numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    answers: [AtomicU64; CLASSES.len()],
    durations: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// Adds where nobody else does.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// The numbers of one route, or one upstream.
#[derive(Debug)]
pub(crate) struct Tally {
    cores: Box<[Slot]>,
}

/// What is to be counted of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// The answer's status.
    pub(crate) status: u16,
    /// From the request's head to the answer's last byte, or to its head for an upstream.
    pub(crate) duration: Duration,
    /// Of the body of the request.
    pub(crate) bytes_in: u64,
    /// Of the body of the answer.
    pub(crate) bytes_out: u64,
}

impl Tally {
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores: (0..cores).map(|_| Slot::default()).collect() }
    }

    /// Counts a request, on the core with this number only.
    pub(crate) fn count(&self, core: usize, counts: Counts) {
        let Some(slot) = self.cores.get(core) else { return };
        // Without an answer it was the client who went away, or may not be told any more.
        let status = if counts.status == 0 { 499 } else { counts.status };
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        add(&slot.answers[class], 1);
        let microseconds = u64::try_from(counts.duration.as_micros()).unwrap_or(u64::MAX);
        add(&slot.durations[BUCKETS.partition_point(|end| *end < microseconds)], 1);
        add(&slot.microseconds, microseconds);
        add(&slot.bytes_in, counts.bytes_in);
        add(&slot.bytes_out, counts.bytes_out);
    }

    fn sum(&self, of: impl Fn(&Slot) -> &AtomicU64) -> u64 {
        self.cores.iter().map(|slot| of(slot).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Answers by the first digit of their status.
    fn answers(&self) -> [u64; CLASSES.len()] {
        std::array::from_fn(|class| self.sum(|slot| &slot.answers[class]))
    }

    /// How many took no longer than each bucket's end.
    fn durations(&self) -> [u64; BUCKETS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.sum(|slot| &slot.durations[bucket]);
            sum
        })
    }
}

/// All tallies of one kind, by name. They outlive tables.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<BTreeMap<String, Arc<Tally>>>);

impl Tallies {
    /// That of this name.
    pub(crate) fn of(&self, name: &str, cores: usize) -> Arc<Tally> {
        let mut all = self.all();
        let tally = all.entry(name.to_owned()).or_insert_with(|| Arc::new(Tally::new(cores)));
        Arc::clone(tally)
    }

    /// Forgets those that have gone: who changes names all day must not be kept count of for ever.
    pub(crate) fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.all().retain(|name, _| exists(name));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Tally>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As Prometheus reads it (its text format, version 0.0.4): `kind` is `route` or `upstream`.
    pub(crate) fn render(&self, kind: &str, text: &mut String) {
        let all = self.all().clone();
        let mut family = |name: &str, what: &str, lines: &dyn Fn(&str, &Tally, &mut String)| {
            *text += &format!("# TYPE twinsite_{kind}_{name} {what}\n");
            for (label, tally) in &all {
                lines(label, tally, text);
            }
        };
        family("answers_total", "counter", &|label, tally, text| {
            for (class, count) in CLASSES.iter().zip(tally.answers()) {
                *text += &format!(
                    "twinsite_{kind}_answers_total{{{kind}=\"{label}\",class=\"{class}\"}} {count}\n"
                );
            }
        });
        family("seconds", "histogram", &|label, tally, text| {
            let counts = tally.durations();
            for (end, count) in BUCKET_NAMES.iter().zip(counts) {
                *text +=
                    &format!("twinsite_{kind}_seconds_bucket{{{kind}=\"{label}\",le=\"{end}\"}} {count}\n");
            }
            let sum = Duration::from_micros(tally.sum(|slot| &slot.microseconds)).as_secs_f64();
            let count = counts[BUCKETS.len()];
            *text += &format!("twinsite_{kind}_seconds_sum{{{kind}=\"{label}\"}} {sum}\n");
            *text += &format!("twinsite_{kind}_seconds_count{{{kind}=\"{label}\"}} {count}\n");
        });
        if kind == "upstream" {
            return; // bodies are counted once, with their route
        }
        family("bytes_total", "counter", &|label, tally, text| {
            let of = [("in", tally.sum(|slot| &slot.bytes_in)), ("out", tally.sum(|slot| &slot.bytes_out))];
            for (direction, bytes) in of {
                *text += &format!(
                    "twinsite_{kind}_bytes_total{{{kind}=\"{label}\",direction=\"{direction}\"}} {bytes}\n"
                );
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(milliseconds: u64, status: u16) -> Counts {
        Counts { status, duration: Duration::from_millis(milliseconds), bytes_in: 1, bytes_out: 10 }
    }

    #[test]
    fn what_the_cores_count_is_added_up() {
        let tallies = Tallies::default();
        let tally = tallies.of("web", 2);
        tally.count(0, took(0, 200));
        tally.count(1, took(1, 204));
        tally.count(1, took(7, 503));
        tally.count(0, took(60_000, 101));
        tally.count(9, took(0, 200)); // there is no such core
        assert!(Arc::ptr_eq(&tally, &tallies.of("web", 2)));
        tallies.of("gone", 2);
        tallies.keep(|name| name == "web");
        let mut text = String::new();
        tallies.render("route", &mut text);
        for line in [
            "# TYPE twinsite_route_seconds histogram",
            "twinsite_route_answers_total{route=\"web\",class=\"1xx\"} 1",
            "twinsite_route_answers_total{route=\"web\",class=\"2xx\"} 2",
            "twinsite_route_answers_total{route=\"web\",class=\"5xx\"} 1",
            "twinsite_route_seconds_bucket{route=\"web\",le=\"0.0005\"} 1",
            "twinsite_route_seconds_bucket{route=\"web\",le=\"0.001\"} 2",
            "twinsite_route_seconds_bucket{route=\"web\",le=\"0.01\"} 3",
            "twinsite_route_seconds_bucket{route=\"web\",le=\"10\"} 3",
            "twinsite_route_seconds_bucket{route=\"web\",le=\"+Inf\"} 4",
            "twinsite_route_seconds_sum{route=\"web\"} 60.008",
            "twinsite_route_seconds_count{route=\"web\"} 4",
            "twinsite_route_bytes_total{route=\"web\",direction=\"in\"} 4",
            "twinsite_route_bytes_total{route=\"web\",direction=\"out\"} 40",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }
}
