//! Which hosts answer for an address, when every one of them is asked at every moment.
//!
//! Each host is sent probes one after the other, whoever owns the address, each a packet to the address that is put
//! into a frame for this host alone. Known of a probe is when it was about to be sent, and when its answer had been read.
//! From that it follows when two hosts answered *at once*, without any trust in how quick the network, the hosts or this
//! process were:
//!
//! 1. An answer that was read at `r` to a probe sent at `s` proves that its host was light at some moment from `s` to
//!    `r`. When in there, it does not say: alone it proves nothing about any single moment.
//! 2. A host that answered two probes in a row, without an unanswered one in between, was light from the one moment to
//!    the other, if these are at most [`CONTINUOUS`] apart. To go dark and to become light again *with another host
//!    light in between* takes two moves of the address, each with commits of a quorum, which do not fit in there.
//! 3. So a row of answers proves its host light from when the first answer had been read, at the latest, to when
//!    the last answered probe was sent, at the earliest.
//! 4. Two hosts were light at once for as long as two such times overlap. They were so at some moment, too, if a single
//!    probe was sent and its answer read within such a time of another host.
//!
//! When the address is handed over rightly, the last answered probe to the old host was sent before that went dark, and
//! the first answer of the new one was read after that became light: however late anything was, nothing overlaps. What
//! is found is therefore proven, and less than there was, by at most the time between two probes and that of an answer,
//! at both ends.
//!
//! That *nobody* answered cannot be proven so: a probe or its answer may have been lost. It is counted as seen.
//!
//! A dark host must send nothing with the address either. A frame that is seen has left its host at some unknown time
//! before; it is held against a host that had answered no probe for longer than anything is late here, and did not
//! answer the next ones.

use super::Evidence;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};
use twinsite_model::NodeName;

/// The longest time from the sending of a probe to the answer of the next one, and the other way round, in which a host
/// that answered both was light throughout.
pub const CONTINUOUS: Duration = Duration::from_millis(25);
/// An overlap whose length is not known counts so much: what is not nothing must not look like it.
const OVERLAP_MIN: Duration = Duration::from_millis(1);
/// How late a frame may be seen, at least.
const FRAME_LATE: Duration = Duration::from_millis(20);
/// Frames of a kind that come closer together are counted together.
const TOGETHER: Duration = Duration::from_millis(5);
/// A shorter darkness is not told to people: a probe was lost.
const BLINK: Duration = Duration::from_millis(5);
/// Changes that are kept of each host.
const SPANS_MAX: usize = 100_000;
const EVIDENCE_MAX: usize = 8;

/// One probe to one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// A moment before it was sent.
    pub sent: Instant,
    /// A moment after its answer had come; none if none came.
    pub answered: Option<Instant>,
}

/// What a host can say with an address as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frame {
    /// An ARP request, a gratuitous one among them.
    ArpRequest,
    /// An ARP reply.
    ArpReply,
    /// A neighbour advertisement (IPv6), asked for or not.
    Advertisement,
    /// Any packet.
    Packet,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArpRequest => "an ARP request",
            Self::ArpReply => "an ARP reply",
            Self::Advertisement => "a neighbour advertisement",
            Self::Packet => "a packet",
        })
    }
}

/// Probes in a row that were answered, or were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// When the first and the last of them were sent.
    sent: (Instant, Instant),
    light: Option<Light>,
}

/// What the answers of a row show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Light {
    /// When the first answer had come.
    first: Instant,
    /// When the last answer had come.
    last: Instant,
    /// The probe that says most exactly when its host was light: when it was sent, and when its answer had come.
    tightest: (Instant, Instant),
}

impl Span {
    /// In which time the host was light without doubt.
    fn proven(&self) -> Option<(Instant, Instant)> {
        let from = self.light?.first;
        (from < self.sent.1).then_some((from, self.sent.1))
    }
}

/// Frames that were seen close together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frames {
    first: Instant,
    last: Instant,
}

/// What the probes to one host have shown.
#[derive(Debug, Clone)]
pub struct Asked {
    host: NodeName,
    spans: Vec<Span>,
    frames: BTreeMap<Frame, Vec<Frames>>,
    probes: u64,
    answers: u64,
    overflow: bool,
}

impl Asked {
    /// A host that has not been asked yet.
    pub fn new(host: NodeName) -> Self {
        let frames = BTreeMap::new();
        Self { host, spans: Vec::new(), frames, probes: 0, answers: 0, overflow: false }
    }

