use super::*;
use crate::audit::Audit;
use crate::engine::{Origin, RunReport, Verdict};
use crate::process::Log;
use serde_json::json;

/// A report as it is read back, of a failover in a lab or on loopback addresses.
pub(super) fn report(name: &str, began_ms: u64) -> Report {
    let value = json!({
        "version": 1,
        "origin": "loopback",
        "began_ms": began_ms,
        "scenario": name,
        "description": "kill -9 of the owner",
        "verdict": "pass",
        "profile": "lan",
        "store": "embedded",
        "broken": [],
        "limits": [{ "name": "http_gap", "median_ms": 61, "limit_ms": 500 }],
        "counts": [{ "name": "failed_requests", "highest": 0, "limit": 0 }],
        "audit": Audit::clean(),
        "runs": [{
            "run": 1,
            "gap_ms": { "http": 61, "keep_alive": 58, "websocket": 160 },
            "phases_ms": { "detect": 12, "fence": 1, "move": 9, "announce": 11, "verify": 21 },
            "requests": { "ok": 400, "failed": 0, "retried": 8, "failures": {} },
            "connects": { "ok": 900, "failed": 20, "retried": 0, "failures": { "refused": 20 } },
            "attempts": { "refused": 20, "broken": 0 },
            "tunnels": { "lost": 20, "back": 20, "longest_ms": 170 },
            "owner_before": "gra-1 (1.1)",
            "owner_after": "sbg-1 (1.2)",
            "expectations": [{ "name": "owner", "holds": true, "line": "the owner is sbg-1 (1.2) after gra-1 (1.1), as expected" }],
            "broken": [],
            "spans": {
                "observed_ms": 1_900,
                "phases": [
                    { "of_move": 1, "phase": "detect", "from_ms": 0, "to_ms": 12 },
                    { "of_move": 1, "phase": "fence", "from_ms": 12, "to_ms": 13 },
                    { "of_move": 1, "phase": "move", "from_ms": 14, "to_ms": 23 },
                    { "of_move": 1, "phase": "announce", "from_ms": 23, "to_ms": 34 },
                    { "of_move": 1, "phase": "verify", "from_ms": 34, "to_ms": 55 },
                ],
                "gaps": [
                    { "clients": "new connections", "from_ms": -1, "to_ms": 60 },
                    { "clients": "WebSocket", "from_ms": -4, "to_ms": 156 },
                ],
                "nodes": [
                    { "node": "gra-1", "answered": [[-1_300, -1]] },
                    { "node": "sbg-1", "answered": [[60, 1_900]] },
                ],
            },
            "timeline": [
                { "at_ms": 0, "source": "drill", "what": "kill -9: node gra-1" },
                { "at_ms": 12, "source": "cluster", "what": "failover to sbg-1 begins: owner-released" },
                { "at_ms": 60, "source": "clients", "what": "first answer from sbg-1 (1.2)" },
            ],
        }],
    });
    serde_json::from_value(value).unwrap()
}

const BEGAN: u64 = 1_795_862_661_000;

/// Makes something of a report not hold.
type Breaks = fn(&mut Report);

#[test]
fn what_processes_wrote_is_kept_beside_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = report("owner-killed", BEGAN);
    failed.runs[0].logs.push(Log { name: "node-gra-1".to_owned(), end: b"said\n".to_vec() });
    let kept = Archive::at(folder.path()).keep(&failed, None).unwrap();
    let run = failed.runs[0].run;
    assert_eq!(fs::read(kept.join(format!("{LOGS}/{run}/node-gra-1.log"))).unwrap(), b"said\n");
}

#[test]
fn what_is_kept_is_found_again_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::at(folder.path().join("a/b"));
    assert!(matches!(archive.find(None), Err(ArchiveError::Empty { .. })));
    let first = archive.keep(&report("owner-killed", BEGAN), Some("version = 1\n")).unwrap();
    // One that was killed in the middle of writing.
    let unfinished = archive.root().join(".new-1-2");
    fs::create_dir(&unfinished).unwrap();
    let second = archive.keep(&report("owner-killed", BEGAN), Some("version = 1\n")).unwrap();
    assert_eq!(first.file_name().unwrap(), "20261128T104421Z-owner-killed");
    assert_eq!(second.file_name().unwrap(), "20261128T104421Z-owner-killed-2");
    assert!(!unfinished.exists());
    for file in [JSON, JUNIT, PAGE, SCENARIO] {
        assert!(fs::metadata(first.join(file)).unwrap().len() > 0, "{file}");
    }
    let (id, found) = archive.find(None).unwrap();
    assert_eq!((id.as_str(), found.scenario.as_str()), ("20261128T104421Z-owner-killed-2", "owner-killed"));
    assert_eq!(found.runs[0].spans, report("owner-killed", BEGAN).runs[0].spans);
    assert!(archive.find(Some("20261128T104421Z-owner-killed")).is_ok());
    for unknown in ["x", "../b/20261128T104421Z-owner-killed", ""] {
        assert!(matches!(archive.find(Some(unknown)), Err(ArchiveError::Unknown { .. })), "{unknown}");
    }
}

