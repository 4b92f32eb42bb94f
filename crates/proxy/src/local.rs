//! Answers of the node itself.

use crate::facts::Facts;
use crate::proxy::ProxyOptions;
use crate::table::OwnAnswer;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use std::time::Duration;
use twinsite_model::{FloatingIpName, Token};

/// Where a node says who it is and under which token it answers.
pub(crate) const WHO_PATH: &str = "/.well-known/twinsite";

/// Why a request is not passed on, or not answered by an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the request does not name one host")]
    NoHost,
    #[error("the request says what no answer can hold")]
    Unanswerable,
    #[error("this method is not proxied")]
    Method,
    #[error("no route for this host and path")]
    NoRoute,
    #[error("the head is too large")]
    HeadTooLarge,
    #[error("the body is too large")]
    TooLarge,
    #[error("the rest of the body did not come")]
    Unfinished,
    #[error("no upstream is available")]
    NoUpstream,
    #[error("this room's server does not answer; try again in a moment")]
    RoomUnavailable,
    #[error("no new rooms at the moment; try again soon")]
    RoomRefused,
    #[error("too many new rooms at the moment; try again soon")]
    TooManyNewRooms,
    #[error("no upstream could be reached")]
    Unreachable,
    #[error("the upstream did not answer in time")]
    Late,
    #[error("the upstream's answer makes no sense")]
    BadAnswer,
}

impl Problem {
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::Unanswerable => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unfinished => StatusCode::REQUEST_TIMEOUT,
            // Not 429: the limit is the node's, and this client need not be who used it up.
            Self::NoUpstream | Self::RoomUnavailable | Self::RoomRefused | Self::TooManyNewRooms => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// When trying again makes sense.
    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoUpstream
            | Self::RoomUnavailable
            | Self::RoomRefused
            | Self::TooManyNewRooms
            | Self::Unreachable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether what follows on the connection may not be what it seems to be.
    const fn closes(&self) -> bool {
        matches!(self, Self::NoHost | Self::Method | Self::HeadTooLarge | Self::TooLarge | Self::Unfinished)
    }

    pub(crate) fn answer(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        response
    }
}

/// What a route answers by itself. None if the request says something that no answer can hold.
pub(crate) fn own(answer: &OwnAnswer, facts: &Facts<'_>) -> Option<Response<Bytes>> {
    let (status, body) = match answer {
        OwnAnswer::Redirect(redirect) => (redirect.status, String::new()),
        OwnAnswer::Respond(respond) => (respond.status, facts.text(&respond.body)),
    };
    let has_text = !body.is_empty();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    let headers = response.headers_mut();
    if let OwnAnswer::Redirect(redirect) = answer {
        headers.insert(header::LOCATION, facts.header_value(&redirect.to)?);
    }
    if has_text {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        // It may say what the request said: no browser shall take it for anything else.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    Some(response)
}

/// Who this is.
pub(crate) fn who(options: &ProxyOptions, held: Option<(&FloatingIpName, Token)>) -> Response<Bytes> {
    // Every value is made of letters, digits, dots and dashes, so nothing needs escaping.
    let held = held.map_or_else(
        || "null,\"floating_ip\":null".to_owned(),
        |(ip, token)| format!("\"{token}\",\"floating_ip\":\"{ip}\""),
    );
    let text = format!(
        "{{\"cluster\":\"{}\",\"node\":\"{}\",\"node_id\":{},\"incarnation\":\"{}\",\"token\":{held}}}\n",
        options.cluster, options.name, options.node, options.incarnation
    );
    let mut response = Response::new(Bytes::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
