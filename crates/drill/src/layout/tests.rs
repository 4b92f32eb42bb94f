use super::*;
use std::collections::BTreeSet;
use twinsite_model::dial::DialMap;

fn layout(store: Store) -> Layout {
    Layout::paired(70, Profile::Lan, &Shape::default(), store)
}

#[test]
fn the_specification_is_valid_and_survives_its_file() {
    for store in [Store::OwnRedis, Store::Embedded, Store::OtherRedis("redis://127.0.0.1:7/0".into())] {
        let spec = layout(store).spec();
        let text = toml::to_string(&spec).unwrap();
        assert_eq!(twinsite_model::spec::from_toml(&text).unwrap(), spec, "{text}");
    }
}

#[test]
fn nodes_are_numbered_and_placed_as_agreed() {
    let layout = layout(Store::OwnRedis);
    let nodes: Vec<_> =
        layout.nodes.iter().map(|node| format!("{}={} {}", node.name, node.id, node.ip)).collect();
    let expected = [
        "gra-1=1 127.70.1.1",
        "gra-2=2 127.70.1.2",
        "sbg-1=3 127.70.2.1",
        "sbg-2=4 127.70.2.2",
        "wit-1=5 127.70.3.1",
    ];
    assert_eq!(nodes, expected);
    assert_eq!(layout.redis().to_string(), "127.70.3.9:6379");
    assert_eq!(layout.floating.to_string(), "127.70.0.10:8080");
}

#[test]
fn every_dial_across_sites_meets_a_relay_and_no_relay_has_another_ones_address() {
    let layout = layout(Store::OwnRedis);
    let passages = layout.passages();
    for passage in &passages {
        let rules = DialMap(layout.dial_rules(&passage.from));
        assert_eq!(rules.resolve(passage.target), passage.via);
    }
    let floating = layout.floating_passages();
    for passage in &floating {
        let rules = DialMap(layout.dial_rules(&passage.from));
        assert_eq!((rules.resolve(layout.floating), passage.target), (passage.via, layout.floating));
    }
    let vias = passages.iter().map(|passage| passage.via).chain(floating.iter().map(|passage| passage.via));
    let addresses: BTreeSet<_> = vias.collect();
    assert_eq!(addresses.len(), passages.len() + floating.len());
}

/// In a lab all reach all: nothing is dialled through a relay, and the floating IP is one of the network.
#[test]
fn a_lab_has_the_same_places_and_no_relays() {
    let lab = Layout::on(Ground::Lab, 70, Profile::Lan, &Shape::default(), Store::OwnRedis);
    assert_eq!((lab.passages(), lab.floating_passages()), (Vec::new(), Vec::new()));
    assert!(lab.sites.iter().all(|site| lab.dial_rules(site).is_empty()));
    assert_eq!(lab.floating.to_string(), "10.88.0.10:8080");
    assert_eq!(lab.nodes[3].ip.to_string(), "10.88.2.2");
    assert_eq!(lab.addresses_of(&lab.nodes[3]), [lab.nodes[3].ip]);
    assert_eq!(
        (lab.client(0).to_string(), lab.client_network()),
        ("10.88.128.1".into(), "10.88.128.0/18".into())
    );
    let text = toml::to_string(&lab.spec()).unwrap();
    assert_eq!(twinsite_model::spec::from_toml(&text).unwrap(), lab.spec(), "{text}");
}

#[test]
fn a_lab_of_ipv6_has_no_other_address() {
    let shape = Shape { family: Family::Ipv6, ..Shape::default() };
    let lab = Layout::on(Ground::Lab, 70, Profile::Lan, &shape, Store::OwnRedis);
    assert_eq!(lab.floating.to_string(), "[fd88::a]:8080");
    assert_eq!(lab.redis_url().unwrap(), "redis://[fd88::3:9]:6379/0");
    assert_eq!(
        (lab.client(251).to_string(), lab.gateway().to_string()),
        ("fd88::1:0:0:1:2".into(), "fd88::1".into())
    );
    let text = toml::to_string(&lab.spec()).unwrap();
    assert_eq!(twinsite_model::spec::from_toml(&text).unwrap(), lab.spec(), "{text}");
    assert!(!text.contains("10.88") && !text.contains("127."), "{text}");
    let loopback = Layout::paired(70, Profile::Lan, &shape, Store::OwnRedis);
    assert_eq!(loopback.floating.to_string(), "127.70.0.10:8080", "there is one address only, `::1`");
}

#[test]
fn clients_have_distinct_addresses_outside_the_cluster() {
    let layout = layout(Store::Embedded);
    let clients: BTreeSet<_> = (0..1_000).map(|n| layout.client(n)).collect();
    assert_eq!(clients.len(), 1_000);
    assert!(clients.iter().all(|ip| ip.to_string().starts_with("127.198.")));
}

#[test]
fn only_the_owners_site_announces_the_floating_address() {
    let layout = layout(Store::Embedded);
    let [gra, sbg] = [&layout.sites[0], &layout.sites[1]];
    assert_eq!(layout.announced(gra, Some(gra)), layout.floating.ip());
    assert_eq!(layout.announced(sbg, Some(gra)), layout.site_address(sbg));
    assert_eq!(layout.announced(gra, None), layout.site_address(gra));
}