    /// Takes down what became of a probe. They come in the order in which they were sent.
    pub fn probe(&mut self, probe: Probe) {
        self.probes += 1;
        self.answers += u64::from(probe.answered.is_some());
        match (self.spans.last_mut(), probe.answered) {
            (Some(Span { sent, light: None }), None) => sent.1 = probe.sent,
            (Some(Span { sent, light: Some(light) }), Some(answered))
                if answered.duration_since(sent.1) <= CONTINUOUS
                    && light.last.duration_since(probe.sent) <= CONTINUOUS =>
            {
                sent.1 = probe.sent;
                light.first = light.first.min(answered);
                light.last = light.last.max(answered);
                let (from, to) = light.tightest;
                if answered.duration_since(probe.sent) < to.duration_since(from) {
                    light.tightest = (probe.sent, answered);
                }
            }
            (_, answered) => {
                let light = answered.map(|answered| Light {
                    first: answered,
                    last: answered,
                    tightest: (probe.sent, answered),
                });
                if self.spans.len() < SPANS_MAX {
                    self.spans.push(Span { sent: (probe.sent, probe.sent), light });
                } else {
                    self.overflow = true;
                }
            }
        }
    }

    /// Takes down a frame of this host with the address as its sender. They come in the order in which they are seen.
    pub fn frame(&mut self, frame: Frame, seen: Instant) {
        let frames = self.frames.entry(frame).or_default();
        let fits = frames.len() < SPANS_MAX;
        match frames.last_mut() {
            Some(together) if seen.duration_since(together.last) <= TOGETHER => together.last = seen,
            _ if fits => frames.push(Frames { first: seen, last: seen }),
            _ => self.overflow = true,
        }
    }

    /// Times without any answer: from the first probe without to the next with one, if there is one.
    fn dark(&self) -> impl Iterator<Item = (Instant, Instant)> {
        let next = self.spans.iter().skip(1).map(Some).chain([None]);
        let dark = self.spans.iter().zip(next).filter(|(span, _)| span.light.is_none());
        dark.map(|(span, next)| (span.sent.0, next.map_or(span.sent.1, |next| next.sent.0)))
    }

    /// Times in which it answered, as people want to hear it: without what a lost probe tears apart.
    fn periods(&self) -> Vec<Period> {
        let mut periods: Vec<Period> = Vec::new();
        let mut dark = Duration::MAX;
        for span in &self.spans {
            match (span.light, periods.last_mut()) {
                (None, _) => dark = span.sent.1.duration_since(span.sent.0),
                (Some(light), Some(period)) if dark <= BLINK => period.to = light.last,
                (Some(light), _) => periods.push(Period { from: light.first, to: light.last }),
            }
            if span.light.is_some() {
                dark = Duration::ZERO;
            }
        }
        periods
    }
}

/// What the probes to all hosts have shown.
#[derive(Debug, Clone)]
pub struct Probing {
    /// Each host.
    pub hosts: Vec<Asked>,
    /// How often all of them were asked.
    pub rounds: u64,
    /// When they were asked first and last; none if never.
    pub between: Option<(Instant, Instant)>,
    /// The longest time from one round to the next.
    pub apart: Duration,
}

/// A time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// From when.
    pub from: Instant,
    /// Until when.
    pub to: Instant,
}

impl Period {
    /// How long it is.
    pub fn lasts(&self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }
}

/// How long something was so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Without a pause.
    pub longest: Duration,
    /// All together.
    pub total: Duration,
}

/// When a host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAnswers {
    /// The host.
    pub host: NodeName,
    /// Probes to it.
    pub probes: u64,
    /// Answers from it.
    pub answers: u64,
    /// From the first answer of a row to its last.
    pub periods: Vec<Period>,
}

/// Who answered, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answering {
    /// Each host.
    pub hosts: Vec<HostAnswers>,
    /// The time in which two hosts answered at once: at least so long.
    pub two_hosts: Share,
    /// The time in which no host answered, as seen.
    pub nobody: Share,
    /// Times in which a host that was dark sent something with the address.
    pub dark_frames: u64,
    /// The time from one round of probes to the next, on average.
    pub every: Duration,
    /// The longest such time.
    pub apart: Duration,
    /// Nobody ever answered, or not everything could be kept: nothing is proven.
    pub unproven: bool,
    /// What should not have been.
    pub evidence: Vec<Evidence>,
}

