use super::*;

const MINIMAL: &str = r#"
version = 1
name = "minimal"
description = "The least that is a scenario."

[[step]]
do.kill = { nodes = "owner" }
"#;

fn errors(text: &str) -> Vec<String> {
    let errors = Scenario::parse("x.toml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn with(line: &str) -> String {
    format!("{MINIMAL}\n{line}\n")
}

#[test]
fn the_least_scenario_has_the_standard_cluster_and_load() {
    let scenario = Scenario::parse("x.toml", MINIMAL).unwrap();
    assert_eq!(scenario.topology.shape(), layout::Shape::default());
    assert_eq!(scenario.load.plan().connect_every, Duration::from_millis(2));
    let step = scenario.steps().next().unwrap();
    let processes = Processes { nodes: Some(NodeTarget::Owner), ..Processes::default() };
    assert_eq!(step.action, Action::Kill(processes));
}

#[test]
fn leadership_goes_to_somebody_in_particular() {
    for target in ["owner", "owner-site", "other-site", "witness", "gra-1"] {
        let text = with(&format!("[[step]]\ndo.lead = {{ to = \"{target}\" }}"));
        assert!(Scenario::parse("x.toml", &text).is_ok(), "{target}");
    }
    for target in ["all", "leader", "victims"] {
        let errors = errors(&with(&format!("[[step]]\ndo.lead = {{ to = \"{target}\" }}")));
        assert!(errors.iter().any(|error| error.contains("step 2.do.lead.to")), "{errors:?}");
    }
}

#[test]
fn every_exercise_of_the_program_is_right_and_has_its_files_name() {
    for builtin in builtins() {
        let scenario = builtin.scenario().unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(scenario.name(), builtin.name);
        assert!(!scenario.description.is_empty());
    }
    assert!(builtin("no-such").unwrap_err().contains(&"owner-killed"));
}

#[test]
fn no_exercise_file_is_left_out_of_the_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut names: Vec<_> = builtins().iter().map(|builtin| builtin.name).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn stated_limits_of_the_exercises() {
    let gap = |name: &str| {
        let scenario = builtin(name).unwrap().scenario().unwrap();
        let limits = scenario.limits.durations(Profile::Lan);
        limits.iter().find(|(limit, _)| *limit == "http_gap").map(|(_, limit)| limit.as_millis())
    };
    assert_eq!(gap("owner-killed"), Some(500));
    assert_eq!(gap("owner-frozen"), Some(300 + 200));
    assert_eq!(gap("site-loss"), Some(300 + 200));
    assert_eq!(gap("site-loss-with-leader"), Some(120 + 25 + 300 + 350));
    let switchover = builtin("switchover").unwrap().scenario().unwrap();
    assert_eq!(switchover.limits.failed_requests, Some(0));
}

#[test]
fn errors_name_file_line_and_key_and_say_what_to_do() {
    let unknown = errors(&with("[load]\nparticipant = 3"));
    assert!(
        unknown[0].starts_with("x.toml:10:1: load.participant: unknown field `participant`"),
        "{unknown:?}"
    );
    let duration = errors(&with("[load]\nhttp_pause = 3"));
    assert!(duration[0].starts_with("x.toml:10:14: "), "{duration:?}");
    let limit = errors(&with("[limits]\nhttp_gap = \"leese + 1ms\""));
    assert!(
        limit[0].starts_with("x.toml:10:12: limits.http_gap: `leese + 1ms` is no limit: write"),
        "{limit:?}"
    );
    let target = errors(&MINIMAL.replace("\"owner\"", "\"Owner!\""));
    assert!(
        target[0].contains("x.toml:7:") && target[0].contains("neither a name nor one of owner,"),
        "{target:?}"
    );
    let version = errors(&MINIMAL.replace("version = 1", "version = 7"));
    assert!(version[0].starts_with("x.toml:2:11: version: 7: this program reads version 1"), "{version:?}");
    let rooms = errors(&with("[load]\nrooms = 0"));
    assert_eq!(rooms, ["x.toml:10:1: rooms: 0: participants need at least one room"]);
}

#[test]
fn contradictions_between_steps_are_found() {
    let victims = errors(&MINIMAL.replace("\"owner\"", "\"victims\""));
    assert_eq!(victims, ["x.toml:6:1: step 1.do: no earlier step has hit a node"]);
    let nobody = errors(&MINIMAL.replace("nodes = \"owner\"", ""));
    assert!(nobody[0].contains("names nobody"), "{nobody:?}");
    let redis = errors(&with("[[step]]\ndo.redis = \"flush\""));
    assert!(redis[0].contains("guards.store = \"own-redis\""), "{redis:?}");
    let cut = errors(&with("[[step]]\ndo.cut = { from = \"gra\", to = \"gra\" }"));
    assert!(cut[0].contains("step 2.do.cut: from and to are the same site"), "{cut:?}");
    let lossy = "do.shape = { from = \"gra\", to = \"sbg\", loss_percent = 20 }";
    let loss = errors(&with(&format!("[[step]]\n{lossy}")));
    assert!(loss[0].contains("step 2.do.shape.loss_percent: packets are lost only in a lab"), "{loss:?}");
    let more_than_all = errors(&with(&format!("[[step]]\n{}", lossy.replace("20", "101"))));
    assert!(more_than_all[0].contains("101 is more than 100 percent"), "{more_than_all:?}");
    let host = errors(&with("[[step]]\ndo.cut-host = { nodes = \"owner\" }"));
    assert_eq!(
        host,
        ["x.toml:9:1: step 2.do: nodes have hosts of their own in a lab only; set guards.network = \"lab\""]
    );
    let disk = errors(&with("[[step]]\ndo.fill-disk = { nodes = \"owner\" }"));
    assert!(
        disk[0].contains("step 2.do: nodes share this machine's disk; set topology.disk_mib"),
        "{disk:?}"
    );
    let small = errors(&with("[topology]\ndisk_mib = 1\n[guards]\nnetwork = \"lab\""));
    assert_eq!(small, ["x.toml:10:1: disk_mib: 1: use 8 to 256"]);
    let nothing = errors(&with("[[step]]\ndo.apply = { policy = {} }"));
    assert!(nothing[0].contains("step 2.do.apply: changes nothing"), "{nothing:?}");
    let none = errors("version = 1\nname = \"x\"\ndescription = \"x\"\n");
    assert_eq!(none, ["x.toml: step: there is none; write at least one [[step]]"]);
}

#[test]
fn what_is_repeated_is_checked_like_any_step() {
    let repeat = |what: &str| {
        with(&format!("[[step]]\ndo.repeat = {{ times = 3, every = \"lease\", steps = [{what}] }}"))
    };
    let scenario = Scenario::parse(
        "x.toml",
        &repeat("{ do.isolate = \"owner-site\" }, { after = \"1s\", do = \"heal-links\" }"),
    )
    .unwrap();
    let Some(Action::Repeat(repeated)) = scenario.steps().nth(1).map(|step| &step.action) else { panic!() };
    assert_eq!((repeated.times, repeated.steps.len()), (3, 2));
    let cases = [
        ("", "step 2.do.repeat.steps: there is none"),
        ("{ do.redis = \"flush\" }", "step 2.do.repeat.steps 1.do.redis: this needs a Redis"),
        ("{ do.thaw = { instances = \"victims\" } }", "step 2.do.repeat.steps 1.do: no earlier step has hit"),
        (
            "{ do.repeat = { times = 1, every = \"1s\", steps = [{ do = \"resume\" }] } }",
            "step 2.do.repeat.steps 1: repeats within itself",
        ),
    ];
    for (steps, problem) in cases {
        let found = errors(&repeat(steps));
        assert!(found.iter().any(|line| line.contains(problem)), "{steps}: {found:?}");
    }
    let often = errors(&repeat("{ do = \"resume\" }").replace("times = 3", "times = 1001"));
    assert!(often[0].contains("step 2.do.repeat.times: 1001: use 1 to 1000"), "{often:?}");
}

#[test]
fn a_lab_has_its_own_limits_where_it_says_so() {
    let text =
        with("[limits]\nhttp_gap = \"1s\"\nfailed_requests = 0\n[limits_in_lab]\nhttp_gap = \"2*lease\"");
    let scenario = Scenario::parse("x.toml", &text).unwrap();
    let limits = |ground| {
        let limits = scenario.limits_on(ground);
        (limits.durations(Profile::Lan), limits.failed_requests)
    };
    assert_eq!(limits(Ground::Loopback), (vec![("http_gap", Duration::from_secs(1))], Some(0)));
    assert_eq!(limits(Ground::Lab), (vec![("http_gap", Duration::from_millis(600))], Some(0)));
}

#[test]
fn a_change_of_the_policy_leaves_the_rest() {
    let policy = twinsite_model::spec::PolicySpec::default();
    let change = PolicyChange { failovers_max: Some(7), ..PolicyChange::default() };
    let changed = change.applied_to(&policy);
    assert_eq!(changed, twinsite_model::spec::PolicySpec { failovers_max: 7, ..policy });
}
