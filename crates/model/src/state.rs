//! What the cluster agrees on. Every node holds the same value at the same revision.

use crate::drill::{DrillRecord, RunningDrill};
use crate::errand::Errand;
use crate::ids::{
    ClusterName, Epoch, ErrandId, FloatingIpName, Generation, Incarnation, NodeId, OperationId, RequestId,
    Revision, RoomKey, SiteName, Token, UpstreamName,
};
use crate::operation::Operation;
use crate::spec::{ClusterSpec, FloatingIpSpec, UpstreamSpec};
use crate::ticket_keys::TicketKey;
use crate::time::WallTime;
use crate::timing::LeaseBound;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Finished operations that the state keeps, the newest last.
pub const HISTORY_MAX: usize = 64;
/// Request ids that the state remembers, to recognise repetitions.
pub const REQUESTS_MAX: usize = 1_024;
/// Pins that the embedded session store holds at most.
pub const EMBEDDED_PINS_MAX: usize = 10_000;
/// How far ahead a pause or the deadline of a drain may lie.
pub const AHEAD_MAX: Duration = Duration::from_hours(30 * 24);
/// Earlier specifications that the state keeps, and how many bytes of JSON they may have together: a snapshot carries them.
pub const EARLIER_SPECS_MAX: usize = 20;
/// See [`EARLIER_SPECS_MAX`].
pub const EARLIER_SPECS_BYTES_MAX: usize = 1_000_000;
/// Pieces of evidence kept with a verdict or a decision.
pub const EVIDENCE_MAX: usize = 16;

/// The version of the encoding and meaning of commands that a cluster has agreed to use. A leader raises it only
/// when every member can read it, so that a cluster of mixed versions can be upgraded one node at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Format(pub u32);

impl Format {
    /// What a new cluster begins with.
    pub const FIRST: Self = Self(1);
    /// Knows errands: journaled calls at a provider that routes an address.
    pub const ERRANDS: Self = Self(2);
    /// Knows drills on the live cluster, and `[drills]` in the specification.
    pub const DRILLS: Self = Self(3);
    /// Remembers with each room at which revision it got its place.
    pub const PLACES: Self = Self(4);
    /// Knows routes that look closer, answer by themselves or change headers, and `proxy.trusted_proxies`.
    pub const ROUTES: Self = Self(5);
    /// Knows TLS towards clients and upstreams, what balances them more finely, and remembers earlier specifications.
    pub const EDGE: Self = Self(6);
    /// The newest that this program reads and writes.
    pub const NEWEST: Self = Self::EDGE;
}

/// The replicated state.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The log index of the last command that changed anything.
    pub revision: Revision,
    /// The encoding that the cluster uses.
    pub format: Format,
    /// How many forced recoveries there have been, plus one.
    pub generation: Generation,
    /// The leader's wall clock as of the last command; never goes back.
    ///
    /// Only what the leader itself proposes moves it. Session commands come from any node and carry that node's
    /// clock; they are recorded at the time that the leaders have reached, so that one wrong clock does not take
    /// everybody's along. A leader whose clock is ahead does: dates then stay ahead until true time has caught up. They
    /// do not stand still, for leaders count on from the state's clock by their boot clock where their own wall clock
    /// is behind it, and propose with that; so pauses, windows and the lives of rooms last as long as they should.
    pub wall: WallTime,
    /// The specification; none until the first one is applied.
    pub spec: Option<Arc<ClusterSpec>>,
    /// The revision at which the specification was applied.
    pub spec_revision: Revision,
    /// The longest lease that any specification so far allowed. Kept for ever: a leader that is elected, started anew
    /// or fed a snapshot after the lease was shortened must still outwait what was granted before, and there is no
    /// clock by which the cluster could agree that it is over. Read through [`State::lease_bound`].
    pub longest: LeaseBound,
    /// What is known of each node's present life.
    pub nodes: BTreeMap<NodeId, NodeLife>,
    /// Node ids that were removed and must never come back.
    pub retired_nodes: BTreeSet<NodeId>,
    /// The agreed health of each upstream.
    pub verdicts: BTreeMap<UpstreamName, VerdictRecord>,
    /// Upstreams that a person is draining.
    pub drains: BTreeMap<UpstreamName, Drain>,
    /// Each floating IP: who owns it, and the operation that is moving it.
    pub floating_ips: BTreeMap<FloatingIpName, FloatingIpState>,
    /// Changes of owner so far, over all floating IPs: the epoch of [`State::session_token`].
    pub moves: Epoch,
    /// Whether automatic moves are paused, and until when.
    pub pause: Option<Pause>,
    /// When the automatic failovers of the breaker's window began.
    pub automatic_failovers: VecDeque<WallTime>,
    /// Finished operations.
    pub history: VecDeque<Operation>,
    /// What each upstream was last seen to announce.
    pub announced: BTreeMap<UpstreamName, AnnouncedRecord>,
    /// Session placement of the `embedded` store.
    pub sessions: EmbeddedSessions,
    /// Outcomes of recent requests, oldest first.
    pub requests: VecDeque<(RequestId, Revision)>,
    /// The drill that runs on this cluster.
    pub drill: Option<RunningDrill>,
    /// Drills that are over.
    pub drills: VecDeque<DrillRecord>,
    /// The secrets behind TLS session tickets, the newest last.
    pub ticket_keys: VecDeque<TicketKey>,
    /// What the specification was before, the newest last.
    pub earlier_specs: VecDeque<EarlierSpec>,
}

