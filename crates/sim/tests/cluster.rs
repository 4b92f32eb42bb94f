//! Whole clusters of the real consensus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use twinsite_sim::cluster::{Mistake, Run, shrink, sweep};

/// Seeds of the sample; `TWINSITE_SEEDS` asks for another number.
fn seeds() -> u64 {
    std::env::var("TWINSITE_SEEDS").map_or(100, |seeds| seeds.parse().unwrap())
}

#[test]
fn no_seed_breaks_a_rule_and_everything_comes_up() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let found = sweep(1..1 + seeds(), threads, &|_| {});
    assert_eq!(found.violations, []);
    assert_eq!(found.missing(), [""; 0], "in {} seeds", found.seeds);
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 1..=10 {
        assert_eq!(Run::of(seed).live().hash, Run::of(seed).live().hash, "seed {seed}");
    }
}

#[test]
fn a_life_that_breaks_a_rule_is_made_shorter() {
    let mistake = Mistake::ScriptForgetsMaximum;
    let breaks = |run: &Run| run.live().violation.map(|violation| violation.rule);
    // One in which a few things had happened by then: every one more costs some more attempts, half a second each.
    let is_long = |run: &Run| breaks(run).is_some() && (10..=25).contains(&run.live().events);
    let run = (1..1_000).map(|seed| Run::of(seed).with(mistake)).find(is_long).unwrap();
    let short = shrink(&run, |_| {}).unwrap();
    assert_eq!(breaks(&short), breaks(&run));
    let (left, all) = (short.only.unwrap().len() as u64, run.live().events);
    assert!(left * 2 <= all, "{left} of {all}");
    assert!(shrink(&Run::of(run.seed), |_| {}).is_none(), "without the mistake nothing is broken");
}

/// Of those mistakes that need no other build. The others are in `mistakes.rs`.
#[test]
fn built_in_mistakes_are_noticed() {
    for mistake in Mistake::all().into_iter().filter(|mistake| !matches!(mistake, Mistake::Rule(_))) {
        let noticed = (1..=300).any(|seed| Run::of(seed).with(mistake).live().violation.is_some());
        assert!(noticed, "{mistake:?}");
    }
}
