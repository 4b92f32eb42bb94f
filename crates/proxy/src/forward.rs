//! One request: where it goes, how it gets there, what comes back.

use crate::access_log::Record;
use crate::balance::{choose, place_of_room};
use crate::body::{AnswerBody, Attached, BodyError, Counting, RequestBody, Upload};
use crate::client_address::Origin;
use crate::compress::Wish;
use crate::connection::Context;
use crate::edits::EditsOf;
use crate::facts::Facts;
use crate::group::What;
use crate::headers;
use crate::host::Host;
use crate::http2::current_stream;
use crate::local::{self, Problem, WHO_PATH};
use crate::pool::{self, Connection, Outcome, Sender};
use crate::rooms::RoomRefused;
use crate::table::{Route, RoutingTable, Upstream};
use crate::tally::Counts;
use crate::tunnel::Tunnel;
use crate::worker::Core;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use std::cell::OnceCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use twinsite_model::{RoomKey, UpstreamName};
use twinsite_upstream::{Purpose, Target};

/// Upstreams that one request tries at most.
const ATTEMPTS_MAX: usize = 3;

/// The right to answer has ended: nothing may be said.
#[derive(Debug, thiserror::Error)]
#[error("the right to answer here has ended")]
pub(crate) struct Silenced;

/// Answers one request.
pub(crate) async fn answer(
    core: Rc<Core>,
    context: Rc<Context>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Silenced> {
    if !context.group.holds() {
        return Err(Silenced);
    }
    context.waiting.busy();
    let table = core.table();
    let attached = Attached {
        counting: None,
        request: Some(context.group.count(What::Request)),
        upstream: None,
        waiting: Arc::clone(&context.waiting),
        stream: current_stream().inspect(|stream| stream.set_limit(table.limits.keep_alive_timeout.0)),
    };
    let is_http2 = request.version() == Version::HTTP_2;
    let traced =
        table.limits.trace_headers && request.headers().get(headers::TRACE).is_some_and(|wish| wish == "1");
    let mut response = if request.uri().path() == WHO_PATH {
        let held = context.group.authority.as_ref().map(|authority| (authority.ip(), authority.token()));
        local::who(&core.options, held).map(|bytes| AnswerBody::own(bytes, attached))
    } else {
        Forwarding { core: &core, context: &context, table: &table }.forward(request, attached).await
    };
    core.count(response.status());
    if is_http2 {
        // There a connection says so by itself.
        response.headers_mut().remove(header::CONNECTION);
    } else if context.group.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if traced {
        response.headers_mut().insert(headers::NODE, core.name_header.clone());
        if let Some(token) = &context.token_header {
            response.headers_mut().insert(headers::TOKEN, token.clone());
        }
    }
    Ok(response)
}

/// What one request needs on its way.
struct Forwarding<'a> {
    core: &'a Rc<Core>,
    context: &'a Context,
    table: &'a RoutingTable,
}

/// What is known of a request when it is passed on.
struct Asked<'a> {
    route: &'a Route,
    host: Host,
    origin: Origin,
    edits: Option<EditsOf<'a>>,
}

/// A request, ready for an upstream. In a box wherever it goes: it is larger than all else that is known of a request, and
/// what one step of the way is given is kept by each step that waits for it.
struct Prepared {
    /// None while it is sent, and afterwards if it must not be sent again.
    request: Option<Request<RequestBody>>,
    /// Set if it wants to become a WebSocket.
    client: Option<OnUpgrade>,
    room: Option<RoomKey>,
    /// The client's address, as headers have it.
    address: HeaderValue,
}

