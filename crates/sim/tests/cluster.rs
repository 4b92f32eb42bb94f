//! Whole clusters of the real consensus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use std::collections::BTreeMap;
use twinsite_sim::cluster::{Mistake, live};

/// Seeds of the sample; `TWINSITE_SEEDS` asks for another number.
fn seeds() -> u64 {
    std::env::var("TWINSITE_SEEDS").map_or(100, |seeds| seeds.parse().unwrap())
}

#[test]
fn no_seed_breaks_a_rule_and_everything_comes_up() {
    let mut counts = BTreeMap::<_, u64>::new();
    for seed in 1..=seeds() {
        let report = live(seed, None, false);
        assert_eq!(report.violation, None, "seed {seed}");
        for (what, count) in report.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    let missing: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).collect();
    assert!(missing.is_empty(), "never came up: {missing:?}");
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 1..=10 {
        assert_eq!(live(seed, None, false).hash, live(seed, None, false).hash, "seed {seed}");
    }
}

/// Of those mistakes that need no other build. The others are in `mistakes.rs`.
#[test]
fn built_in_mistakes_are_noticed() {
    for mistake in Mistake::all().into_iter().filter(|mistake| !matches!(mistake, Mistake::Rule(_))) {
        let noticed = (1..=300).any(|seed| live(seed, Some(mistake), false).violation.is_some());
        assert!(noticed, "{mistake:?}");
    }
}
