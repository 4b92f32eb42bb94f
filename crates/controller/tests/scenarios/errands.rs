//! Addresses that a provider routes: one call at a time, under the owner's token, however nodes and leaders fare.

use crate::cluster::{Cluster, GRA_1, GRA_2, SBG_1, ip, wanted};
use std::time::Duration;
use twinsite_controller::{MoveKind, MoveTarget, OperatorAction};
use twinsite_model::spec::ProviderKind;
use twinsite_model::{Command, Errand, ErrandEnd, ErrandId, Format, NodeId, Step};

/// The address is at the first node, and routed there.
fn routed() -> Cluster {
    let mut cluster = Cluster::new(|spec| {
        spec.floating_ips[0].provider = ProviderKind::Ovh;
        spec.floating_ips[0].interface = None;
    });
    cluster
        .run_until("the routing", |cluster| cluster.provider.to == Some(GRA_1) && errand(cluster).is_none());
    cluster.run(Duration::from_secs(1));
    cluster
}

fn errand(cluster: &Cluster) -> Option<&Errand> {
    cluster.state.floating_ips[&ip()].errand.as_ref()
}

fn sent(cluster: &Cluster) -> Vec<(NodeId, NodeId)> {
    let proposed = cluster.proposed.iter();
    let sent = proposed.filter_map(|command| match command {
        Command::SendErrand { by, to, .. } => Some((*by, *to)),
        _ => None,
    });
    sent.collect()
}

fn ended(cluster: &Cluster) -> Vec<(ErrandId, ErrandEnd)> {
    let proposed = cluster.proposed.iter();
    let ended = proposed.filter_map(|command| match command {
        Command::EndErrand { errand, end, .. } => Some((*errand, *end)),
        _ => None,
    });
    ended.collect()
}

fn move_to(cluster: &mut Cluster, node: NodeId) {
    cluster.ask(OperatorAction::Move(wanted(MoveKind::Switchover, MoveTarget::Node(node), &[]))).unwrap();
}

#[test]
fn an_address_is_routed_to_its_owner_by_one_call_and_then_left_alone() {
    let mut cluster = routed();
    assert_eq!(cluster.state.format, Format::NEWEST, "no errand before every member knows them");
    let [(_, to)] = sent(&cluster)[..] else { panic!("{:?}", sent(&cluster)) };
    assert_eq!(to, GRA_1);
    move_to(&mut cluster, SBG_1);
    cluster.run_until("the move", |cluster| cluster.is_settled() && cluster.owner_node() == Some(SBG_1));
    assert_eq!(cluster.provider.to, Some(SBG_1));
    cluster.run(Duration::from_secs(5));
    assert_eq!(sent(&cluster).len(), 2, "{:?}", sent(&cluster));
}

#[test]
fn a_move_is_observed_when_the_provider_has_done_it() {
    let mut cluster = routed();
    cluster.provider.slow = true;
    move_to(&mut cluster, SBG_1);
    cluster.run_until("the call", |cluster| sent(cluster).len() == 2);
    cluster.run_until("its end", |cluster| errand(cluster).is_none());
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.step(), Some(Step::Observe));
    assert_eq!(sent(&cluster).len(), 2, "what is under way is waited for");
    (cluster.provider.busy, cluster.provider.to) = (false, Some(SBG_1));
    cluster.run_until("the move", Cluster::is_settled);
    assert_eq!(sent(&cluster).len(), 2);
}

#[test]
fn what_somebody_did_at_the_console_is_put_right() {
    let mut cluster = routed();
    cluster.provider.to = None;
    cluster.run_until("the repair", |cluster| cluster.provider.to == Some(GRA_1));
    assert_eq!(sent(&cluster).len(), 2);
}

#[test]
fn whoever_reaches_the_provider_calls_it_and_one_that_fails_is_not_sent_for_ever() {
    let mut cluster = routed();
    cluster.provider.unseen_by.insert(GRA_1);
    cluster.provider.to = None;
    cluster.run_until("the repair", |cluster| cluster.provider.to == Some(GRA_1));
    assert_ne!(sent(&cluster)[1].0, GRA_1);

    cluster.provider.refuses = true;
    cluster.provider.to = None;
    let (before, began) = (sent(&cluster).len(), cluster.now);
    cluster.run_until("some refusals", |cluster| sent(cluster).len() >= before + 4);
    let pause = cluster.state.spec.as_ref().unwrap().timing().provider_call / 4;
    assert!(cluster.since(began) >= 3 * pause, "a provider that refuses is not asked without end");
    let asked: std::collections::BTreeSet<_> = sent(&cluster)[before..].iter().map(|(by, _)| *by).collect();
    assert!(asked.len() > 1, "{asked:?}");
}

#[test]
fn an_errand_without_an_end_is_recalled_and_waited_out_before_the_next() {
    let mut cluster = routed();
    cluster.provider.serves = false;
    cluster.provider.to = None;
    cluster.run_until("an errand", |cluster| errand(cluster).is_some());
    let by = errand(&cluster).unwrap().by;
    cluster.silent.insert(by);
    cluster.provider.unseen_by.insert(by);
    cluster.run_until("the recall", |cluster| errand(cluster).is_some_and(|errand| errand.recalled));
    let (recalled, within) = (cluster.now, errand(&cluster).unwrap().within);
    cluster.provider.serves = true;
    cluster.run_until("its end", |cluster| errand(cluster).is_none());
    assert!(cluster.since(recalled) >= within, "{:?}", cluster.since(recalled));
    assert_eq!(ended(&cluster).last(), Some(&(ErrandId(2), ErrandEnd::WaitedOut)));
    cluster.run_until("the next", |cluster| cluster.provider.to == cluster.owner_node());
}

#[test]
fn a_new_leader_goes_on_from_the_journal_and_waits_anew() {
    let mut cluster = routed();
    cluster.provider.serves = false;
    cluster.provider.to = None;
    cluster.run_until("an errand", |cluster| errand(cluster).is_some());
    move_to(&mut cluster, GRA_2);
    cluster.run_until("the recall", |cluster| errand(cluster).is_some_and(|errand| errand.recalled));
    let within = errand(&cluster).unwrap().within;
    cluster.run(within / 2);
    cluster.elect();
    let elected = cluster.now;
    cluster.run_until("its end", |cluster| errand(cluster).is_none());
    assert!(cluster.since(elected) >= within, "{:?}", cluster.since(elected));
}

#[test]
fn an_errand_under_an_older_token_is_recalled() {
    let mut cluster = routed();
    cluster.provider.serves = false;
    cluster.provider.to = None;
    cluster.run_until("an errand", |cluster| errand(cluster).is_some());
    move_to(&mut cluster, SBG_1);
    cluster.run_until("the new owner", |cluster| cluster.owner_node() == Some(SBG_1));
    assert!(errand(&cluster).is_some_and(|errand| errand.recalled));
    cluster.provider.serves = true;
    cluster.run_until("the routing", |cluster| cluster.provider.to == Some(SBG_1));
}
