//! The wall clock: for what people compare with other logs, and for certificates, which end by the calendar.

use std::time::{SystemTime, UNIX_EPOCH};
use twinsite_model::WallTime;

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where it comes in")]
pub(crate) fn wall_clock() -> WallTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
