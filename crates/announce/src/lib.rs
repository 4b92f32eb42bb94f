//! `announcedIp`: the address that meeting servers tell their clients for media. Which one it should be is decided
//! from what is *observed*, never from what is intended, and delivered as a file that each server reads at every join.
//!
//! See `OVERVIEW.md`.

mod compare;
mod decide;
mod deliver;

pub use compare::{Missing, Stale, There, compare};
pub use decide::{Announcement, FloatingObserved, Seen, decide};
pub use deliver::{AnnounceError, Announcer, Reconciled};
