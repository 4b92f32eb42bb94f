//! What becomes of connections, and of others that have the address, when an owner is lost or another one begins.

use crate::holder::{self, Holder};
use crate::hosts::{Hosts, hosts_or_return, left_out};
use crate::outside::{Kind, Watch};
use crate::{LIT_AT_MOST, SOON, V4, V6, eth0};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};
use twinsite_floating_ip::{HostFinding, examine};

/// Within which a client hears of it: the second round comes 0.7 s after the first.
const AT_ONCE: Duration = Duration::from_secs(1);
/// All rounds of segments, and the burst of questions for strangers, are over after this.
const ALL_SAID: Duration = Duration::from_millis(3_500);

/// How a client that only waits hears of its connection's end within this time.
fn ends(client: &mut TcpStream, within: Duration) -> Option<ErrorKind> {
    client.set_read_timeout(Some(within)).unwrap();
    match client.read(&mut [0]) {
        Ok(0) => Some(ErrorKind::UnexpectedEof),
        Ok(_) => panic!("the host is silent"),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => Some(error.kind()),
    }
}

/// A client that waits for a message of an owner whose host was cut off, and what it hears when another host has taken over.
fn hears(hosts: &Hosts, address: IpAddr, is_told: bool) -> Option<ErrorKind> {
    let (mut a, mut b) = (Holder::start(hosts, "a", address), Holder::start(hosts, "b", address));
    a.hold(1);
    let mut client = hosts.connect_silently(address);
    hosts.set_cut("a", true);
    if is_told {
        let [seen] = a.clients()[..] else { panic!("one client, please") };
        assert_eq!(seen, client.local_addr().unwrap());
        b.orphan(seen);
    }
    b.hold(2);
    let heard = ends(&mut client, if is_told { AT_ONCE } else { ALL_SAID });
    assert_eq!(hosts.served_within(address, SOON), Some("b".to_owned()));
    b.release();
    a.release();
    hosts.set_cut("a", false);
    heard
}

#[test]
fn clients_of_a_silent_owner_are_reset_at_once() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("clients_of_a_silent_owner_are_reset_at_once");
    for address in [V4, V6] {
        assert_eq!(hears(&hosts, address, true), Some(ErrorKind::ConnectionReset), "{address}");
        assert_eq!(hears(&hosts, address, false), None, "{address}: nothing else would tell it");
    }
}

/// At home most clients are behind a router that knows the numbers of their connections, and nobody else does.
#[test]
fn a_client_behind_a_router_is_reset_too() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("a_client_behind_a_router_is_reset_too");
    if let Err(why) = hosts.add_home() {
        left_out("netlink: a client behind a router", &why);
        return;
    }
    // Numbers of connections begin anywhere.
    for round in 0..6 {
        let (mut a, mut b) = (Holder::start(&hosts, "a", V4), Holder::start(&hosts, "b", V4));
        a.hold(1);
        let mut client = hosts.connect_silently_from("home", V4);
        let [seen] = a.clients()[..] else { panic!("one client, please") };
        assert_ne!(seen.ip(), client.local_addr().unwrap().ip(), "its router's address is seen");
        hosts.set_cut("a", true);
        b.orphan(seen);
        b.hold(2);
        assert_eq!(ends(&mut client, AT_ONCE), Some(ErrorKind::ConnectionReset), "round {round}");
        b.release();
        a.release();
        hosts.set_cut("a", false);
    }
}

/// Who has come again between the same ports meanwhile, to the new owner itself, is not disturbed.
#[test]
fn a_connection_that_is_served_outlives_its_tickles() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("a_connection_that_is_served_outlives_its_tickles");
    for address in [V4, V6] {
        let mut a = Holder::start(&hosts, "a", address);
        a.hold(1);
        let earlier = hosts.connect_silently(address);
        let from = earlier.local_addr().unwrap();
        drop(earlier);
        a.orphan(from);
        // A new moment of being light begins, and with it the rounds; the second comes when the client is here again.
        a.hold(2);
        let mut client = hosts.connect_silently_by(from.port(), address);
        assert_eq!(ends(&mut client, ALL_SAID), None, "{address}");
        a.reset();
        assert_eq!(ends(&mut client, SOON), Some(ErrorKind::ConnectionReset), "{address}");
    }
}