#[test]
fn the_newest_are_kept_and_what_is_not_ours_too() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::at(folder.path());
    fs::create_dir(folder.path().join("19990101-mine")).unwrap();
    for number in 0..ENTRIES_MAX {
        fs::create_dir(folder.path().join(format!("20250101T{number:06}Z-old"))).unwrap();
    }
    archive.keep(&report("owner-killed", BEGAN), None).unwrap();
    let ids = archive.ids().unwrap();
    assert_eq!(ids.len(), ENTRIES_MAX);
    assert_eq!(ids.first().unwrap(), "20250101T000001Z-old");
    assert!(folder.path().join("19990101-mine").exists());
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::at(folder.path());
    let kept = archive.keep(&report("owner-killed", BEGAN), None).unwrap();
    let damaged = |id: &str, json: &str| {
        let folder = folder.path().join(id);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(JSON), json).unwrap();
    };
    damaged("20260101T000000Z-damaged", "{\"version\": 1, \"scenario\": 7}");
    damaged("20260102T000000Z-newer", "{\"version\": 2}");
    fs::create_dir(folder.path().join("20260103T000000Z-empty")).unwrap();
    let entries = archive.entries().unwrap();
    let problems: Vec<_> =
        entries.iter().filter_map(|entry| Some(entry.report.as_ref().err()?.to_string())).collect();
    let wanted = [
        "20260101T000000Z-damaged/report.json: it is no report of a drill: ",
        "20260102T000000Z-newer/report.json: a report of version 2, and this program reads version 1",
        "20260103T000000Z-empty/report.json: No such file",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:?}");
    for (problem, wanted) in problems.iter().zip(wanted) {
        assert!(problem.contains(wanted), "{problem}");
    }
    assert_eq!(entries.last().unwrap().folder, kept);
    assert!(entries.last().unwrap().report.is_ok());

    let long = File::create(folder.path().join("20260103T000000Z-empty").join(JSON)).unwrap();
    long.set_len(REPORT_BYTES_MAX + 1).unwrap();
    let error = archive.find(Some("20260103T000000Z-empty")).unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn one_drill_at_a_time_which_others_find_and_can_end() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::at(folder.path());
    assert_eq!(archive.running(), None);
    let claim = archive.claim("owner-killed").unwrap();
    let refused = archive.claim("site-loss").unwrap_err().to_string();
    let wanted = format!("a drill runs already: `owner-killed`, process {}", std::process::id());
    assert!(refused.starts_with(&wanted), "{refused}");
    let running = archive.running().unwrap();
    assert!(!claim.abort_is_wanted());
    archive.ask_to_abort(&running).unwrap();
    archive.ask_to_abort(&running).unwrap();
    assert!(claim.abort_is_wanted());
    drop(claim);
    assert_eq!(archive.running(), None);
    // What was wished of another one is not wished of this one.
    archive.ask_to_abort(&Running { life: Life { pid: 1, started: 1 }, scenario: String::new() }).unwrap();
    let claim = archive.claim("site-loss").unwrap();
    assert!(!claim.abort_is_wanted());
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "only the lock");
}

/// How often a text is in another one.
fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn junit_fails_if_and_only_if_the_drill_did_not_pass() {
    let passed = report("owner-killed", BEGAN);
    let xml = junit(&passed);
    assert_eq!((count(&xml, "<testcase "), count(&xml, "<failure ")), (9, 0), "{xml}");
    for name in ["audit dual-answer", "limit http_gap", "limit failed_requests", "run 1: expect owner"] {
        assert!(xml.contains(&format!("name=\"{name}\"")), "{name}: {xml}");
    }
    assert!(xml.contains("tests=\"9\" failures=\"0\" errors=\"0\" skipped=\"0\" time=\"1.900\""), "{xml}");

    let broken = |change: fn(&mut Report)| {
        let mut report = passed.clone();
        report.verdict = Verdict::Fail;
        change(&mut report);
        junit(&report)
    };
    let fails: [(Breaks, &str); 6] = [
        (|report| report.audit.dual_answer_ms = 3, "two owners answered at once for 3 ms"),
        (|report| report.limits[0].median_ms = Some(501), "http_gap: median 501 ms, limit 500 ms"),
        (|report| report.counts[0].highest = 2, "failed_requests: 2, at most 0 allowed"),
        (|report| report.runs[0].expectations[0].holds = false, "the owner is sbg-1 (1.2)"),
        (
            |report| report.runs[0].broken.push("step 1: <no> \"way\"".into()),
            "step 1: &lt;no&gt; &quot;way&quot;",
        ),
        (|report| report.broken.push("of another kind".into()), "of another kind"),
    ];
    for (change, line) in fails {
        let xml = broken(change);
        assert_eq!(count(&xml, "<failure "), 1, "{xml}");
        assert!(xml.contains(&format!("<failure message=\"{line}")), "{line}: {xml}");
    }
    let aborted = broken(|report| {
        report.verdict = Verdict::Aborted;
        report.runs[0].aborted = true;
        report.limits[0].median_ms = None;
    });
    assert_eq!((count(&aborted, "<failure "), count(&aborted, "<skipped ")), (1, 1), "{aborted}");
    let disturbed = broken(|report| {
        report.verdict = Verdict::Disturbed;
        report.limits[0].median_ms = Some(501);
    });
    assert_eq!((count(&disturbed, "<failure "), count(&disturbed, "<skipped ")), (1, 1), "{disturbed}");
    assert!(disturbed.contains("name=\"measured undisturbed\""), "{disturbed}");
}

