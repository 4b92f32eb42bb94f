//! Hosts that lack something a floating IP on an interface needs: what the node says, and that it has changed nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end the test")]

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twinsite_drill::layout::{Family, Ground, Layout, Shape, Store};
use twinsite_model::Profile;
use twinsite_tests::{LoneNode, Said, lab_is_possible, program, run_command};

const SOON: Duration = Duration::from_secs(20);

/// A host of its own with an interface `eth0`, with a node's files and its guardian.
struct Host {
    namespace: String,
    node: LoneNode,
    guardian: Option<Child>,
}

impl Host {
    /// None where no such host can be made; it is said.
    fn new(name: &str, family: Family) -> Option<Self> {
        if !lab_is_possible(&format!("a host that lacks something: {name}")) {
            return None;
        }
        let shape = Shape { family, ..Shape::default() };
        let layout = Layout::on(Ground::Lab, 121, Profile::Lan, &shape, Store::Embedded);
        let namespace = format!("twhost{}-{name}", std::process::id());
        ip(&["netns", "add", &namespace]);
        let host = Self { namespace, node: LoneNode::of(layout), guardian: None };
        ip(&["-n", &host.namespace, "link", "set", "lo", "up"]);
        ip(&["-n", &host.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", "switch"]);
        for interface in ["eth0", "switch"] {
            ip(&["-n", &host.namespace, "link", "set", interface, "up"]);
        }
        host.give(host.node.layout.nodes[0].ip, "eth0");
        Some(host)
    }

    fn give(&self, address: IpAddr, interface: &str) {
        let network = if address.is_ipv4() { 16 } else { 64 };
        let address = format!("{address}/{network}");
        let arguments = ["-n", &self.namespace, "address", "add", &address, "dev", interface];
        ip(&[&arguments[..], if network == 64 { &["nodad"] } else { &[] }].concat());
    }

    /// A command on this host, without some of root's capabilities.
    fn command(&self, without: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        if !without.is_empty() {
            let list: Vec<_> = without.iter().map(|capability| format!("-{capability}")).collect();
            let list = list.join(",");
            command.args(["setpriv", "--bounding-set", &list, "--inh-caps", &list]);
        }
        command.args(arguments);
        command
    }

    /// Tries to run the node; it must end by itself.
    fn run(&mut self, without: &[&str]) -> Said {
        let config = self.node.path("node.toml").display().to_string();
        let program = program().display().to_string();
        let mut guardian = self.command(&[], &[&program, "guardian", "--config", &config]);
        guardian.stdin(Stdio::null()).stderr(Stdio::null());
        self.guardian = Some(guardian.spawn().unwrap());
        let said = run_command(self.command(without, &[&program, "node", "--config", &config]));
        self.end_guardian();
        said
    }

    fn check(&self, without: &[&str]) -> Said {
        let config = self.node.path("node.toml").display().to_string();
        run_command(self.command(without, &[&program().display().to_string(), "check", "--config", &config]))
    }

    fn end_guardian(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            LoneNode::end(&mut guardian);
        }
    }

    /// The floating address is on no interface, and there is no rule of anybody's.
    #[track_caller]
    fn is_untouched(&self) {
        let floating = self.node.layout.floating.ip().to_string();
        let shown = run_command(self.command(&[], &["ip", "-oneline", "address", "show", "dev", "eth0"]));
        assert!(!shown.out.contains(&format!("{floating}/")), "{}", shown.out);
        if Command::new("nft").arg("-v").output().is_ok() {
            assert_eq!(run_command(self.command(&[], &["nft", "list", "ruleset"])).out, "");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end_guardian();
        ip(&["netns", "delete", &self.namespace]);
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn an_interface_that_is_not_there() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(mut host) = Host::new("interface", family) else { return };
        host.node.replace("cluster.toml", "interface = \"eth0\"", "interface = \"eth7\"");
        let floating = host.node.layout.floating.ip().to_string();
        let wanted = [&*floating, "no interface `eth7`", "`ip link` lists what it has"];
        host.run(&[]).assert_one_line(&wanted);
        host.is_untouched();
        let checked = host.check(&[]);
        assert!(checked.code == 1 && checked.out.contains("no interface `eth7`"), "{checked:?}");
    }
}

#[test]
fn an_address_that_is_on_another_interface_already() {
    let Some(mut host) = Host::new("twice", Family::Ipv4) else { return };
    host.give(host.node.layout.floating.ip(), "lo");
    host.run(&[]).assert_one_line(&["10.88.0.10", "another interface of this host", "remove it there"]);
    let checked = host.check(&[]);
    assert!(checked.out.contains("10.88.0.10 is on this host now"), "{checked:?}");
}

#[test]
fn capabilities_that_are_missing() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(mut host) = Host::new("caps", family) else { return };
        for (missing, name) in [("net_admin", "CAP_NET_ADMIN"), ("net_raw", "CAP_NET_RAW")] {
            host.run(&[missing]).assert_one_line(&["not allowed", "CAP_NET_ADMIN and CAP_NET_RAW"]);
            host.is_untouched();
            let checked = host.check(&[missing]);
            assert!(checked.out.contains(&format!("this process has no {name}")), "{checked:?}");
        }
    }
}

/// Another host of the network has the address: `check` names it, and changes nothing.
#[test]
fn an_address_that_another_host_has() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let Some(host) = Host::new("other", family) else { return };
        let other = format!("{}-b", host.namespace);
        ip(&["netns", "add", &other]);
        ip(&["-n", &host.namespace, "link", "set", "switch", "netns", &other]);
        ip(&["-n", &other, "link", "set", "switch", "up"]);
        let floating =
            format!("{}/{}", host.node.layout.floating.ip(), if family == Family::Ipv4 { 16 } else { 64 });
        let nodad: &[&str] = if family == Family::Ipv6 { &["nodad"] } else { &[] };
        ip(&[&["-n", &other, "address", "add", &floating, "dev", "switch"], nodad].concat());
        let mut cat = Command::new("ip");
        cat.args(["netns", "exec", &other, "cat", "/sys/class/net/switch/address"]);
        let hardware = run_command(cat).out.trim().to_owned();
        let deadline = Instant::now() + SOON;
        loop {
            let checked = host.check(&[]);
            if checked.out.contains(&format!("answered for by the host with the hardware address {hardware}"))
            {
                break;
            }
            // The link has only just come up.
            assert!(Instant::now() < deadline, "{checked:?}");
        }
        host.is_untouched();
        ip(&["netns", "delete", &other]);
    }
}
