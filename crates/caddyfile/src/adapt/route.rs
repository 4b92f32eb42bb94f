//! One route: what a request looks like, what is changed of it, and who answers.

use super::Wishes;
use super::directive::Answer;
use super::headers;
use super::names::Names;
use super::notes::Notes;
use super::proxy::Rule;
use super::upstream::Upstream;
use super::walk::Way;
use crate::place::Place;
use twinsite_model::RouteName;
use twinsite_model::spec::{Balance, MatchSpec, RedirectSpec, RespondSpec, RouteSpec, Scheme, Template};

/// The parameter by which multiparty-meeting names the room.
const ROOM: &str = "roomId";
/// Where Socket.IO is.
const SOCKET_IO: &str = "/socket.io/";

/// A route, and where the answer of it is written.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) spec: RouteSpec,
    pub(super) place: Place,
}

/// What sends clients from HTTP to HTTPS.
pub(super) fn to_https(hosts: &[String], place: &Place, names: &mut Names) -> Option<Route> {
    let to: Template = "https://{host}{uri}".parse().ok()?;
    let spec = RouteSpec {
        hosts: hosts.to_vec(),
        matches: MatchSpec { scheme: Some(Scheme::Http), ..MatchSpec::default() },
        redirect: Some(RedirectSpec { to, status: 308 }),
        ..RouteSpec::new(RouteName::new(names.free("to-https", "to-https")).ok()?)
    };
    Some(Route { spec, place: place.clone() })
}

/// What is answered where nothing is said.
pub(super) fn nothing(way: &Way<'_>, place: &Place, names: &mut Names, notes: &mut Notes) -> Option<Route> {
    let mut spec = base(way, "nothing", names)?;
    spec.respond = Some(RespondSpec { status: 200, body: Template::default() });
    spec.response_headers =
        headers::together(headers::in_order_of_answer(way.answer.iter().copied()), notes)?;
    Some(Route { spec, place: place.clone() })
}

/// What a request looks like, and a name for it.
fn base(way: &Way<'_>, otherwise: &str, names: &mut Names) -> Option<RouteSpec> {
    let path = way.condition.paths.to_string();
    let like = if way.condition.paths.is_any() { way.name } else { &path };
    Some(RouteSpec {
        hosts: way.condition.hosts.clone(),
        path: path.clone(),
        matches: way.condition.matches(),
        ..RouteSpec::new(RouteName::new(names.free(like, otherwise)).ok()?)
    })
}

/// What is known where a directive answers.
pub(super) struct Answering<'a> {
    pub(super) upstreams: &'a [Upstream],
    pub(super) wishes: &'a Wishes,
    pub(super) place: &'a Place,
}

impl Answering<'_> {
    /// The route at the end of a way.
    pub(super) fn route(
        &self,
        answer: &Answer,
        way: &Way<'_>,
        names: &mut Names,
        notes: &mut Notes,
    ) -> Option<Route> {
        let otherwise = match answer {
            Answer::Redirect(_) => "redirect",
            Answer::Respond(_) => "answer",
            Answer::Proxy(_) => "rest",
        };
        let mut spec = base(way, otherwise, names)?;
        let down = match answer {
            Answer::Proxy(rule) => Some(&rule.down),
            _ => None,
        };
        let changes = headers::in_order_of_answer(way.answer.iter().copied());
        spec.response_headers = headers::together(down.into_iter().chain(changes), notes)?;
        match answer {
            Answer::Redirect(redirect) => spec.redirect = Some(redirect.clone()),
            Answer::Respond(respond) => {
                spec.respond = Some(respond.clone());
                spec.compress = way.compress.to_vec();
            }
            Answer::Proxy(rule) => self.to_upstreams(rule, way, &mut spec, notes)?,
        }
        Some(Route { spec, place: self.place.clone() })
    }

    fn to_upstreams(
        &self,
        rule: &Rule,
        way: &Way<'_>,
        spec: &mut RouteSpec,
        notes: &mut Notes,
    ) -> Option<()> {
        let named = rule.upstreams.iter().filter_map(|index| self.upstreams.get(*index));
        spec.upstreams = named.map(|upstream| upstream.name.clone()).collect();
        spec.balance = rule.balance;
        let changes = way.request.iter().copied().chain([&rule.up]);
        spec.request_headers = headers::together(changes, notes)?;
        spec.compress = way.compress.to_vec();
        let transport = &rule.transport;
        spec.connect_timeout = transport.connect_timeout.unwrap_or(spec.connect_timeout);
        spec.response_timeout = transport.response_timeout.unwrap_or(spec.response_timeout);
        spec.body_idle_timeout = transport.body_idle_timeout.unwrap_or(spec.body_idle_timeout);
        spec.tunnel_idle_timeout = transport.tunnel_idle_timeout.unwrap_or(spec.tunnel_idle_timeout);
        let is_socket_io = way.condition.paths.begins_with(SOCKET_IO);
        if is_socket_io && rule.upstreams.len() > 1 {
            self.keep_rooms_together(rule, spec, notes);
            if ["connection", "upgrade"].iter().any(|name| way.condition.headers.contains_key(*name)) {
                let what = "Socket.IO begins with polls, which do not look like this: they go to another route, and perhaps to \
                            another instance, where their session is not known";
                let remedy = "match by the path alone, unless all clients have `transports: [\"websocket\"]`";
                notes.trap(self.place, what, remedy);
            }
        }
        if !rule.is_probed {
            let what = if is_socket_io {
                "without `health_uri` Caddy goes on sending WebSockets to dead upstreams; twinsite probes all upstreams anyway"
            } else {
                "without `health_uri` Caddy goes on sending requests to dead upstreams; twinsite probes all upstreams anyway"
            };
            notes.trap(
                self.place,
                what,
                "write `health_uri`, or see that [health] of cluster.toml fits these upstreams too",
            );
        }
        Some(())
    }

    /// Everybody of a room has to be on one instance, and so has every poll of one session.
    fn keep_rooms_together(&self, rule: &Rule, spec: &mut RouteSpec, notes: &mut Notes) {
        if rule.balance != Balance::IpHash {
            let what = format!(
                "`{}` is Socket.IO, and its polls and rooms are spread over all instances",
                spec.path
            );
            let remedy = format!("write `lb_policy ip_hash`, which becomes `room_query = \"{ROOM}\"` here");
            notes.trap(&rule.balance_place, what, remedy);
        } else if self.wishes.keep_ip_hash {
            let what =
                "`ip_hash` puts two people of one room, with different addresses, on different instances";
            let remedy = format!("leave out `--keep-ip-hash`: the route then gets `room_query = \"{ROOM}\"`");
            notes.trap(&rule.balance_place, what, remedy);
        } else {
            spec.room_query = Some(ROOM.to_owned());
            let what = format!(
                "`ip_hash` puts two people of one room, with different addresses, on different instances; route `{}` got \
                 `room_query = \"{ROOM}\"`, which keeps them together",
                spec.name
            );
            notes.trap(&rule.balance_place, what, "leave it so; `--keep-ip-hash` does what Caddy does");
        }
    }
}
