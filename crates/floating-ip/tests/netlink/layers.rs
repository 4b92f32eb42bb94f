//! The dead-man of a holder that stands still: all its layers together, each by itself, and what would be without each.

use crate::holder::{self, ALL, Holder, LEASE};
use crate::hosts::{Hosts, left_out};
use crate::measured::{Times, count};
use crate::outside::{Kind, Watch};
use crate::{GRANULARITY, LIT_AT_MOST, V4, V6};
use std::fmt::Debug;
use std::net::{IpAddr, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use twinsite_floating_ip::Layer;

/// The longest that an address is there after its holder was frozen, without the packet filter: its lifetime is what
/// is left of the lease (a second here), a second more, and rounded up; the kernel looks at lifetimes about once a second
/// and rounds once more (`check_lifetime` in `net/ipv4/devinet.c`).
const ADDRESS_OUTLIVES: Duration = Duration::from_millis(4_500);
/// Open sockets of the holder would ask for their peer, or say something again, within so long.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Does something with every kind of address, or of what else there is of a kind, at once: each has hosts of its own, and
/// most of the time all of them wait.
fn at_once<T: Copy + Debug + Sync>(test: &str, kinds: &[T], work: impl Fn(&Hosts, T) + Sync) {
    let hosts: Result<Vec<_>, _> =
        kinds.iter().map(|kind| Hosts::for_test(&format!("{test} {kind:?}"))).collect();
    let hosts = match hosts {
        Ok(hosts) => hosts,
        Err(why) => return left_out(&format!("netlink: {test}"), &why),
    };
    thread::scope(|scope| {
        for (hosts, kind) in hosts.iter().zip(kinds) {
            // A holder asks the thread which test it belongs to.
            let thread = thread::Builder::new().name(thread::current().name().unwrap().to_owned());
            thread.spawn_scoped(scope, || work(hosts, *kind)).unwrap();
        }
    });
}

/// A holder that has just been frozen, with a client to whom it was talking: an open socket, whose kernel would ask for its
/// peer, and say again what nobody has confirmed.
struct Frozen {
    holder: Holder,
    _client: TcpStream,
    at: Instant,
}

impl Frozen {
    fn new(hosts: &Hosts, watch: &Watch, mut holder: Holder, address: IpAddr, epoch: u64) -> Self {
        holder.hold(epoch);
        watch.forget();
        let lit = Instant::now();
        watch.wait("it answers", hosts, |watch| watch.seen_after(Kind::Answer, lit) > 0);
        let client = hosts.connect(address);
        let at = Instant::now();
        holder.freeze();
        Self { holder, _client: client, at }
    }

    /// How long it went on saying anything in the name of the address. Looked at is for so long, and a while more.
    fn spoke_for(&self, watch: &Watch, limit: Duration) -> Duration {
        sleep((limit + AFTERWARDS).saturating_sub(self.at.elapsed()));
        watch.last(Kind::Anything).unwrap().saturating_duration_since(self.at)
    }

    /// What it does when it goes on, late: its lease is over, and nothing of it is heard.
    fn thaw(self, watch: &Watch) -> Holder {
        sleep((LEASE + GRANULARITY).saturating_sub(self.at.elapsed()));
        let thawed = Instant::now();
        self.holder.thaw();
        sleep(Duration::from_millis(100));
        assert_eq!(watch.seen_after(Kind::Anything, thawed), 0, "after its lease");
        self.holder
    }
}

/// The process stands still; nobody but the kernel can make it dark.
#[test]
fn the_kernel_of_a_frozen_holder_goes_dark() {
    if holder::is_played() {
        return;
    }
    at_once("the_kernel_of_a_frozen_holder_goes_dark", &[V4, V6], |hosts, address| {
        let watch = Watch::start(hosts, address);
        let mut holder = Holder::start(hosts, "a", address);
        let limit = LIT_AT_MOST + GRANULARITY;
        let mut times = Times::new(format!("{address}: spoke after its holder was frozen"), limit);
        for round in 0..count("TWINSITE_FREEZES", 5) {
            let frozen = Frozen::new(hosts, &watch, holder, address, 2 * round as u64 + 1);
            times.note(frozen.spoke_for(&watch, limit));
            holder = frozen.thaw(&watch);
            holder.release();
        }
    });
}

/// Somebody flushes the packet filter while the holder stands still: the address's own lifetime ends it.
#[test]
fn a_frozen_holder_goes_dark_without_its_rules_too() {
    if holder::is_played() {
        return;
    }
    at_once("a_frozen_holder_goes_dark_without_its_rules_too", &[V4, V6], |hosts, address| {
        let watch = Watch::start(hosts, address);
        let mut holder = Holder::start(hosts, "a", address);
        let what = format!("{address}: spoke after its holder was frozen and its rules were flushed");
        let mut times = Times::new(what, ADDRESS_OUTLIVES);
        for round in 0..count("TWINSITE_FREEZES", 1) {
            let frozen = Frozen::new(hosts, &watch, holder, address, 2 * round as u64 + 1);
            hosts.at("a", "nft flush ruleset");
            times.note(frozen.spoke_for(&watch, ADDRESS_OUTLIVES));
            holder = frozen.thaw(&watch);
            holder.release();
        }
    });
}

/// Each layer ends the address with the others left out, as fast as it can.
#[test]
fn each_layer_alone_ends_a_frozen_holder() {
    if holder::is_played() {
        return;
    }
    let limits = [LIT_AT_MOST + GRANULARITY, LEASE + GRANULARITY, ADDRESS_OUTLIVES];
    let layers = ALL.into_iter().zip(limits);
    let kinds: Vec<_> = layers.flat_map(|layer| [V4, V6].map(|address| (address, layer))).collect();
    at_once("each_layer_alone_ends_a_frozen_holder", &kinds, |hosts, (address, (layer, limit))| {
        let watch = Watch::start(hosts, address);
        let what = format!("{address}: spoke after its holder was frozen, {layer:?} alone");
        let mut times = Times::new(what, limit);
        for epoch in 1..=count("TWINSITE_FREEZES", 2) as u64 {
            let holder = Holder::with_layers(hosts, "a", address, &[layer]);
            let frozen = Frozen::new(hosts, &watch, holder, address, epoch);
            times.note(frozen.spoke_for(&watch, limit));
            let mut holder = frozen.thaw(&watch);
            holder.release();
        }
    });
}

/// Without the timeout of the element it is as late as the lease; the deadline and the lifetime end it no sooner.
#[test]
fn without_its_element_a_frozen_holder_answers_until_its_lease_ends() {
    if holder::is_played() {
        return;
    }
    let test = "without_its_element_a_frozen_holder_answers_until_its_lease_ends";
    at_once(test, &[V4, V6], |hosts, address| {
        let watch = Watch::start(hosts, address);
        let holder = Holder::with_layers(hosts, "a", address, &[Layer::Deadline, Layer::Lifetime]);
        let frozen = Frozen::new(hosts, &watch, holder, address, 1);
        let spoke = frozen.spoke_for(&watch, LEASE + GRANULARITY);
        assert!(spoke > LEASE / 2, "{address}: {spoke:?}");
        assert!(spoke <= LEASE + GRANULARITY, "{address}: {spoke:?}");
        frozen.thaw(&watch).release();
    });
}

/// Without the lifetime of the address nothing ends it once the rules are gone.
#[test]
fn without_its_lifetime_a_frozen_holder_answers_for_ever_when_its_rules_are_flushed() {
    if holder::is_played() {
        return;
    }
    let test = "without_its_lifetime_a_frozen_holder_answers_for_ever_when_its_rules_are_flushed";
    at_once(test, &[V4, V6], |hosts, address| {
        let watch = Watch::start(hosts, address);
        let holder = Holder::with_layers(hosts, "a", address, &[Layer::Element, Layer::Deadline]);
        let frozen = Frozen::new(hosts, &watch, holder, address, 1);
        hosts.at("a", "nft flush ruleset");
        let spoke = frozen.spoke_for(&watch, ADDRESS_OUTLIVES);
        assert!(spoke > ADDRESS_OUTLIVES, "{address}: {spoke:?}");
    });
}
