//! Drills on a live cluster that is a few lines long: what ends one, and that the way back is gone whatever happens.

mod fake;

use super::{Finished, Mandate, Phase, Preview, admissible, prepare, run, summary};
use crate::engine::{Origin, Report};
use crate::scenario::{Scenario, builtin, builtins};
use fake::{DRILL, Fake, ME, name, spec};
use std::time::Duration;
use twinsite_model::drill::SUMMARY_BYTES_MAX;
use twinsite_model::{DrillOutcome, OperationKind, Verdict};

/// A scenario with these steps.
fn scenario(steps: &str) -> Scenario {
    let text = format!(
        "version = 1\nname = \"a-test\"\ndescription = \"a test\"\n{steps}\n[observe]\nsettle = \"5s\"\nhold = \"50ms\"\n\
         [limits]\nhttp_gap = \"1s\"\nfailed_requests = 0\n[return]\nwithin = \"5s\"\n"
    );
    Scenario::parse("a-test.toml", &text).unwrap_or_else(|errors| panic!("{errors:?}"))
}

const THERE: &str = "[[step]]\ndo.switchover = { to = \"other-site\" }\n\
                     [[step]]\ndo.wait = { until = \"owner-at-other-site\", within = \"5s\" }\n";

async fn drill(fake: &Fake, scenario: &Scenario) -> Finished {
    let spec = spec();
    let ip = spec.floating_ips[0].clone();
    let mandate = Mandate { drill: DRILL, me: ME.to_owned(), spec, ip };
    run(scenario, &mandate, fake, fake, &mut |_| {}).await
}

fn switchovers(fake: &Fake) -> Vec<String> {
    fake.asked().into_iter().filter(|asked| asked.starts_with("switchover")).collect()
}

#[tokio::test]
async fn there_and_back_by_the_scenario_itself_passes() {
    let fake = Fake::new();
    let there_and_back = format!(
        "{THERE}[[step]]\ndo.switchover = {{ to = \"owner-site\" }}\n\
         [[step]]\ndo.wait = {{ until = \"owner-at-owner-site\", within = \"5s\" }}\n"
    );
    let Finished { outcome, report } = drill(&fake, &scenario(&there_and_back)).await;
    assert_eq!(outcome, DrillOutcome::Passed, "{:?}", report.broken);
    assert_eq!(switchovers(&fake), ["switchover sbg", "switchover gra"]);
    assert_eq!((fake.owner().as_str(), report.origin), ("gra-1", Origin::Live));
    assert_eq!(report.limits[0].name, "http_gap");
    assert!(
        report.runs[0].timeline.iter().any(|line| line.source == "cluster"),
        "{:?}",
        report.runs[0].timeline
    );
}

#[tokio::test]
async fn an_address_that_was_moved_away_is_moved_back() {
    let fake = Fake::new();
    let mut phases = Vec::new();
    let spec = spec();
    let ip = spec.floating_ips[0].clone();
    let mandate = Mandate { drill: DRILL, me: ME.to_owned(), spec, ip };
    let there = scenario(THERE);
    let done = run(&there, &mandate, &fake, &fake, &mut |progress| phases.push(progress.phase)).await;
    assert_eq!(done.outcome, DrillOutcome::Passed, "{:?}", done.report.broken);
    assert_eq!(switchovers(&fake), ["switchover sbg", "switchover gra"]);
    assert_eq!(fake.owner(), "gra-1");
    phases.dedup();
    assert_eq!(phases, [Phase::Before, Phase::Steps, Phase::Settling, Phase::WayBack]);
}

#[tokio::test]
async fn a_limit_that_breaks_ends_the_drill_and_the_address_goes_back() {
    let fake = Fake::new();
    fake.after("switchover sbg", |fake| fake.world().seen.gap = Duration::from_secs(2));
    fake.world().move_takes = Duration::from_millis(20);
    fake.world().forward_only = true;
    let forever =
        format!("{THERE}[[step]]\ndo.wait = {{ until = \"owner-at-owner-site\", within = \"30s\" }}\n");
    let Finished { outcome, report } = drill(&fake, &scenario(&forever)).await;
    assert_eq!(outcome, DrillOutcome::Aborted);
    assert!(
        report.broken.iter().any(|line| line.contains("limits.http_gap is 1000 ms")),
        "{:?}",
        report.broken
    );
    assert_eq!(fake.owner(), "gra-1");
}

