//! Who owns an address, and when that changes by itself.

use crate::cluster::{Cluster, GRA_1, GRA_2, SBG_1, SBG_2, ip};
use std::time::Duration;
use twinsite_controller::{Notice, QuietReason, ReleasedBy};
use twinsite_model::spec::HumanDuration;
use twinsite_model::{Fence, NodeId, OperationKind, Reason, Step};

const MS: Duration = Duration::from_millis(1);

fn nobody(_: &mut twinsite_model::ClusterSpec) {}

#[test]
fn an_owner_stays_then_the_same_site_comes_then_the_preferred_one() {
    let mut cluster = Cluster::new(|spec| spec.policy.failovers_max = 10);
    assert_eq!(cluster.owner_node(), Some(GRA_1), "the preferred site's first node");
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.moves_wanted(), 1, "a healthy owner is left alone");
    cluster.silent.insert(GRA_1);
    cluster.run_until("the neighbour", |cluster| cluster.is_settled() && cluster.owner_node() == Some(GRA_2));
    cluster.silent.insert(GRA_2);
    cluster
        .run_until("the other site", |cluster| cluster.is_settled() && cluster.owner_node() == Some(SBG_1));
    cluster.silent.clear();
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.owner_node(), Some(SBG_1), "whoever comes back does not take the address back");
    cluster.silent.insert(SBG_1);
    cluster.run_until("staying at the site", |cluster| cluster.owner_node() == Some(SBG_2));
}

#[test]
fn the_preferred_site_comes_first_for_an_address_that_nobody_holds() {
    let sbg_first = |spec: &mut twinsite_model::ClusterSpec| spec.floating_ips[0].sites.reverse();
    assert_eq!(Cluster::new(sbg_first).owner_node(), Some(SBG_1));
}

#[test]
fn a_silent_owner_is_outwaited() {
    let mut cluster = Cluster::new(nobody);
    cluster.run(Duration::from_secs(1));
    cluster.silent.insert(GRA_1);
    let (granted, wait) = (cluster.granted_at, cluster.wait());
    cluster.run_until("another owner", |cluster| cluster.owner_node() != Some(GRA_1));
    let took = cluster.since(granted);
    assert!(took >= wait, "{took:?} is less than W = {wait:?}");
    assert!(took < wait + 30 * MS, "{took:?}");
    let operation = cluster.running().unwrap();
    assert_eq!((operation.reason, operation.fence), (Reason::OwnerSilent, Some(Fence::LeaseEnded)));
}

#[test]
fn an_owner_that_was_seen_to_end_is_replaced_at_once() {
    let mut cluster = Cluster::new(nobody);
    cluster.run(Duration::from_secs(1));
    let owner = cluster.owner().unwrap();
    cluster.silent.insert(GRA_1);
    cluster.release(&ip(), &owner, ReleasedBy::Guardian);
    assert_eq!(cluster.owner_node(), Some(GRA_2), "no time needs to pass");
    let operation = cluster.running().unwrap();
    assert_eq!((operation.reason, operation.fence), (Reason::OwnerReleased, Some(Fence::Released)));
    assert_eq!(operation.kind, OperationKind::Failover);
}

/// Better where nothing works than nowhere, and what was sick may be well again.
#[test]
fn an_address_that_left_a_sick_site_goes_back_when_nobody_else_is_left() {
    let mut cluster = Cluster::new(|spec| {
        (spec.timing.lease, spec.timing.slack) =
            (Some(HumanDuration(400 * MS)), Some(HumanDuration(90 * MS)));
    });
    cluster.lets_go = false;
    cluster.fall_sick("gra");
    cluster.run_until("the failover", |cluster| cluster.step() == Some(Step::Fence));
    // The old owner falls silent, and the other site is gone a moment before the fence is complete.
    cluster.silent.insert(GRA_1);
    cluster.run_until("its silence", |cluster| cluster.since(cluster.granted_at) >= 410 * MS);
    cluster.emptied.extend([SBG_1, SBG_2]);
    cluster.run_until("the one that is left", |cluster| cluster.owner_node() == Some(GRA_2));
    cluster.run_until("the end", Cluster::is_settled);
}

#[test]
fn a_sick_site_is_left_for_a_better_one_only() {
    let mut cluster = Cluster::new(nobody);
    cluster.sick.extend(["gra-meet-1".to_owned(), "gra-meet-2".to_owned()]);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.moves_wanted(), 1, "two of three upstreams are not the site");
    cluster.fall_sick("sbg");
    cluster.fall_sick("gra");
    cluster.run(Duration::from_secs(2));
    assert_eq!((cluster.moves_wanted(), cluster.owner_node()), (1, Some(GRA_1)), "nowhere is better");
    assert_eq!(cluster.explain().quiet, [QuietReason::NoSiteBetter]);
    cluster.sick.remove("sbg-meet-2");
    cluster.run_until("the better site", |cluster| cluster.owner_node() == Some(SBG_1));
    assert_eq!(cluster.running().unwrap().reason, Reason::SiteUnhealthy);
}

#[test]
fn a_node_that_is_being_emptied_is_passed_over() {
    let mut cluster = Cluster::new(nobody);
    cluster.emptied.insert(GRA_2);
    cluster.run(100 * MS);
    let unfit = |node: NodeId| {
        let explanation = cluster.explain();
        explanation.candidates.into_iter().find(|candidate| candidate.node == node).unwrap().unfit
    };
    assert_eq!(unfit(GRA_2).unwrap(), "gra-2 is being emptied");
    cluster.silent.insert(GRA_1);
    cluster.run_until("the other site", |cluster| cluster.owner_node() == Some(SBG_1));
}

#[test]
fn an_owner_that_is_back_in_time_was_nearly_replaced_and_it_is_said_once() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(Duration::from_secs(1));
    let nearly = |cluster: &Cluster| {
        let silences = cluster.notices.iter().filter_map(|notice| match notice {
            Notice::NearlyMoved { owner, silent_for, .. } => Some((*owner, *silent_for)),
            _ => None,
        });
        silences.collect::<Vec<_>>()
    };
    assert_eq!(nearly(&cluster), []);
    cluster.silent.insert(GRA_1);
    cluster.run(Duration::from_millis(100));
    cluster.silent.clear();
    cluster.run(Duration::from_secs(1));
    assert_eq!(nearly(&cluster), [], "a third of a lease is nothing to speak of");
    cluster.silent.insert(GRA_1);
    cluster.run(Duration::from_millis(220));
    cluster.silent.clear();
    cluster.run(Duration::from_secs(1));
    let said = nearly(&cluster);
    let [(GRA_1, silent_for)] = said[..] else { panic!("{said:?}") };
    assert!(silent_for > Duration::from_millis(200), "{silent_for:?}");
    assert_eq!(cluster.owner_node(), Some(GRA_1));
}
