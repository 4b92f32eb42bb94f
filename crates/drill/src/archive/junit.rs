//! A report as JUnit XML: a test suite for the drill, a test case for each thing that must hold.

use super::markup::Escaped;
use super::utc;
use crate::engine::{Report, RunReport, Verdict};
use std::fmt::Write as _;

/// One thing that must hold.
struct Case {
    name: String,
    seconds: f64,
    end: End,
}

/// How it ended.
enum End {
    Passed,
    /// With what was wrong.
    Failed(String),
    /// With why nobody can say.
    Skipped(String),
}

/// The report as JUnit XML. A case has failed if and only if the drill did not pass.
pub fn junit(report: &Report) -> String {
    let cases = cases(report);
    let failures = cases.iter().filter(|case| matches!(case.end, End::Failed(_))).count();
    let skipped = cases.iter().filter(|case| matches!(case.end, End::Skipped(_))).count();
    let seconds: f64 = cases.iter().map(|case| case.seconds).sum();
    let name = Escaped(&report.scenario);
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\"",
        cases.len()
    );
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"twinsite drill\" {counts}>\n\
         \x20 <testsuite name=\"{name}\" timestamp=\"{}\" {counts}>\n\
         \x20   <properties>\n",
        utc(report.began_ms).trim_end_matches('Z')
    );
    let runs = report.runs.len().to_string();
    let properties = [
        ("description", report.description.as_str()),
        ("verdict", report.verdict.as_str()),
        ("origin", report.origin.as_str()),
        ("profile", report.profile.as_str()),
        ("store", &report.store),
        ("runs", &runs),
    ];
    for (key, value) in properties {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(xml, "      <property name=\"{key}\" value=\"{}\"/>", Escaped(value));
    }
    xml.push_str("    </properties>\n");
    for case in &cases {
        let _ = write!(
            xml,
            "    <testcase classname=\"twinsite.drill.{name}\" name=\"{}\" time=\"{:.3}\"",
            Escaped(&case.name),
            case.seconds
        );
        match &case.end {
            End::Passed => xml.push_str("/>\n"),
            End::Failed(why) => {
                let first = why.lines().next().unwrap_or_default();
                let _ = writeln!(
                    xml,
                    ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                    Escaped(first),
                    Escaped(why)
                );
            }
            End::Skipped(why) => {
                let _ = writeln!(xml, ">\n      <skipped message=\"{}\"/>\n    </testcase>", Escaped(why));
            }
        }
    }
    if !report.audit.evidence.is_empty() {
        let evidence = report.audit.evidence.join("\n");
        let _ = writeln!(xml, "    <system-out>{}</system-out>", Escaped(evidence));
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn cases(report: &Report) -> Vec<Case> {
    let aborted = report.runs.iter().any(|run| run.aborted).then_some(Verdict::Aborted.unjudged());
    let unjudged = report.verdict.unjudged().or(aborted.flatten());
    let judged = |holds: bool, line: String| match (holds, unjudged) {
        (true, _) => End::Passed,
        (false, None) => End::Failed(line),
        (false, Some(why)) => End::Skipped(why.to_owned()),
    };
    let mut cases = Vec::new();
    let checks = if report.is_audited() { report.audit.checks() } else { Vec::new() };
    for check in checks {
        let end = if check.holds { End::Passed } else { End::Failed(check.line) };
        cases.push(Case { name: format!("audit {}", check.name), seconds: 0.0, end });
    }
    for limit in &report.limits {
        let measured = limit.median_ms.map_or_else(
            || "nothing was measured".to_owned(),
            |ms| format!("median {ms} ms, limit {} ms", limit.limit_ms),
        );
        let end = judged(limit.holds(), format!("{}: {measured}", limit.name));
        cases.push(Case { name: format!("limit {}", limit.name), seconds: 0.0, end });
    }
    for count in &report.counts {
        let line = format!("{}: {}, at most {} allowed", count.name, count.highest, count.limit);
        cases.push(Case {
            name: format!("limit {}", count.name),
            seconds: 0.0,
            end: judged(count.holds(), line),
        });
    }
    for run in &report.runs {
        cases.extend(of_run(run));
    }
    if let Some(why) = unjudged {
        let name =
            if report.verdict == Verdict::Disturbed { "measured undisturbed" } else { "run to its end" };
        cases.push(Case { name: name.to_owned(), seconds: 0.0, end: End::Failed(why.to_owned()) });
    }
    let has_failed = cases.iter().any(|case| matches!(case.end, End::Failed(_)));
    if !report.passed() && !has_failed {
        let end = End::Failed(report.broken.join("\n"));
        cases.push(Case { name: "verdict".to_owned(), seconds: 0.0, end });
    }
    cases
}

/// The steps with the way back, and each expectation.
fn of_run(run: &RunReport) -> Vec<Case> {
    let unexpected: Vec<_> = run.expectations.iter().filter(|check| !check.holds).collect();
    let is_expectation = |line: &&String| unexpected.iter().any(|check| check.line == **line);
    let lines: Vec<_> = run.broken.iter().filter(|line| !is_expectation(line)).map(String::as_str).collect();
    let mut cases = vec![Case {
        name: format!("run {}: steps and way back", run.run),
        seconds: run.spans.observed_ms.max(0) as f64 / 1_000.0,
        end: if lines.is_empty() { End::Passed } else { End::Failed(lines.join("\n")) },
    }];
    cases.extend(run.expectations.iter().map(|check| Case {
        name: format!("run {}: expect {}", run.run, check.name),
        seconds: 0.0,
        end: if check.holds { End::Passed } else { End::Failed(check.line.clone()) },
    }));
    cases
}
