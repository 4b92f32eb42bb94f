//! The tests by cargo-nextest, which gives each a process of its own and a deadline.
//!
//! Many tests are about milliseconds, and machines stand still: those of continuous integration above all, whose processors
//! belong to others at times. Tests that failed while this one did are run once more, by themselves, and what they say then
//! counts. So are tests of whole clusters, as exercises are: such machines are slow without standing still, too. But what must
//! never happen fails at once, and so does any other test that failed on a machine that ran.

use crate::run::{TRIES, TaskError, cargo, run, target};
use regex_lite::Regex;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use twinsite_machine::{Awake, DISTURBS, Pulse};

/// More tests than these do not fail because a machine stood still.
const AGAIN_MAX: usize = 20;

/// The words of an audit, in a test's failure, about what must never happen.
const NEVER: &str = r"(dual_answer_ms|stale_epoch_writes|split_rooms|two_hosts_ms|dark_frames)\W{0,3}(quot;)?\W{1,3}[1-9]|epochs_monotonic\W{0,3}(quot;)?\W{1,3}false";

/// Runs all tests of the workspace; names those that had to be run more than once.
pub fn run_all(left_out: &Path) -> Result<Vec<String>, TaskError> {
    let report = target().join("nextest/default/junit.xml");
    let _awake = Awake::keep();
    let pulse = Pulse::start().map_err(|error| TaskError::Failed(error.to_string()))?;
    let mut command = nextest(left_out);
    let mut again = Vec::new();
    for tried in 1.. {
        // What an earlier run reported is not of this one; that there is nothing is no error.
        fs::remove_file(&report).ok();
        let Err(problem) = run(&mut command) else { break };
        let failed = failed_tests(&fs::read_to_string(&report).unwrap_or_default());
        let stalled: Vec<_> = failed.iter().map(|test| test.stalled(&pulse)).collect();
        let may_explain = (1..=AGAIN_MAX).contains(&failed.len())
            && failed
                .iter()
                .zip(&stalled)
                .all(|(test, by)| !test.must_never && (*by >= DISTURBS || test.is_of_clusters()));
        if !may_explain || tried == TRIES {
            return Err(problem);
        }
        anstream::println!("\nOnce more, for this machine stood still or was busy while these failed:");
        for (test, stalled) in failed.iter().zip(&stalled) {
            anstream::println!("  {} {} ({} ms)", test.binary, test.name, stalled.as_millis());
        }
        again.extend(failed.iter().map(|test| format!("{} {}", test.binary, test.name)));
        let these: Vec<_> = failed.iter().map(FailedTest::filter).collect();
        command = nextest(left_out);
        command.args(["--filterset", &these.join(" | ")]);
    }
    Ok(again)
}

fn nextest(left_out: &Path) -> Command {
    let mut command = cargo(&["nextest", "run", "--workspace", "--release", "--no-fail-fast"]);
    // Its report has the times of the tests in the time zone of whoever runs it.
    command.env("TWINSITE_LEFT_OUT", left_out).env("TZ", "UTC");
    command
}

/// A test that failed, and when it ran.
#[derive(Debug, PartialEq, Eq)]
struct FailedTest {
    binary: String,
    name: String,
    began: SystemTime,
    took: Duration,
    /// Whether it is about something that must hold at any speed.
    must_never: bool,
}

impl FailedTest {
    /// The longest time for which the machine stood still meanwhile.
    fn stalled(&self, pulse: &Pulse) -> Duration {
        let now = Instant::now();
        let ago = self.began.elapsed().unwrap_or_default();
        let began = now.checked_sub(ago).unwrap_or(now);
        pulse.most_lost(began, began + self.took)
    }

    /// Whether it starts a whole cluster, whose nodes, clients and instances share this machine.
    fn is_of_clusters(&self) -> bool {
        self.binary.starts_with("twinsite-tests::")
    }

    fn filter(&self) -> String {
        format!("(binary_id(={}) & test(={}))", self.binary, self.name)
    }
}

/// The tests that failed by the JUnit report of nextest.
fn failed_tests(report: &str) -> Vec<FailedTest> {
    let attribute = |tag: &str, name: &str| {
        let found = Regex::new(&format!(" {name}=\"([^\"]*)\"")).ok()?.captures(tag)?;
        Some(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    };
    let cases = report.split("<testcase ").skip(1);
    let failed = cases.filter(|case| case.contains("<failure") || case.contains("<error"));
    let never = Regex::new(NEVER).ok();
    let read = |case: &str| {
        let tag = format!(" {}", case.split('>').next()?);
        let began = attribute(&tag, "timestamp")?.replace("+00:00", "Z");
        Some(FailedTest {
            binary: attribute(&tag, "classname")?,
            name: attribute(&tag, "name")?,
            began: humantime::parse_rfc3339(&began).ok()?,
            took: Duration::try_from_secs_f64(attribute(&tag, "time")?.parse().ok()?).ok()?,
            must_never: never.as_ref().is_none_or(|never| never.is_match(case)),
        })
    };
    failed.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_from_the_report() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" timestamp="2026-11-28T15:00:00.000+00:00" time="9.1">
    <testsuite name="twinsite-tests::rooms" tests="2" disabled="0" errors="0" failures="1">
        <testcase name="whole" classname="twinsite-tests::rooms" timestamp="2026-11-28T15:00:01.500+00:00" time="2.000">
        </testcase>
        <testcase name="split::a&lt;b" classname="twinsite-tests::rooms" timestamp="2026-11-28T15:00:03.500+00:00" time="24.244">
            <failure message="it panicked" type="test failure">why &lt;so&gt;</failure>
        </testcase>
    </testsuite>
</testsuites>"#;
        let [failed] = &failed_tests(report)[..] else { panic!("{:?}", failed_tests(report)) };
        assert_eq!((failed.binary.as_str(), failed.name.as_str()), ("twinsite-tests::rooms", "split::a<b"));
        assert_eq!(failed.took, Duration::from_millis(24_244));
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_878_003_500);
        assert_eq!(failed.began, began);
        assert!(failed.is_of_clusters() && !failed.must_never);
        assert_eq!(failed_tests(""), []);
        let with = |word: &str| failed_tests(&report.replace("why &lt;so&gt;", word))[0].must_never;
        for word in [
            "\"split_rooms\": 2,",
            "split_rooms\\&quot;: 2",
            "two_hosts_ms&quot;: 17",
            "&quot;epochs_monotonic&quot;: false",
        ] {
            assert!(with(word), "{word}");
        }
        for word in [
            "\"split_rooms\": 0,",
            "split_rooms\\&quot;: 0",
            "&quot;epochs_monotonic&quot;: true",
            "\"http_gap\": 5",
        ] {
            assert!(!with(word), "{word}");
        }
    }
}
