//! One running node: the crates, wired together.
//!
//! | module | what it does |
//! |---|---|
//! | `run` | from the configuration to the last word: the order in which things start and end |
//! | `follow` | brings everything here in line with the replicated state |
//! | `observe`, `passive` | what this node sees |
//! | `hands`, `guard` | with what a floating IP is held, and being watched |
//! | `announcing` | delivers `announcedIp` |
//! | `rooms` | session placement: store, other nodes, proxy |
//! | `connections` | the connections of floating IPs, for the next owner |
//! | `servers`, `api`, `answers`, `metrics` | what listens beside the proxy |
//! | `ticket_keys` | new keys of TLS session tickets, in time |
//! | `drill_desk`, `drill_runner` | drills: whether one may begin, and running one |
//! | `life` | incarnations |
//!
//! What drives the controller, holds leases, reports and keeps the membership is in `twinsite-agents`.

mod announcing;
mod answers;
mod api;
mod connections;
mod drill_desk;
mod drill_runner;
mod follow;
mod guard;
mod hands;
mod life;
mod metrics;
mod observe;
mod passive;
mod rooms;
mod run;
mod servers;
mod ticket_keys;

pub use drill_desk::{DrillDesk, DrillWish, EndedDrill};
pub use hands::may_hold;
pub use run::{ended_by_signal, exit_with_stdin, run};

/// This node's part in the consensus.
pub type Raft = twinsite_consensus::Consensus<twinsite_consensus::TokioRuntime>;
