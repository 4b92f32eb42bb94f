//! What a node does around the consensus: it drives the controller, holds leases, reports, and keeps the membership in
//! order. Nothing here opens a socket or a file or reads a clock: runtime and clocks are [`Machine`], the other nodes
//! [`Peers`], what holds an address [`Tools`], what is seen [`Observations`]. So the same code runs in the simulation.
//! See `OVERVIEW.md`.
//!
//! Rules: no clock or task except through [`Machine`]; no unordered maps; every `select!` is `biased`, so that it draws
//! no lots.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests live by the real clock"))]

#[cfg(test)]
mod alone;
mod announcing;
mod appoint;
mod brain;
mod connections;
mod desk;
mod errands;
mod follow;
mod hand_over;
mod hands;
mod keeper;
mod leases;
mod machine;
mod notices;
mod peers;
mod quorum;
mod recovery;
mod report;
mod supervise;
mod telling;

pub use announcing::{Announcing, Instances, Outside};
pub use appoint::{AllHands, Employer};
pub use brain::{Brain, Busy};
pub use connections::{
    ChangedConnections, Connections, Listeners, OpenConnections, PIECE_MAX, Piece, RollCall, RollRefused,
    Spreading, TellRolls,
};
pub use desk::Desk;
pub use errands::{Errands, Runner, Said};
pub use follow::{Follower, Surroundings};
pub use hand_over::hand_leadership_over;
pub use hands::{DataPlane, FloatingHands, Guarded, Tools};
pub use keeper::{Keeper, Luggage};
pub use leases::{Agent, Charge, Hands, Identity};
pub use machine::Machine;
pub use peers::{Heard, Noted, Peers};
pub use quorum::QuorumWatch;
pub use recovery::{LostNode, RecoveryNote, Unfinished, unfinished};
pub use report::{Changed, Observations, Reporter, listen_to_peers, timing};
pub use supervise::{Supervisor, TaskEnded};
pub use telling::tell;
