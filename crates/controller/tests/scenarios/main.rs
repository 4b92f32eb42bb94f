//! What the controller decides, told as stories: a small cluster, what befalls it, and where the address is afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

mod by_hand;
mod cluster;
mod drills;
mod errands;
mod explanations;
mod placement;
mod restraint;
mod succession;
mod upkeep;
mod withdrawal;
