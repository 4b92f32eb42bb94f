//! Whose turn it is, and what time it is.

use crate::clock::{HostClock, TrueTime};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use twinsite_model::{BootTime, WallTime};

/// Polls without time passing, after which something is taken to run in a circle.
const POLLS_AT_ONCE_MAX: u32 = 2_000_000;
/// What every machine's boot clock shows at the beginning, in nanoseconds: code subtracts durations from it.
const BOOT_START: u64 = 1_000_000_000_000;

/// A machine, which has the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MachineId(pub(crate) u32);

/// A process, which has the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) u32);

impl ProcessId {
    /// The simulation itself, on a machine whose clock is right: network, disks, what people do.
    pub(crate) const WORLD: Self = Self(0);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(u64);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    process: ProcessId,
    /// None while it is being polled.
    work: Option<Work>,
    waker: Waker,
}

struct Machine {
    clock: HostClock,
    /// The whole machine stands still, its clock too.
    still: bool,
}

struct Process {
    machine: MachineId,
    frozen: bool,
    tasks: BTreeSet<TaskId>,
    /// Tasks that were woken while nothing could run here.
    parked: BTreeSet<TaskId>,
}

struct State {
    now: TrueTime,
    next: u64,
    random: fastrand::Rng,
    /// Whether the next task is drawn by lot, not taken in the order of waking.
    shuffles: bool,
    tasks: BTreeMap<TaskId, Task>,
    processes: BTreeMap<ProcessId, Process>,
    machines: BTreeMap<MachineId, Machine>,
    timers: BTreeMap<(TrueTime, u64), TaskId>,
    current: ProcessId,
    polling: Option<TaskId>,
    polls_at_once: u32,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
    /// Apart from the state, because tasks are woken while it is in use.
    static WOKEN: RefCell<Vec<TaskId>> = const { RefCell::new(Vec::new()) };
}

struct Wakeup(TaskId);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        // A waker that outlives its simulation wakes nobody.
        WOKEN.with_borrow_mut(|woken| woken.push(self.0));
    }
}

fn with<T>(work: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(|state| work(state.as_mut().expect("a simulation runs on this thread")))
}

/// The process whose task runs, or the world.
pub(super) fn current_process() -> ProcessId {
    with(|state| state.current)
}

/// A random number from the seed.
pub(super) fn draw() -> u64 {
    with(|state| state.random.u64(..))
}

/// What the boot clock of the current process's machine shows.
pub(super) fn boot_now() -> BootTime {
    with(|state| state.clock(state.current).boot(state.now))
}

/// What the wall clock of the current process's machine shows.
pub(super) fn wall_now() -> WallTime {
    with(|state| state.clock(state.current).wall(state.now))
}

/// The task that is being polled is woken when its machine's boot clock shows `at`, if that clock is not disturbed.
pub(super) fn wake_at(at: BootTime) -> TimerKey {
    with(|state| {
        let when = state.clock(state.current).when(state.now, at);
        let key = (when, state.number());
        let task = state.polling.expect("only tasks sleep");
        state.timers.insert(key, task);
        TimerKey(key)
    })
}

/// A place in the list of timers; gives it up when dropped.
#[derive(Debug)]
pub(super) struct TimerKey((TrueTime, u64));

impl Drop for TimerKey {
    fn drop(&mut self) {
        // The end of a simulation drops tasks when the list is gone.
        STATE.with_borrow_mut(|state| state.as_mut().map(|state| state.timers.remove(&self.0)));
    }
}

