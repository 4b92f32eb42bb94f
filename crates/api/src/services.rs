//! The services: what arrives is checked and turned into the model's words; the node behind does the rest.

mod cluster;
mod drills;
mod maintenance;
mod membership;
mod operations;
mod sessions;

use crate::MESSAGE_BYTES_MAX;
use crate::backend::{Backend, Mutation};
use crate::error::{ApiError, Reason};
use crate::hub::WatchHub;
use crate::v1;
use crate::v1::cluster_service_server::ClusterServiceServer;
use crate::v1::drill_service_server::DrillServiceServer;
use crate::v1::maintenance_service_server::MaintenanceServiceServer;
use crate::v1::membership_service_server::MembershipServiceServer;
use crate::v1::operation_service_server::OperationServiceServer;
use crate::v1::session_service_server::SessionServiceServer;
use rustls_pki_types::CertificateDer;
use std::str::FromStr;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::{Request, Status};
use twinsite_model::{FloatingIpName, RequestId, Revision, State};

/// Says who calls, by the certificates of the connection.
pub type CallerCheck = Arc<dyn Fn(&[CertificateDer<'static>]) -> Result<String, ApiError> + Send + Sync>;

/// What every service stands on.
#[derive(Clone)]
struct Context {
    backend: Arc<dyn Backend>,
    hub: WatchHub,
    caller: CallerCheck,
}

/// All services of `twinsite.v1` over a node.
pub fn services(backend: Arc<dyn Backend>, hub: WatchHub, caller: CallerCheck) -> Routes {
    let context = Context { backend, hub, caller };
    let limit = MESSAGE_BYTES_MAX;
    let cluster = ClusterServiceServer::new(cluster::Service(context.clone()));
    let operations = OperationServiceServer::new(operations::Service(context.clone()));
    let maintenance = MaintenanceServiceServer::new(maintenance::Service(context.clone()));
    let sessions = SessionServiceServer::new(sessions::Service(context.clone()));
    let drills = DrillServiceServer::new(drills::Service(context.clone()));
    let membership = MembershipServiceServer::new(membership::Service(context));
    Routes::new(cluster.max_encoding_message_size(limit))
        .add_service(operations)
        .add_service(maintenance.max_decoding_message_size(limit))
        .add_service(sessions.max_encoding_message_size(limit))
        .add_service(drills)
        .add_service(membership)
}

impl Context {
    /// Who calls. Every call needs a certificate, those that only look as well.
    fn caller<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let certificates = request.peer_certs();
        let certificates = certificates.as_ref().map_or(&[][..], |certificates| certificates.as_slice());
        Ok((self.caller)(certificates)?)
    }
}

fn invalid(message: impl Into<String>) -> Status {
    ApiError::new(Reason::InvalidArgument, message).into()
}

fn parsed<T: FromStr>(field: &str, text: &str) -> Result<T, Status>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| invalid(format!("{field}: {error}")))
}

fn mutation(given: Option<v1::Mutation>) -> Result<Mutation, Status> {
    let given = given.unwrap_or_default();
    let request = if given.request_id.is_empty() {
        None
    } else {
        let id = RequestId::new(given.request_id);
        Some(id.ok_or_else(|| invalid("mutation.request_id: too long, or not printable ASCII"))?)
    };
    Ok(Mutation { request, expected_revision: given.expected_revision.map(Revision) })
}

/// The floating IP that is meant; the only one if none is named.
fn floating_ip(state: &State, name: &str) -> Result<FloatingIpName, Status> {
    let Some(spec) = &state.spec else {
        return Err(ApiError::new(Reason::NoSpec, "the cluster has no specification yet").into());
    };
    if !name.is_empty() {
        let name: FloatingIpName = parsed("floating_ip", name)?;
        return if spec.floating_ip(&name).is_some() {
            Ok(name)
        } else {
            Err(ApiError::new(Reason::UnknownFloatingIp, format!("there is no floating IP `{name}`")).into())
        };
    }
    match spec.floating_ips.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => Err(ApiError::new(Reason::UnknownFloatingIp, "the specification has no floating IP").into()),
        several => {
            let names: Vec<_> = several.iter().map(|ip| ip.name.as_str()).collect();
            Err(invalid(format!("floating_ip: name one of {}", names.join(", "))))
        }
    }
}
