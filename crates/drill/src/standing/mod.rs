//! A lab that stands by itself: a cluster in a lab, kept by a process of its own, and looked at and broken by others.
//!
//! | question | where |
//! |---|---|
//! | which labs are there, and whose are they? | `register.rs`: a folder for each, with its record |
//! | what can be asked of the process that keeps one? | `control.rs`: one line of JSON there, one back |
//! | what does it answer? | `keeper.rs`, `status.rs` |
//!
//! The process that keeps a lab may die in any way: the kernel ends the cluster's processes with it (the reaper), its
//! record says what else it made, and [`Found::remove`] takes that away.

mod control;
mod keeper;
mod register;
mod status;
#[cfg(test)]
mod tests;

pub use control::{ANSWER_PATIENCE, Answer, ControlError, ControlSocket, LinkChange, ProcessAct, Wish, ask};
pub use keeper::Keeper;
pub use register::{Claim, Found, Record, Register, RegisterError, Removed};
pub use status::{HostStatus, LabStatus, LinkStatus, ProcessStatus};

/// The name of a lab, and of the cluster in it.
pub type LabName = twinsite_model::ClusterName;
