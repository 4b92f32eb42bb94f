//! Meeting instances that announce another address than they should, once everything has settled.

use super::AnnouncedSample;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use twinsite_model::UpstreamName;

/// A time in which nothing was moving, and what each instance should have announced in it.
#[derive(Debug, Clone)]
pub struct Settled {
    /// From when.
    pub from: Instant,
    /// Until when.
    pub to: Instant,
    /// The right address of each instance.
    pub expected: BTreeMap<UpstreamName, IpAddr>,
}

/// The longest time that one instance announced something wrong, with a line about it. A single wrong sample
/// counts as the time to the next one, at least 1 ms.
pub fn mismatch(samples: &[AnnouncedSample], settled: &[Settled]) -> (Duration, Option<String>) {
    let mut by_instance: BTreeMap<&UpstreamName, Vec<&AnnouncedSample>> = BTreeMap::new();
    for sample in samples {
        by_instance.entry(&sample.instance).or_default().push(sample);
    }
    let mut worst = (Duration::ZERO, None);
    for (instance, samples) in by_instance {
        let mut total = Duration::ZERO;
        let mut evidence = None;
        for (index, sample) in samples.iter().enumerate() {
            let window = settled.iter().find(|window| (window.from..window.to).contains(&sample.at));
            let expected = window.and_then(|window| Some((window, window.expected.get(instance)?)));
            let Some((window, expected)) = expected.filter(|(_, right)| sample.address != Some(**right))
            else {
                continue;
            };
            let until = samples.get(index + 1).map_or(window.to, |next| next.at.min(window.to));
            total += until.duration_since(sample.at).max(Duration::from_millis(1));
            evidence = Some(match sample.address {
                Some(wrong) => format!("{instance} announced {wrong}, not {expected}"),
                None => format!("{instance} announced nothing, not {expected}"),
            });
        }
        if total > worst.0 {
            worst = (total, evidence);
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_settled_times_count() {
        let start = Instant::now();
        let name: UpstreamName = "gra-meet-1".parse().unwrap();
        let [right, wrong]: [IpAddr; 2] = ["127.7.0.10".parse().unwrap(), "127.7.1.100".parse().unwrap()];
        let sample = |ms: u32, address| AnnouncedSample {
            at: start + ms * MS,
            instance: name.clone(),
            address: Some(address),
        };
        let settled = |from: u32, to: u32| Settled {
            from: start + from * MS,
            to: start + to * MS,
            expected: BTreeMap::from([(name.clone(), right)]),
        };
        let samples = [sample(0, right), sample(100, wrong), sample(200, wrong), sample(300, right)];
        assert_eq!(mismatch(&samples, &[settled(0, 100), settled(250, 400)]).0, Duration::ZERO);
        let (total, evidence) = mismatch(&samples, &[settled(0, 400)]);
        assert_eq!(total, 200 * MS);
        assert_eq!(evidence.unwrap(), "gra-meet-1 announced 127.7.1.100, not 127.7.0.10");
    }
}
