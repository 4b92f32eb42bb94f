//! What the controller says, as log lines and metrics.

use twinsite_controller::{Decision, Notice};

/// Logs a notice and counts it.
pub(crate) fn log(notice: &Notice) {
    match notice {
        Notice::Decided(decision) => {
            metrics::counter!("twinsite_decisions_total", "kind" => decision.kind.as_str()).increment(1);
            tracing::warn!(
                ip = %decision.ip, kind = decision.kind.as_str(), reason = decision.reason.as_str(),
                target = %decision.target, evidence = %evidence(decision), "moving a floating IP"
            );
        }
        Notice::WouldHave(decision) => tracing::warn!(
            ip = %decision.ip, kind = decision.kind.as_str(), reason = decision.reason.as_str(),
            target = %decision.target, evidence = %evidence(decision), "would have moved a floating IP (observe-only)"
        ),
        Notice::Blocked { ip, reason, rules, unfit } => {
            let rules: Vec<_> = rules.iter().map(|rule| rule.detail.as_str()).collect();
            tracing::error!(
                %ip, reason = reason.as_str(), rules = %rules.join("; "), unfit = %unfit.join("; "),
                "a floating IP should move and cannot"
            );
        }
        Notice::NearlyMoved { ip, owner, token, silent_for, lease } => {
            metrics::counter!("twinsite_near_failovers_total").increment(1);
            tracing::warn!(
                %ip, %owner, %token, ?silent_for, ?lease, "the owner of a floating IP was silent, and is back in time"
            );
        }
        Notice::LeadershipMoves { to, why } => tracing::info!(%to, %why, "handing leadership over"),
        Notice::AlarmRaised(alarm) => {
            metrics::gauge!("twinsite_alarm", "alarm" => alarm.as_str()).set(1.0);
            tracing::error!(alarm = alarm.as_str(), detail = ?alarm, "alarm");
        }
        Notice::AlarmCleared(alarm) => {
            metrics::gauge!("twinsite_alarm", "alarm" => alarm.as_str()).set(0.0);
            tracing::warn!(alarm = alarm.as_str(), detail = ?alarm, "alarm over");
        }
    }
}

fn evidence(decision: &Decision) -> String {
    decision.evidence.join("; ")
}
