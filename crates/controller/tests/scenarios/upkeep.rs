//! What is kept in order beside the addresses.

use crate::cluster::Cluster;
use std::time::Duration;
use twinsite_model::spec::HumanDuration;
use twinsite_model::{Command, NewVerdict, Verdict};

/// Rooms are placed at the time of the state. If nobody moved it, a new room would look long forgotten.
#[test]
fn the_states_clock_follows_the_leaders_while_nothing_happens() {
    let ttl = Duration::from_secs(8);
    let mut cluster = Cluster::new(|spec| spec.sessions.room_ttl = HumanDuration(ttl));
    cluster.run(Duration::from_secs(10));
    let late = cluster.wall().since(cluster.state.wall);
    assert!(late <= ttl / 4, "{late:?}");
}

/// A leader gives a command up as of unknown fate, counts anew, and then the command comes to pass.
#[test]
fn a_verdict_that_comes_to_pass_late_is_put_right() {
    let mut cluster = Cluster::new(|_| {});
    let upstream = cluster.state.spec.as_ref().unwrap().upstreams[0].name.clone();
    let late = NewVerdict { upstream: upstream.clone(), health: Verdict::Unhealthy, evidence: Vec::new() };
    assert_eq!(cluster.state.verdict(&upstream), Verdict::Healthy);
    cluster.agree(Command::SetVerdicts { verdicts: vec![late] });
    cluster.run_until("what everybody finds is agreed on", |cluster| {
        cluster.state.verdict(&upstream) == Verdict::Healthy
    });
}