/// What a killed process had written goes on in its kernel, and would be said in the name of the next token.
#[test]
fn what_an_earlier_life_had_to_say_is_never_said() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("what_an_earlier_life_had_to_say_is_never_said");
    for address in [V4, V6] {
        let mut a = Holder::start(&hosts, "a", address);
        a.hold(1);
        let mut client = hosts.connect_silently(address);
        // Said into the void, and left to the kernel by a process that is gone.
        hosts.at("a", "nft add table inet void");
        hosts.at("a", "nft add chain inet void out { type filter hook output priority 0 ; policy drop ; }");
        a.say();
        a.kill();
        let left = || {
            let of = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            let asked = format!("ss --tcp --numeric --no-header state connected src {of}");
            hosts.at("a", &asked).lines().count()
        };
        assert_eq!(left(), 1, "{address}: {}", hosts.at("a", "ss --tcp --numeric --all"));
        std::thread::sleep(LIT_AT_MOST);
        let mut again = Holder::start(&hosts, "a", address);
        again.hold(2);
        assert_eq!(left(), 0, "{address}");
        hosts.at("a", "nft delete table inet void");
        // The kernel would have asked again within this time.
        assert_eq!(ends(&mut client, ALL_SAID), None, "{address}");
        assert_eq!(hosts.served_within(address, SOON), Some("a".to_owned()));
        again.release();
    }
}

/// A node that has lost its lease ends its connections, by resets, in the dark; whether its rules were there or not.
#[test]
fn connections_of_a_lost_address_end_in_silence() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("connections_of_a_lost_address_end_in_silence");
    for address in [V4, V6] {
        let watch = Watch::start(&hosts, address);
        let mut a = Holder::start(&hosts, "a", address);
        for (round, flushed) in [(0, false), (1, true)] {
            a.hold(2 * round + 1);
            let mut client = hosts.connect_silently(address);
            // What nobody has read makes any kind of close a reset.
            client.write_all(b"unread").unwrap();
            let frozen = Instant::now();
            a.freeze();
            if flushed {
                hosts.at("a", "nft flush ruleset");
            }
            std::thread::sleep((holder::LEASE + LIT_AT_MOST).saturating_sub(frozen.elapsed()));
            a.thaw();
            a.close();
            let dark = Instant::now();
            a.reset();
            a.release();
            assert_eq!(ends(&mut client, Duration::from_millis(300)), None, "{address}: it was told");
            let seen = watch.seen_after(Kind::Anything, dark);
            assert_eq!(seen, 0, "{address}, its rules flushed: {flushed}");

            // The same in the light is heard.
            a.hold(2 * round + 2);
            let mut client = hosts.connect_silently(address);
            a.reset();
            assert_eq!(ends(&mut client, SOON), Some(ErrorKind::ConnectionReset), "{address}");
            a.release();
        }
    }
}

#[test]
fn a_host_that_is_none_of_ours_and_has_the_address_is_found() {
    if holder::is_played() {
        return;
    }
    let hosts = hosts_or_return!("a_host_that_is_none_of_ours_and_has_the_address_is_found");
    let stranger = hosts.at("b", "cat /sys/class/net/eth0/address").trim().to_owned();
    for (address, by_hand) in [(V4, format!("{V4}/32")), (V6, format!("{V6}/128 nodad"))] {
        let mut a = Holder::start(&hosts, "a", address);
        hosts.at("b", &format!("ip address add {by_hand} dev eth0"));
        let found = hosts.inside("a", move || examine(address, &eth0()));
        let is_said = |finding: &HostFinding| finding.what.contains(&stranger) && !finding.forbids;
        assert!(found.iter().any(is_said), "{address}: before it is held: {found:?}");
        a.hold(1);
        let deadline = Instant::now() + SOON;
        while a.stranger() != stranger {
            assert!(Instant::now() < deadline, "{address}: {} answers", a.stranger());
            std::thread::sleep(Duration::from_millis(20));
        }
        a.release();
        hosts.at("b", &format!("ip address del {} dev eth0", by_hand.replace(" nodad", "")));

        // A node that has had it a moment ago is no stranger.
        let mut b = Holder::start(&hosts, "b", address);
        b.hold(2);
        assert_eq!(hosts.served_within(address, SOON), Some("b".to_owned()));
        b.release();
        a.hold(3);
        let since = Instant::now();
        while since.elapsed() < ALL_SAID {
            assert_eq!(a.stranger(), "nobody", "{address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        a.release();
    }
}
