//! The simulation itself: the same seed is the same life, and a sample of lives breaks no rule. The full counts are
//! run by the program (`twinsite-sim --seeds N`).

use twinsite_sim::{Settings, run_seed};

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in [1, 17, 4_711, 99_999] {
        let first = run_seed(seed, &Settings::default());
        let second = run_seed(seed, &Settings { timeline: true, ..Settings::default() });
        assert_eq!(
            (first.hash, first.seconds.to_bits()),
            (second.hash, second.seconds.to_bits()),
            "seed {seed}"
        );
        assert!(first.timeline.is_empty() && !second.timeline.is_empty());
    }
}

#[test]
fn different_seeds_are_different_lives() {
    let hashes: std::collections::BTreeSet<_> =
        (1..=40).map(|seed| run_seed(seed, &Settings::default()).hash).collect();
    assert_eq!(hashes.len(), 40);
}

#[test]
fn a_sample_of_lives_breaks_no_rule() {
    for seed in 1_000_000..1_000_200 {
        let outcome = run_seed(seed, &Settings::default());
        assert!(
            outcome.violation.is_none(),
            "seed {seed}: {}",
            outcome.violation.map_or_else(String::new, |v| v.to_string())
        );
    }
}
