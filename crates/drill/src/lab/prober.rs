//! Asking every host of a lab all the time whether it answers for the floating address, from where the clients are.
//!
//! A probe is an ICMP echo request to the address, in a frame that is addressed to one host's interface: it gets to this
//! host whoever owns the address, by the way that clients' packets take. ICMP and no TCP SYN, because what is asked is
//! whether the *host* is light, be its process frozen or dead: the kernel answers an echo by itself, keeps nothing of it
//! (a thousand SYNs a second would be half-open connections, each with answers sent again for a minute), and disturbs no
//! listener. Its time to live is 1, so that no host hands it on to another one. The answer says by what it carries which
//! probe it answers.
//!
//! Heard is on every site's bridge what the hosts of this site send with the address as its source, answers to probes
//! and everything else, to whomever. What `measure::hosts` makes of it is described there.

use super::echo::{Ends, Mac, Request, answered, kind};
use super::filter::{FRAME_BYTES, Heard, nothing, sent_by};
use super::{CLIENTS, INTERFACE, LabError, enter, namespace, site_bridge};
use crate::layout::Layout;
use crate::measure::hosts::{Asked, Probe, Probing};
use pnet_datalink::{Channel, ChannelType, Config, NetworkInterface};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockFilter, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use twinsite_model::NodeName;

/// How often every host is asked, unless the machine is too busy: [`Probing::apart`] says.
pub const PROBE_EVERY: Duration = Duration::from_millis(1);
/// What is answered later counts as not answered.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long is listened for answers after the last probe.
const LAST_ANSWERS: Duration = Duration::from_millis(50);
/// The thread's own niceness: it is what measures.
const NICE: i32 = -10;
/// The client from which probes come.
const CLIENT: usize = 15_997;
/// What may wait to be read by one ear, in bytes, if the machine allows so much.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;
/// Frames that one ear reads at once, so that the next probe is not late.
const READ_AT_ONCE: usize = 64;

/// The thread that asks and listens. It ends when this is dropped.
#[derive(Debug)]
pub struct Prober {
    began: Instant,
    /// When each host was last heard to answer, in microseconds since it began; 0 for never.
    heard: Arc<Vec<(NodeName, AtomicU64)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Probing>>>,
}

impl Prober {
    /// Begins to ask every host that serves.
    pub(crate) fn start(layout: &Layout, every: Duration) -> Result<Self, LabError> {
        let failed = |problem: String| LabError::Prober(problem);
        let floating = layout.floating.ip();
        let ends = Ends::new(layout.client(CLIENT), floating);
        let ends = ends.ok_or_else(|| failed("the clients' addresses are of another family".to_owned()))?;
        let nodes = layout.nodes.iter().filter(|node| node.kind.serves());
        let places: Vec<_> = nodes
            .map(|node| Place {
                host: node.name.clone(),
                site: layout.sites.iter().position(|site| *site == node.site).unwrap_or_default(),
                namespace: namespace(node.name.as_str()),
            })
            .collect();
        let heard = places.iter().map(|place| (place.host.clone(), AtomicU64::default())).collect();
        let (heard, began) = (Arc::new(heard), Instant::now());
        let stop = Arc::<AtomicBool>::default();
        let network = Network { floating, ends, sites: layout.sites.len() };
        let clients = namespace(CLIENTS);
        let (tell, told) = mpsc::sync_channel(1);
        let (stopped, hears) = (Arc::clone(&stop), Arc::clone(&heard));
        let run = move || {
            let opened = Asking::open(&network, &clients, places, hears, began);
            match opened {
                Ok(asking) => {
                    drop(tell.send(Ok(())));
                    asking.run(every, &stopped)
                }
                Err(error) => {
                    drop(tell.send(Err(error)));
                    Err(io::ErrorKind::NotConnected.into())
                }
            }
        };
        let thread = thread::Builder::new().name("lab-prober".to_owned()).spawn(run);
        let thread = thread.map_err(|error| failed(error.to_string()))?;
        told.recv().unwrap_or_else(|_| Err(failed("its thread ended".to_owned())))?;
        Ok(Self { began, heard, stop, thread: Some(thread) })
    }

