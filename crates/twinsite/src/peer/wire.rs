//! Between our types and the wire's. Everything that comes in is checked and bounded.

use super::pb;
use std::net::IpAddr;
use std::time::Duration;
use twinsite_agents::{PIECE_MAX, Piece, RollCall};
use twinsite_controller::{
    AnnouncedView, FloatingIpView, LoadView, NodeReport, OutsideView, Release, ReleasedBy, Renewal,
    RenewalAnswer, RenewalRefusal, RoutingView, StoreView, UpstreamView,
};
use twinsite_floating_ip::Connection;
use twinsite_model::{
    Applied, Command, Effect, ErrandEnd, ErrandId, Event, FloatingIpName, Format, HardwareAddress,
    Incarnation, NodeId, Refusal, Revision, RoomKey, Token, UpstreamName, WallTime,
};
use twinsite_sessions::{Gossip, NodeConnections, PIN_BATCH_MAX, Pin, PinUpdate};

/// Entries of one list in a message at most.
const LIST_MAX: usize = 20_000;

/// A message that does not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub(super) &'static str);

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

pub fn token_to_pb(token: Token) -> pb::Token {
    pb::Token { generation: token.generation.0, epoch: token.epoch.0 }
}

pub fn token(token: pb::Token) -> Token {
    Token::new(token.generation, token.epoch)
}

fn required_token(field: Option<pb::Token>) -> Result<Token, Malformed> {
    field.map(token).ok_or(Malformed("a token is missing"))
}

fn ip_name(name: String) -> Result<FloatingIpName, Malformed> {
    FloatingIpName::new(name).map_err(|_| Malformed("not the name of a floating IP"))
}

fn upstream_name(name: String) -> Result<UpstreamName, Malformed> {
    UpstreamName::new(name).map_err(|_| Malformed("not the name of an upstream"))
}

pub fn room(bytes: &[u8]) -> Result<RoomKey, Malformed> {
    bytes.try_into().map(RoomKey).map_err(|_| Malformed("a room key has 16 bytes"))
}

pub fn report_to_pb(report: NodeReport) -> pb::ReportRequest {
    let (store, store_detail) = match report.store {
        StoreView::Embedded => (pb::StoreState::Embedded, String::new()),
        StoreView::Reachable => (pb::StoreState::Reachable, String::new()),
        StoreView::Unreachable { detail } => (pb::StoreState::Unreachable, detail),
    };
    let upstreams = report.upstreams.iter().flatten().map(|view| pb::ReportedUpstream {
        upstream: view.upstream.to_string(),
        healthy: view.healthy,
        detail: view.detail.clone(),
    });
    let addresses = report.floating_ips.into_iter().map(|(ip, view)| address_to_pb(&ip, view));
    let announced = report.announced.into_iter().map(|view| pb::ReportedAnnouncement {
        upstream: view.upstream.to_string(),
        address: view.address.to_string(),
        token: Some(token_to_pb(view.token)),
    });
    pb::ReportRequest {
        node: report.node.0,
        incarnation: report.incarnation.0,
        sequence: report.seq,
        format_max: report.format_max.0,
        version: report.version,
        applied: report.applied.0,
        not_ready: report.not_ready,
        draining: report.draining,
        store: store.into(),
        store_detail,
        peers_heard: report.peers_heard.into_iter().map(|node| node.0).collect(),
        has_upstreams: report.upstreams.is_some(),
        upstreams: upstreams.collect(),
        addresses: addresses.collect(),
        announced: announced.collect(),
        rooms_in_use: report.rooms_in_use.iter().map(|room| room.0.to_vec()).collect(),
        rooms: report.load.rooms,
        tunnels: report.load.tunnels,
    }
}

