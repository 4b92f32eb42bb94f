//! Rules in a real kernel, in a network namespace of the test's own.

use super::*;
use crate::clock::{Lease, boot_now};
use crate::netlink::layers::{Layer, Layers};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use twinsite_model::Token;

const ADDRESS: &str = "192.0.2.7";

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// Does something on a host of its own whose loopback interface has the address. Says it where that cannot be.
fn on_a_host(what: &str, work: impl FnOnce() + Send + 'static) {
    let namespace = format!("twfw{}", std::process::id());
    if !rustix::process::geteuid().is_root() || !ip(&format!("netns add {namespace}")) {
        let Some(path) = std::env::var_os("TWINSITE_LEFT_OUT") else { return };
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "netlink: {what}: network namespaces cannot be made here").unwrap();
        return;
    }
    assert!(ip(&format!("-n {namespace} link set lo up")));
    assert!(ip(&format!("-n {namespace} address add {ADDRESS}/32 dev lo")));
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    let done = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work();
    });
    let done = done.join();
    ip(&format!("netns delete {namespace}"));
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Whether a packet from the address to itself comes through.
fn passes() -> bool {
    let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let sent = socket.send_to(b"?", socket.local_addr().unwrap());
    sent.is_ok() && socket.recv(&mut [0]).is_ok()
}

/// The process stands still between its look at the lease and its word to the kernel. The element comes too late, and is
/// light all the same; the deadline, which was written with it, has passed.
#[test]
fn what_is_lit_too_late_is_dark_by_its_deadline() {
    on_a_host("what_is_lit_too_late_is_dark_by_its_deadline", || {
        let mut firewall = Firewall::establish("public", ADDRESS.parse().unwrap(), "lo").unwrap();
        assert!(!passes(), "it begins dark");
        let mut light = |layers: Layers, stands_still: Duration| {
            let lease = Lease::new(Token::new(1, 1), boot_now() + Duration::from_millis(300));
            let lit = firewall.lighten(|| {
                let moment = layers.moment(&lease);
                thread::sleep(stands_still);
                moment
            });
            assert!(lit.unwrap(), "the kernel was told");
            let passes = (passes(), lease.holds());
            firewall.darken().unwrap();
            passes
        };
        let late = Duration::from_millis(400);
        assert_eq!(light(Layers::ALL, Duration::ZERO), (true, true), "in time");
        assert_eq!(light(Layers::ALL, late), (false, false), "too late");
        let without_deadline = Layers::only(&[Layer::Element, Layer::Lifetime]);
        assert_eq!(light(without_deadline, late), (true, false), "and what would be without the deadline");
        assert!(!passes(), "it ends dark");
    });
}
