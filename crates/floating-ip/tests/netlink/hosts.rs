//! Hosts `a` and `b` and their clients, each in a network namespace of its own.

use socket2::{Domain, Socket, Type};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PORT: u16 = 8_443;
/// How long one look at the service may take.
const LOOK: Duration = Duration::from_millis(200);

/// Says that a check cannot run on this machine, where `cargo xtask test` finds it for its summary.
pub(crate) fn left_out(what: &str, why: &str) {
    let Some(path) = std::env::var_os("TWINSITE_LEFT_OUT") else {
        eprintln!("left out: {what}: {why}");
        return;
    };
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{what}: {why}").unwrap();
}

/// Runs a test with hosts, where they can be made.
macro_rules! hosts_or_return {
    ($name:literal) => {
        match crate::hosts::Hosts::for_test($name) {
            Ok(hosts) => hosts,
            Err(why) => {
                crate::hosts::left_out(concat!("netlink: ", $name), &why);
                return;
            }
        }
    };
}
pub(crate) use hosts_or_return;

/// The namespaces of one test; they go with it.
pub(crate) struct Hosts {
    prefix: String,
}

impl Hosts {
    /// Makes them, or says why that is not possible here.
    pub(crate) fn for_test(test: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("making network namespaces needs root".to_owned());
        }
        for tool in ["ip", "nft"] {
            if Command::new(tool).arg("-V").output().is_err() {
                return Err(format!("`{tool}` is not installed"));
            }
        }
        // Interfaces and namespaces have short names; two runs side by side must not meet.
        let digest = crc32c::crc32c(format!("{test} {}", std::process::id()).as_bytes());
        let hosts = Self { prefix: format!("tw{digest:08x}") };
        hosts.make().map_err(|error| format!("network namespaces cannot be made here: {error}"))?;
        Ok(hosts)
    }

    fn make(&self) -> Result<(), String> {
        let client = self.namespace("client");
        run(&format!("ip netns add {client}"))?;
        let inside = |host: &str, command: &str| run(&format!("ip netns exec {host} {command}"));
        inside(&client, "ip link set lo up")?;
        inside(&client, "ip link add br0 type bridge forward_delay 0")?;
        inside(&client, "ip link set br0 up")?;
        inside(&client, "ip address add 10.77.0.1/24 dev br0")?;
        inside(&client, "ip address add fd77::1/64 dev br0 nodad")?;
        for (number, host) in ["a", "b"].iter().enumerate() {
            let (namespace, last) = (self.namespace(host), number + 2);
            run(&format!("ip netns add {namespace}"))?;
            inside(&namespace, "ip link set lo up")?;
            inside(&namespace, &format!("ip link add eth0 type veth peer name port-{host} netns {client}"))?;
            inside(&client, &format!("ip link set port-{host} master br0 up"))?;
            inside(&namespace, "ip link set eth0 up")?;
            inside(&namespace, &format!("ip address add 10.77.0.{last}/24 dev eth0"))?;
            inside(&namespace, &format!("ip address add fd77::{last}/64 dev eth0 nodad"))?;
        }
        Ok(())
    }

    /// The namespace of a host.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Runs a command on a host; what it printed.
    pub(crate) fn at(&self, host: &str, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.namespace(host))).unwrap()
    }

    /// Takes a host off the network, without a word to anybody, or puts it back.
    pub(crate) fn set_cut(&self, host: &str, is_cut: bool) {
        let bridge = if is_cut { "nomaster" } else { "master br0" };
        self.at("client", &format!("ip link set port-{host} {bridge}"));
    }

    /// A client behind a router that translates its address and drops what fits no connection: the namespace `home`. Says
    /// why that cannot be made here.
    pub(crate) fn add_home(&self) -> Result<(), String> {
        let (home, router) = (self.namespace("home"), self.namespace("client"));
        run(&format!("ip netns add {home}"))?;
        let at_home = |command: &str| run(&format!("ip netns exec {home} {command}"));
        let at_router = |command: &str| run(&format!("ip netns exec {router} {command}"));
        at_home(&format!("ip link add eth0 type veth peer name home netns {router}"))?;
        at_home("ip link set eth0 up")?;
        at_home("ip address add 192.168.77.2/24 dev eth0")?;
        at_router("ip link set home up")?;
        at_router("ip address add 192.168.77.1/24 dev home")?;
        at_home("ip route add default via 192.168.77.1")?;
        at_router("sysctl -qw net.ipv4.ip_forward=1")?;
        at_router("nft add table ip router")?;
        at_router("nft add chain ip router out { type nat hook postrouting priority 100 ; }")?;
        at_router("nft add rule ip router out oifname br0 masquerade")?;
        at_router("nft add chain ip router through { type filter hook forward priority 0 ; }")?;
        at_router("nft add rule ip router through ct state invalid drop")?;
        Ok(())
    }

    /// Does something on a thread of a host.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let namespace = self.namespace(host);
        thread::spawn(move || {
            enter(&namespace);
            work()
        })
        .join()
        .unwrap()
    }

    /// Our rules on a host, without what moves.
    pub(crate) fn rules(&self, host: &str) -> String {
        let all = self.at(host, "nft -s list ruleset");
        all.lines()
            .filter(|line| !line.contains("time <") && !line.contains("elements"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// All that may explain what a host does.
    pub(crate) fn describe(&self, host: &str) -> String {
        let commands = ["nft list ruleset", "ip address show dev eth0", "ss -ltn"];
        commands.map(|command| self.at(host, command)).join("\n")
    }

    /// A connection of a client to whom the host keeps talking.
    pub(crate) fn connect(&self, address: IpAddr) -> TcpStream {
        self.connect_for("client", 0, b'k', address)
    }

    /// A connection of a client that waits for a message that never comes.
    pub(crate) fn connect_silently(&self, address: IpAddr) -> TcpStream {
        self.connect_silently_from("client", address)
    }

    /// The same, from another namespace.
    pub(crate) fn connect_silently_from(&self, from: &str, address: IpAddr) -> TcpStream {
        self.connect_for(from, 0, b's', address)
    }

    /// The same as the first, from a port.
    pub(crate) fn connect_silently_by(&self, port: u16, address: IpAddr) -> TcpStream {
        self.connect_for("client", port, b's', address)
    }

    /// From whatever port if it is 0.
    fn connect_for(&self, from: &str, port: u16, what: u8, address: IpAddr) -> TcpStream {
        self.inside(from, move || {
            let here = match address {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let to = SocketAddr::new(address, PORT);
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::new(here, port).into()).unwrap();
            socket.connect_timeout(&to.into(), Duration::from_secs(5)).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.write_all(&[what]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
    }

    /// Which host serves a client that comes now.
    pub(crate) fn served(&self, address: IpAddr) -> Option<String> {
        self.inside("client", move || {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), LOOK).ok()?;
            stream.set_read_timeout(Some(LOOK)).unwrap();
            stream.write_all(b"w").ok()?;
            let mut host = String::new();
            stream.read_to_string(&mut host).ok()?;
            Some(host)
        })
    }

    /// Which host serves the first client that is served.
    pub(crate) fn served_within(&self, address: IpAddr, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(host) = self.served(address) {
                return Some(host);
            }
        }
        None
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in ["a", "b", "home", "client"] {
            drop(run(&format!("ip netns delete {}", self.namespace(host))));
        }
    }
}

/// Puts the present thread into a namespace.
pub(crate) fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind)).unwrap();
}

fn run(command: &str) -> Result<String, String> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).output().map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
