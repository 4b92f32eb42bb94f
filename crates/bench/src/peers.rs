//! The proxies: their configurations, with the same features on, and their processes.

use crate::accounting;
use crate::error::BenchError;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use twinsite_drill::process::Authority;
use twinsite_model::{ClusterName, NodeId};

/// The processor of whatever is measured; everybody else has the other one.
pub(crate) const PROXY_PROCESSOR: &str = "0";
/// The processor of upstreams and generators.
pub(crate) const OTHER_PROCESSOR: &str = "1";
/// How long a proxy may take until it answers.
const READY_SECONDS: u64 = 20;

/// Whose proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    Twinsite,
    Nginx,
    Haproxy,
    Caddy,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Twinsite, Self::Nginx, Self::Haproxy, Self::Caddy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Twinsite => "twinsite",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where everything listens.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) proxy: SocketAddr,
    pub(crate) upstreams: [SocketAddr; 3],
}

impl Places {
    /// Where the proxy speaks TLS.
    pub(crate) fn tls(&self) -> SocketAddr {
        SocketAddr::new(self.proxy.ip(), self.proxy.port() + 6)
    }
}

/// The host in every certificate and request.
pub(crate) const HOST: &str = "bench.example";

/// A running proxy; it ends with this value.
#[derive(Debug)]
pub(crate) struct Running {
    peer: Peer,
    child: Child,
    /// The guardian that a node of ours wants beside it. It does nothing for requests.
    guardian: Option<Child>,
    log: PathBuf,
}

impl Running {
    /// Starts it and waits until it answers.
    pub(crate) fn start(
        peer: Peer,
        twinsite: &Path,
        places: &Places,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let home = folder.join(peer.name());
        // What an earlier life of it has left there would be read again.
        fs::remove_dir_all(&home).ok();
        fs::create_dir_all(&home).map_err(BenchError::io(home.display().to_string()))?;
        let (program, arguments) = configured(peer, twinsite, places, &home)?;
        let log = home.join("log");
        let out = File::create(&log).map_err(BenchError::io(log.display().to_string()))?;
        let error_out = out.try_clone().map_err(BenchError::io(log.display().to_string()))?;
        let guardian = (peer == Peer::Twinsite).then(|| guardian(twinsite, &home)).transpose()?;
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", PROXY_PROCESSOR]).arg(&program).args(arguments);
        command.env("GOMAXPROCS", "1").env("XDG_DATA_HOME", &home).env("XDG_CONFIG_HOME", &home);
        command.stdin(Stdio::null()).stdout(out).stderr(error_out);
        let child = command
            .spawn()
            .map_err(|source| BenchError::Start { program: program.display().to_string(), source })?;
        let mut running = Self { peer, child, guardian, log };
        running.wait_ready(places.proxy)?;
        Ok(running)
    }