#[tokio::test]
async fn a_move_under_way_is_called_off_where_that_is_possible() {
    let fake = Fake::new();
    fake.world().move_takes = Duration::from_secs(20);
    fake.after("switchover sbg", |fake| fake.world().seen.given_up = 1);
    let Finished { outcome, report } = drill(&fake, &scenario(THERE)).await;
    assert_eq!(outcome, DrillOutcome::Aborted);
    assert!(report.broken.iter().any(|line| line.contains("failed_requests is 0")), "{:?}", report.broken);
    assert!(fake.asked().contains(&"call off".to_owned()));
    assert_eq!(switchovers(&fake), ["switchover sbg"]);
    assert_eq!(fake.owner(), "gra-1");
}

#[tokio::test]
async fn a_person_ends_a_drill() {
    let fake = Fake::new();
    fake.after("switchover sbg", |fake| {
        fake.world().status.stop = Some(("operator bob".to_owned(), "a big meeting".to_owned()));
    });
    let Finished { outcome, report } = drill(&fake, &scenario(THERE)).await;
    assert_eq!(outcome, DrillOutcome::Aborted);
    assert!(report.broken.iter().any(|line| line.contains("operator bob") && line.contains("a big meeting")));
    assert_eq!(fake.owner(), "gra-1");
}

/// What fails for real in the middle of a drill is the cluster's to repair: the drill only lifts what it set.
#[tokio::test]
async fn a_real_failover_ends_the_drill_which_leaves_the_address_alone() {
    let fake = Fake::new();
    let steps = "[[step]]\ndo.pause = \"1m\"\n[[step]]\ndo.wait = { until = \"owner-at-other-site\", within = \"30s\" }\n";
    fake.after("pause", |fake| fake.move_to(OperationKind::Failover, "sbg-2"));
    let Finished { outcome, report } = drill(&fake, &scenario(steps)).await;
    assert_eq!(outcome, DrillOutcome::Aborted);
    assert!(report.broken.iter().any(|line| line.contains("a real failover began")), "{:?}", report.broken);
    assert_eq!(switchovers(&fake), Vec::<String>::new());
    assert_eq!(fake.asked().last().map(String::as_str), Some("resume"));
    assert_eq!(fake.world().status.paused_by, None);
}

#[tokio::test]
async fn somebody_elses_move_and_somebody_elses_pause_end_the_drill() {
    let fake = Fake::new();
    let waiting = "[[step]]\ndo.wait = { until = \"owner-at-other-site\", within = \"30s\" }\n";
    fake.after("begin", |fake| fake.move_to(OperationKind::Switchover, "gra-2"));
    let done = drill(&fake, &scenario(waiting)).await;
    assert!(done.report.broken[0].contains("somebody else moves"), "{:?}", done.report.broken);
    assert_eq!(switchovers(&fake), Vec::<String>::new());

    let fake = Fake::new();
    fake.after("begin", |fake| fake.world().status.paused_by = Some("operator bob".to_owned()));
    let done = drill(&fake, &scenario(waiting)).await;
    assert!(done.report.broken[0].contains("operator bob paused"), "{:?}", done.report.broken);
    assert!(!fake.asked().contains(&"resume".to_owned()), "the pause is not the drill's");
}

