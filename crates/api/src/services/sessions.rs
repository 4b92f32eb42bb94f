//! Where rooms are, and who is connected, as this node knows it.

use super::{Context, invalid};
use crate::convert::token_to_pb;
use crate::v1::{self, session_service_server::SessionService};
use tonic::{Request, Response, Status};
use twinsite_model::RoomKey;

/// Rooms in one page, if the caller does not say, and at most.
const PAGE: u32 = 1_000;
const PAGE_MAX: u32 = 10_000;

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl SessionService for Service {
    async fn list_pins(
        &self,
        request: Request<v1::ListPinsRequest>,
    ) -> Result<Response<v1::ListPinsResponse>, Status> {
        self.0.caller(&request)?;
        let request = request.into_inner();
        let size = if request.page_size == 0 { PAGE } else { request.page_size.min(PAGE_MAX) };
        let after = if request.after.is_empty() {
            None
        } else {
            let key =
                request.after.as_slice().try_into().map_err(|_| invalid("after: a room key has 16 bytes"))?;
            Some(RoomKey(key))
        };
        let pins = self.0.backend.pins();
        let mut rest = pins.into_iter().filter(|pin| after.is_none_or(|after| pin.room > after));
        let page: Vec<_> = rest.by_ref().take(size as usize).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|pin| pin.room.0.to_vec()).unwrap_or_default();
        let pins = page.into_iter().map(|pin| v1::RoomPin {
            room: pin.room.0.to_vec(),
            upstream: pin.upstream.to_string(),
            token: Some(token_to_pb(pin.token)),
        });
        Ok(Response::new(v1::ListPinsResponse { pins: pins.collect(), next }))
    }

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<v1::ListConnectionsResponse>, Status> {
        self.0.caller(&request)?;
        Ok(Response::new(self.0.backend.connections()))
    }
}
