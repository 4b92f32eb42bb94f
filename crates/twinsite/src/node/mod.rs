//! One running node: the crates, wired together.
//!
//! | module | what it does |
//! |---|---|
//! | `run` | from the configuration to the last word: the order in which things start and end |
//! | `brain` | drives the controller |
//! | `follow` | brings everything here in line with the replicated state |
//! | `observe`, `passive` | what this node sees, told to whoever leads |
//! | `leases`, `hands`, `guard` | holding a floating IP: asking for time, doing it, being watched |
//! | `announcing` | delivers `announcedIp` |
//! | `rooms` | session placement: store, other nodes, proxy |
//! | `lead` | first specification, generation, membership |
//! | `quorum` | whether a quorum is known |
//! | `servers`, `api`, `answers`, `metrics` | what listens beside the proxy |
//! | `life`, `clock`, `notices` | incarnations, clocks, log lines |
//! | `supervise` | no task ends unnoticed |

mod announcing;
mod answers;
mod api;
mod brain;
mod clock;
mod follow;
mod guard;
mod hands;
mod lead;
mod leases;
mod life;
mod metrics;
mod notices;
mod observe;
mod passive;
mod quorum;
mod rooms;
mod run;
mod servers;
mod supervise;

pub use brain::Brain;
pub use run::{ended_by_signal, exit_with_stdin, run};
#[cfg(test)]
pub use supervise::Supervisor;
pub use supervise::TaskEnded;

/// This node's part in the consensus.
pub type Raft = twinsite_consensus::Consensus<twinsite_consensus::TokioRuntime>;