fn address_to_pb(ip: &FloatingIpName, view: FloatingIpView) -> pb::ReportedAddress {
    let (outside_node, outside_token, outside_silent) = match view.outside {
        None => (None, None, None),
        Some(OutsideView::Answered { node, token }) => (Some(node.0), Some(token_to_pb(token)), None),
        Some(OutsideView::Silent { detail }) => (None, None, Some(detail)),
    };
    pb::ReportedAddress {
        ip: ip.to_string(),
        held: view.held.map(token_to_pb),
        drained: view.drained.map(token_to_pb),
        outside_node,
        outside_token,
        outside_silent,
        routing: view.routing.map(|seen| pb::ReportedRouting {
            to: seen.to.map(|node| node.0),
            busy: seen.busy,
            after: seen.after.0,
        }),
        errand: view.errand.map_or(0, |(errand, _)| errand.0),
        errand_end: view
            .errand
            .map_or(pb::ReportedErrandEnd::Unspecified, |(_, end)| errand_end_to_pb(end))
            .into(),
        stranger: view.stranger.map(|hardware| hardware.0.to_vec()),
    }
}

/// Only a leader waits an errand out.
const fn errand_end_to_pb(end: ErrandEnd) -> pb::ReportedErrandEnd {
    match end {
        ErrandEnd::Accepted => pb::ReportedErrandEnd::Accepted,
        ErrandEnd::Refused => pb::ReportedErrandEnd::Refused,
        ErrandEnd::Unanswered => pb::ReportedErrandEnd::Unanswered,
        ErrandEnd::NotMade => pb::ReportedErrandEnd::NotMade,
        ErrandEnd::WaitedOut => pb::ReportedErrandEnd::Unspecified,
    }
}

const fn errand_end(end: pb::ReportedErrandEnd) -> Option<ErrandEnd> {
    match end {
        pb::ReportedErrandEnd::Unspecified => None,
        pb::ReportedErrandEnd::Accepted => Some(ErrandEnd::Accepted),
        pb::ReportedErrandEnd::Refused => Some(ErrandEnd::Refused),
        pb::ReportedErrandEnd::Unanswered => Some(ErrandEnd::Unanswered),
        pb::ReportedErrandEnd::NotMade => Some(ErrandEnd::NotMade),
    }
}

pub fn report(m: pb::ReportRequest) -> Result<NodeReport, Malformed> {
    if m.upstreams.len() > LIST_MAX || m.rooms_in_use.len() > LIST_MAX || m.announced.len() > LIST_MAX {
        return Err(Malformed("a list is too long"));
    }
    let store = match m.store() {
        pb::StoreState::Embedded => StoreView::Embedded,
        pb::StoreState::Reachable => StoreView::Reachable,
        pb::StoreState::Unreachable | pb::StoreState::Unspecified => {
            StoreView::Unreachable { detail: m.store_detail.clone() }
        }
    };
    let upstream = |view: pb::ReportedUpstream| {
        let upstream = upstream_name(view.upstream)?;
        Ok(UpstreamView { upstream, healthy: view.healthy, detail: view.detail })
    };
    let upstreams: Vec<_> = m.upstreams.into_iter().map(upstream).collect::<Result<_, Malformed>>()?;
    let announcement = |view: pb::ReportedAnnouncement| {
        Ok(AnnouncedView {
            upstream: upstream_name(view.upstream)?,
            address: view.address.parse().map_err(|_| Malformed("not an IP address"))?,
            token: required_token(view.token)?,
        })
    };
    Ok(NodeReport {
        node: NodeId(m.node),
        incarnation: Incarnation(m.incarnation),
        seq: m.sequence,
        format_max: Format(m.format_max),
        version: m.version,
        applied: Revision(m.applied),
        not_ready: m.not_ready,
        draining: m.draining,
        store,
        peers_heard: m.peers_heard.into_iter().map(NodeId).collect(),
        upstreams: m.has_upstreams.then_some(upstreams),
        floating_ips: m.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        announced: m.announced.into_iter().map(announcement).collect::<Result<_, Malformed>>()?,
        rooms_in_use: m.rooms_in_use.iter().map(|key| room(key)).collect::<Result<_, _>>()?,
        load: LoadView { rooms: m.rooms, tunnels: m.tunnels },
    })
}