/// Adds a task to a process that lives.
pub(super) fn add(process: ProcessId, work: Work) {
    with(|state| {
        let id = TaskId(state.number());
        let Some(living) = state.processes.get_mut(&process) else { return };
        living.tasks.insert(id);
        state.tasks.insert(id, Task { process, work: Some(work), waker: Arc::new(Wakeup(id)).into() });
        WOKEN.with_borrow_mut(|woken| woken.push(id));
    });
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn clock(&self, process: ProcessId) -> &HostClock {
        let machine = self.processes.get(&process).map_or(MachineId(0), |process| process.machine);
        &self.machines[&machine].clock
    }

    fn runs(&self, process: &Process) -> bool {
        !process.frozen && !self.machines[&process.machine].still
    }

    /// The next task that can run, with its waker.
    fn next_task(&mut self, ready: &mut Vec<TaskId>) -> Option<(TaskId, Work, Waker)> {
        loop {
            if ready.is_empty() {
                return None;
            }
            let at = if self.shuffles { self.random.usize(..ready.len()) } else { 0 };
            let id = ready.remove(at);
            let Some(task) = self.tasks.get(&id) else { continue };
            let process = &self.processes[&task.process];
            if !self.runs(process) {
                let process = task.process;
                self.processes.get_mut(&process)?.parked.insert(id);
                continue;
            }
            let task = self.tasks.get_mut(&id)?;
            let work = task.work.take()?;
            self.current = task.process;
            self.polling = Some(id);
            self.polls_at_once += 1;
            assert!(self.polls_at_once < POLLS_AT_ONCE_MAX, "the tasks run in a circle at {}", self.now);
            return Some((id, work, task.waker.clone()));
        }
    }

    /// Moves time to the next timer, unless that lies beyond `until`.
    fn advance(&mut self, until: TrueTime) -> bool {
        self.polls_at_once = 0;
        let Some(&(at, _)) = self.timers.keys().next().filter(|(at, _)| *at <= until) else {
            if until != TrueTime::MAX {
                self.now = self.now.max(until);
            }
            return false;
        };
        self.now = self.now.max(at);
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let task = entry.remove();
            WOKEN.with_borrow_mut(|woken| woken.push(task));
        }
        true
    }

    fn wake_all_of(&mut self, machine: MachineId) {
        let tasks = self.processes.values().filter(|process| process.machine == machine);
        let tasks: Vec<_> = tasks.flat_map(|process| process.tasks.iter().copied()).collect();
        WOKEN.with_borrow_mut(|woken| woken.extend(tasks));
    }
}

/// One simulation on this thread. Another one begins when this is dropped.
pub(crate) struct Executor {
    ready: Vec<TaskId>,
}