/// A specification that was in force.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierSpec {
    /// The revision at which it was applied.
    pub revision: Revision,
    /// When another took its place.
    pub until: WallTime,
    /// Who applied that other.
    pub replaced_by: String,
    /// What it said.
    pub spec: Arc<ClusterSpec>,
}

/// One node's present life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLife {
    /// The life.
    pub incarnation: Incarnation,
    /// The newest format that it reads.
    pub format_max: Format,
    /// The program's version, for people.
    pub version: String,
    /// When it was recorded.
    pub since: WallTime,
}

/// The cluster's agreed health of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Verdict {
    /// Not enough observers have said anything yet. Not used for new rooms while others are healthy.
    #[default]
    Unknown,
    /// A quorum of the observers that can be heard finds it good.
    Healthy,
    /// A quorum of the observers that can be heard finds it bad.
    Unhealthy,
    /// Healthy, and a person wants it empty: live rooms stay, new ones go elsewhere.
    Draining,
}

impl Verdict {
    /// The word for people and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// A verdict with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictRecord {
    /// What probes say (never `Draining`, which comes from [`State::drains`]).
    pub health: Verdict,
    /// Since when.
    pub since: WallTime,
    /// One line for each observer.
    pub evidence: Vec<String>,
}

/// An upstream being emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Since when.
    pub since: WallTime,
    /// Who wanted it.
    pub by: String,
    /// When it should be empty, if the person said so.
    pub deadline: Option<WallTime>,
}

/// Automatic moves are off until a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When it ends by itself. A pause always ends.
    pub until: WallTime,
    /// Since when.
    pub since: WallTime,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// One floating IP in the state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FloatingIpState {
    /// The highest epoch given out.
    pub epoch: Epoch,
    /// Who holds the newest token.
    pub owner: Option<Owner>,
    /// The move under way.
    pub operation: Option<Operation>,
    /// How many errands at its provider there were.
    pub errands: ErrandId,
    /// The one under way.
    pub errand: Option<Errand>,
}

/// The holder of a floating IP's newest token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The life of that node. A later life never renews this token.
    pub incarnation: Incarnation,
    /// The token.
    pub token: Token,
    /// Since when.
    pub since: WallTime,
    /// Set when an operation took the right to renew away: no grant is given any more.
    pub revoked: bool,
}

/// What an upstream was last seen to announce to its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedRecord {
    /// The address.
    pub address: IpAddr,
    /// The token under which it was derived: the [`State::session_token`] of that time.
    pub token: Token,
    /// Since when.
    pub since: WallTime,
    /// The node that read it back.
    pub by: NodeId,
}

/// The placement of a room on an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The upstream.
    pub upstream: UpstreamName,
    /// The session token under which it was written.
    pub token: Token,
    /// When it was written or last confirmed.
    pub touched: WallTime,
    /// The revision that placed the room there; none if the format had no such thing then.
    pub placed: Option<Revision>,
}

