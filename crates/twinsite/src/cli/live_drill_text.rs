//! Drills on the live cluster in words, and as JSON.

use super::{output, words};
use serde_json::{Value, json};
use std::time::Duration;
use twinsite_api::{convert, v1};

/// What a drill would do, or will.
pub fn preview_text(preview: &v1::DrillPreview, nothing_is_done: bool) -> String {
    let note = if nothing_is_done { " (a plan: nothing is done)" } else { "" };
    let mut lines = vec![format!(
        "drill {} on {}: run by {}, address at {} ({}){note}",
        preview.name, preview.floating_ip, preview.runner, preview.owner, preview.owner_site
    )];
    for step in &preview.steps {
        let mark = if step.moves { "MOVES" } else { "" };
        lines.push(format!("  step      {mark:<7}{}", step.what));
    }
    for guard in &preview.guards {
        let mark = if guard.holds { "holds" } else { "FAILS" };
        lines.push(format!("  guard     {mark:<7}{}: {}", guard.name, guard.detail));
    }
    let lasts = humantime::format_duration(Duration::from_millis(preview.lasts_at_most_ms));
    lines.push(format!("  time      {lasts} at most"));
    if preview.predicted_outage_ms > 0 {
        lines.push(format!(
            "  outage    about {} ms for new connections, in all",
            preview.predicted_outage_ms
        ));
    }
    if let (Some(rooms), Some(tunnels)) = (preview.rooms, preview.tunnels) {
        lines
            .push(format!("  people    {tunnels} connections in {rooms} rooms would reconnect at each move"));
    }
    if !preview.not_measured.is_empty() {
        lines.push(format!("  not measured on a live cluster: {}", preview.not_measured.join(", ")));
    }
    lines.join("\n")
}

/// The same for programs.
pub fn preview_json(preview: &v1::DrillPreview) -> Value {
    json!({
        "name": preview.name,
        "floating_ip": preview.floating_ip,
        "runner": preview.runner,
        "owner": preview.owner,
        "owner_site": preview.owner_site,
        "steps": preview.steps.iter().map(|step| json!({ "what": step.what, "moves": step.moves })).collect::<Vec<_>>(),
        "guards": preview.guards.iter().map(|guard| json!({
            "name": guard.name,
            "holds": guard.holds,
            "detail": guard.detail,
        })).collect::<Vec<_>>(),
        "lasts_at_most_ms": preview.lasts_at_most_ms,
        "predicted_outage_ms": preview.predicted_outage_ms,
        "rooms": preview.rooms,
        "tunnels": preview.tunnels,
        "not_measured": preview.not_measured,
    })
}

/// Where a drill is, on a line.
pub fn progress_text(progress: &v1::DrillProgress) -> String {
    let phase = match progress.phase() {
        v1::DrillPhase::Before => "before: ",
        v1::DrillPhase::Unspecified | v1::DrillPhase::Steps => "",
        v1::DrillPhase::Settling => "settling: ",
        v1::DrillPhase::WayBack => "way back: ",
    };
    let aborting =
        if progress.aborting.is_empty() { String::new() } else { format!("; {}", progress.aborting) };
    format!(
        "{phase}{}; gap {} ms, {} answered, {} not{aborting}",
        progress.what, progress.gap_ms, progress.probes_ok, progress.probes_failed
    )
}

/// The word for how a drill ended; `running` while it has not.
pub fn outcome(drill: &v1::Drill) -> &'static str {
    convert::drill_outcome(drill.outcome()).map_or("running", twinsite_model::DrillOutcome::as_str)
}

/// A line for each drill.
pub fn history_text(drills: &[v1::Drill]) -> String {
    let mut table = output::table(&["ID", "BEGAN", "TOOK", "NAME", "OUTCOME", "BY", "RUN BY"]);
    for drill in drills {
        let took = drill.ended_ms.checked_sub(drill.since_ms).map_or_else(
            || "...".to_owned(),
            |took| format!("{:.1} s", Duration::from_millis(took).as_secs_f64()),
        );
        table.add_row([
            drill.id.to_string(),
            words::time(drill.since_ms),
            took,
            drill.name.clone(),
            outcome(drill).to_owned(),
            drill.by.clone(),
            drill.runner_name.clone(),
        ]);
    }
    table.to_string()
}

/// A drill for programs, without its report.
pub fn drill_json(drill: &v1::Drill) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "id": drill.id,
        "name": drill.name,
        "by": drill.by,
        "runner": drill.runner_name,
        "since_ms": drill.since_ms,
        "until_ms": (drill.until_ms > 0).then_some(drill.until_ms),
        "ended_ms": (drill.ended_ms > 0).then_some(drill.ended_ms),
        "outcome": outcome(drill),
        "stopped_by": some(&drill.stopped_by),
        "stop_reason": some(&drill.stop_reason),
    })
}

/// What `status` says of drills: the one that runs, or that the newest was never ended.
pub fn status_line(state: &v1::State) -> Option<String> {
    if let Some(drill) = &state.drill {
        let stopping = if drill.stopped_by.is_empty() {
            String::new()
        } else {
            format!("; {} wants it to end", drill.stopped_by)
        };
        return Some(format!(
            "DRILL {} ({}) runs on {} for {}, until {} at most{stopping}",
            drill.id,
            drill.name,
            drill.runner_name,
            drill.by,
            words::time(drill.until_ms)
        ));
    }
    let last = state.last_drill.as_ref()?;
    (last.outcome() == v1::DrillOutcome::Abandoned).then(|| {
        format!(
            "the last drill, {} ({}), was abandoned at {}: nobody said how it ended",
            last.id,
            last.name,
            words::time(last.ended_ms)
        )
    })
}