fn address(m: pb::ReportedAddress) -> Result<(FloatingIpName, FloatingIpView), Malformed> {
    let ended = errand_end(m.errand_end());
    let outside = match (m.outside_node, m.outside_token, m.outside_silent) {
        (Some(node), Some(seen), _) => Some(OutsideView::Answered { node: NodeId(node), token: token(seen) }),
        (_, _, Some(detail)) => Some(OutsideView::Silent { detail }),
        _ => None,
    };
    let view = FloatingIpView {
        held: m.held.map(token),
        drained: m.drained.map(token),
        routing: m.routing.map(|seen| RoutingView {
            to: seen.to.map(NodeId),
            busy: seen.busy,
            after: ErrandId(seen.after),
        }),
        errand: ended.map(|end| (ErrandId(m.errand), end)),
        outside,
        stranger: m.stranger.map(hardware).transpose()?,
    };
    Ok((ip_name(m.ip)?, view))
}

fn hardware(bytes: Vec<u8>) -> Result<HardwareAddress, Malformed> {
    bytes.try_into().map(HardwareAddress).map_err(|_| Malformed("a hardware address has six bytes"))
}

pub fn renewal_to_pb(renewal: Renewal) -> pb::RenewRequest {
    pb::RenewRequest {
        ip: renewal.ip.to_string(),
        node: renewal.node.0,
        incarnation: renewal.incarnation.0,
        token: Some(token_to_pb(renewal.token)),
        sequence: renewal.seq,
        holding: renewal.holding,
    }
}

pub fn renewal(m: pb::RenewRequest) -> Result<Renewal, Malformed> {
    Ok(Renewal {
        ip: ip_name(m.ip)?,
        node: NodeId(m.node),
        incarnation: Incarnation(m.incarnation),
        token: required_token(m.token)?,
        seq: m.sequence,
        holding: m.holding,
    })
}

pub fn answer_to_pb(answer: RenewalAnswer) -> pb::RenewResponse {
    match answer {
        RenewalAnswer::Granted { seq, lease } => pb::RenewResponse {
            sequence: seq,
            lease_nanos: Some(u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX)),
            refusal: pb::RenewRefusal::Unspecified.into(),
        },
        RenewalAnswer::Refused { seq, why } => {
            let refusal = match why {
                RenewalRefusal::NotLeader => pb::RenewRefusal::NotLeader,
                RenewalRefusal::NoQuorum => pb::RenewRefusal::NoQuorum,
                RenewalRefusal::MoveProposed => pb::RenewRefusal::MoveProposed,
                RenewalRefusal::Busy => pb::RenewRefusal::Busy,
                RenewalRefusal::NotOwner => pb::RenewRefusal::NotOwner,
                RenewalRefusal::Revoked => pb::RenewRefusal::Revoked,
                RenewalRefusal::Released => pb::RenewRefusal::Released,
            };
            pb::RenewResponse { sequence: seq, lease_nanos: None, refusal: refusal.into() }
        }
    }
}

pub fn answer(m: pb::RenewResponse) -> Result<RenewalAnswer, Malformed> {
    if let Some(nanos) = m.lease_nanos {
        return Ok(RenewalAnswer::Granted { seq: m.sequence, lease: Duration::from_nanos(nanos) });
    }
    let why = match m.refusal() {
        pb::RenewRefusal::NotLeader => RenewalRefusal::NotLeader,
        pb::RenewRefusal::NoQuorum => RenewalRefusal::NoQuorum,
        pb::RenewRefusal::MoveProposed => RenewalRefusal::MoveProposed,
        pb::RenewRefusal::Busy => RenewalRefusal::Busy,
        pb::RenewRefusal::NotOwner => RenewalRefusal::NotOwner,
        pb::RenewRefusal::Revoked => RenewalRefusal::Revoked,
        pb::RenewRefusal::Released => RenewalRefusal::Released,
        pb::RenewRefusal::Unspecified => return Err(Malformed("neither granted nor refused")),
    };
    Ok(RenewalAnswer::Refused { seq: m.sequence, why })
}

