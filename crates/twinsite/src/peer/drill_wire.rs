//! Drills on the wire between nodes.

use super::pb;
use super::wire::Malformed;
use crate::node::{DrillWish, EndedDrill};
use std::time::Duration;
use tonic::Status;
use twinsite_api::{ApiError, Reason};
use twinsite_model::drill::{DRILL_TEXT_BYTES_MAX, SUMMARY_BYTES_MAX};
use twinsite_model::{DrillId, DrillOutcome, Incarnation, NodeId, RequestId};

pub fn drill_wish_to_pb(wish: &DrillWish, dry_run: bool) -> pb::BeginDrillRequest {
    pb::BeginDrillRequest {
        name: wish.name.clone(),
        person: wish.person.clone(),
        runner: wish.runner.0,
        incarnation: wish.incarnation.0,
        within_ms: u64::try_from(wish.within.as_millis()).unwrap_or(u64::MAX),
        request_id: wish.request.as_str().to_owned(),
        dry_run,
    }
}

pub fn drill_wish(wire: pb::BeginDrillRequest) -> Result<DrillWish, Malformed> {
    if wire.name.len().max(wire.person.len()) > DRILL_TEXT_BYTES_MAX {
        return Err(Malformed("a text about a drill is too long"));
    }
    Ok(DrillWish {
        name: wire.name,
        person: wire.person,
        runner: NodeId(wire.runner),
        incarnation: Incarnation(wire.incarnation),
        within: Duration::from_millis(wire.within_ms),
        request: request(wire.request_id)?,
    })
}

pub fn drill_ended_to_pb(ended: &EndedDrill) -> pb::EndDrillRequest {
    let end = match ended.outcome {
        DrillOutcome::Passed => pb::DrillEnd::Passed,
        DrillOutcome::Failed => pb::DrillEnd::Failed,
        DrillOutcome::Aborted => pb::DrillEnd::Aborted,
        DrillOutcome::Abandoned => pb::DrillEnd::Abandoned,
    };
    pb::EndDrillRequest {
        runner: ended.runner.0,
        drill: ended.drill.0,
        end: end.into(),
        summary: ended.summary.clone(),
        request_id: ended.request.as_str().to_owned(),
    }
}

pub fn drill_ended(wire: pb::EndDrillRequest) -> Result<EndedDrill, Malformed> {
    let outcome = match wire.end() {
        pb::DrillEnd::Passed => DrillOutcome::Passed,
        pb::DrillEnd::Failed => DrillOutcome::Failed,
        pb::DrillEnd::Aborted => DrillOutcome::Aborted,
        pb::DrillEnd::Abandoned => DrillOutcome::Abandoned,
        pb::DrillEnd::Unspecified => return Err(Malformed("the end of a drill is missing")),
    };
    if wire.summary.len() > SUMMARY_BYTES_MAX {
        return Err(Malformed("the summary of a drill is too long"));
    }
    Ok(EndedDrill {
        drill: DrillId(wire.drill),
        runner: NodeId(wire.runner),
        outcome,
        summary: wire.summary,
        request: request(wire.request_id)?,
    })
}

fn request(id: String) -> Result<RequestId, Malformed> {
    RequestId::new(id).ok_or(Malformed("a request id has 1 to 64 bytes"))
}

/// What the leader decided. That it is no leader any more is an error of the call, so that the right one is asked.
pub fn drill_begun_to_pb(begun: Result<u64, ApiError>) -> Result<pb::BeginDrillResponse, Status> {
    let drill = begun.as_ref().ok().copied().unwrap_or_default();
    Ok(pb::BeginDrillResponse { drill, refused: refused_to_pb(begun.map(drop))? })
}

pub fn refused_to_pb(answer: Result<(), ApiError>) -> Result<Option<pb::DrillRefused>, Status> {
    match answer {
        Ok(()) => Ok(None),
        Err(error) if error.reason == Reason::NotLeader => Err(Status::failed_precondition(error.message)),
        Err(error) => {
            Ok(Some(pb::DrillRefused { reason: error.reason.as_str().to_owned(), message: error.message }))
        }
    }
}

pub fn refused(wire: pb::DrillRefused) -> ApiError {
    let known = Reason::ALL.iter().copied().find(|reason| reason.as_str() == wire.reason);
    ApiError::new(known.unwrap_or(Reason::Refused), wire.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> DrillWish {
        DrillWish {
            name: "switchover-and-back".to_owned(),
            person: "operator anna".to_owned(),
            runner: NodeId(3),
            incarnation: Incarnation(u64::MAX),
            within: Duration::from_secs(90),
            request: RequestId::new("4d1c").unwrap(),
        }
    }

    #[test]
    fn wishes_and_ends_survive_the_wire() {
        assert_eq!(drill_wish(drill_wish_to_pb(&wish(), false)), Ok(wish()));
        for outcome in DrillOutcome::ALL {
            let ended = EndedDrill {
                drill: DrillId(9),
                runner: NodeId(3),
                outcome,
                summary: "{}".to_owned(),
                request: RequestId::new("4d1d").unwrap(),
            };
            assert_eq!(drill_ended(drill_ended_to_pb(&ended)), Ok(ended));
        }
    }

    #[test]
    fn what_is_too_long_or_missing_is_malformed() {
        let long = DrillWish { person: "x".repeat(DRILL_TEXT_BYTES_MAX + 1), ..wish() };
        assert!(drill_wish(drill_wish_to_pb(&long, false)).is_err());
        let mut nameless = drill_wish_to_pb(&wish(), true);
        nameless.request_id.clear();
        assert!(drill_wish(nameless).is_err());
        let end = pb::EndDrillRequest { request_id: "r".to_owned(), ..pb::EndDrillRequest::default() };
        assert!(drill_ended(end.clone()).is_err(), "how it ended is missing");
        let summary = "x".repeat(SUMMARY_BYTES_MAX + 1);
        let end = pb::EndDrillRequest { end: pb::DrillEnd::Passed.into(), summary, ..end };
        assert!(drill_ended(end).is_err());
    }

    #[test]
    fn a_refusal_keeps_its_reason_and_no_leader_is_an_error() {
        let error = ApiError::new(Reason::DrillBlocked, "not now");
        let wire = drill_begun_to_pb(Err(error.clone())).unwrap();
        assert_eq!(refused(wire.refused.unwrap()), error);
        assert!(drill_begun_to_pb(Err(ApiError::not_leader(None))).is_err());
    }
}
