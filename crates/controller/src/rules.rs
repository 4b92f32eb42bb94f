//! The safety rules that guard every move (design section 6).

use twinsite_model::SafetyRule;

/// What came of asking one rule about one move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleResult {
    /// The rule.
    pub rule: SafetyRule,
    /// Whether it is satisfied.
    pub satisfied: bool,
    /// Whether the person overrode it by name.
    pub overridden: bool,
    /// One line: what was found.
    pub detail: String,
}

impl RuleResult {
    /// Whether the move may go on as far as this rule is concerned.
    pub fn holds(&self) -> bool {
        self.satisfied || self.overridden
    }
}