    /// The hosts that answered a moment ago.
    pub fn answering(&self, within: Duration) -> Vec<NodeName> {
        let now = micros(self.began.elapsed());
        let recent = |at: u64| at != 0 && now.saturating_sub(at) <= micros(within);
        let heard = self.heard.iter().filter(|(_, at)| recent(at.load(Ordering::Relaxed)));
        heard.map(|(host, _)| host.clone()).collect()
    }

    /// Asks nothing any more, as of now.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends it, and says what was seen.
    pub fn finish(mut self) -> Result<Probing, LabError> {
        self.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Ok(probing))) => Ok(probing),
            Some(Ok(Err(error))) => Err(LabError::Prober(error.to_string())),
            Some(Err(_)) | None => Err(LabError::Prober("its thread ended".to_owned())),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A host, and where it is.
#[derive(Debug)]
struct Place {
    host: NodeName,
    /// The number of its site.
    site: usize,
    namespace: String,
}

#[derive(Debug, Clone, Copy)]
struct Network {
    floating: IpAddr,
    ends: Ends,
    sites: usize,
}

/// A probe of which is not known yet what becomes of it.
#[derive(Debug, Clone, Copy)]
struct Pending {
    number: u64,
    probe: Probe,
}

/// A socket on the bridge of a site.
#[derive(Debug)]
struct Ear {
    site: usize,
    socket: Socket,
}

#[derive(Debug)]
struct Target {
    mac: Mac,
    site: usize,
    request: Request,
    pending: VecDeque<Pending>,
    asked: Asked,
}

/// Everything that is needed for asking.
#[derive(Debug)]
struct Asking {
    out: Socket,
    ears: Vec<Ear>,
    /// Tells this prober's probes from all others.
    mark: u64,
    targets: Vec<Target>,
    heard: Arc<Vec<(NodeName, AtomicU64)>>,
    began: Instant,
}

impl Asking {
    /// On the thread that will ask, which goes to the clients' namespace.
    fn open(
        network: &Network,
        clients: &str,
        places: Vec<Place>,
        heard: Arc<Vec<(NodeName, AtomicU64)>>,
        began: Instant,
    ) -> Result<Self, LabError> {
        let failed = |error: io::Error| LabError::Prober(error.to_string());
        let mut macs = Vec::new();
        for place in &places {
            enter(&place.namespace)?;
            macs.push(interface(INTERFACE).and_then(|interface| mac(&interface)).map_err(failed)?);
        }
        enter(clients)?;
        let bridge = interface("br0").map_err(failed)?;
        let own = mac(&bridge).map_err(failed)?;
        let out = packet_socket(&bridge, false, &nothing()).map_err(failed)?;
        let kinds = [Heard::Answers, Heard::Rest];
        let ears = (0..network.sites).flat_map(|site| kinds.map(|heard| (site, heard)));
        let ears = ears.map(|(site, heard)| {
            let filter = sent_by(network.floating, heard);
            let socket = packet_socket(&interface(&site_bridge(site))?, true, &filter)?;
            Ok(Ear { site, socket })
        });
        let ears = ears.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let mark = fastrand::u64(..);
        // Without it probes are further apart on a busy machine, and the report says so.
        rustix::process::setpriority_process(None, NICE).ok();
        let targets = places.into_iter().zip(macs).enumerate().map(|(number, (place, mac))| Target {
            mac,
            site: place.site,
            request: Request::new([own, mac], network.ends, mark, number as u16),
            pending: VecDeque::new(),
            asked: Asked::new(place.host),
        });
        Ok(Self { out, ears, mark, targets: targets.collect(), heard, began })
    }

