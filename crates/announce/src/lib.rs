//! `announcedIp`: the address that meeting servers tell their clients for media. Which one it should be is decided
//! from what is *observed*, never from what is intended, and delivered as a file that each server reads at every join.
//!
//! See `OVERVIEW.md`.

mod decide;
mod deliver;

pub use decide::{Announcement, FloatingObserved, decide};
pub use deliver::{AnnounceError, Announcer, Reconciled};
