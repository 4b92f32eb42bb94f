//! One request: where it goes, how it gets there, what comes back.

use crate::balance::{choose, place_of_room};
use crate::body::{AnswerBody, Attached, BodyError, RequestBody, Upload};
use crate::client_address::Origin;
use crate::compress::Wish;
use crate::connection::Context;
use crate::edits::EditsOf;
use crate::facts::Facts;
use crate::group::What;
use crate::headers;
use crate::host::Host;
use crate::local::{self, Problem, WHO_PATH};
use crate::pool::{self, Connection, Outcome};
use crate::rooms::RoomRefused;
use crate::table::{Route, RoutingTable, Upstream};
use crate::tunnel::Tunnel;
use crate::worker::Core;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use std::cell::OnceCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use twinsite_model::{RoomKey, UpstreamName};

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
        request: Some(context.group.count(What::Request)),
        upstream: None,
        waiting: Arc::clone(&context.waiting),
    };
    let traced =
        table.limits.trace_headers && request.headers().get(headers::TRACE).is_some_and(|wish| wish == "1");
    let mut response = if request.uri().path() == WHO_PATH {
        let held = context.group.authority.as_ref().map(|authority| (authority.ip(), authority.token()));
        local::who(&core.options, held).map(|bytes| AnswerBody::own(bytes, attached))
    } else {
        Forwarding { core: &core, context: &context, table: &table }.forward(request, attached).await
    };
    core.count(response.status());
    if context.group.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
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

/// A request, ready for an upstream.
struct Prepared {
    request: Request<RequestBody>,
    /// Set if it wants to become a WebSocket.
    client: Option<OnUpgrade>,
    room: Option<RoomKey>,
}