impl Forwarding<'_> {
    async fn forward(&self, request: Request<Incoming>, mut attached: Attached) -> Response<AnswerBody> {
        let began = Instant::now();
        if headers::size(request.headers()) > self.table.limits.head_bytes_max as usize {
            return refused(&Problem::HeadTooLarge, attached);
        }
        let Some(host) = Host::of(&request) else { return refused(&Problem::NoHost, attached) };
        if request.method() == Method::CONNECT {
            return refused(&Problem::Method, attached);
        }
        let connection = self.context.client.ip();
        let trusted = &self.table.limits.trusted_proxies;
        let Context { port, scheme, .. } = *self.context;
        let origin = Origin::of(connection, port, scheme, request.headers(), trusted);
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let facts = Facts { host: &host, method, uri, headers, origin, connection, id: OnceCell::new() };
        let Some(route) = self.table.route(&facts) else { return refused(&Problem::NoRoute, attached) };
        attached.counting = Some(Counting {
            tally: Arc::clone(&route.tally),
            core: self.core.number,
            began,
            status: 0,
            upload: None,
            bytes_out: 0,
            logged: self.core.access_log.as_ref().map(|log| {
                let cluster = &self.core.options.cluster;
                let version = request.version();
                let record =
                    Record::new(origin, version, method, host.name(), uri.path(), cluster, &route.name);
                Box::new((record, log.clone()))
            }),
        });
        let request_edits = route.request_edits.as_ref().map(|edits| edits.of(&facts));
        let response_edits = route.response_edits.as_ref().map(|edits| edits.of(&facts));
        let wish = (!route.compress.is_empty()).then(|| Wish::of(method, headers, &route.compress));
        let mut response = match &route.own_answer {
            Some(answer) => match local::own(answer, &facts) {
                Some(response) => response.map(|bytes| AnswerBody::own(bytes, attached)),
                None => refused(&Problem::Unanswerable, attached),
            },
            None => {
                let asked = Asked { route, host, origin, edits: request_edits };
                match self.prepare(asked, request, &mut attached) {
                    Ok(prepared) => self.ask_upstream(route, prepared, attached).await,
                    Err(problem) => refused(&problem, attached),
                }
            }
        };
        let status = response.status();
        response.body_mut().answered(status);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        if let Some(edits) = response_edits {
            edits.apply(response.headers_mut());
        }
        match wish {
            Some(wish) => compressed(response, wish),
            None => response,
        }
    }

    async fn ask_upstream(
        &self,
        route: &Route,
        prepared: Box<Prepared>,
        mut attached: Attached,
    ) -> Response<AnswerBody> {
        match self.exchange(route, prepared, &mut attached).await {
            Ok(Exchanged { response, sender, upstream, silence }) => {
                let returning = sender.map(|sender| {
                    let max = self.table.limits.idle_per_upstream_max;
                    self.core.pool.returning(upstream, sender, max)
                });
                response.map(|body| AnswerBody::upstream(body, silence, returning, attached))
            }
            Err(problem) => refused(&problem, attached),
        }
    }

    async fn exchange(
        &self,
        route: &Route,
        mut prepared: Box<Prepared>,
        attached: &mut Attached,
    ) -> Result<Exchanged, Problem> {
        let mut fixed = match prepared.room {
            Some(room) => Some(Box::pin(self.upstream_of_room(route, room)).await?),
            None => None,
        };
        let in_room = fixed.is_some();
        self.core.retries.deposit(self.table.limits.retry_percent);
        let mut tried: Vec<UpstreamName> = Vec::new();
        while tried.len() < ATTEMPTS_MAX {
            let ip = self.context.group.authority.as_ref().map(|authority| authority.ip());
            let next = if in_room {
                // A room is in one place: another upstream would be another room.
                fixed.take().ok_or(Problem::RoomUnavailable)?
            } else {
                let none = if tried.is_empty() { Problem::NoUpstream } else { Problem::Unreachable };
                choose(self.table, route, ip, &prepared.address, &tried, &self.core.turns).ok_or(none)?
            };
            attached.upstream = Some(next.load.open(false));
            if let Some(logged) = attached.counting.as_mut().and_then(|counting| counting.logged.as_mut()) {
                logged.0.upstream = Some(next.name.clone());
            }
            let asked_at = Instant::now();
            match self.attempt(route, next, prepared).await {
                Ok(answered) => match self.answered(route, next, answered, asked_at)? {
                    Taken::Exchanged(exchanged) => return Ok(exchanged),
                    Taken::RoomMoved { room, again } => {
                        fixed = Some(Box::pin(self.upstream_of_room(route, room)).await?);
                        tried.push(next.name.clone());
                        prepared = again;
                    }
                },
                Err(Failed::Unreached(again)) => {
                    self.core.failed(next, &self.table.health);
                    if !self.core.retries.withdraw() {
                        metrics::counter!("twinsite_proxy_retries_refused_total").increment(1);
                        return Err(Problem::Unreachable);
                    }
                    metrics::counter!("twinsite_proxy_retries_total").increment(1);
                    tried.push(next.name.clone());
                    prepared = again;
                }
                Err(Failed::Lost(problem)) => {
                    self.core.failed(next, &self.table.health);
                    return Err(problem);
                }
                Err(Failed::Client(problem)) => return Err(problem),
            }
        }
        Err(Problem::Unreachable)
    }

    /// Makes the request one of this node's own, and notes what is to be known of it.
    fn prepare(
        &self,
        asked: Asked<'_>,
        mut request: Request<Incoming>,
        attached: &mut Attached,
    ) -> Result<Box<Prepared>, Problem> {
        let Asked { route, host, origin, edits } = asked;
        self.context.waiting.set_stall(route.body_idle_timeout);
        if let Some(stream) = &attached.stream {
            stream.set_limit(route.body_idle_timeout);
        }
        let max = self.table.limits.body_bytes_max;
        if max > 0 && request.body().size_hint().lower() > max {
            return Err(Problem::TooLarge);
        }
        // Nearly always the client is the connection's, which has it written.
        let is_connection = origin.client == self.context.client.ip().to_canonical();
        let address =
            if is_connection { self.context.address.clone() } else { headers::address(origin.client) };
        let room = route.room_query.as_deref().and_then(|name| room(request.uri().query()?, name));
        let room = room.map(|room| RoomKey::of(&self.core.options.cluster, &room));
        let websocket = request.method() == Method::GET && headers::wants_websocket(request.headers());
        let client = websocket.then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        host.put(&mut head.headers);
        headers::prepare_request(&mut head.headers, origin, address.clone(), head.version, websocket);
        if let Some(edits) = edits {
            edits.apply(&mut head.headers);
        }
        if body.size_hint().exact().is_none() {
            headers::announce_chunked(&mut head.headers);
        }
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.version = Version::HTTP_11;
        let body = RequestBody::new(body, max, route.body_idle_timeout);
        if let Some(counting) = &mut attached.counting {
            counting.upload = body.upload();
        }
        let request = Some(Request::from_parts(head, body));
        Ok(Box::new(Prepared { request, client, room, address }))
    }

    /// Where the room lives; a new one, or one whose place is no use any more, is given a place.
    async fn upstream_of_room(&self, route: &Route, room: RoomKey) -> Result<&Upstream, Problem> {
        let remembered = self.core.rooms.remembered(room);
        let known = remembered.as_ref().and_then(|name| self.table.of_route(route, name));
        if let Some(upstream) = known.filter(|upstream| RoutingTable::keeps_rooms(route, upstream)) {
            return Ok(upstream);
        }
        let ip = self.context.group.authority.as_ref().map(|authority| authority.ip());
        let proposal = place_of_room(self.table, route, ip, room).ok_or(Problem::NoUpstream)?;
        let placed = self.core.rooms.place(room, proposal.name.clone(), remembered).await;
        let placed = placed.map_err(|refused| match refused {
            RoomRefused::QuorumUnknown => Problem::RoomRefused,
            RoomRefused::TooManyNew => Problem::TooManyNewRooms,
        })?;
        self.table.of_route(route, &placed).ok_or(Problem::RoomUnavailable)
    }

    /// One upstream: on a kept connection if there is one, and once more on a new one if the kept one was closed.
    async fn attempt(
        &self,
        route: &Route,
        upstream: &Upstream,
        mut prepared: Box<Prepared>,
    ) -> Result<Answered, Failed> {
        let mut fresh = prepared.client.is_some();
        loop {
            let pool = &self.core.pool;
            let connection = if fresh {
                let purpose = if prepared.client.is_some() { Purpose::Upgrade } else { Purpose::Requests };
                Box::pin(pool.fresh(&upstream.target, purpose, route.connect_timeout)).await
            } else {
                pool.connection(&upstream.target, route.connect_timeout).await
            };
            let Connection { mut sender, reused } = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(upstream = %upstream.name, %error, "not connected");
                    return Err(Failed::Unreached(prepared));
                }
            };
            let tunnel_of_room = prepared.client.is_some() && prepared.room.is_some();
            let Some(request) = prepared.request.take() else {
                return Err(Failed::Lost(Problem::Unreachable)); // it has been sent, and must not be again
            };
            prepared.request =
                ((reused || tunnel_of_room) && repeatable(&request)).then(|| copy_of(&request));
            let upload = request.body().upload();
            let unanswered = Upload::unanswered(upload.clone(), route.response_timeout);
            let outcome = tokio::select! {
                biased;
                outcome = pool::send(&mut sender, request) => outcome,
                () = unanswered => return Err(Failed::Lost(Problem::Late)),
            };
            match outcome {
                Outcome::Answer(response) => return Ok(Answered { response, sender, prepared }),
                Outcome::Unsent(unsent) => {
                    prepared.request = Some(unsent);
                    if !reused {
                        return Err(Failed::Unreached(prepared));
                    }
                }
                // Its upstream may have closed a kept connection at the same moment.
                Outcome::Failed(_) if reused && prepared.request.is_some() => {}
                Outcome::Failed(error) if error.is_user() => {
                    return Err(Failed::Client(fault_of_body(&error)));
                }
                // By HTTP/2 its own fault comes back as a reset of the stream.
                Outcome::Failed(_) if upload.as_ref().is_some_and(Upload::is_at_fault) => {
                    return Err(Failed::Client(Problem::Unfinished));
                }
                Outcome::Failed(error) => {
                    tracing::debug!(upstream = %upstream.name, %error, "no answer");
                    pool.failed(&upstream.target);
                    return Err(Failed::Lost(Problem::Unreachable));
                }
            }
            fresh = true;
        }
    }

    fn answered(
        &self,
        route: &Route,
        upstream: &Upstream,
        answered: Answered,
        asked_at: Instant,
    ) -> Result<Taken, Problem> {
        upstream.load.strikes.answered();
        let (status, duration) = (answered.response.status().as_u16(), asked_at.elapsed());
        let counts = Counts { status, duration, bytes_in: 0, bytes_out: 0 };
        upstream.tally.count(self.core.number, counts);
        self.take(route, upstream, answered)
    }

    /// Takes an upstream's answer, and starts the tunnel if it is one.
    ///
    /// A handshake may take so long that its room has moved meanwhile: nobody shall be where the others are not, not
    /// even for the moment after which the tunnel would be ended, so the handshake is made anew where the room is.
    fn take(&self, route: &Route, upstream: &Upstream, answered: Answered) -> Result<Taken, Problem> {
        let Answered { mut response, sender, mut prepared } = answered;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let silence = route.body_idle_timeout;
        let target = Arc::clone(&upstream.target);
        match (switching, prepared.client.take()) {
            (false, _) => {
                headers::prepare_answer(response.headers_mut(), false);
                Ok(Taken::Exchanged(Exchanged { response, sender: Some(sender), upstream: target, silence }))
            }
            (true, None) => Err(Problem::BadAnswer),
            (true, Some(client)) => {
                let agreed = response.headers().get(header::UPGRADE);
                if !agreed.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
                    return Err(Problem::BadAnswer);
                }
                let server = hyper::upgrade::on(&mut response);
                // Noted before the look, so that no move falls between the two.
                let idle = route.tunnel_idle_timeout;
                let tunnel = Tunnel::new(self.core, self.context, upstream, prepared.room, idle);
                if let (Some(room), Some(_)) = (prepared.room, &prepared.request)
                    && self.core.rooms.remembered(room).is_some_and(|place| place != upstream.name)
                {
                    prepared.client = Some(client);
                    return Ok(Taken::RoomMoved { room, again: prepared });
                }
                tokio::task::spawn_local(tunnel.run(client, server));
                headers::prepare_answer(response.headers_mut(), true);
                Ok(Taken::Exchanged(Exchanged { response, sender: None, upstream: target, silence }))
            }
        }
    }
}

