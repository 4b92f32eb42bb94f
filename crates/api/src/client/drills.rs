//! Running a drill, and following it.

use super::calls::new_mutation;
use super::{Client, MESSAGE_BYTES_MAX, goes_on, service};
use crate::error::{ApiError, Reason};
use crate::v1::{self, drill_service_client::DrillServiceClient};
use std::net::SocketAddr;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

/// A drill, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDrill {
    /// The scenario, as text.
    pub scenario: String,
    /// What messages call it.
    pub file: String,
    /// The floating IP; none for the only one.
    pub ip: Option<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// The API address of the node that runs it; any, if none is named.
    pub on: Option<SocketAddr>,
}

impl Client {
    /// Runs a drill on the first node that answers, whoever leads, and follows it. Whoever stops listening does not stop
    /// the drill.
    pub async fn run_drill(&self, wanted: &WantedDrill) -> Result<Streaming<v1::RunDrillResponse>, ApiError> {
        let request = v1::RunDrillRequest {
            mutation: Some(new_mutation()),
            scenario_toml: wanted.scenario.clone(),
            file: wanted.file.clone(),
            floating_ip: wanted.ip.clone().unwrap_or_default(),
            dry_run: wanted.dry_run,
        };
        let mut last = ApiError::new(Reason::Unavailable, "no node answered");
        let nodes = self.in_order().into_iter();
        for node in nodes.filter(|node| wanted.on.is_none_or(|on| on == node.address)) {
            let until = Instant::now() + self.inner.options.patience;
            let mut client = service!(DrillServiceClient, node.channel.clone());
            let error = match timeout_at(until, client.run_drill(request.clone())).await {
                Ok(Ok(stream)) => return Ok(stream.into_inner()),
                Ok(Err(status)) => ApiError::from(status),
                Err(_) => {
                    let message = format!(
                        "{} did not answer in time; `twinsite drill history --live` says whether the drill began",
                        node.address
                    );
                    // It may have begun there: nobody else is asked for a second one.
                    return Err(ApiError::new(Reason::OutcomeUnknown, message));
                }
            };
            if !goes_on(&error) || error.reason == Reason::OutcomeUnknown {
                return Err(error);
            }
            last = error;
        }
        Err(last)
    }
}
