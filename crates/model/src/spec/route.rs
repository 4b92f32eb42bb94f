//! Routes: which requests go where, and what is changed on the way.

use super::duration::HumanDuration;
use super::headers::HeaderEdits;
use super::pattern::Pattern;
use super::template::Template;
use crate::ids::{RouteName, UpstreamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a request is given an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Rendezvous hashing of the client's address.
    #[default]
    IpHash,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests and tunnels of this node.
    LeastConn,
    /// The first healthy one, in the order written.
    First,
}

/// Which requests go where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Its name.
    pub name: RouteName,
    /// Host names, without port; `*` for any, `*.example.org` for any name below. Empty: any.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The path: exact (`/health`), or a prefix ending in `*` (`/socket.io/*`).
    #[serde(default = "any_path")]
    pub path: String,
    /// What else a request must look like.
    #[serde(default, rename = "match", skip_serializing_if = "MatchSpec::is_any")]
    pub matches: MatchSpec,
    /// Sends the client elsewhere instead of asking an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectSpec>,
    /// Answers by itself instead of asking an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<RespondSpec>,
    /// The upstreams, by name. Empty: all of them.
    #[serde(default)]
    pub upstreams: Vec<UpstreamName>,
    /// How one is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// The query parameter that names the room. With it, all participants of a room meet on one upstream,
    /// whatever their addresses; requests without it use `balance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_query: Option<String>,
    /// What is changed of the request, after what the proxy itself sets.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub request_headers: HeaderEdits,
    /// What is changed of the answer.
    #[serde(default, skip_serializing_if = "HeaderEdits::is_empty")]
    pub response_headers: HeaderEdits,
    /// How answers are compressed, the preferred way first, for clients that accept it. Empty: not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compress: Vec<Compression>,
    /// The longest wait for a connection to an upstream.
    #[serde(default = "duration_ms::<1_000>")]
    pub connect_timeout: HumanDuration,
    /// The longest wait for an upstream's response head, once the upstream has what came of the request.
    #[serde(default = "duration_ms::<60_000>")]
    pub response_timeout: HumanDuration,
    /// The longest silence within a body, and the longest that a client may take nothing of an answer.
    #[serde(default = "duration_ms::<60_000>")]
    pub body_idle_timeout: HumanDuration,
    /// The longest silence, in both directions together, of a WebSocket.
    #[serde(default = "duration_ms::<600_000>")]
    pub tunnel_idle_timeout: HumanDuration,
}

impl RouteSpec {
    /// Whether it says what [`Format::ROUTES`](crate::Format::ROUTES) brought.
    pub(super) fn is_of_format_5(&self) -> bool {
        let changes =
            [&self.request_headers, &self.response_headers].into_iter().any(|edits| !edits.is_empty());
        changes
            || !self.compress.is_empty()
            || !self.matches.is_any()
            || self.redirect.is_some()
            || self.respond.is_some()
    }

    /// A route for everything, to all upstreams.
    pub fn new(name: RouteName) -> Self {
        Self {
            name,
            hosts: Vec::new(),
            path: any_path(),
            matches: MatchSpec::default(),
            redirect: None,
            respond: None,
            upstreams: Vec::new(),
            balance: Balance::default(),
            room_query: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            compress: Vec::new(),
            connect_timeout: duration_ms::<1_000>(),
            response_timeout: duration_ms::<60_000>(),
            body_idle_timeout: duration_ms::<60_000>(),
            tunnel_idle_timeout: duration_ms::<600_000>(),
        }
    }
}

/// What a request must look like beside its host and path; all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatchSpec {
    /// One of these methods, in upper case. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// How the client came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Headers that it must have; upper and lower case are the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Pattern>,
    /// Parameters that its query must have, decoded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Pattern>,
}

impl MatchSpec {
    /// Whether every request looks like this.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// How a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In clear.
    Http,
    /// By TLS.
    Https,
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// The address, as in `https://{host}{uri}`.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent_redirect")]
    pub status: u16,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RespondSpec {
    /// 200 to 599.
    #[serde(default = "ok")]
    pub status: u16,
    /// The text.
    #[serde(default)]
    pub body: Template,
}

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

fn any_path() -> String {
    "/*".to_owned()
}

const fn permanent_redirect() -> u16 {
    308
}

const fn ok() -> u16 {
    200
}

fn duration_ms<const MS: u64>() -> HumanDuration {
    HumanDuration(Duration::from_millis(MS))
}