/// Everything of a report that is text.
fn hostile() -> Report {
    let bad = "</script></text></title><script>alert('x')</script>\"&\u{1}";
    let mut report = report("owner-killed", BEGAN);
    report.scenario = bad.into();
    report.description = bad.into();
    report.profile = bad.into();
    report.store = bad.into();
    report.broken = vec![bad.into()];
    report.limits[0].name = bad.into();
    report.counts[0].name = bad.into();
    report.audit.evidence = vec![bad.into()];
    let run: &mut RunReport = &mut report.runs[0];
    run.owner_before = Some(bad.into());
    run.owner_after = None;
    run.broken = vec![bad.into()];
    run.expectations[0].line = bad.into();
    run.expectations[0].name = bad.into();
    run.connects.failures.insert(bad.into(), 3);
    run.spans.gaps[0].clients = bad.into();
    run.spans.phases[0].phase = bad.into();
    run.spans.nodes[0].node = bad.into();
    for entry in &mut run.timeline {
        entry.what = bad.into();
    }
    run.timeline[2].source = bad.into();
    report
}

#[test]
fn nothing_of_a_report_is_markup() {
    let hostile = hostile();
    for text in [page(&hostile), junit(&hostile)] {
        assert!(!text.contains("<script") && !text.contains("alert('") && !text.contains('\u{1}'), "{text}");
        assert!(text.contains("&lt;script&gt;"));
    }
}

#[test]
fn the_page_needs_nothing_else_and_shows_the_gap_to_scale() {
    let report = report("owner-killed", BEGAN);
    let html = page(&report);
    for elsewhere in ["http:", "https:", "//", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!html.contains(elsewhere), "{elsewhere}");
    }
    // The close-up and the whole run.
    assert_eq!((count(&html, "<svg "), count(&html, "class=\"gap-band\"")), (2, 2));
    let number = |text: &str, key: &str| -> f64 {
        let (_, rest) = text.split_once(&format!("{key}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let (_, close) = html.split_once("class=\"gap-band\"").unwrap();
    let (_, whole) = close.split_once("class=\"gap-band\"").unwrap();
    let (_, detect) = close.split_once("class=\"phase detect\"").unwrap();
    // 61 ms of gap, 12 ms of detection, in the same picture.
    let ratio = number(close, "width") / number(detect, "width");
    assert!((ratio - 61.0 / 12.0).abs() < 0.05, "{ratio}");
    assert!(number(whole, "width") < number(close, "width") / 3.0);
    for word in ["pass", "kill -9: node gra-1", "sbg-1 answers from +60 ms", "2026-11-28 10:44:21 UTC"] {
        assert!(html.contains(word), "{word}");
    }
    assert_eq!(count(&html, "class=\"answers\""), 4);
}

#[test]
fn whatever_the_numbers_there_is_a_page() {
    let mut report = report("owner-killed", u64::MAX);
    report.origin = Origin::Lab;
    let run = &mut report.runs[0];
    run.spans.observed_ms = i64::MAX;
    run.spans.gaps[0].from_ms = i64::MAX;
    run.spans.gaps[0].to_ms = i64::MIN;
    run.spans.gaps[1].to_ms = i64::MAX;
    run.spans.phases[0].to_ms = i64::MAX;
    run.spans.phases[1].from_ms = i64::MIN;
    run.spans.nodes[0].answered = vec![(i64::MAX, i64::MIN), (i64::MIN, i64::MAX)];
    run.timeline[0].at_ms = i64::MIN;
    run.gap_ms.http = Some(u64::MAX);
    run.tunnels.lost = usize::MAX;
    run.requests.ok = u64::MAX;
    run.requests.failed = u64::MAX;
    let html = page(&report);
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    let old: Report = {
        let mut value = serde_json::to_value(&report).unwrap();
        let run = &mut value["runs"][0];
        for key in ["spans", "expectations"] {
            run.as_object_mut().unwrap().remove(key);
        }
        serde_json::from_value(value).unwrap()
    };
    assert!(page(&old).contains("<svg "), "one from before there were spans");
    report.runs.clear();
    report.verdict = Verdict::Aborted;
    assert!(page(&report).contains("aborted before its first step"));
}
