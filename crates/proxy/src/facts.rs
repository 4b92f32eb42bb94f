//! What a request says, where a route asks for it.

use crate::client_address::Origin;
use crate::host::Host;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Uri};
use std::cell::OnceCell;
use std::fmt::Write;
use std::net::IpAddr;
use twinsite_model::spec::{MatchSpec, Scheme, Template, Variable};

/// One request, before anything of it is changed.
pub(crate) struct Facts<'a> {
    pub(crate) host: &'a Host,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) origin: Origin,
    pub(crate) connection: IpAddr,
    /// Made when somebody asks for it, and then the same for all.
    pub(crate) id: OnceCell<String>,
}

impl Facts<'_> {
    /// Whether the request looks like this.
    pub(crate) fn suit(&self, wanted: &MatchSpec) -> bool {
        let method =
            || wanted.methods.is_empty() || wanted.methods.iter().any(|one| one == self.method.as_str());
        let scheme = || wanted.scheme.is_none_or(|scheme| scheme == self.origin.scheme);
        let headers = || {
            wanted.headers.iter().all(|(name, pattern)| {
                self.headers.get_all(name).iter().any(|value| pattern.matches_in_any_case(value.as_bytes()))
            })
        };
        let query = || {
            let parameters = || form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes());
            wanted.query.iter().all(|(name, pattern)| {
                parameters().any(|(key, value)| key == *name && pattern.matches(&value))
            })
        };
        method() && scheme() && headers() && query()
    }

    /// The text with what the request says in it.
    pub(crate) fn text(&self, template: &Template) -> String {
        template.render(|variable, text| self.write(variable, text))
    }

    /// The same as a header's value; none if it is empty, or could not be one: a request may say anything.
    pub(crate) fn header_value(&self, template: &Template) -> Option<HeaderValue> {
        let text = self.text(template);
        if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
    }

    fn write(&self, variable: &Variable, text: &mut String) {
        match variable {
            Variable::Host => *text += self.host.name(),
            Variable::HostPort => *text += self.host.with_port(),
            Variable::Uri => *text += self.uri.path_and_query().map_or("/", |whole| whole.as_str()),
            Variable::Path => *text += self.uri.path(),
            Variable::Query => *text += self.uri.query().unwrap_or_default(),
            Variable::Method => *text += self.method.as_str(),
            Variable::Scheme => *text += scheme_name(self.origin.scheme),
            Variable::Port => drop(write!(text, "{}", self.origin.port)),
            Variable::ClientIp => drop(write!(text, "{}", self.origin.client)),
            Variable::RemoteIp => drop(write!(text, "{}", self.connection.to_canonical())),
            Variable::RequestId => *text += self.id.get_or_init(|| format!("{:032x}", fastrand::u128(..))),
            Variable::Header(name) => {
                *text += self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            }
            Variable::Parameter(name) => {
                let mut pairs = form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes());
                if let Some((_, value)) = pairs.find(|(key, _)| key == name) {
                    *text += &value;
                }
            }
        }
    }
}

pub(crate) const fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use http::Request;

    /// Does something with the facts of a request that is written as it comes.
    pub(crate) fn with_facts(text: &str, look: impl FnOnce(&Facts<'_>)) {
        let mut lines = text.lines();
        let mut first = lines.next().unwrap().split(' ');
        let mut request = Request::builder().method(first.next().unwrap()).uri(first.next().unwrap());
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let request = request.body(()).unwrap();
        let host = Host::of(&request).unwrap();
        let origin = Origin {
            client: "198.51.100.7".parse().unwrap(),
            port: 8080,
            is_trusted: true,
            scheme: Scheme::Https,
        };
        look(&Facts {
            host: &host,
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            origin,
            connection: "::ffff:10.0.0.1".parse().unwrap(),
            id: OnceCell::new(),
        });
    }

    #[test]
    fn every_variable_is_what_the_request_says() {
        let request = "POST /a/b?roomId=x%20y&z=1 HTTP/1.1\r\nhost: meet.example.org:81\r\nx-one: 1\r\n";
        with_facts(request, |facts| {
            let text = |written: &str| facts.text(&written.parse().unwrap());
            assert_eq!(text("{scheme}://{host}{uri}"), "https://meet.example.org/a/b?roomId=x%20y&z=1");
            assert_eq!(
                text("{method} {hostport} {path} {query}"),
                "POST meet.example.org:81 /a/b roomId=x%20y&z=1"
            );
            assert_eq!(text("{client_ip} {remote_ip} {port}"), "198.51.100.7 10.0.0.1 8080");
            assert_eq!(text("{header.X-One} {header.None} {query.roomId}"), "1  x y");
            let id = text("{request_id}");
            assert_eq!((id.len(), text("{request_id}")), (32, id.clone()));
        });
    }

    #[test]
    fn a_route_is_for_requests_that_look_like_it() {
        let wanted = |json: serde_json::Value| serde_json::from_value::<MatchSpec>(json).unwrap();
        let request =
            "GET /?a=1&a=2 HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n";
        with_facts(request, |facts| {
            for (json, suits) in [
                (serde_json::json!({}), true),
                (serde_json::json!({ "methods": ["GET", "HEAD"] }), true),
                (serde_json::json!({ "methods": ["POST"] }), false),
                (serde_json::json!({ "scheme": "https" }), true),
                (serde_json::json!({ "scheme": "http" }), false),
                (
                    serde_json::json!({ "headers": { "Connection": "*upgrade*", "Upgrade": "websocket" } }),
                    true,
                ),
                (serde_json::json!({ "headers": { "X-None": "*" } }), false),
                (serde_json::json!({ "query": { "a": "2" } }), true),
                (serde_json::json!({ "query": { "a": "3" } }), false),
                (serde_json::json!({ "query": { "b": "*" } }), false),
            ] {
                assert_eq!(facts.suit(&wanted(json.clone())), suits, "{json}");
            }
        });
    }
}