pub fn release_to_pb(release: &Release) -> pb::ReleaseRequest {
    pb::ReleaseRequest {
        ip: release.ip.to_string(),
        node: release.node.0,
        incarnation: release.incarnation.0,
        token: Some(token_to_pb(release.token)),
        by_guardian: release.by == ReleasedBy::Guardian,
    }
}

pub fn release(m: pb::ReleaseRequest) -> Result<Release, Malformed> {
    Ok(Release {
        ip: ip_name(m.ip)?,
        node: NodeId(m.node),
        incarnation: Incarnation(m.incarnation),
        token: required_token(m.token)?,
        by: if m.by_guardian { ReleasedBy::Guardian } else { ReleasedBy::Holder },
    })
}

pub fn pin_to_pb(room: RoomKey, pin: &Pin) -> pb::Pin {
    pb::Pin {
        room: room.0.to_vec(),
        upstream: pin.upstream.to_string(),
        token: Some(token_to_pb(pin.token)),
        version: pin.version,
    }
}

pub fn pin(m: pb::Pin) -> Result<PinUpdate, Malformed> {
    let pin =
        Pin { upstream: upstream_name(m.upstream)?, token: required_token(m.token)?, version: m.version };
    Ok(PinUpdate { room: room(&m.room)?, pin })
}

pub fn gossip_to_pb(gossip: &Gossip) -> pb::SpreadPinsRequest {
    let connections = gossip.connections.as_ref().map(|counts| pb::ConnectionCounts {
        rooms: counts
            .rooms
            .iter()
            .map(|(room, count)| pb::RoomConnections { room: room.0.to_vec(), count: *count })
            .collect(),
        upstreams: counts
            .upstreams
            .iter()
            .map(|(upstream, count)| pb::UpstreamConnections {
                upstream: upstream.to_string(),
                count: *count,
            })
            .collect(),
    });
    let pins = gossip.pins.iter().map(|update| pin_to_pb(update.room, &update.pin)).collect();
    pb::SpreadPinsRequest { pins, connections }
}

pub fn gossip(from: NodeId, m: pb::SpreadPinsRequest) -> Result<Gossip, Malformed> {
    let counts = |counts: pb::ConnectionCounts| -> Result<_, Malformed> {
        let rooms = counts.rooms.into_iter().take(LIST_MAX);
        let upstreams = counts.upstreams.into_iter().take(LIST_MAX);
        Ok(NodeConnections {
            rooms: rooms.map(|entry| Ok((room(&entry.room)?, entry.count))).collect::<Result<_, _>>()?,
            upstreams: upstreams
                .map(|entry| Ok((upstream_name(entry.upstream)?, entry.count)))
                .collect::<Result<_, _>>()?,
        })
    };
    let pins = m.pins.into_iter().take(PIN_BATCH_MAX).map(pin).collect::<Result<_, _>>()?;
    Ok(Gossip { from, pins, connections: m.connections.map(counts).transpose()? })
}

pub fn roll_call_to_pb(call: RollCall) -> pb::CallRollRequest {
    use pb::call_roll_request::Piece as Pb;
    let piece = match call.piece {
        Piece::Changes { from, changes, sum } => {
            let changes = changes.into_iter().map(|(connection, open)| pb::RollChange {
                connection: Some(connection_to_pb(connection)),
                open,
            });
            Pb::Changes(pb::RollChanges { from, changes: changes.collect(), sum })
        }
        Piece::Part { at, number, connections, until, last } => {
            let connections = connections.into_iter().map(connection_to_pb).collect();
            Pb::Part(pb::RollPart { at, number, connections, until, last })
        }
    };
    pb::CallRollRequest { ip: call.ip.to_string(), token: Some(token_to_pb(call.token)), piece: Some(piece) }
}