    fn run(mut self, every: Duration, stopped: &AtomicBool) -> io::Result<Probing> {
        let (mut rounds, mut apart, mut between) = (0, Duration::ZERO, None::<(Instant, Instant)>);
        let mut due = Instant::now();
        while !stopped.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= due {
                self.ask(rounds)?;
                if let Some((_, last)) = between {
                    apart = apart.max(now.duration_since(last));
                }
                between = Some((between.map_or(now, |(first, _)| first), now));
                rounds += 1;
                self.settle(now.checked_sub(ANSWER_MAX));
                // What was missed is not made up for: late probes in a heap would say nothing new.
                due = (due + every).max(now + every / 2);
            }
            self.listen(due)?;
        }
        let end = Instant::now() + LAST_ANSWERS;
        while Instant::now() < end {
            self.listen(end)?;
        }
        self.settle(Some(Instant::now()));
        let hosts = self.targets.into_iter().map(|target| target.asked).collect();
        Ok(Probing { hosts, rounds, between, apart })
    }

    fn ask(&mut self, number: u64) -> io::Result<()> {
        for target in &mut self.targets {
            let sent = Instant::now();
            match (&self.out).write(target.request.numbered(number)) {
                Ok(_) => {
                    target.pending.push_back(Pending { number, probe: Probe { sent, answered: None } });
                }
                // Not sent, and so nothing that could be answered.
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What was answered, and what was sent before a time, is settled, in order.
    fn settle(&mut self, before: Option<Instant>) {
        for target in &mut self.targets {
            let settled = |pending: &Pending| {
                pending.probe.answered.is_some() || before.is_some_and(|before| pending.probe.sent <= before)
            };
            while let Some(pending) = target.pending.front().copied().filter(settled) {
                target.asked.probe(pending.probe);
                target.pending.pop_front();
            }
        }
    }

    /// Takes in what comes until then.
    fn listen(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut waits: Vec<_> = self.ears.iter().map(|ear| PollFd::new(&ear.socket, PollFlags::IN)).collect();
        match poll(&mut waits, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut frame = [0; FRAME_BYTES as usize];
        for ear in 0..self.ears.len() {
            for _ in 0..READ_AT_ONCE {
                let Ear { site, socket } = &self.ears[ear];
                let (site, read) = (*site, (&mut &*socket).read(&mut frame));
                match read {
                    Ok(length) => self.hear(site, &frame[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, site: usize, frame: &[u8]) {
        let now = Instant::now();
        let by = frame.get(6..12);
        // What comes to a site from another one was heard there before.
        let here = |target: &Target| target.site == site && by == Some(&target.mac[..]);
        let Some(host) = self.targets.iter().position(here) else { return };
        let target = &mut self.targets[host];
        match answered(frame, self.mark) {
            Some((asked, number)) if usize::from(asked) == host => {
                let place = target.pending.binary_search_by_key(&number, |pending| pending.number);
                if let Some(pending) = place.ok().and_then(|place| target.pending.get_mut(place)) {
                    pending.probe.answered.get_or_insert(now);
                }
                self.heard[host].1.store(micros(now.duration_since(self.began)).max(1), Ordering::Relaxed);
            }
            // An answer for another host cannot be, because nobody hands a probe on; it would say the address too.
            _ => {
                if let Some(kind) = kind(frame) {
                    target.asked.frame(kind, now);
                }
            }
        }
    }
}

/// Errors of a moment, as when an interface is just going down.
fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::NETDOWN, Errno::NOBUFS, Errno::AGAIN, Errno::INTR];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

fn interface(name: &str) -> io::Result<NetworkInterface> {
    let all = pnet_datalink::interfaces();
    let found = all.into_iter().find(|interface| interface.name == name);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}")))
}

fn mac(interface: &NetworkInterface) -> io::Result<Mac> {
    let mac = interface.mac.map(|mac| mac.octets());
    mac.ok_or_else(|| io::Error::other(format!("{} has no Ethernet address", interface.name)))
}

/// A socket for whole frames on an interface, which hears what a filter lets through.
fn packet_socket(
    interface: &NetworkInterface,
    promiscuous: bool,
    filter: &[SockFilter],
) -> io::Result<Socket> {
    // No protocol: until it is bound it hears nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.attach_filter(filter)?;
    // What does not fit is lost, and a lost answer shows as a darkness that was not.
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    // The library binds a copy of the descriptor and closes it.
    let copy = socket.try_clone()?.into_raw_fd();
    let config =
        Config { channel_type: ChannelType::Layer2, promiscuous, socket_fd: Some(copy), ..Config::default() };
    match pnet_datalink::channel(interface, config)? {
        Channel::Ethernet(..) => Ok(socket),
        _ => Err(io::Error::other(format!("{} has no link layer", interface.name))),
    }
}