#[tokio::test]
async fn a_cluster_that_is_not_well_ends_the_drill_but_not_at_once() {
    let waiting = "[[step]]\ndo.wait = { until = \"owner-at-other-site\", within = \"30s\" }\n";
    for (unwell, said) in [(0, "no quorum"), (1, "sbg-2 is not heard"), (2, "sbg-meet-1 is unhealthy")] {
        let fake = Fake::new();
        fake.after("begin", move |fake| {
            let mut world = fake.world();
            match unwell {
                0 => world.no_quorum = true,
                1 => drop(world.status.cluster.heard.remove(&name("sbg-2"))),
                _ => drop(
                    world.status.cluster.verdicts.insert("sbg-meet-1".parse().unwrap(), Verdict::Unhealthy),
                ),
            }
        });
        // What is bad for a moment is no reason.
        let began = std::time::Instant::now();
        let done = drill(&fake, &scenario(waiting)).await;
        assert!(done.report.broken[0].contains(said), "{said}: {:?}", done.report.broken);
        assert_eq!(done.outcome, DrillOutcome::Aborted);
        assert!(began.elapsed() > Duration::from_secs(2), "{said}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_drill_that_was_ended_without_its_runner_goes_the_way_back_unless_another_runs() {
    let fake = Fake::new();
    fake.world().move_takes = Duration::from_millis(20);
    let forever = format!("{THERE}[[step]]\nafter = \"20s\"\ndo.resume = {{}}\n")
        .replace("do.resume = {}", "do = \"resume\"");
    fake.after("switchover sbg", |fake| fake.world().status.drill = None);
    let done = drill(&fake, &scenario(&forever)).await;
    assert_eq!((done.outcome, fake.owner().as_str()), (DrillOutcome::Aborted, "gra-1"));

    let fake = Fake::new();
    fake.world().move_takes = Duration::from_millis(20);
    fake.after("switchover sbg", |fake| fake.world().status.drill = Some(twinsite_model::DrillId(8)));
    let done = drill(&fake, &scenario(&forever)).await;
    assert_eq!(done.outcome, DrillOutcome::Aborted);
    assert_eq!(switchovers(&fake), ["switchover sbg"], "what becomes of it is the other drill's business");
}

#[tokio::test]
async fn what_a_rule_forbids_is_not_begun() {
    let fake = Fake::new();
    fake.world().refuses = Some("forbidden by target-healthy".to_owned());
    let spec = spec();
    let preview = prepare(&scenario(THERE), &spec, &spec.floating_ips[0], &fake).await.unwrap();
    let failing: Vec<_> = preview.failing().map(|guard| guard.name.as_str()).collect();
    assert_eq!(failing, ["switchover-to-sbg"]);
    // A rule that begins to forbid in the middle: the step is given up.
    let done = drill(&fake, &scenario(THERE)).await;
    assert_eq!(done.outcome, DrillOutcome::Failed);
    assert!(done.report.broken[0].contains("forbidden by target-healthy"), "{:?}", done.report.broken);
    assert_eq!(switchovers(&fake), Vec::<String>::new());
}

#[tokio::test]
async fn leadership_goes_where_the_scenario_says() {
    let fake = Fake::new();
    let steps = "[[step]]\ndo.lead = { to = \"other-site\" }\n[[step]]\ndo.lead = { to = \"other-site\" }\n\
                 [[step]]\ndo.lead = { to = \"witness\" }\n[[step]]\ndo.lead = { to = \"witness\" }\n";
    let done = drill(&fake, &scenario(steps)).await;
    assert_eq!(done.outcome, DrillOutcome::Passed, "{:?}", done.report.broken);
    let led: Vec<_> = fake.asked().into_iter().filter(|asked| asked.starts_with("lead")).collect();
    assert_eq!(led, ["lead sbg-1", "lead sbg-2", "lead wit-1"]);
}

#[tokio::test]
async fn a_preview_says_what_would_happen_and_does_nothing() {
    let fake = Fake::new();
    let spec = spec();
    let ip = &spec.floating_ips[0];
    let preview: Preview = prepare(&scenario(THERE), &spec, ip, &fake).await.unwrap();
    let steps: Vec<_> = preview.steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(
        steps,
        ["switchover to sbg", "wait until the other site answers", "the way back: switchover to gra"]
    );
    assert_eq!(preview.predicted_outage, Duration::from_millis(80), "two moves");
    assert_eq!((preview.rooms, preview.tunnels), (Some(3), Some(12)));
    assert_eq!(preview.failing().count(), 0, "{:?}", preview.guards);
    assert_eq!(fake.asked(), Vec::<String>::new());

    let endless = "[[step]]\n[step.do.repeat]\ntimes = 1000\nevery = \"1m\"\nsteps = [{ do = \"resume\" }]\n";
    let error = prepare(&scenario(endless), &spec, ip, &fake).await.unwrap_err().to_string();
    assert!(error.contains("2h"), "{error}");
    let elsewhere = "[[step]]\ndo.switchover = { to = \"par\" }\n";
    let error = prepare(&scenario(elsewhere), &spec, ip, &fake).await.unwrap_err().to_string();
    assert!(error.contains("step 1") && error.contains("par"), "{error}");

    fake.world().status.cluster.verdicts.insert("gra-meet-1".parse().unwrap(), Verdict::Unhealthy);
    fake.world().status.cluster.heard.remove(&name("gra-2"));
    let preview = prepare(&scenario(THERE), &spec, ip, &fake).await.unwrap();
    let failing: Vec<_> = preview.failing().map(|guard| guard.name.as_str()).collect();
    assert_eq!(failing, ["nodes-heard", "way-back"], "nothing leaves a site that it could not go back to");
}

#[test]
fn the_exercises_for_live_clusters_are_admissible_and_those_that_break_things_are_not() {
    let mut admitted = Vec::new();
    for builtin in builtins() {
        let scenario = builtin.scenario().unwrap();
        let findings = admissible("x.toml", builtin.text, &scenario);
        if findings.is_empty() {
            admitted.push(builtin.name);
        }
        let breaks = builtin.text.contains("do.kill") || builtin.text.contains("do.cut");
        assert!(!breaks || !findings.is_empty(), "{}", builtin.name);
    }
    for name in ["switchover-and-back", "switchover", "leader-handover"] {
        assert!(admitted.contains(&name), "{name} is not among {admitted:?}");
    }
}

#[test]
fn what_is_not_admissible_is_explained_with_its_place() {
    let text = builtin("owner-killed").unwrap().text;
    let scenario = Scenario::parse("owner-killed.toml", text).unwrap();
    let findings: Vec<_> =
        admissible("owner-killed.toml", text, &scenario).iter().map(ToString::to_string).collect();
    let line = text.lines().position(|line| line.contains("[[step]]")).unwrap() + 1;
    let first = findings.iter().find(|finding| finding.contains("step 1.do.kill")).unwrap();
    assert!(first.starts_with(&format!("owner-killed.toml:{line}:")), "{first}");
    assert!(first.contains("lab"), "{first}");
    let nested = "version = 1\nname = \"x\"\ndescription = \"x\"\n[[step]]\n[step.do.repeat]\ntimes = 2\nevery = \"1s\"\n\
                  steps = [{ do.failover = { to = \"other-site\" } }]\n";
    let scenario = Scenario::parse("x.toml", nested).unwrap();
    let finding = admissible("x.toml", nested, &scenario).remove(0).to_string();
    assert!(finding.contains("step 1.do.repeat.steps 1.do.failover"), "{finding}");
}

#[tokio::test]
async fn a_summary_fits_and_is_a_report_again() {
    let fake = Fake::new();
    let Finished { mut report, .. } = drill(&fake, &scenario(THERE)).await;
    assert_eq!(serde_json::from_str::<Report>(&summary(&report)).unwrap().scenario, "a-test");
    let line = report.runs[0].timeline[0].clone();
    for number in 0..3_000 {
        let mut line = line.clone();
        (line.at_ms, line.what) = (number, format!("line {number} of a long drill"));
        report.runs[0].timeline.push(line);
    }
    let long = summary(&report);
    assert!(long.len() <= SUMMARY_BYTES_MAX && long.len() > SUMMARY_BYTES_MAX / 4, "{}", long.len());
    let read: Report = serde_json::from_str(&long).unwrap();
    let timeline = &read.runs[0].timeline;
    assert_eq!(timeline.last().unwrap().what, "line 2999 of a long drill");
    let note = timeline.iter().find(|line| line.what.contains("left out")).unwrap();
    let left_out: usize = note.what.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(left_out + timeline.len() - 1, report.runs[0].timeline.len());

    report.broken = (0..200).map(|number| format!("{number} {}", "x".repeat(2_000))).collect();
    let broken = summary(&report);
    assert!(broken.len() <= SUMMARY_BYTES_MAX, "{}", broken.len());
    assert_eq!(serde_json::from_str::<Report>(&broken).unwrap().broken.len(), 8);
}
