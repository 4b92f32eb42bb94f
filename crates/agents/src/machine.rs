//! The machine that agents run on: its runtime, and its clocks.

use twinsite_consensus::{AsyncRuntime, TokioRuntime};
use twinsite_model::{BootTime, WallTime};

/// A runtime, with the clocks of the machine below it.
pub trait Machine: AsyncRuntime {
    /// The clock of leases, which counts through suspend.
    fn boot_now() -> BootTime;

    /// The wall clock. For people and expiries; never for safety.
    fn wall_now() -> WallTime;
}

impl Machine for TokioRuntime {
    fn boot_now() -> BootTime {
        twinsite_floating_ip::boot_now()
    }

    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where it comes in")]
    fn wall_now() -> WallTime {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}
