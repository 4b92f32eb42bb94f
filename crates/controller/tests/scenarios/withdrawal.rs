//! Addresses that are taken out of the specification.

use crate::cluster::{Cluster, GRA_1, WITNESS, ip};
use std::time::Duration;
use twinsite_controller::{OperatorAction, OperatorRefusal};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{ClusterSpec, FloatingIpName, Refusal};

fn with(cluster: &Cluster, ips: &[FloatingIpSpec]) -> OperatorAction {
    let mut spec = ClusterSpec::clone(cluster.state.spec.as_ref().unwrap());
    spec.floating_ips = ips.to_vec();
    OperatorAction::ApplySpec(spec.into())
}

/// The address under its name, and under another.
fn names(cluster: &Cluster) -> (FloatingIpSpec, FloatingIpSpec) {
    let known = cluster.state.spec.as_ref().unwrap().floating_ips[0].clone();
    let name: FloatingIpName = "renamed".parse().unwrap();
    (known.clone(), FloatingIpSpec { name, ..known })
}

#[test]
fn an_address_changes_its_name_when_its_owner_has_let_go() {
    let mut cluster = Cluster::new(|_| {});
    let (_, renamed) = names(&cluster);
    let held = || Err(OperatorRefusal::Refused(Refusal::FloatingIpHeld(ip())));
    let action = with(&cluster, std::slice::from_ref(&renamed));
    assert_eq!(cluster.ask(action), held());
    let action = with(&cluster, &[]);
    cluster.ask(action).unwrap();
    let action = with(&cluster, std::slice::from_ref(&renamed));
    assert!(cluster.ask(action.clone()).is_err(), "the owner has not let go yet");
    let took =
        cluster.run_until("the release", |cluster| cluster.owner().is_none() && cluster.running().is_none());
    assert!(took < cluster.wait(), "{took:?}: the owner says that it has let go");
    cluster.ask(action).unwrap();
    cluster.run_until("the placement", |cluster| cluster.state.owner(&renamed.name).is_some());
}

#[test]
fn an_address_whose_owner_is_silent_is_free_when_its_lease_has_ended() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(1));
    cluster.silent.insert(GRA_1);
    let (granted, action) = (cluster.granted_at, with(&cluster, &[]));
    cluster.ask(action).unwrap();
    cluster.run_until("the release", |cluster| cluster.owner().is_none());
    let took = cluster.since(granted);
    assert!(took >= cluster.wait(), "{took:?}, W = {:?}", cluster.wait());
}

#[test]
fn an_address_that_is_gone_does_not_keep_leadership_where_it_is() {
    let mut cluster = Cluster::new(|_| {});
    let (known, _) = names(&cluster);
    let mut second = known;
    second.name = "second".parse().unwrap();
    second.address = "127.0.0.20".parse().unwrap();
    let (first, _) = names(&cluster);
    let action = with(&cluster, &[first, second.clone()]);
    cluster.ask(action).unwrap();
    cluster.run_until("both are placed", |cluster| cluster.state.owner(&second.name).is_some());
    let turn = |cluster: &Cluster, node| {
        let order = twinsite_controller::election_order(&cluster.state);
        order.iter().position(|other| *other == node).unwrap()
    };
    assert!(turn(&cluster, GRA_1) > 1, "its site owns both");
    let quiet = |cluster: &Cluster| cluster.state.floating_ips.values().all(|ip| ip.operation.is_none());
    cluster.run_until("all is quiet", quiet);
    let action = with(&cluster, &[]);
    cluster.ask(action).unwrap();
    assert_eq!(turn(&cluster, GRA_1), 0, "what is not named does not count, held or not");
    assert_eq!(turn(&cluster, WITNESS), 4);
}
