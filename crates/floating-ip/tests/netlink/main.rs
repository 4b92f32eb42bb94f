//! Floating IPs in a real kernel: hosts are network namespaces, joined by a bridge in the clients' namespace. Needs
//! root, `ip` (iproute2) and `nft`; what cannot run is said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test's helpers end the test"
)]

mod holder;
mod hosts;
mod layers;
mod measured;
mod outside;
mod takeover;

use holder::Holder;
use hosts::hosts_or_return;
use outside::{Kind, Watch};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use twinsite_floating_ip::{LIT_AT_MOST, take_over};
use twinsite_model::{FloatingIpName, InterfaceName};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100));
/// The kernel's ticks, and the scheduler of a busy machine.
const GRANULARITY: Duration = Duration::from_millis(20);
const SOON: Duration = Duration::from_secs(5);

fn name() -> FloatingIpName {
    FloatingIpName::new("public").unwrap()
}

fn eth0() -> InterfaceName {
    InterfaceName::new("eth0").unwrap()
}

#[test]
fn an_address_is_held_told_and_let_go() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("an_address_is_held_told_and_let_go");
    hosts.at("a", "nft add table inet others");
    hosts.at("a", "nft add chain inet others in { type filter hook input priority 0 ; }");
    hosts.at("a", "nft add rule inet others in counter");
    let others = hosts.at("a", "nft -s list table inet others");
    for address in [V4, V6] {
        let watch = Watch::start(&hosts, address);
        let mut holder = Holder::start(&hosts, "a", address);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(watch.seen(Kind::Anything), 0, "{address}: it is dark before it is held");
        holder.hold(1);
        watch.wait("it answers", &hosts, |watch| watch.seen(Kind::Answer) > 0);
        watch.wait("the network is told", &hosts, |watch| watch.seen(Kind::Announcement) > 0);
        assert_eq!(hosts.served(address), Some("a".to_owned()));
        assert!(hosts.at("a", "ip address show dev eth0").contains(&address.to_string()));
        holder.release();
        let after = Instant::now();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(
            watch.seen_after(Kind::Anything, after),
            0,
            "{address}: nothing is said after the release"
        );
        assert!(!hosts.at("a", "ip address show dev eth0").contains(&address.to_string()));
        holder.end();
        assert!(!hosts.at("a", "nft list ruleset").contains("elements"), "{address}: the rules stay, dark");
    }
    assert_eq!(hosts.at("a", "nft -s list table inet others"), others, "others' rules are left alone");
}

#[test]
fn another_host_takes_over_and_clients_follow_at_once() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("another_host_takes_over_and_clients_follow_at_once");
    for address in [V4, V6] {
        let (mut a, mut b) = (Holder::start(&hosts, "a", address), Holder::start(&hosts, "b", address));
        for epoch in [1, 3, 5] {
            a.hold(epoch);
            assert_eq!(hosts.served_within(address, SOON), Some("a".to_owned()));
            a.release();
            b.hold(epoch + 1);
            let held = Instant::now();
            // The clients' neighbour tables still have the other host.
            assert_eq!(hosts.served_within(address, SOON), Some("b".to_owned()));
            let gap = held.elapsed();
            assert!(gap < Duration::from_millis(500), "{address}: clients found it after {gap:?}");
            b.release();
        }
    }
}

#[test]
fn a_lease_that_is_not_renewed_goes_dark_by_itself() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("a_lease_that_is_not_renewed_goes_dark_by_itself");
    for address in [V4, V6] {
        let watch = Watch::start(&hosts, address);
        let mut holder = Holder::start(&hosts, "a", address);
        let until = holder.hold_once(1, Duration::from_millis(400));
        watch.wait("it answers", &hosts, |watch| watch.seen(Kind::Answer) > 0);
        std::thread::sleep(until.saturating_duration_since(Instant::now()) + Duration::from_millis(300));
        let last = watch.last(Kind::Anything).unwrap();
        assert!(last <= until + GRANULARITY, "{address}: it spoke {:?} after its lease", last - until);
    }
}

#[test]
fn rules_that_somebody_removes_are_there_again() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("rules_that_somebody_removes_are_there_again");
    let damages = [
        "nft flush ruleset",
        "nft flush table inet twinsite-public",
        "nft flush chain inet twinsite-public gate-out",
        "nft delete table inet twinsite-public",
        "nft add table inet twinsite-public { flags dormant ; }",
        "nft insert rule inet twinsite-public out accept",
    ];
    for address in [V4, V6] {
        let mut holder = Holder::start(&hosts, "a", address);
        holder.hold(1);
        let whole = hosts.rules("a");
        for damage in damages {
            hosts.at("a", damage);
            let deadline = Instant::now() + SOON;
            while hosts.rules("a") != whole {
                assert!(Instant::now() < deadline, "{address}: after `{damage}`: {}", hosts.rules("a"));
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(hosts.served_within(address, SOON), Some("a".to_owned()), "after `{damage}`");
        }
    }
}

/// A holder that was killed leaves the address on the interface, lit for a moment more.
#[test]
fn what_a_killed_holder_left_is_cleared_away() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("what_a_killed_holder_left_is_cleared_away");
    for address in [V4, V6] {
        let watch = Watch::start(&hosts, address);
        let mut holder = Holder::start(&hosts, "a", address);
        holder.hold(1);
        watch.wait("it answers", &hosts, |watch| watch.seen(Kind::Answer) > 0);
        holder.kill();
        hosts.inside("a", move || twinsite_floating_ip::clear(&name(), address, &eth0()).unwrap());
        let cleared = Instant::now();
        assert!(!hosts.at("a", "ip address show dev eth0").contains(&address.to_string()));
        std::thread::sleep(LIT_AT_MOST + GRANULARITY);
        assert_eq!(watch.seen_after(Kind::Anything, cleared), 0);

        // And the next life begins with it dark, whoever cleared what.
        let mut holder = Holder::start(&hosts, "a", address);
        holder.hold(2);
        watch.wait("it answers again", &hosts, |watch| watch.seen_after(Kind::Answer, cleared) > 0);
    }
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("what_is_missing_is_said_in_one_line");
    let said = hosts.inside("a", || {
        take_over(&name(), V4, &InterfaceName::new("eth7").unwrap()).unwrap_err().to_string()
    });
    assert_eq!(said, "10.77.0.100 on `eth7`: this host has no interface `eth7`; `ip link` lists what it has");

    hosts.at("a", &format!("ip address add {V4}/24 dev lo"));
    let said = hosts.inside("a", || take_over(&name(), V4, &eth0()).unwrap_err().to_string());
    assert!(said.contains("another interface of this host"), "{said}");
    hosts.at("a", &format!("ip address del {V4}/24 dev lo"));
    hosts.inside("a", || take_over(&name(), V4, &eth0()).unwrap());
}
