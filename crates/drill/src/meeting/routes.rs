//! What the instance answers to HTTP.

use super::answers::{Answers, Body};
use super::rooms::Full;
use super::{Instance, room_socket};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, SET_COOKIE, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full as FullBody;
use hyper::body::Incoming;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use twinsite_model::ClusterName;

pub(super) type Answer = Response<FullBody<Bytes>>;

/// The longest name of a room or of a participant, in bytes.
const NAME_BYTES_MAX: usize = 256;
const SESSION_COOKIE: &str = "meeting.sid";
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const PAGE: &str = "<!doctype html><title>Meeting</title><h1>Meeting</h1><p>A sample meeting instance. \
                    Rooms are at /socket.io/?roomId=ROOM&amp;peerId=YOU over WebSocket.</p>\n";

pub(super) async fn answer(
    instance: Arc<Instance>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let cookie = session_cookie(request.headers());
    // A drill looks there for itself, and must see what is so.
    let answers = match request.uri().path() {
        "/announced" | "/rooms" => Answers::Well,
        _ => match &instance.answers_file {
            Some(file) => Answers::told_by(file).await,
            None => Answers::Well,
        },
    };
    let mut answer = match answers.instead().await {
        Some(answer) => answer,
        None => route(&instance, request, answers).await,
    };
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(answers.put_on_wire(answer).await)
}

async fn route(instance: &Arc<Instance>, request: Request<Incoming>, answers: Answers) -> Answer {
    match request.uri().path() {
        "/health" => {
            let (rooms, peers) = instance.rooms.counts();
            let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            json_answer(&json!({"status": "ok", "timestamp": timestamp, "rooms": rooms, "peers": peers}))
        }
        "/announced" => json_answer(&json!({"announcedIp": instance.announced().await})),
        "/rooms" => json_answer(&rooms_by_key(instance)),
        // What has no last byte lets nobody in either.
        "/socket.io/" | "/ws" if answers != Answers::Truncated => {
            if asks_for_websocket(request.headers()) {
                join(instance, request)
            } else {
                let why = "this sample speaks WebSocket only; ask for an upgrade";
                refuse(StatusCode::UPGRADE_REQUIRED, why)
            }
        }
        _ => with_type(Response::new(FullBody::new(Bytes::from_static(PAGE.as_bytes()))), "text/html"),
    }
}

fn rooms_by_key(instance: &Instance) -> serde_json::Value {
    // Keys of one domain for all instances, so that the same room has the same key wherever one looks.
    let domain = ClusterName::new("meeting");
    let rooms = domain.map(|domain| instance.rooms.by_key(&domain)).unwrap_or_default();
    let rooms: serde_json::Map<_, _> =
        rooms.into_iter().map(|(key, peers)| (key.to_string(), json!(peers))).collect();
    json!({"instance": instance.name, "rooms": rooms})
}

/// Takes the participant into the room, and answers with the upgrade. Refusals come before the upgrade, where
/// proxies and people can read them.
fn join(instance: &Arc<Instance>, mut request: Request<Incoming>) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    let (Some(room), Some(peer)) = (parameter("roomId"), parameter("peerId")) else {
        return refuse(StatusCode::BAD_REQUEST, "roomId and peerId are required");
    };
    if room.is_empty() || peer.is_empty() || room.len() > NAME_BYTES_MAX || peer.len() > NAME_BYTES_MAX {
        return refuse(StatusCode::BAD_REQUEST, "roomId and peerId have 1 to 256 bytes");
    }
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return refuse(StatusCode::BAD_REQUEST, "sec-websocket-key is required");
    };
    let accept = derive_accept_key(key.as_bytes());
    let presence = match instance.rooms.enter(&room, &peer) {
        Ok(presence) => presence,
        Err(Full::Rooms) => return refuse(StatusCode::SERVICE_UNAVAILABLE, "no further room fits"),
        Err(Full::Peers) => return refuse(StatusCode::SERVICE_UNAVAILABLE, "this room is full"),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(room_socket::converse(Arc::clone(instance), room, peer, presence, upgrade));

    let mut answer = Response::new(FullBody::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    says(CONNECTION, "upgrade")
        && says(UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
}

/// A new session for those who bring none. Like the meeting service, `Secure` once the proxy says that the
/// client speaks HTTPS.
fn session_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let known = cookies
        .flat_map(|line| line.split(';'))
        .any(|pair| pair.trim().strip_prefix(SESSION_COOKIE).is_some_and(|rest| rest.starts_with('=')));
    if known {
        return None;
    }
    let secure = headers.get(FORWARDED_PROTO).is_some_and(|proto| proto == "https");
    let secure = if secure { "; Secure" } else { "" };
    let id = fastrand::u128(..);
    let cookie = format!("{SESSION_COOKIE}={id:032x}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600{secure}");
    HeaderValue::from_str(&cookie).ok()
}

fn json_answer(value: &serde_json::Value) -> Answer {
    let mut answer =
        with_type(Response::new(FullBody::new(Bytes::from(value.to_string()))), "application/json");
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn refuse(status: StatusCode, why: &'static str) -> Answer {
    let mut answer =
        with_type(Response::new(FullBody::new(Bytes::from_static(why.as_bytes()))), "text/plain");
    *answer.status_mut() = status;
    answer
}

fn with_type(mut answer: Answer, content_type: &'static str) -> Answer {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
