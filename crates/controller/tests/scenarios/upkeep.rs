//! What is kept in order beside the addresses.

use crate::cluster::Cluster;
use std::time::Duration;
use twinsite_model::spec::HumanDuration;

/// Rooms are placed at the time of the state. If nobody moved it, a new room would look long forgotten.
#[test]
fn the_states_clock_follows_the_leaders_while_nothing_happens() {
    let ttl = Duration::from_secs(8);
    let mut cluster = Cluster::new(|spec| spec.sessions.room_ttl = HumanDuration(ttl));
    cluster.run(Duration::from_secs(10));
    let late = cluster.wall().since(cluster.state.wall);
    assert!(late <= ttl / 4, "{late:?}");
}
