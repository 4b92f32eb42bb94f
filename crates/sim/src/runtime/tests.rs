use super::*;
use std::sync::{Arc, Mutex};

const MS: u64 = 1_000_000;

/// openraft's own tests of a runtime.
#[test]
fn openraft_finds_nothing_wrong_with_it() {
    twinsite_consensus::runtime::traits::testing::Suite::<SimRuntime>::test_all();
}

type Notes = Arc<Mutex<Vec<(u64, &'static str)>>>;

fn ticks(process: ProcessId, every: u64, name: &'static str, notes: &Notes) {
    let notes = Arc::clone(notes);
    drop(spawn(process, async move {
        loop {
            SimRuntime::sleep(Duration::from_millis(every)).await;
            notes.lock().unwrap().push((Executor::now() / MS, name));
        }
    }));
}

fn noted(notes: &Notes) -> Vec<(u64, &'static str)> {
    std::mem::take(&mut notes.lock().unwrap())
}

#[test]
fn a_frozen_process_catches_up_and_its_clock_has_run() {
    let mut executor = Executor::new(1);
    let process = Executor::add_process(Executor::add_machine(0));
    let notes = Notes::default();
    ticks(process, 10, "tick", &notes);
    executor.run_until(25 * MS, || ());
    assert_eq!(noted(&notes), [(10, "tick"), (20, "tick")]);
    Executor::freeze(process, true);
    executor.run_until(95 * MS, || ());
    assert_eq!(noted(&notes), []);
    Executor::freeze(process, false);
    executor.run_until(110 * MS, || ());
    assert_eq!(noted(&notes), [(95, "tick"), (105, "tick")]);
}

#[test]
fn a_machine_that_stands_still_misses_the_time() {
    let mut executor = Executor::new(1);
    let machine = Executor::add_machine(0);
    let notes = Notes::default();
    ticks(Executor::add_process(machine), 10, "tick", &notes);
    executor.run_until(15 * MS, || ());
    Executor::hold_still(machine, true);
    executor.run_until(100 * MS, || ());
    Executor::go_on(machine);
    executor.run_until(110 * MS, || ());
    assert_eq!(noted(&notes), [(10, "tick"), (105, "tick")]);
}

#[test]
fn a_fast_clock_ticks_sooner() {
    let mut executor = Executor::new(1);
    let (right, fast) = (Executor::add_machine(0), Executor::add_machine(100_000));
    let notes = Notes::default();
    ticks(Executor::add_process(right), 11, "right", &notes);
    ticks(Executor::add_process(fast), 11, "fast", &notes);
    executor.run_until(21 * MS, || ());
    assert_eq!(noted(&notes), [(10, "fast"), (11, "right"), (20, "fast")]);
    Executor::change_clock(fast, |clock, now| clock.set_rate(now, 0));
    executor.run_until(32 * MS, || ());
    assert_eq!(noted(&notes), [(22, "right"), (30, "fast")]);
}

#[test]
fn a_killed_process_is_gone_and_whoever_waits_for_it_hears_so() {
    let mut executor = Executor::new(1);
    let process = Executor::add_process(Executor::add_machine(0));
    let notes = Notes::default();
    ticks(process, 10, "tick", &notes);
    let never = spawn(process, std::future::pending::<()>());
    executor.run_until(15 * MS, || ());
    Executor::kill(process);
    executor.run_until(50 * MS, || ());
    assert_eq!(noted(&notes), [(10, "tick")]);
    assert_eq!(executor.block_on(never), Err(JoinError));
    assert_eq!(executor.block_on(spawn(process, async { 1 })), Err(JoinError));
}

#[test]
fn the_same_seed_gives_the_same_order_and_another_one_another() {
    let order = |seed| {
        let mut executor = Executor::new(seed);
        let notes = Notes::default();
        for name in ["a", "b", "c", "d", "e"] {
            ticks(ProcessId::WORLD, 10, name, &notes);
        }
        executor.run_until(100 * MS, || ());
        noted(&notes)
    };
    let orders: std::collections::BTreeSet<_> = (0..20).map(order).collect();
    assert!(orders.len() > 5, "{} orders", orders.len());
    for seed in 0..20 {
        assert_eq!(order(seed), order(seed));
    }
}
