//! Failovers that nobody planned: what this node saw of each is put into a report by itself, the same that drills end
//! with. `lookout` keeps what was seen and says when a report is due, `report` makes it, `writer` writes it.

mod lookout;
mod report;
mod writer;

pub use writer::Incidents;
