use super::*;
use crate::scenario::{Action, Condition, Processes, RedisAction};
use proptest::prelude::*;

fn wish(seed: u64, minutes: u32) -> Wish {
    Wish { seed, minutes, shape: Shape::default(), ground: Ground::Loopback, own_redis: true }
}

/// What a step breaks; nothing for what mends and waits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Broken {
    cluster: u32,
    instances: u32,
    store: u32,
}

fn broken_by(action: &Action) -> Broken {
    let processes = |processes: &Processes| Broken {
        cluster: u32::from(processes.nodes.is_some() || processes.guardians.is_some()),
        instances: u32::from(processes.instances.is_some()),
        store: 0,
    };
    let (cluster, instances, store) = match action {
        Action::Kill(hit) | Action::Freeze(hit) | Action::Stop(hit) => return processes(hit),
        Action::Upstream(upstream) => (0, u32::from(upstream.answer != crate::meeting::Answers::Well), 0),
        Action::Redis(action) => (0, 0, u32::from(breaks_redis(*action))),
        Action::Thaw(_) | Action::Start(_) | Action::HealLinks | Action::Wait(_) => (0, 0, 0),
        Action::Cut(_)
        | Action::Isolate(_)
        | Action::Shape(_)
        | Action::Repeat(_)
        | Action::CutHost(_)
        | Action::FreezeHost(_)
        | Action::FlushFirewall(_) => (1, 0, 0),
        other => panic!("{other:?} is not drawn"),
    };
    Broken { cluster, instances, store }
}

fn breaks_redis(action: RedisAction) -> bool {
    !matches!(action, RedisAction::Start | RedisAction::Thaw | RedisAction::Promote)
}

/// What is broken at most between two moments in which all is healthy.
fn worst(scenario: &Scenario) -> Broken {
    let (mut now, mut worst) = (Broken::default(), Broken::default());
    for step in scenario.steps() {
        if let Action::Wait(wait) = &step.action
            && wait.until == Condition::Healthy
        {
            now = Broken::default();
        }
        let broken = broken_by(&step.action);
        now = Broken {
            cluster: now.cluster + broken.cluster,
            instances: now.instances + broken.instances,
            store: now.store + broken.store,
        };
        worst = Broken {
            cluster: worst.cluster.max(now.cluster),
            instances: worst.instances.max(now.instances),
            store: worst.store.max(now.store),
        };
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is wished for, there is a scenario that may be run, and never is a thing broken in two places at once.
    #[test]
    fn every_drawn_drill_is_a_scenario_within_what_is_promised(
        seed in any::<u64>(),
        minutes in 0..70_u32,
        nodes_per_site in 1..=3_u8,
        instances_per_site in 1..=4_u8,
        lab in any::<bool>(),
        own_redis in any::<bool>(),
    ) {
        let shape = Shape { nodes_per_site, instances_per_site, ..Shape::default() };
        let ground = if lab { Ground::Lab } else { Ground::Loopback };
        let wish = Wish { seed, minutes, shape, ground, own_redis };
        let drawn = scenario(&wish);
        let drawn = drawn.map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
        let store = if own_redis { Store::OwnRedis } else { Store::Embedded };
        prop_assert!(crate::engine::suits(&drawn.scenario, ground, &store).is_ok());
        prop_assert!(drawn.text.len() as u64 <= crate::scenario::FILE_BYTES_MAX);
        prop_assert_eq!(drawn.scenario.topology.shape(), wish.shape.clone());
        let worst = worst(&drawn.scenario);
        prop_assert!(worst.cluster <= 1 && worst.instances <= 1 && worst.store <= 1, "{:?}", worst);
        prop_assert_eq!(worst.store > 0, own_redis && drawn.text.contains("do.redis"));
        prop_assert_eq!(scenario(&wish).map(|again| again.text).ok(), Some(drawn.text));
    }
}

#[test]
fn another_seed_draws_another_drill() {
    let text = |seed| scenario(&wish(seed, 1)).unwrap().text;
    let steps = |text: String| text.split_once("[[step]]").map(|(_, steps)| steps.to_owned());
    assert_ne!(steps(text(1)), steps(text(2)));
}

#[test]
fn half_an_hour_has_two_hundred_faults_of_every_kind() {
    let drawn = scenario(&Wish { ground: Ground::Lab, ..wish(7, 30) }).unwrap();
    assert!(drawn.faults >= 200, "{}", drawn.faults);
    let all = drawn.scenario.steps().map(|step| broken_by(&step.action));
    let total = all.fold(0, |total, broken| total + u32::from(broken != Broken::default()));
    assert_eq!(total, drawn.faults);
    for kind in [
        "do.kill = { nodes",
        "do.kill = { guardians",
        "do.freeze =",
        "do.stop",
        "do.isolate",
        "do.repeat",
        "do.cut =",
        "do.shape",
        "loss_percent",
        "do.upstream",
        "instances",
        "do.cut-host",
        "do.freeze-host",
        "do.redis",
    ] {
        assert!(drawn.text.contains(kind), "{kind}");
    }
}
