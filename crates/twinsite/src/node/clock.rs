//! The machine's clocks, read here and nowhere else in the binary.

use std::time::{SystemTime, UNIX_EPOCH};
use twinsite_model::WallTime;

/// The wall clock. For people and expiries; never for safety.
pub fn wall_now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
