//! The meeting service's own files.

use super::{document, wishes};
use crate::adapt::{Adapted, Wishes, adapt};
use std::fmt::Write;
use twinsite_model::spec::{from_toml, validate};

const MEETING: &str = include_str!("../../../examples/meeting.Caddyfile");
const MEETING_HA: &str = include_str!("../../../examples/meeting-ha.Caddyfile");

fn toml(adapted: &Adapted) -> String {
    let mut text = String::new();
    for upstream in &adapted.upstreams {
        writeln!(text, "[[upstream]]\n{}", toml::to_string(upstream).unwrap()).unwrap();
    }
    for route in &adapted.routes {
        writeln!(text, "[[route]]\n{}", toml::to_string(route).unwrap()).unwrap();
    }
    if let Some(health) = &adapted.health {
        write!(text, "[health]\n{}", toml::to_string(health).unwrap()).unwrap();
    }
    text
}

fn two_sites() -> Wishes {
    Wishes { known_sites: vec!["gra".parse().unwrap(), "sbg".parse().unwrap()], ..Wishes::default() }
}

#[test]
fn the_meeting_service() {
    let adapted = adapt(&document(MEETING), &wishes()).unwrap();
    assert_eq!(toml(&adapted), include_str!("meeting.toml"));
    let places: Vec<_> = adapted.traps.iter().map(|trap| trap.place.line).collect();
    assert_eq!(places, [1, 7, 8, 9, 14, 15, 16, 22, 23, 28, 37]);
}

#[test]
fn the_meeting_service_at_two_sites() {
    let adapted = adapt(&document(MEETING_HA), &two_sites()).unwrap();
    assert_eq!(toml(&adapted), include_str!("meeting-ha.toml"));
}

#[test]
fn both_fit_into_the_example_of_a_cluster() {
    for text in [MEETING, MEETING_HA] {
        let mut cluster = from_toml(include_str!("../../../../../deploy/example/cluster.toml")).unwrap();
        let before = cluster.clone();
        adapt(&document(text), &Wishes { site: Some("gra".parse().unwrap()), ..two_sites() })
            .unwrap()
            .put_into(&mut cluster);
        assert_eq!(validate::check(&cluster), []);
        assert_eq!((&cluster.nodes, &cluster.sessions), (&before.nodes, &before.sessions));
        assert_ne!(cluster.routes, before.routes);
    }
}

#[test]
fn a_file_that_says_nothing_of_health_leaves_it_as_it_is() {
    let mut cluster = from_toml(include_str!("../../../../../deploy/example/cluster.toml")).unwrap();
    cluster.health.rise = 7;
    super::adapted(":80 {\n reverse_proxy a:1\n}").put_into(&mut cluster);
    assert_eq!((cluster.health.rise, cluster.upstreams.len(), cluster.routes.len()), (7, 1, 1));
}
