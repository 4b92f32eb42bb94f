//! The seeded simulations: of the controller and the lease, and of the real consensus. See `OVERVIEW.md`.

mod clock;
pub mod cluster;
mod coverage;
mod event;
mod host;
mod raft;
mod runtime;
mod scenario;
pub mod sweep;
mod trace;
mod violation;
mod world;

pub use coverage::{Coverage, SEEDS_FOR_EVERYTHING};
pub use sweep::run_seed;
pub use violation::{Rule, Violation};
pub use world::{Outcome, Settings};
