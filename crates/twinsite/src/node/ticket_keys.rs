//! Whoever leads sees to it that TLS session tickets get a new key in time. The cluster agrees on the secret behind it, so that
//! every node reads the tickets of all others.

use super::Raft;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use twinsite_agents::Machine;
use twinsite_consensus::TokioRuntime;
use twinsite_model::{Command, Format, Proposal, State, TicketSecret, WallTime, ticket_keys};

/// How often it is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks until cancelled.
pub async fn rotate(raft: Raft, stop: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let now = TokioRuntime::wall_now();
        if !raft.status().borrow().is_leader || !is_due(&raft.state(), now) {
            continue;
        }
        let mut secret = [0; 32];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::warn!(%error, "no random numbers for a key of session tickets");
            continue;
        }
        let command = Command::RotateTicketKey { secret: TicketSecret::new(secret) };
        match raft.propose(&Proposal::by_controller(now, command)).await {
            Ok(_) => tracing::info!("session tickets have a new key"),
            Err(error) => {
                tracing::debug!(%error, "a key of session tickets was not agreed on; it is tried again");
            }
        }
    }
}

fn is_due(state: &State, now: WallTime) -> bool {
    let speaks_tls = state.spec.as_ref().is_some_and(|spec| spec.speaks_tls());
    // By the later of both clocks, as the state will see it.
    speaks_tls && state.format >= Format::EDGE && ticket_keys::is_due(&state.ticket_keys, now.max(state.wall))
}
