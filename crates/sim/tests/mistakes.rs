//! Every rule is needed: with any one of them left out of the real controller or holder, the simulation notices.
//!
//! `cargo test --release -p twinsite-sim --features seeded-faults`
#![cfg(feature = "seeded-faults")]

use twinsite_model::{Fault, Faults};
use twinsite_sim::cluster::{Mistake, Run};
use twinsite_sim::{Settings, sweep::sweep};

/// Seeds within which each mistake must show. All but one do so within some thousand; that a stop is followed by another before
/// the first has ended, and the address is held again in between, is rare.
const WITHIN: u64 = 150_000;

#[test]
fn every_mistake_of_the_controller_is_noticed() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for fault in Fault::ALL.into_iter().take(Fault::OF_CONTROLLER) {
        let settings = Settings { faults: Faults::only(fault), ..Settings::default() };
        let found = sweep(1, WITHIN, threads, 1, &settings, &|_| {});
        assert!(!found.violations.is_empty(), "{fault:?} was not noticed within {WITHIN} seeds");
        println!("{fault:?}: {} after {} seeds", found.violations[0].1, found.seeds);
    }
}

/// Seeds that every mistake is given, and how many more if none of those shows it.
const SEEDS: u64 = 20;
const SEEDS_MAX: u64 = 1_000;

/// The same of the whole cluster, with mistakes below and around the consensus as well. `TWINSITE_MISTAKE` asks for those
/// alone that have this in their names.
#[test]
fn every_mistake_is_noticed_in_the_cluster() {
    let asked = std::env::var("TWINSITE_MISTAKE").unwrap_or_default();
    let mut mistakes = Mistake::all();
    mistakes.retain(|mistake| format!("{mistake:?}").contains(&asked));
    assert_ne!(mistakes, [], "there is no {asked}");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    let work = || {
        while let Some(mistake) = mistakes.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let (mut seeds, mut found, mut first) = (0, 0, None);
            // Shown in the other simulation already, which lives through a hundred times as many seeds.
            let shown =
                matches!(mistake, Mistake::Rule(fault) if Fault::ALL[..Fault::OF_CONTROLLER].contains(fault));
            while seeds < SEEDS || (found == 0 && !shown && seeds < SEEDS_MAX) {
                seeds += 1;
                if let Some(violation) = Run::of(seeds).with(*mistake).live().violation {
                    found += 1;
                    first.get_or_insert((seeds, violation.rule));
                }
            }
            println!("{mistake:?}: in {found} of {seeds} seeds, first {first:?}");
            if found == 0 && !shown {
                missed.lock().unwrap().push(*mistake);
            }
        }
    };
    // A mistake that an assertion notices is noticed; what it says is no news.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    std::panic::set_hook(loud);
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not noticed within {SEEDS_MAX} seeds: {missed:?}");
}
