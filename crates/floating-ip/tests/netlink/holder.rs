//! A holder in a process of its own, which can be frozen and killed: this test's program, run again on a host.

use crate::hosts::{Hosts, PORT};
use crate::{eth0, name};
use rustix::process::{Pid, Signal, kill_process};
use socket2::Socket;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use twinsite_floating_ip::{Accepted, Connection, Layer, Lease, Netlink, Provider, boot_now};
use twinsite_model::Token;

/// Names the address that the process holds, and its host.
const ROLE: &str = "TWINSITE_HOLDER";
/// Long enough for a busy machine not to miss its renewals.
pub(crate) const LEASE: Duration = Duration::from_secs(1);
const RENEW_EVERY: Duration = Duration::from_millis(25);
const WORD: &str = "holder: ";
/// All layers of the dead-man.
pub(crate) const ALL: [Layer; 3] = [Layer::Element, Layer::Deadline, Layer::Lifetime];

/// The holder, as the test sees it.
pub(crate) struct Holder {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts it on a host. It holds nothing yet.
    pub(crate) fn start(hosts: &Hosts, host: &str, address: IpAddr) -> Self {
        Self::with_layers(hosts, host, address, &ALL)
    }

    /// The same, with some of the layers of its dead-man only.
    pub(crate) fn with_layers(hosts: &Hosts, host: &str, address: IpAddr, layers: &[Layer]) -> Self {
        let test = thread::current().name().unwrap().to_owned();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &hosts.namespace(host)]);
        command.arg(std::env::current_exe().unwrap()).args(["--exact", &test, "--nocapture"]);
        let layers = layers.iter().map(|layer| format!("{layer:?}")).collect::<Vec<_>>().join(",");
        command.env(ROLE, format!("{host} {address} {layers}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut holder = Self { child, orders, answers };
        holder.answer();
        holder
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the holder has ended");
            if let Some((_, word)) = line.trim().split_once(WORD) {
                return word.to_owned();
            }
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer(), "done", "{order}");
    }

    /// Holds the address under an epoch and renews its lease as long as that runs.
    pub(crate) fn hold(&mut self, epoch: u64) {
        self.order(&format!("hold {epoch}"));
    }

    /// Holds it for so long and no longer; until when at most.
    pub(crate) fn hold_once(&mut self, epoch: u64, lease: Duration) -> Instant {
        self.order(&format!("once {epoch} {}", lease.as_millis()));
        Instant::now() + lease
    }

    /// A client that an earlier owner had.
    pub(crate) fn orphan(&mut self, client: SocketAddr) {
        self.order(&format!("orphan {client}"));
    }

    /// Closes the connections of those who want silence, by resets.
    pub(crate) fn reset(&mut self) {
        self.order("reset");
    }

    /// Says a word to those who want silence.
    pub(crate) fn say(&mut self) {
        self.order("say");
    }

    /// Accepts nothing more; dark, if its lease is over.
    pub(crate) fn close(&mut self) {
        self.order("close");
    }

    /// Those who want silence.
    pub(crate) fn clients(&mut self) -> Vec<SocketAddr> {
        writeln!(self.orders.as_mut().unwrap(), "clients").unwrap();
        self.answer().split_whitespace().map(|client| client.parse().unwrap()).collect()
    }

    /// Who else answers for the address.
    pub(crate) fn stranger(&mut self) -> String {
        writeln!(self.orders.as_mut().unwrap(), "stranger").unwrap();
        self.answer()
    }

    /// Lets it go.
    pub(crate) fn release(&mut self) {
        self.order("release");
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        // `ip netns exec` becomes the program that it runs.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends the process in good order.
    pub(crate) fn end(mut self) {
        self.orders = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether this process was a holder. Then it is over when this returns.
pub(crate) fn is_played() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let [host, address, layers] = role.split(' ').collect::<Vec<_>>()[..] else { panic!("{role}") };
    let layers = layers.split(',').map(|layer| *ALL.iter().find(|one| format!("{one:?}") == layer).unwrap());
    play(host.to_owned(), address.parse().unwrap(), &layers.collect::<Vec<_>>());
    true
}

fn play(host: String, address: IpAddr, layers: &[Layer]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guard = runtime.enter();
    let open = Open::default();
    let accepted = {
        let open = Arc::clone(&open);
        move |lease| {
            Arc::new(Service { host: host.clone(), open: Arc::clone(&open), lease }) as Arc<dyn Accepted>
        }
    };
    let orphans = Orphans::default();
    let earlier = {
        let orphans = Arc::clone(&orphans);
        move |_| orphans.lock().unwrap().clone()
    };
    let netlink = Netlink::new(&name(), address, &eth0(), &[PORT], accepted, earlier);
    #[allow(clippy::disallowed_methods, reason = "this is the test that it is for")]
    let netlink = Arc::new(if *layers == ALL { netlink } else { netlink.with_layers_only(layers) });
    drop(guard);
    let mut renewing: Option<JoinHandle<()>> = None;
    println!("{WORD}ready");
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let words: Vec<_> = order.split(' ').collect();
        if let Some(renewing) = renewing.take() {
            renewing.abort();
        }
        match words[..] {
            ["hold", epoch] => {
                let token = Token::new(1, epoch.parse().unwrap());
                hold(&runtime, &netlink, token, LEASE);
                renewing = Some(runtime.spawn(renew(Arc::clone(&netlink), token)));
            }
            ["once", epoch, millis] => {
                let lease = Duration::from_millis(millis.parse().unwrap());
                hold(&runtime, &netlink, Token::new(1, epoch.parse().unwrap()), lease);
            }
            ["orphan", client] => {
                orphans.lock().unwrap().push(Connection::new(client.parse().unwrap(), PORT));
            }
            ["reset"] => {
                for stream in open.lock().unwrap().drain(..) {
                    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            ["say"] => {
                for stream in open.lock().unwrap().iter_mut() {
                    stream.write_all(b"!").unwrap();
                }
            }
            ["stranger"] => {
                let stranger = netlink.observe().stranger;
                println!("{WORD}{}", stranger.map_or_else(|| "nobody".to_owned(), |one| one.to_string()));
                continue;
            }
            ["clients"] => {
                let open = open.lock().unwrap();
                let clients: Vec<_> = open.iter().map(|one| one.peer_addr().unwrap().to_string()).collect();
                println!("{WORD}{}", clients.join(" "));
                continue;
            }
            ["close"] => runtime.block_on(netlink.close()),
            ["release"] => runtime.block_on(netlink.release()).unwrap(),
            _ => panic!("{order}"),
        }
        println!("{WORD}done");
    }
    runtime.block_on(netlink.release()).unwrap();
    drop(netlink);
    thread::sleep(Duration::from_millis(100)); // its thread takes the rules away
}

fn hold(runtime: &Runtime, netlink: &Netlink, token: Token, lease: Duration) {
    runtime.block_on(netlink.hold(token, boot_now() + lease)).unwrap();
}

/// As a node does it: a lease that has run out is never renewed.
async fn renew(netlink: Arc<Netlink>, token: Token) {
    loop {
        let sent = boot_now();
        if netlink.until(token).is_none() {
            return;
        }
        if let Err(error) = netlink.hold(token, sent + LEASE).await {
            eprintln!("{error}");
        }
        tokio::time::sleep(RENEW_EVERY).await;
    }
}

type Orphans = Arc<Mutex<Vec<Connection>>>;
type Open = Arc<Mutex<Vec<TcpStream>>>;

/// Says which host this is to who asks, keeps talking to who asks for that, and is silent to who wants silence. Like the
/// proxy it asks its lease before each word.
struct Service {
    host: String,
    open: Open,
    lease: Lease,
}

impl Accepted for Service {
    fn accept(&self, mut stream: TcpStream) {
        let (host, open, lease) = (self.host.clone(), Arc::clone(&self.open), self.lease.clone());
        thread::spawn(move || {
            stream.set_nonblocking(false).ok();
            let mut asked = [0];
            if stream.read_exact(&mut asked).is_err() {
                return;
            }
            match asked {
                [b'w'] => drop(stream.write_all(host.as_bytes())),
                [b's'] => {
                    let mut open = open.lock().unwrap(); // who reads the answer finds it noted
                    stream.write_all(b".").ok();
                    open.push(stream);
                }
                _ => {
                    while lease.holds() && stream.write_all(b".").is_ok() {
                        thread::sleep(Duration::from_millis(10));
                    }
                    // To close it would be a word too.
                    loop {
                        thread::park();
                    }
                }
            }
        });
    }
}
