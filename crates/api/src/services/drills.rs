//! Drills on the live cluster.

use super::{Context, floating_ip, mutation};
use crate::backend::DrillCall;
use crate::convert::{drill_record_to_pb, running_drill_to_pb};
use crate::error::{ApiError, Reason};
use crate::v1::{self, drill_service_server::DrillService};
use std::pin::Pin;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use twinsite_model::{DrillId, State};

/// The longest scenario, in bytes.
const SCENARIO_BYTES_MAX: usize = 256 * 1024;
/// The longest name of a scenario's file that is repeated in messages, in bytes.
const FILE_BYTES_MAX: usize = 256;

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl DrillService for Service {
    type RunDrillStream = Pin<Box<dyn Stream<Item = Result<v1::RunDrillResponse, Status>> + Send>>;

    async fn run_drill(
        &self,
        request: Request<v1::RunDrillRequest>,
    ) -> Result<Response<Self::RunDrillStream>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        for (field, text, max) in [
            ("scenario_toml", &request.scenario_toml, SCENARIO_BYTES_MAX),
            ("file", &request.file, FILE_BYTES_MAX),
        ] {
            if text.len() > max {
                return Err(super::invalid(format!("{field}: longer than {max} bytes")));
            }
        }
        let named = (!request.floating_ip.is_empty())
            .then(|| floating_ip(&self.0.backend.local_state(), &request.floating_ip))
            .transpose()?;
        let file = if request.file.is_empty() { "scenario".to_owned() } else { request.file };
        let call = DrillCall {
            mutation: mutation(request.mutation)?,
            scenario: request.scenario_toml,
            file,
            ip: named,
            dry_run: request.dry_run,
        };
        let messages = self.0.backend.run_drill(&caller, call).await?;
        let messages = ReceiverStream::new(messages).map(|message| message.map_err(Status::from));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn abort_drill(
        &self,
        request: Request<v1::AbortDrillRequest>,
    ) -> Result<Response<v1::AbortDrillResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = request.into_inner();
        let given = mutation(request.mutation)?;
        let revision = self.0.backend.abort_drill(&caller, given, request.reason).await?;
        Ok(Response::new(v1::AbortDrillResponse { revision: revision.0 }))
    }

    async fn list_drills(
        &self,
        request: Request<v1::ListDrillsRequest>,
    ) -> Result<Response<v1::ListDrillsResponse>, Status> {
        self.0.caller(&request)?;
        let state = self.0.backend.linearizable().await?;
        let over = state.drills.iter().map(|drill| drill_record_to_pb(&state, drill, false));
        let running = state.drill.iter().map(|drill| running_drill_to_pb(&state, drill));
        Ok(Response::new(v1::ListDrillsResponse {
            drills: over.chain(running).collect(),
            revision: state.revision.0,
        }))
    }

    async fn get_drill(
        &self,
        request: Request<v1::GetDrillRequest>,
    ) -> Result<Response<v1::GetDrillResponse>, Status> {
        self.0.caller(&request)?;
        let id = DrillId(request.get_ref().drill);
        let state = self.0.backend.linearizable().await?;
        let drill = found(&state, id).ok_or_else(|| {
            let what = if id == NEWEST {
                "no drill is remembered".to_owned()
            } else {
                format!("drill {id} is not remembered")
            };
            ApiError::new(Reason::UnknownDrill, what)
        })?;
        Ok(Response::new(v1::GetDrillResponse { drill: Some(drill), revision: state.revision.0 }))
    }
}

/// Stands for the newest drill.
const NEWEST: DrillId = DrillId(0);

/// The drill with this id, running or over.
fn found(state: &State, id: DrillId) -> Option<v1::Drill> {
    let is_meant = |other: DrillId| id == NEWEST || other == id;
    let running = state.drill.as_ref().filter(|drill| is_meant(drill.id));
    if let Some(running) = running {
        return Some(running_drill_to_pb(state, running));
    }
    let over = state.drills.iter().rev().find(|drill| is_meant(drill.id))?;
    Some(drill_record_to_pb(state, over, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_model::{DrillOutcome, DrillRecord, Incarnation, NodeId, RunningDrill, WallTime};

    fn record(id: u64) -> DrillRecord {
        DrillRecord {
            id: DrillId(id),
            name: "switchover-and-back".to_owned(),
            by: "operator anna".to_owned(),
            runner: NodeId(3),
            since: WallTime(10),
            ended: WallTime(20),
            outcome: DrillOutcome::Failed,
            summary: "{}".to_owned(),
        }
    }

    #[test]
    fn a_drill_is_found_by_its_id_and_the_newest_without_one() {
        let mut state = State::default();
        assert_eq!(found(&state, NEWEST), None);
        state.drills.extend([record(5), record(9)]);
        let newest = found(&state, NEWEST).unwrap();
        assert_eq!((newest.id, newest.ended_ms, newest.report_json.as_str()), (9, 20, "{}"));
        assert_eq!(newest.outcome(), v1::DrillOutcome::Failed);
        assert_eq!(found(&state, DrillId(5)).unwrap().id, 5);
        assert_eq!(found(&state, DrillId(6)), None);
        state.drill = Some(RunningDrill {
            id: DrillId(12),
            name: "leader-handover".to_owned(),
            by: "operator anna".to_owned(),
            runner: NodeId(3),
            incarnation: Incarnation(1),
            since: WallTime(30),
            until: WallTime(40),
            stop: None,
        });
        let running = found(&state, NEWEST).unwrap();
        assert_eq!((running.id, running.until_ms, running.ended_ms), (12, 40, 0));
        assert_eq!(running.outcome(), v1::DrillOutcome::Unspecified);
        assert_eq!(found(&state, DrillId(9)).unwrap().id, 9);
    }
}