impl Executor {
    /// Begins at time zero, with the world's process alone.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let clock = HostClock::new(BOOT_START, 0);
        let world =
            Process { machine: MachineId(0), frozen: false, tasks: BTreeSet::new(), parked: BTreeSet::new() };
        let state = State {
            now: 0,
            next: 0,
            shuffles: random.bool(),
            random,
            tasks: BTreeMap::new(),
            processes: BTreeMap::from([(ProcessId::WORLD, world)]),
            machines: BTreeMap::from([(MachineId(0), Machine { clock, still: false })]),
            timers: BTreeMap::new(),
            current: ProcessId::WORLD,
            polling: None,
            polls_at_once: 0,
        };
        let before = STATE.replace(Some(state));
        assert!(before.is_none(), "one simulation at a time on a thread");
        WOKEN.take();
        Self { ready: Vec::new() }
    }

    /// True time, in nanoseconds since the beginning.
    pub(crate) fn now() -> TrueTime {
        with(|state| state.now)
    }

    /// Adds a machine whose boot clock is off by a part.
    pub(crate) fn add_machine(rate_ppm: i32) -> MachineId {
        with(|state| {
            let id = MachineId(u32::try_from(state.machines.len()).unwrap_or(u32::MAX));
            let clock = HostClock::new(BOOT_START + state.now, rate_ppm);
            state.machines.insert(id, Machine { clock, still: false });
            id
        })
    }

    /// Starts a process on a machine.
    pub(crate) fn add_process(machine: MachineId) -> ProcessId {
        with(|state| {
            let id = ProcessId(u32::try_from(state.number()).unwrap_or(u32::MAX));
            let process = Process { machine, frozen: false, tasks: BTreeSet::new(), parked: BTreeSet::new() };
            state.processes.insert(id, process);
            id
        })
    }

    /// Ends a process where it stands.
    pub(crate) fn kill(process: ProcessId) {
        let tasks = with(|state| {
            let ended = state.processes.remove(&process);
            let ids = ended.into_iter().flat_map(|process| process.tasks);
            ids.filter_map(|id| state.tasks.remove(&id)).collect::<Vec<_>>()
        });
        // With the state free: what a task holds may wake others, or give a timer up.
        drop(tasks);
    }

    /// SIGSTOP, or SIGCONT.
    pub(crate) fn freeze(process: ProcessId, frozen: bool) {
        with(|state| {
            if let Some(process) = state.processes.get_mut(&process) {
                process.frozen = frozen;
                let parked = std::mem::take(&mut process.parked);
                WOKEN.with_borrow_mut(|woken| woken.extend(parked));
            }
        });
    }

    /// A whole machine stands still: suspended, its boot clock going on, or with its clock, as a guest that is being
    /// moved.
    pub(crate) fn hold_still(machine: MachineId, with_clock: bool) {
        with(|state| {
            let now = state.now;
            let Some(held) = state.machines.get_mut(&machine) else { return };
            held.still = true;
            if with_clock && !held.clock.is_still() {
                held.clock.stand_still(now);
            }
        });
    }

    /// It goes on. Says how long its clock has stopped.
    pub(crate) fn go_on(machine: MachineId) -> Duration {
        with(|state| {
            let now = state.now;
            let Some(held) = state.machines.get_mut(&machine) else { return Duration::ZERO };
            held.still = false;
            let missed = held.clock.go_on(now);
            state.wake_all_of(machine);
            missed
        })
    }

    /// What a machine's boot clock shows; none while it stands still, and can say nothing.
    pub(crate) fn boot(machine: MachineId) -> Option<BootTime> {
        with(|state| {
            let held = &state.machines[&machine];
            (!held.still).then(|| held.clock.boot(state.now))
        })
    }

    /// Changes a machine's clock. Everybody who waits there looks at it again.
    pub(crate) fn change_clock(machine: MachineId, change: impl FnOnce(&mut HostClock, TrueTime)) {
        with(|state| {
            let now = state.now;
            if let Some(held) = state.machines.get_mut(&machine) {
                change(&mut held.clock, now);
            }
            state.wake_all_of(machine);
        });
    }

    /// A random number generator of its own, from the seed.
    pub(crate) fn random() -> fastrand::Rng {
        with(|state| state.random.fork())
    }

    /// Runs until true time `until`, and calls `look` at every instant at which something happened, when nobody has
    /// anything left to do there.
    pub(crate) fn run_until(&mut self, until: TrueTime, mut look: impl FnMut()) {
        loop {
            self.run_ready();
            look();
            if !with(|state| state.advance(until)) {
                return;
            }
        }
    }

    /// Runs everything that can run at this instant.
    fn run_ready(&mut self) {
        loop {
            self.ready.extend(WOKEN.take());
            let Some((id, mut work, waker)) = with(|state| state.next_task(&mut self.ready)) else {
                with(|state| (state.current, state.polling) = (ProcessId::WORLD, None));
                if WOKEN.with_borrow(Vec::is_empty) {
                    return;
                }
                continue;
            };
            let poll = work.as_mut().poll(&mut Context::from_waker(&waker));
            let over = with(|state| {
                state.polling = None;
                let is_over = poll.is_ready();
                match state.tasks.get_mut(&id) {
                    Some(task) if !is_over => {
                        task.work = Some(work);
                        return None;
                    }
                    // It has ended, or has ended its own process.
                    _ => state.tasks.remove(&id),
                };
                let process = state.current;
                if let Some(process) = state.processes.get_mut(&process) {
                    process.tasks.remove(&id);
                }
                Some(work)
            });
            drop(over);
        }
    }

    /// Runs a future that belongs to nobody to its end.
    pub(crate) fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        struct Root(AtomicBool, TaskId);
        impl Wake for Root {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let mut future = pin!(future);
        let root = Arc::new(Root(AtomicBool::new(true), TaskId(with(State::number))));
        let waker = Waker::from(Arc::clone(&root));
        loop {
            // Its timers name a task that is not in the list: it is asked again after every one of them.
            if root.0.swap(false, Ordering::Relaxed) {
                with(|state| (state.current, state.polling) = (ProcessId::WORLD, Some(root.1)));
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return value;
                }
            }
            self.run_ready();
            if !root.0.load(Ordering::Relaxed) {
                assert!(with(|state| state.advance(TrueTime::MAX)), "nothing will ever happen again");
                root.0.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let tasks = with(|state| std::mem::take(&mut state.tasks));
        drop(tasks);
        STATE.take();
        WOKEN.take();
    }
}