/// Session placement in the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbeddedSessions {
    /// The highest token seen in an accepted write.
    pub token: Token,
    /// The rooms.
    pub pins: BTreeMap<RoomKey, Pin>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: Revision(0),
            format: Format::FIRST,
            generation: Generation(1),
            wall: WallTime(0),
            spec: None,
            spec_revision: Revision(0),
            longest: LeaseBound::default(),
            nodes: BTreeMap::new(),
            retired_nodes: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            drains: BTreeMap::new(),
            floating_ips: BTreeMap::new(),
            moves: Epoch(0),
            pause: None,
            automatic_failovers: VecDeque::new(),
            history: VecDeque::new(),
            announced: BTreeMap::new(),
            sessions: EmbeddedSessions::default(),
            requests: VecDeque::new(),
            drill: None,
            drills: VecDeque::new(),
            ticket_keys: VecDeque::new(),
            earlier_specs: VecDeque::new(),
        }
    }
}

impl State {
    /// The name of the cluster, once it has a specification.
    pub fn cluster(&self) -> Option<&ClusterName> {
        self.spec.as_ref().map(|spec| &spec.cluster)
    }

    /// The longest lease that any leader may have granted, by this specification or an earlier one.
    pub fn lease_bound(&self) -> LeaseBound {
        self.spec.as_ref().map_or(self.longest, |spec| self.longest.or(LeaseBound::of(&spec.timing())))
    }

    /// The agreed verdict on an upstream, draining included.
    pub fn verdict(&self, upstream: &UpstreamName) -> Verdict {
        let health = self.verdicts.get(upstream).map_or(Verdict::Unknown, |record| record.health);
        match health {
            Verdict::Healthy if self.drains.contains_key(upstream) => Verdict::Draining,
            other => other,
        }
    }

    /// The token that guards session writes: it grows with every change of any owner and with every forced
    /// recovery, so that a node that has missed a change is refused by the store.
    pub fn session_token(&self) -> Token {
        Token { generation: self.generation, epoch: self.moves }
    }

    /// The owner of a floating IP.
    pub fn owner(&self, ip: &FloatingIpName) -> Option<&Owner> {
        self.floating_ips.get(ip).and_then(|ip| ip.owner.as_ref())
    }

    /// The site of a floating IP's owner.
    pub fn owner_site(&self, ip: &FloatingIpName) -> Option<&SiteName> {
        let owner = self.owner(ip)?;
        self.spec.as_ref()?.node(owner.node).map(|node| &node.site)
    }

    /// The sites in the order in which every node prefers their upstreams for requests that belong to this
    /// floating IP: the owner's first, then as the specification lists them. Agreed, so that a hash gives the
    /// same upstream on every node.
    pub fn site_preference(&self, ip: Option<&FloatingIpSpec>) -> Vec<SiteName> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let owner_site = ip.and_then(|ip| self.owner_site(&ip.name));
        let rest = spec.sites.iter().filter(|site| !site.witness).map(|site| &site.name);
        owner_site.into_iter().chain(rest.filter(|site| Some(*site) != owner_site)).cloned().collect()
    }

    /// The upstreams of a site with a given verdict.
    pub fn upstreams_at<'a>(
        &'a self,
        site: &'a SiteName,
        verdict: Verdict,
    ) -> impl Iterator<Item = &'a UpstreamSpec> {
        let upstreams = self.spec.as_ref().map_or(&[][..], |spec| &spec.upstreams);
        upstreams
            .iter()
            .filter(move |upstream| upstream.site == *site && self.verdict(&upstream.name) == verdict)
    }

    /// The operation with this id, running or finished.
    pub fn operation(&self, id: OperationId) -> Option<&Operation> {
        let running = self.floating_ips.values().filter_map(|ip| ip.operation.as_ref());
        running.chain(&self.history).find(|operation| operation.id == id)
    }

    /// How many automatic failovers began within this time before `now`: what the breaker counts.
    pub fn automatic_failovers_within(&self, window: Duration, now: WallTime) -> usize {
        self.automatic_failovers.iter().filter(|at| now.since(**at) < window).count()
    }

    /// The revision at which a request with this id was carried out, if it is remembered.
    pub fn request(&self, id: &RequestId) -> Option<Revision> {
        self.requests.iter().find(|(known, _)| known == id).map(|(_, revision)| *revision)
    }
}