impl Forwarding<'_> {
    async fn forward(&self, request: Request<Incoming>, attached: Attached) -> Response<AnswerBody> {
        let Some(host) = Host::of(&request) else { return refused(&Problem::NoHost, attached) };
        if request.method() == Method::CONNECT {
            return refused(&Problem::Method, attached);
        }
        let connection = self.context.client.ip();
        let trusted = &self.table.limits.trusted_proxies;
        let origin = Origin::of(connection, self.context.port, request.headers(), trusted);
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let facts = Facts { host: &host, method, uri, headers, origin, connection, id: OnceCell::new() };
        let Some(route) = self.table.route(&facts) else { return refused(&Problem::NoRoute, attached) };
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
                self.ask_upstream(asked, request, attached).await
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
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
        asked: Asked<'_>,
        request: Request<Incoming>,
        mut attached: Attached,
    ) -> Response<AnswerBody> {
        match self.exchange(asked, request, &mut attached).await {
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
        asked: Asked<'_>,
        request: Request<Incoming>,
        attached: &mut Attached,
    ) -> Result<Exchanged, Problem> {
        let (route, client) = (asked.route, asked.origin.client);
        self.context.waiting.set_stall(route.body_idle_timeout);
        let max = self.table.limits.body_bytes_max;
        if max > 0 && request.body().size_hint().lower() > max {
            return Err(Problem::TooLarge);
        }
        let mut prepared = self.prepare(asked, request);
        let mut fixed = match prepared.room {
            Some(room) => Some(self.upstream_of_room(route, room).await?),
            None => None,
        };
        let in_room = fixed.is_some();
        let mut tried: Vec<UpstreamName> = Vec::new();
        while tried.len() < ATTEMPTS_MAX {
            let ip = self.context.group.authority.as_ref().map(|authority| authority.ip());
            let next = if in_room {
                // A room is in one place: another upstream would be another room.
                fixed.take().ok_or(Problem::RoomUnavailable)?
            } else {
                let none = if tried.is_empty() { Problem::NoUpstream } else { Problem::Unreachable };
                choose(self.table, route, ip, client, &tried, &self.core.turns).ok_or(none)?
            };
            attached.upstream = Some(next.load.open(false));
            match self.attempt(route, next, prepared).await {
                Ok(answered) => match self.take(route, next, answered)? {
                    Taken::Exchanged(exchanged) => return Ok(exchanged),
                    Taken::RoomMoved { room, again } => {
                        fixed = Some(self.upstream_of_room(route, room).await?);
                        tried.push(next.name.clone());
                        prepared = *again;
                    }
                },
                Err(Failed::Unreached(again)) => {
                    self.core.failed(&next.name);
                    tried.push(next.name.clone());
                    prepared = *again;
                }
                Err(Failed::Lost(problem)) => {
                    self.core.failed(&next.name);
                    return Err(problem);
                }
                Err(Failed::Client(problem)) => return Err(problem),
            }
        }
        Err(Problem::Unreachable)
    }

    fn prepare(&self, asked: Asked<'_>, request: Request<Incoming>) -> Prepared {
        let Asked { route, host, origin, edits } = asked;
        let room = route.room_query.as_deref().and_then(|name| room(request.uri().query()?, name));
        let room = room.map(|room| RoomKey::of(&self.core.options.cluster, &room));
        let mut request = request;
        let websocket = request.method() == Method::GET && headers::wants_websocket(request.headers());
        let client = websocket.then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        host.put(&mut head.headers);
        headers::prepare_request(&mut head.headers, origin, websocket);
        if let Some(edits) = edits {
            edits.apply(&mut head.headers);
        }
        if body.size_hint().exact().is_none() {
            headers::announce_chunked(&mut head.headers);
        }
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.version = Version::HTTP_11;
        let body = RequestBody::new(body, self.table.limits.body_bytes_max, route.body_idle_timeout);
        Prepared { request: Request::from_parts(head, body), client, room }
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
        prepared: Prepared,
    ) -> Result<Answered, Failed> {
        let Prepared { mut request, client, room } = prepared;
        let mut fresh = client.is_some();
        loop {
            let pool = &self.core.pool;
            let connection = if fresh {
                pool.fresh(&upstream.address, route.connect_timeout).await
            } else {
                pool.connection(&upstream.address, route.connect_timeout).await
            };
            let Connection { mut sender, reused } = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(upstream = %upstream.name, %error, "not connected");
                    return Err(Failed::Unreached(Box::new(Prepared { request, client, room })));
                }
            };
            let tunnel_of_room = client.is_some() && room.is_some();
            let again = ((reused || tunnel_of_room) && repeatable(&request)).then(|| copy_of(&request));
            let unanswered = Upload::unanswered(request.body().upload(), route.response_timeout);
            let outcome = tokio::select! {
                biased;
                outcome = pool::send(&mut sender, request) => outcome,
                () = unanswered => return Err(Failed::Lost(Problem::Late)),
            };
            match outcome {
                Outcome::Answer(response) => {
                    return Ok(Answered { response, sender, client, room, request: again });
                }
                Outcome::Unsent(unsent) if reused => (request, fresh) = (unsent, true),
                Outcome::Unsent(unsent) => {
                    return Err(Failed::Unreached(Box::new(Prepared { request: unsent, client, room })));
                }
                Outcome::Failed(error) => match again.filter(|_| reused) {
                    Some(copy) => (request, fresh) = (copy, true),
                    None if error.is_user() => return Err(Failed::Client(fault_of_body(&error))),
                    None => {
                        tracing::debug!(upstream = %upstream.name, %error, "no answer");
                        return Err(Failed::Lost(Problem::Unreachable));
                    }
                },
            }
        }
    }

    /// Takes an upstream's answer, and starts the tunnel if it is one.
    ///
    /// A handshake may take so long that its room has moved meanwhile: nobody shall be where the others are not, not
    /// even for the moment after which the tunnel would be ended, so the handshake is made anew where the room is.
    fn take(&self, route: &Route, upstream: &Upstream, answered: Answered) -> Result<Taken, Problem> {
        let Answered { mut response, sender, client, room, request } = answered;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let silence = route.body_idle_timeout;
        let address = Arc::clone(&upstream.address);
        match (switching, client) {
            (false, _) => {
                headers::prepare_answer(response.headers_mut(), false);
                Ok(Taken::Exchanged(Exchanged { response, sender: Some(sender), upstream: address, silence }))
            }
            (true, None) => Err(Problem::BadAnswer),
            (true, Some(client)) => {
                let agreed = response.headers().get(header::UPGRADE);
                if !agreed.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
                    return Err(Problem::BadAnswer);
                }
                let server = hyper::upgrade::on(&mut response);
                // Noted before the look, so that no move falls between the two.
                let tunnel = Tunnel::new(self.core, self.context, upstream, room, route.tunnel_idle_timeout);
                if let (Some(room), Some(request)) = (room, request)
                    && self.core.rooms.remembered(room).is_some_and(|place| place != upstream.name)
                {
                    let again = Box::new(Prepared { request, client: Some(client), room: Some(room) });
                    return Ok(Taken::RoomMoved { room, again });
                }
                tokio::task::spawn_local(tunnel.run(client, server));
                headers::prepare_answer(response.headers_mut(), true);
                Ok(Taken::Exchanged(Exchanged { response, sender: None, upstream: address, silence }))
            }
        }
    }
}

/// An upstream's answer, as it came.
struct Answered {
    response: Response<Incoming>,
    sender: SendRequest<RequestBody>,
    client: Option<OnUpgrade>,
    room: Option<RoomKey>,
    /// What was asked, if it can be asked again.
    request: Option<Request<RequestBody>>,
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
    sender: Option<SendRequest<RequestBody>>,
    upstream: Arc<str>,
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
