//! How many requests of a core may be tried a second time: when everything is down, retries would double the load.

use std::cell::Cell;
use std::time::Instant;

/// Retries that may come all at once.
const TOKENS_MAX: f64 = 20.0;
/// Those that are always allowed, in each second: with few requests a part of them is nothing.
const PER_SECOND: f64 = 5.0;

/// Each request puts a part of a token in, each retry takes one out.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: Cell<f64>,
    filled: Cell<Instant>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tokens: Cell::new(TOKENS_MAX), filled: Cell::new(Instant::now()) }
    }
}

impl RetryBudget {
    /// A request has come.
    pub(crate) fn deposit(&self, percent: u32) {
        self.tokens.set((self.tokens.get() + f64::from(percent) / 100.0).min(TOKENS_MAX));
    }

    /// Whether one more attempt may be made.
    pub(crate) fn withdraw(&self) -> bool {
        let now = Instant::now();
        let gone = now.saturating_duration_since(self.filled.replace(now));
        let tokens = (self.tokens.get() + gone.as_secs_f64() * PER_SECOND).min(TOKENS_MAX);
        let allowed = tokens >= 1.0;
        self.tokens.set(if allowed { tokens - 1.0 } else { tokens });
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_requests_and_a_few_more() {
        let budget = RetryBudget::default();
        let allowed = (0..10_000).filter(|_| {
            budget.deposit(10);
            budget.withdraw()
        });
        let allowed = allowed.count();
        // What there was, a tenth, and a few for the time that this took.
        assert!((1_000..1_100).contains(&allowed), "{allowed}");
    }

    #[test]
    fn without_a_part_only_a_few() {
        let budget = RetryBudget::default();
        let allowed = (0..1_000).filter(|_| budget.withdraw()).count();
        assert!((20..40).contains(&allowed), "{allowed}");
    }
}