/// What follows from the probes; who answered nobody, only within `window`.
pub fn find(probing: &Probing, window: Period) -> Answering {
    let mut found = Answering { apart: probing.apart, ..Answering::default() };
    if let Some((first, last)) = probing.between {
        found.every = last.duration_since(first).div_f64(probing.rounds.saturating_sub(1).max(1) as f64);
    }
    let mut together = Vec::new();
    for (number, one) in probing.hosts.iter().enumerate() {
        for other in &probing.hosts[number + 1..] {
            let at_once = at_once(&one.spans, &other.spans);
            for (from, to) in at_once.iter().take(EVIDENCE_MAX.saturating_sub(found.evidence.len())) {
                let long = to.duration_since(*from).max(OVERLAP_MIN);
                let line = format!("{} and {} both answered probes for {long:?}", one.host, other.host);
                found.evidence.push(Evidence { at: *from, line });
            }
            together.extend(at_once);
        }
        let (times, first) = frames_in_the_dark(one, FRAME_LATE + probing.apart);
        found.dark_frames += times;
        found.evidence.extend(first);
    }
    found.two_hosts = share(joined(together), OVERLAP_MIN);
    found.nobody = share(nobody(&probing.hosts, window), Duration::ZERO);
    let answers: u64 = probing.hosts.iter().map(|host| host.answers).sum();
    found.unproven = answers == 0 || probing.hosts.iter().any(|host| host.overflow);
    found.hosts = probing
        .hosts
        .iter()
        .map(|asked| HostAnswers {
            host: asked.host.clone(),
            probes: asked.probes,
            answers: asked.answers,
            periods: asked.periods(),
        })
        .collect();
    found
}

/// When two hosts were light at once; a moment of unknown length has none.
fn at_once(one: &[Span], other: &[Span]) -> Vec<(Instant, Instant)> {
    let mut found = Vec::new();
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        found.extend(overlap(a, b));
        if a.sent.1 <= b.sent.1 {
            left.next();
        } else {
            right.next();
        }
    }
    found
}

fn overlap(one: &Span, other: &Span) -> Option<(Instant, Instant)> {
    let both = one.proven().zip(other.proven());
    let both = both.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1))).filter(|(from, to)| from < to);
    let moment = |single: &Span, row: &Span| {
        let ((sent, answered), (from, to)) = single.light.map(|light| light.tightest).zip(row.proven())?;
        (from <= sent && answered <= to).then_some((sent, sent))
    };
    both.or_else(|| moment(one, other)).or_else(|| moment(other, one))
}

/// Those that touch or overlap become one.
fn joined(mut times: Vec<(Instant, Instant)>) -> Vec<(Instant, Instant)> {
    times.sort_unstable();
    let mut joined: Vec<(Instant, Instant)> = Vec::new();
    for (from, to) in times {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

fn share(times: Vec<(Instant, Instant)>, min: Duration) -> Share {
    let mut share = Share::default();
    for (from, to) in times {
        let long = to.duration_since(from).max(min);
        share.longest = share.longest.max(long);
        share.total += long;
    }
    share
}

/// When all hosts were dark at once.
fn nobody(hosts: &[Asked], window: Period) -> Vec<(Instant, Instant)> {
    let within = |(from, to): (Instant, Instant)| (from.max(window.from), to.min(window.to));
    let mut all = vec![(window.from, window.to)];
    for host in hosts {
        let mut left = Vec::new();
        let mut dark = host.dark().map(within).filter(|(from, to)| from < to).peekable();
        let mut before = all.into_iter().peekable();
        while let (Some(a), Some(b)) = (before.peek(), dark.peek()) {
            let both = (a.0.max(b.0), a.1.min(b.1));
            if both.0 < both.1 {
                left.push(both);
            }
            if a.1 <= b.1 {
                before.next();
            } else {
                dark.next();
            }
        }
        all = left;
    }
    all
}

/// In how many times of darkness a host sent frames with the address, and the first of them.
fn frames_in_the_dark(asked: &Asked, late: Duration) -> (u64, Option<Evidence>) {
    let mut evidence = None;
    let mut times = 0;
    for span in asked.spans.iter().filter(|span| span.light.is_none()) {
        // What is counted together with later frames may have a pause at its end.
        let Some(to) = span.sent.1.checked_sub(TOGETHER) else { continue };
        let from = span.sent.0 + late;
        let seen = asked.frames.iter().find_map(|(frame, all)| {
            // In order, so that the first one that did not end before is the only one to look at.
            let next = all.get(all.partition_point(|frames| frames.last < from))?;
            (next.first <= to && from < to).then(|| (*frame, next.first.max(from)))
        });
        let Some((frame, at)) = seen else { continue };
        times += 1;
        evidence.get_or_insert_with(|| {
            let dark = at.duration_since(span.sent.0);
            let line =
                format!("{} sent {frame} with the address when it had been dark for {dark:?}", asked.host);
            Evidence { at, line }
        });
    }
    (times, evidence)
}

#[cfg(test)]
mod tests;
