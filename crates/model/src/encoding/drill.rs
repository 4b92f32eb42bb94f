//! Drills.

use super::fields::Choice;
use super::{DecodeError, wire};
use crate::drill::{DrillOutcome, DrillRecord, DrillStop, RunningDrill};
use crate::ids::{DrillId, Incarnation, NodeId};
use crate::time::WallTime;

pub(super) fn write(drill: &RunningDrill) -> wire::SnapshotDrill {
    wire::SnapshotDrill {
        id: drill.id.0,
        name: drill.name.clone(),
        by: drill.by.clone(),
        runner: drill.runner.0,
        incarnation: drill.incarnation.0,
        since_ms: drill.since.0,
        until_ms: drill.until.0,
        stop: drill
            .stop
            .as_ref()
            .map(|stop| wire::SnapshotDrillStop { by: stop.by.clone(), reason: stop.reason.clone() }),
    }
}

pub(super) fn read(drill: wire::SnapshotDrill) -> RunningDrill {
    RunningDrill {
        id: DrillId(drill.id),
        name: drill.name,
        by: drill.by,
        runner: NodeId(drill.runner),
        incarnation: Incarnation(drill.incarnation),
        since: WallTime(drill.since_ms),
        until: WallTime(drill.until_ms),
        stop: drill.stop.map(|stop| DrillStop { by: stop.by, reason: stop.reason }),
    }
}

pub(super) fn write_record(drill: &DrillRecord) -> wire::SnapshotDrillRecord {
    wire::SnapshotDrillRecord {
        id: drill.id.0,
        name: drill.name.clone(),
        by: drill.by.clone(),
        runner: drill.runner.0,
        since_ms: drill.since.0,
        ended_ms: drill.ended.0,
        outcome: drill.outcome.write(),
        summary: drill.summary.clone(),
    }
}

pub(super) fn read_record(drill: wire::SnapshotDrillRecord) -> Result<DrillRecord, DecodeError> {
    Ok(DrillRecord {
        id: DrillId(drill.id),
        name: drill.name,
        by: drill.by,
        runner: NodeId(drill.runner),
        since: WallTime(drill.since_ms),
        ended: WallTime(drill.ended_ms),
        outcome: DrillOutcome::read_required(drill.outcome, "outcome")?,
        summary: drill.summary,
    })
}
