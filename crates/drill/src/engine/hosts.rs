//! What a prober saw of a lab's hosts, in the words of the report.

use super::report::{AnsweringReport, HostReport};
use super::run::whole_ms;
use crate::audit::ceil_ms;
use crate::measure::hosts::{Answering, Period};
use std::time::Instant;

/// Changes of one host that the timeline has room for.
const LINES_MAX: usize = 20;

/// The numbers, with times since the fault.
pub(super) fn report(found: &Answering, since: impl Fn(Instant) -> i64) -> AnsweringReport {
    let hosts = found.hosts.iter().map(|host| HostReport {
        node: host.host.to_string(),
        probes: host.probes,
        answers: host.answers,
        answered: host.periods.iter().map(|period| (since(period.from), since(period.to))).collect(),
    });
    AnsweringReport {
        two_hosts_ms: ceil_ms(found.two_hosts.total),
        two_hosts_longest_ms: ceil_ms(found.two_hosts.longest),
        nobody_ms: whole_ms(found.nobody.longest),
        nobody_total_ms: whole_ms(found.nobody.total),
        dark_frames: found.dark_frames,
        probed_every_us: u64::try_from(found.every.as_micros()).unwrap_or(u64::MAX),
        probes_apart_max_ms: ceil_ms(found.apart),
        hosts: hosts.collect(),
    }
}

/// When each host answered first and last, within a time.
pub(super) fn lines(found: &Answering, within: Period) -> Vec<(Instant, String)> {
    let mut lines = Vec::new();
    for host in &found.hosts {
        let firsts = host.periods.iter().map(|period| (period.from, "first"));
        let lasts = host.periods.iter().map(|period| (period.to, "last"));
        let inside = |at: Instant| (within.from..within.to).contains(&at);
        let mut of_host: Vec<_> = firsts.chain(lasts).filter(|(at, _)| inside(*at)).collect();
        of_host.sort_unstable();
        let in_words = |(at, which)| (at, format!("{which} answer of host {}", host.host));
        lines.extend(of_host.into_iter().take(LINES_MAX).map(in_words));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::hosts::{HostAnswers, Share};
    use std::time::Duration;

    #[test]
    fn what_is_not_nothing_is_not_rounded_away_and_times_are_since_the_fault() {
        let fault = Instant::now();
        let (before, after) =
            (fault.checked_sub(Duration::from_millis(20)).unwrap(), Duration::from_millis(30));
        let found = Answering {
            two_hosts: Share { longest: Duration::from_micros(10), total: Duration::from_micros(1_010) },
            hosts: vec![HostAnswers {
                host: "gra-1".parse().unwrap(),
                probes: 9,
                answers: 5,
                periods: vec![Period { from: before, to: fault + after }],
            }],
            ..Answering::default()
        };
        let since = |at: Instant| match at.checked_duration_since(fault) {
            Some(after) => whole_ms(after).cast_signed(),
            None => -whole_ms(fault.duration_since(at)).cast_signed(),
        };
        let report = report(&found, since);
        assert_eq!((report.two_hosts_longest_ms, report.two_hosts_ms), (1, 2));
        assert_eq!(report.hosts[0].answered, [(-20, 30)]);
        let within = Period { from: fault, to: fault + 2 * after };
        assert_eq!(lines(&found, within), [(fault + after, "last answer of host gra-1".to_owned())]);
    }
}