pub fn roll_call(m: pb::CallRollRequest) -> Result<RollCall, Malformed> {
    use pb::call_roll_request::Piece as Pb;
    let too_long = |length: usize| length > PIECE_MAX;
    let piece = match m.piece.ok_or(Malformed("nothing is said of a roll"))? {
        Pb::Changes(m) if too_long(m.changes.len()) => return Err(Malformed("a list is too long")),
        Pb::Part(m) if too_long(m.connections.len()) => return Err(Malformed("a list is too long")),
        Pb::Changes(m) => {
            let change = |change: pb::RollChange| {
                let missing = Malformed("a connection is missing");
                Ok((connection(change.connection.ok_or(missing)?)?, change.open))
            };
            let changes = m.changes.into_iter().map(change).collect::<Result<_, Malformed>>()?;
            Piece::Changes { from: m.from, changes, sum: m.sum }
        }
        Pb::Part(m) => {
            let connections = m.connections.into_iter().map(connection).collect::<Result<_, _>>()?;
            Piece::Part { at: m.at, number: m.number, connections, until: m.until, last: m.last }
        }
    };
    Ok(RollCall { ip: ip_name(m.ip)?, token: required_token(m.token)?, piece })
}

fn connection_to_pb(connection: Connection) -> pb::RollConnection {
    let client = match connection.client {
        IpAddr::V4(client) => client.octets().to_vec(),
        IpAddr::V6(client) => client.octets().to_vec(),
    };
    pb::RollConnection { client, client_port: connection.client_port.into(), port: connection.port.into() }
}

fn connection(m: pb::RollConnection) -> Result<Connection, Malformed> {
    let port = |port: u32| u16::try_from(port).map_err(|_| Malformed("not a port"));
    let v4 = <[u8; 4]>::try_from(&m.client[..]).map(IpAddr::from);
    let client = v4.or_else(|_| <[u8; 16]>::try_from(&m.client[..]).map(IpAddr::from));
    Ok(Connection {
        client: client.map_err(|_| Malformed("not an IP address"))?,
        client_port: port(m.client_port)?,
        port: port(m.port)?,
    })
}

/// What came of a session command, for who asked for it.
pub fn applied_to_pb(applied: Applied) -> pb::ProposeSessionResponse {
    use pb::propose_session_response::Result as Pb;
    let revision = applied.revision.0;
    let result = match applied.result {
        Ok(Effect::Placed(place)) => Pb::Placed(pb::Pin {
            room: Vec::new(), // whoever asked knows it
            upstream: place.upstream.to_string(),
            token: Some(token_to_pb(place.token)),
            version: place.placed.map_or(revision, |placed| placed.0),
        }),
        Ok(_) => Pb::Done(true),
        Err(Refusal::StaleToken { seen, .. }) => Pb::Stale(token_to_pb(seen)),
        Err(Refusal::SessionsFull) => Pb::Full(true),
        Err(refusal) => Pb::Refused(refusal.to_string()),
    };
    pb::ProposeSessionResponse { result: Some(result), revision, changed: !applied.events.is_empty() }
}

/// What came of a session command that another node proposed.
pub fn applied(command: &Command, m: pb::ProposeSessionResponse) -> Result<Applied, Malformed> {
    use pb::propose_session_response::Result as Pb;
    let given = match command {
        Command::PinRoom { token, .. } | Command::TouchRooms { token, .. } => *token,
        _ => Token::default(),
    };
    let mut events = Vec::new();
    let result = match m.result.ok_or(Malformed("no result"))? {
        Pb::Placed(pin) => {
            let (upstream, token) = (upstream_name(pin.upstream)?, required_token(pin.token)?);
            if let (true, Command::PinRoom { room, .. }) = (m.changed, command) {
                events.push(Event::RoomPinned { room: *room, upstream: upstream.clone(), token });
            }
            let placed = Some(Revision(pin.version));
            Ok(Effect::Placed(twinsite_model::Pin { upstream, token, touched: WallTime(0), placed }))
        }
        Pb::Done(_) => Ok(Effect::Done),
        Pb::Stale(seen) => Err(Refusal::StaleToken { seen: token(seen), given }),
        Pb::Full(_) => Err(Refusal::SessionsFull),
        Pb::Refused(_) => Err(Refusal::NoSpec),
    };
    Ok(Applied { revision: Revision(m.revision), events, result })
}