    fn wait_ready(&mut self, at: SocketAddr) -> Result<(), BenchError> {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS);
        while !answers(at) {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended || Instant::now() > deadline {
                // What it said last is the best there is.
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let said = said.lines().next_back().unwrap_or("nothing").to_owned();
                return Err(BenchError::NotReady {
                    proxy: self.peer.to_string(),
                    seconds: READY_SECONDS,
                    said,
                });
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// It and its workers.
    pub(crate) fn processes(&self) -> Result<BTreeSet<u32>, BenchError> {
        accounting::family(self.child.id()).map_err(BenchError::io("/proc"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        if let Some(guardian) = &mut self.guardian {
            guardian.kill().ok();
            guardian.wait().ok();
        }
    }
}

impl Running {
    fn end(&mut self) {
        // Workers end with their master when it is asked to, not when it is killed.
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn guardian(twinsite: &Path, home: &Path) -> Result<Child, BenchError> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", OTHER_PROCESSOR]).arg(twinsite).args(["guardian", "--config"]);
    command.arg(home.join("node.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child =
        command.spawn().map_err(|source| BenchError::Start { program: "guardian".to_owned(), source })?;
    let deadline = Instant::now() + Duration::from_secs(READY_SECONDS);
    while !home.join("data/guardian.sock").exists() && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// One request with a good answer.
fn answers(at: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    ask().is_ok_and(|head| head.starts_with("HTTP/1.1 200"))
}

/// Writes the configuration; the program, and its arguments.
fn configured(
    peer: Peer,
    twinsite: &Path,
    places: &Places,
    home: &Path,
) -> Result<(PathBuf, Vec<String>), BenchError> {
    let path = |name: &str| home.join(name);
    let write = |name: &str, text: &str| {
        let path = path(name);
        fs::write(&path, text).map_err(BenchError::io(path.display().to_string()))
    };
    let word = |name: &str| path(name).display().to_string();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([HOST.to_owned()])
        .map_err(std::io::Error::other)
        .map_err(BenchError::io("a certificate"))?;
    write("tls.pem", &cert.pem())?;
    write("tls.key", &signing_key.serialize_pem())?;
    write("both.pem", &(cert.pem() + &signing_key.serialize_pem()))?;
    Ok(match peer {
        Peer::Nginx => {
            write("nginx.conf", &nginx(places, home))?;
            ("nginx".into(), vec!["-p".into(), home.display().to_string(), "-c".into(), word("nginx.conf")])
        }
        Peer::Haproxy => {
            write("haproxy.cfg", &haproxy(places, home))?;
            ("haproxy".into(), vec!["-db".into(), "-f".into(), word("haproxy.cfg")])
        }
        Peer::Caddy => {
            write("Caddyfile", &caddy(places, home))?;
            let arguments = ["run", "--adapter", "caddyfile", "--config"].map(str::to_owned);
            ("caddy".into(), arguments.into_iter().chain([word("Caddyfile")]).collect())
        }
        Peer::Twinsite => {
            write("cluster.toml", &cluster(places, home))?;
            write("node.toml", NODE)?;
            let cluster: ClusterName =
                ClusterName::new("bench").map_err(std::io::Error::other).map_err(BenchError::io("bench"))?;
            let authority = Authority::new(&cluster)?;
            let identity = authority.node(NodeId(1), &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
            write("ca.pem", authority.pem())?;
            write("node.pem", &identity.certificate)?;
            write("node.key", &identity.key)?;
            (twinsite.to_owned(), vec!["node".into(), "--config".into(), word("node.toml")])
        }
    })
}

fn nginx(places: &Places, home: &Path) -> String {
    let mut servers = String::new();
    for one in places.upstreams {
        servers += &format!("    server {one} max_fails=3 fail_timeout=10s;\n");
    }
    format!(
        r"daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {home}/nginx.pid;
error_log {home}/error.log crit;
events {{
  worker_connections 19000;
}}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  keepalive_requests 1000000000;
  upstream instances {{
    ip_hash;
{servers}    keepalive 256;
    keepalive_requests 1000000000;
  }}
  map $http_upgrade $connection_upgrade {{
    default upgrade;
    '' '';
  }}
  server {{
    listen {proxy} backlog=4096;
    listen {tls} ssl http2 backlog=4096;
    ssl_certificate {home}/tls.pem;
    ssl_certificate_key {home}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    tcp_nodelay on;
    location / {{
      proxy_pass http://instances;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_read_timeout 600s;
    }}
  }}
}}
",
        home = home.display(),
        proxy = places.proxy,
        tls = places.tls()
    )
}

fn haproxy(places: &Places, home: &Path) -> String {
    let mut servers = String::new();
    for (number, one) in places.upstreams.iter().enumerate() {
        servers += &format!("  server s{number} {one} check inter 1s\n");
    }
    format!(
        "global
  nbthread 1
  maxconn 9500
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 600s
  timeout http-keep-alive 75s
frontend public
  bind {}
  bind {} ssl crt {} alpn h2,http/1.1
  default_backend instances
backend instances
  balance source
  hash-type consistent
  http-reuse always
  option forwardfor
  option httpchk GET /health
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
{servers}",
        places.proxy,
        places.tls(),
        home.join("both.pem").display()
    )
}

fn caddy(places: &Places, home: &Path) -> String {
    let upstreams = places.upstreams.map(|one| one.to_string()).join(" ");
    format!(
        "{{
	admin off
	auto_https off
}}
(instances) {{
	bind {}
	reverse_proxy {upstreams} {{
		lb_policy ip_hash
		health_uri /health
		health_interval 1s
		header_up X-Real-IP {{remote_host}}
		header_up X-Forwarded-Port {{port}}
	}}
}}
http://:{} {{
	import instances
}}
https://:{} {{
	tls {home}/tls.pem {home}/tls.key
	import instances
}}
",
        places.proxy.ip(),
        places.proxy.port(),
        places.tls().port(),
        home = home.display()
    )
}

const NODE: &str = r#"node = "gra-1"
cluster_file = "cluster.toml"
bootstrap = true
data = "data"
cores = 1

[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"
"#;

fn cluster(places: &Places, home: &Path) -> String {
    let numbered = places.upstreams.iter().enumerate();
    let upstreams = numbered.map(|(number, one)| {
        format!("[[upstream]]\nname = \"meet-{number}\"\nsite = \"gra\"\naddress = \"{one}\"\n\n")
    });
    let (ip, port) = (places.proxy.ip(), places.proxy.port());
    format!(
        r#"version = 1
cluster = "bench"
profile = "lan"

[[site]]
name = "gra"
announced_ip = "192.0.2.10"

[[site]]
name = "sbg"

[[node]]
id = 1
name = "gra-1"
site = "gra"
peer = "{ip}:{}"
api = "{ip}:{}"
http = ["{ip}:{port}"]
https = ["{}"]

[[certificate]]
name = "bench"
chain = "{home}/tls.pem"
key = "{home}/tls.key"

{}[[route]]
name = "all"
balance = "ip_hash"
"#,
        port + 1,
        port + 2,
        places.tls(),
        upstreams.collect::<String>(),
        home = home.display()
    )
}
