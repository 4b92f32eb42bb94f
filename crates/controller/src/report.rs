//! What a node tells the leader: its observations, never its conclusions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use twinsite_model::{
    ErrandEnd, ErrandId, FloatingIpName, Format, HardwareAddress, Incarnation, NodeId, Revision, RoomKey,
    Timing, Token, UpstreamName,
};

/// The longest line of detail that is kept from a report, in characters.
pub const DETAIL_LENGTH_MAX: usize = 160;
/// Rooms in use that one report names at most; a node with more names them in turn.
pub const REPORT_ROOMS_MAX: usize = 2_048;

/// How often a node reports, when nothing changes. A node reports at once when what it holds, has drained, saw from
/// outside or announces changes: failovers wait for that.
pub fn report_interval(timing: &Timing) -> Duration {
    (timing.lease / 5).clamp(Duration::from_millis(20), Duration::from_secs(1))
}

/// How long a report counts. Shorter than a lease, so that when an owner's silence is noticed, its neighbours that
/// died with it are no candidates any more.
pub fn report_freshness(timing: &Timing) -> Duration {
    timing.lease / 4 * 3
}

/// What a node observes, sent to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Who reports.
    pub node: NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Grows with every report of this life; an older one than the newest seen is ignored.
    pub seq: u64,
    /// The newest format that it reads.
    pub format_max: Format,
    /// The program's version, for people.
    pub version: String,
    /// The revision of its state: shows whether it is caught up.
    pub applied: Revision,
    /// Why it cannot take an address now (certificate missing, no upstream pool yet ...); `None` when it can.
    pub not_ready: Option<String>,
    /// It is being shut down or emptied by a person, and wants no address.
    pub draining: bool,
    /// Whether it reaches the session store.
    pub store: StoreView,
    /// The other nodes that it hears, by its own probes or by the traffic between them.
    pub peers_heard: BTreeSet<NodeId>,
    /// Its settled opinion (rise and fall applied) of every upstream that it has one of. `None`: as in its last
    /// report that had a list. A full list goes at least with every tenth report and with the first to each leader.
    pub upstreams: Option<Vec<UpstreamView>>,
    /// What it observes of floating IPs. Those that it has nothing to say about are left out.
    pub floating_ips: BTreeMap<FloatingIpName, FloatingIpView>,
    /// What meeting instances of its site were read back to announce.
    pub announced: Vec<AnnouncedView>,
    /// Rooms of the embedded store that are in use here, to be kept from expiring.
    pub rooms_in_use: Vec<RoomKey>,
    /// How much work is on it.
    pub load: LoadView,
}

/// A node's settled opinion of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamView {
    /// Which.
    pub upstream: UpstreamName,
    /// Whether it is good.
    pub healthy: bool,
    /// One line: what the last probe said.
    pub detail: String,
}

/// Whether a node reaches the session store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreView {
    /// There is none to reach: the embedded store is used.
    #[default]
    Embedded,
    /// It answers.
    Reachable,
    /// It does not.
    Unreachable {
        /// One line about it.
        detail: String,
    },
}

/// What a node observes of one floating IP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FloatingIpView {
    /// The token under which this node answers for it now: read back from the kernel or provider, not intended.
    pub held: Option<Token>,
    /// The token under which it has finished draining: nothing is in flight any more.
    pub drained: Option<Token>,
    /// What its provider says about where it is routed, where there is one and it answered.
    pub routing: Option<RoutingView>,
    /// The last errand of this life that has ended, and how.
    pub errand: Option<(ErrandId, ErrandEnd)>,
    /// What a request through the address, as a stranger makes it, was answered by.
    pub outside: Option<OutsideView>,
    /// A host that is no node and answers for the address too, as its holder sees it.
    pub stranger: Option<HardwareAddress>,
}

/// What a provider says about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingView {
    /// The node to which it routes it; none: to something that is no node.
    pub to: Option<NodeId>,
    /// Whether it still works on something that it was told.
    pub busy: bool,
    /// The newest errand that had ended, as far as the node knew, before it asked.
    pub after: ErrandId,
}

/// What the address answered to a probe from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideView {
    /// A node answered and named itself.
    Answered {
        /// The node.
        node: NodeId,
        /// Its token.
        token: Token,
    },
    /// Nothing usable came back.
    Silent {
        /// One line about it.
        detail: String,
    },
}

impl OutsideView {
    /// The token that was seen.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Answered { token, .. } => Some(*token),
            Self::Silent { .. } => None,
        }
    }
}

/// What one meeting instance was read back to announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedView {
    /// The instance.
    pub upstream: UpstreamName,
    /// The address that it gives to its clients for media.
    pub address: IpAddr,
    /// The token under which that was derived ([`State::session_token`](twinsite_model::State::session_token)).
    pub token: Token,
}

/// How much work is on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadView {
    /// Rooms with participants through this node.
    pub rooms: u32,
    /// Open tunnels: `WebSocket` connections.
    pub tunnels: u32,
}

impl NodeReport {
    /// A report that says only who it is from: the start from which a node fills in the rest.
    pub fn empty(node: NodeId, incarnation: Incarnation, seq: u64) -> Self {
        Self {
            node,
            incarnation,
            seq,
            format_max: Format::NEWEST,
            version: String::new(),
            applied: Revision(0),
            not_ready: None,
            draining: false,
            store: StoreView::Embedded,
            peers_heard: BTreeSet::new(),
            upstreams: None,
            floating_ips: BTreeMap::new(),
            announced: Vec::new(),
            rooms_in_use: Vec::new(),
            load: LoadView::default(),
        }
    }
}
