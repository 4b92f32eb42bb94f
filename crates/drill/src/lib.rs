//! Drills: a fault, on purpose, with guards, clients, measurements and a report. See `OVERVIEW.md`.

pub mod audit;
pub mod engine;
pub mod lab;
pub mod layout;
pub mod load;
pub mod measure;
pub mod meeting;
pub mod process;
pub mod scenario;
pub mod wan;
