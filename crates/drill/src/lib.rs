//! Drills: a fault, on purpose, with guards, clients, measurements and a report. See `OVERVIEW.md`.

pub mod meeting;
pub mod wan;