/// An upstream's answer, as it came.
struct Answered {
    response: Response<Incoming>,
    sender: Sender,
    /// What was asked; with the request, if it can be asked again.
    prepared: Box<Prepared>,
}

/// What became of an upstream's answer.
enum Taken {
    /// It is the client's.
    Exchanged(Exchanged),
    /// A tunnel to where its room is no more.
    RoomMoved { room: RoomKey, again: Box<Prepared> },
}

/// An answer for the client.
struct Exchanged {
    response: Response<Incoming>,
    /// To be given back to the pool.
    sender: Option<Sender>,
    upstream: Arc<Target>,
    silence: std::time::Duration,
}

/// Why an attempt brought no answer.
enum Failed {
    /// Nothing was sent: another upstream can be tried with the same request.
    Unreached(Box<Prepared>),
    /// It may have been acted upon.
    Lost(Problem),
    /// The client's own doing.
    Client(Problem),
}

fn compressed(response: Response<AnswerBody>, wish: Wish) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    let body = match wish.grant(&mut head, body.size_hint().exact()) {
        Ok(Some(encoder)) => body.through(encoder),
        Ok(None) => body,
        Err(error) => {
            tracing::warn!(%error, "an answer cannot be compressed");
            body
        }
    };
    Response::from_parts(head, body)
}

fn refused(problem: &Problem, attached: Attached) -> Response<AnswerBody> {
    problem.answer().map(|bytes| AnswerBody::own(bytes, attached))
}

/// Whether doing it twice is doing it once (RFC 9110 section 9.2.2), and nothing of it was consumed.
fn repeatable(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && request.body().is_end_stream()
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::none());
    *copy.version_mut() = request.version(); // an attempt by HTTP/2 may have given it another shape
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// Why the client's own body ended the request.
fn fault_of_body(error: &hyper::Error) -> Problem {
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(BodyError::TooLarge(_)) => Problem::TooLarge,
        _ => Problem::Unfinished,
    }
}

/// The room that a query names. The name never leaves this function's caller but as a hash.
fn room(query: &str, parameter: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, room) = pairs.find(|(name, room)| name == parameter && !room.is_empty())?;
    Some(room.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_decoded() {
        assert_eq!(room("peerId=1&roomId=board%20room", "roomId").as_deref(), Some("board room"));
        assert_eq!(room("roomId=&x=1", "roomId"), None);
        assert_eq!(room("x=roomId", "roomId"), None);
    }
}
