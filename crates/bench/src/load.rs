//! Requests, by `h2load`.

use crate::error::BenchError;
use crate::peers::OTHER_PROCESSOR;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requests {
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answered {
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) per_second: f64,
}

/// As fast as they can, for so long; `measured` is called when the warm-up is over, and again at the end.
pub(crate) fn as_fast_as_possible(
    requests: Requests,
    at: SocketAddr,
    lasts: Duration,
) -> Result<Answered, BenchError> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", OTHER_PROCESSOR, "h2load", "--h1", "--threads=1"]);
    command.arg(format!("--clients={}", requests.connections));
    command.arg(format!("--duration={}", lasts.as_secs().max(1)));
    command.arg(format!("http://{at}{}", requests.path));
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
    Some(Answered { good: number("succeeded")?, bad: number("failed")?, per_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_says_is_understood() {
        let text = "\nfinished in 5.00s, 35012.40 req/s, 8.61MB/s\n\
                    requests: 175062 total, 175094 started, 175062 done, 175060 succeeded, 2 failed, 0 errored, 0 timeout\n\
                    status codes: 175062 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert_eq!(answered(text), Some(Answered { good: 175_060, bad: 2, per_second: 35_012.4 }));
        assert_eq!(answered("nothing"), None);
    }
}
