//! Requests, by `h2load`.

use crate::error::BenchError;
use crate::peers::{OTHER_PROCESSOR, Places};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
    pub(crate) speaks: Speaks,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1 in clear.
    Http1,
    /// HTTP/1.1 by TLS 1.3.
    Tls,
    /// HTTP/2 by TLS 1.3, ten requests at a time on each connection.
    Http2,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answered {
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) per_second: f64,
    /// How long a request took, in microseconds, where that was written down.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
}

/// As fast as they can, for so long.
pub(crate) fn as_fast_as_possible(
    requests: Requests,
    places: &Places,
    lasts: Duration,
) -> Result<Answered, BenchError> {
    run(requests, places, lasts, None)
}

/// So many in each second, and how long each took: written to a file there.
pub(crate) fn at_a_rate(
    requests: Requests,
    places: &Places,
    lasts: Duration,
    per_second: f64,
    folder: &Path,
) -> Result<Answered, BenchError> {
    let each = format!("{:.0}", (per_second / f64::from(requests.connections)).max(1.0));
    let log = folder.join("h2load.log");
    // What an earlier run wrote would be read again.
    std::fs::remove_file(&log).ok();
    let mut answered = run(requests, places, lasts, Some((each, &log)))?;
    let text = std::fs::read_to_string(&log).map_err(BenchError::io(log.display().to_string()))?;
    let mut times: Vec<u64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_unstable();
    let at = |percent| times.get(times.len() * percent / 100).copied();
    (answered.p50_us, answered.p99_us) = (at(50), at(99));
    Ok(answered)
}

fn run(
    requests: Requests,
    places: &Places,
    lasts: Duration,
    paced: Option<(String, &Path)>,
) -> Result<Answered, BenchError> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", OTHER_PROCESSOR, "h2load", "--threads=1"]);
    let (at, scheme) = match requests.speaks {
        Speaks::Http1 => (places.proxy, "http"),
        Speaks::Tls | Speaks::Http2 => (places.tls(), "https"),
    };
    command.arg(if requests.speaks == Speaks::Http2 { "--max-concurrent-streams=10" } else { "--h1" });
    if let Some((each, log)) = paced {
        command.arg(format!("--rps={each}")).arg(format!("--log-file={}", log.display()));
    }
    command.arg(format!("--clients={}", requests.connections));
    command.arg(format!("--duration={}", lasts.as_secs().max(1)));
    command.arg(format!("{scheme}://{at}{}", requests.path));
    let failed = |why: String| BenchError::Load { program: "h2load".to_owned(), why };
    let output =
        command.output().map_err(|source| BenchError::Start { program: "h2load".to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    answered(&text).ok_or_else(|| failed(format!("it said something unknown: {text}")))
}

/// `finished in 5.00s, 12345.60 req/s, 1.2MB/s` and `requests: 9 total, 9 started, 9 done, 8 succeeded, 1 failed, ...`.
fn answered(text: &str) -> Option<Answered> {
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let per_second = finished.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
    let requests = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let number = |word: &str| -> Option<u64> {
        requests.split(", ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Answered {
        good: number("succeeded")?,
        bad: number("failed")?,
        per_second,
        p50_us: None,
        p99_us: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_says_is_understood() {
        let text = "\nfinished in 5.00s, 35012.40 req/s, 8.61MB/s\n\
                    requests: 175062 total, 175094 started, 175062 done, 175060 succeeded, 2 failed, 0 errored, 0 timeout\n\
                    status codes: 175062 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        let (p50_us, p99_us) = (None, None);
        assert_eq!(
            answered(text),
            Some(Answered { good: 175_060, bad: 2, per_second: 35_012.4, p50_us, p99_us })
        );
        assert_eq!(answered("nothing"), None);
    }
}
