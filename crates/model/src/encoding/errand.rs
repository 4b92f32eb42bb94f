//! Errands.

use super::fields::{read_nanos, required_token, write_nanos, write_token};
use super::{DecodeError, wire};
use crate::errand::Errand;
use crate::ids::{ErrandId, Incarnation, NodeId};
use crate::time::WallTime;

pub(super) fn write(errand: &Errand) -> wire::SnapshotErrand {
    wire::SnapshotErrand {
        id: errand.id.0,
        by: errand.by.0,
        incarnation: errand.incarnation.0,
        token: Some(write_token(errand.token)),
        to: errand.to.0,
        within_ns: write_nanos(errand.within),
        since_ms: errand.since.0,
        recalled: errand.recalled,
    }
}

pub(super) fn read(errand: wire::SnapshotErrand) -> Result<Errand, DecodeError> {
    Ok(Errand {
        id: ErrandId(errand.id),
        by: NodeId(errand.by),
        incarnation: Incarnation(errand.incarnation),
        token: required_token(errand.token)?,
        to: NodeId(errand.to),
        within: read_nanos(errand.within_ns),
        since: WallTime(errand.since_ms),
        recalled: errand.recalled,
    })
}
