//! Wire values in the words of the design.

use humantime::format_duration;
use std::time::{Duration, SystemTime};
use twinsite_api::v1;

/// A token as it is written everywhere: `GENERATION.EPOCH`.
pub fn token(token: Option<&v1::Token>) -> String {
    token.map_or_else(String::new, |token| twinsite_api::convert::token(*token).to_string())
}

/// The word for a verdict.
pub fn verdict(wire: v1::Verdict) -> &'static str {
    twinsite_api::convert::verdict(wire).map_or("?", twinsite_model::Verdict::as_str)
}

/// The word for a kind of move.
pub fn kind(wire: v1::OperationKind) -> &'static str {
    twinsite_api::convert::kind(wire).map_or("?", twinsite_model::OperationKind::as_str)
}

/// The word for a reason to move.
pub fn reason(wire: v1::MoveReason) -> &'static str {
    twinsite_api::convert::reason(wire).map_or("?", twinsite_model::Reason::as_str)
}

/// The word for a step.
pub fn step(wire: v1::Step) -> &'static str {
    twinsite_api::convert::step(wire).map_or("?", twinsite_model::Step::as_str)
}

/// The word for the way in which an address left its owner.
pub fn way(wire: v1::MoveWay) -> &'static str {
    twinsite_api::convert::way(wire).map_or("?", twinsite_model::ledger::Way::as_str)
}

/// On what a prediction rests.
pub fn rests_on(moves: u32) -> String {
    if moves == 0 { "by the timings".to_owned() } else { format!("as in {moves} moves") }
}

/// The word for how a step ended; empty while it runs.
pub fn result(wire: v1::StepResult) -> &'static str {
    twinsite_api::convert::result(wire).map_or("", twinsite_model::StepResult::as_str)
}

/// The word for how a move ended; `running` while it has not.
pub fn outcome(wire: v1::Outcome) -> &'static str {
    twinsite_api::convert::outcome(wire).map_or("running", twinsite_model::Outcome::as_str)
}

/// The word for how an owner was fenced; empty before.
pub fn fence(wire: v1::Fence) -> &'static str {
    twinsite_api::convert::fence(wire).map_or("", twinsite_model::Fence::as_str)
}

/// A point in time.
pub fn time(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return String::new();
    }
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// How long ago a point in time was, in seconds; the clocks of two machines may differ.
pub fn ago(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return String::new();
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    let ago = SystemTime::now().duration_since(at).unwrap_or_default();
    format_duration(Duration::from_secs(ago.as_secs())).to_string()
}
