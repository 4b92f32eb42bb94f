//! Every rule is needed: with any one of them left out of the real controller or holder, the simulation notices.
//!
//! `cargo test --release -p twinsite-sim --features seeded-faults`
#![cfg(feature = "seeded-faults")]

use twinsite_controller::{Fault, Faults};
use twinsite_sim::{Settings, sweep::sweep};

/// Seeds within which each mistake must show.
const WITHIN: u64 = 20_000;

#[test]
fn every_mistake_is_noticed() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for fault in Fault::ALL {
        let settings = Settings { faults: Faults::only(fault), ..Settings::default() };
        let found = sweep(1, WITHIN, threads, 1, &settings, &|_| {});
        assert!(!found.violations.is_empty(), "{fault:?} was not noticed within {WITHIN} seeds");
        println!("{fault:?}: {} after {} seeds", found.violations[0].1, found.seeds);
    }
}
