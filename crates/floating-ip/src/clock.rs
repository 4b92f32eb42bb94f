//! The clock of the lease, and the deadline that everything on the data path asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use twinsite_model::{BootTime, Token};

/// Now, on the clock that counts through suspend.
pub fn boot_now() -> BootTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    BootTime(Duration::new(seconds, nanos))
}

/// The lease under one token, as seen by everything that answers under it. One atomic load and one reading of the
/// clock tell whether a byte may still be sent: a process that was frozen and goes on finds its lease ended.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    token: Token,
    /// Nanoseconds of `CLOCK_BOOTTIME`; zero: over for good.
    until: AtomicU64,
}

impl Lease {
    /// A lease until then.
    pub fn new(token: Token, until: BootTime) -> Self {
        Self(Arc::new(Inner { token, until: AtomicU64::new(nanos(until)) }))
    }

    /// The token.
    pub fn token(&self) -> Token {
        self.0.token
    }

    /// Moves the end. A lease that was ended stays so.
    pub fn extend(&self, until: BootTime) {
        let until = nanos(until);
        let _extended = self.0.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| match known {
            0 => None,
            known => Some(known.max(until)),
        });
        // `Err` means that it was ended, which is what counts.
    }

    /// Ends it for good.
    pub fn end(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    /// Whether it still runs.
    pub fn holds(&self) -> bool {
        let until = self.0.until.load(Ordering::Acquire);
        until != 0 && nanos(boot_now()) < until
    }

    /// Its end.
    pub fn until(&self) -> BootTime {
        BootTime(Duration::from_nanos(self.0.until.load(Ordering::Acquire)))
    }
}

fn nanos(at: BootTime) -> u64 {
    u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_and_never_comes_back_once_ended() {
        let lease = Lease::new(Token::new(1, 1), boot_now() + Duration::from_secs(60));
        assert!(lease.holds());
        lease.end();
        assert!(!lease.holds());
        lease.extend(boot_now() + Duration::from_secs(60));
        assert!(!lease.holds());

        let short = Lease::new(Token::new(1, 1), boot_now() - Duration::from_nanos(1));
        assert!(!short.holds());
        short.extend(boot_now() + Duration::from_secs(60));
        assert!(short.holds());
        let end = short.until();
        short.extend(boot_now());
        assert_eq!(short.until(), end);
    }
}
