//! A runtime in which time, chance and the order of tasks come from a seed.
//!
//! The code of the cluster is generic over openraft's `AsyncRuntime`; [`SimRuntime`] is the one it gets here. Tasks
//! belong to a *process*, processes to a *machine* with clocks of its own. A process can be frozen (its tasks stand
//! still, its clock runs), a machine can stand still with its clock, a process can be killed: its tasks are dropped
//! where they are. True time moves only when nobody has anything left to do.

#![allow(clippy::expect_used, reason = "a simulation that contradicts itself ends, and its seed is told")]

mod executor;
mod task;
mod time;

pub(crate) use executor::{Executor, MachineId, ProcessId};
pub(crate) use task::{JoinError, JoinHandle, spawn};
pub(crate) use time::{Elapsed, SimInstant, Sleep, Timeout};

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::future::Future;
use std::io;
use std::time::Duration;
use twinsite_agents::Machine;
use twinsite_consensus::AsyncRuntime;
use twinsite_consensus::runtime::tokio::{TokioMpsc, TokioMutex, TokioOneshot, TokioWatch};
use twinsite_consensus::runtime::traits::{Instant, OptionalSend};
use twinsite_model::{BootTime, WallTime};

/// The simulated runtime. Everything that it does happens on the thread that runs the simulation.
#[derive(Debug)]
pub(crate) struct SimRuntime;

impl AsyncRuntime for SimRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = StdRng;
    // None of these needs a runtime: they are lists of wakers.
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn(executor::current_process(), future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(SimInstant::now() + duration)
    }

    fn sleep_until(deadline: SimInstant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout::new(future, Self::sleep(duration))
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: SimInstant, future: F) -> Timeout<F> {
        Timeout::new(future, Self::sleep_until(deadline))
    }

    fn is_panic(_: &JoinError) -> bool {
        false // a panic ends the simulation itself
    }

    fn thread_rng() -> StdRng {
        StdRng::seed_from_u64(executor::draw())
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        Executor::new(0).block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        std::future::ready(Ok(work()))
    }
}

impl Machine for SimRuntime {
    fn boot_now() -> BootTime {
        executor::boot_now()
    }

    fn wall_now() -> WallTime {
        executor::wall_now()
    }
}

#[cfg(test)]
mod tests;
