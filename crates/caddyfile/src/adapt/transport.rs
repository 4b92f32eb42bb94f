//! `transport http`: how upstreams are spoken to.

use super::notes::{Notes, shown};
use super::upstream::Speaks;
use super::{duration, line};
use crate::document::Directive;
use crate::place::Place;
use std::path::PathBuf;
use std::time::Duration;
use twinsite_model::spec::{HumanDuration, UpstreamTlsSpec};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What one `transport` says.
#[derive(Debug, Default)]
pub(super) struct Transport {
    /// None if it says nothing.
    pub(super) speaks: Option<(Speaks, Place)>,
    pub(super) tls: UpstreamTlsSpec,
    pub(super) connect_timeout: Option<HumanDuration>,
    pub(super) response_timeout: Option<HumanDuration>,
    pub(super) body_idle_timeout: Option<HumanDuration>,
    pub(super) tunnel_idle_timeout: Option<HumanDuration>,
    /// How many idle connections are kept.
    pub(super) idle: Option<(u32, Place)>,
}

impl Transport {
    /// `transport http { ... }`.
    pub(super) fn read(directive: &Directive, notes: &mut Notes) -> Self {
        let mut transport = Self::default();
        match directive.arguments.as_slice() {
            [kind] if kind.text == "http" => {}
            [kind, ..] => {
                line::unknown::<()>(
                    "transport",
                    kind,
                    "write `transport http`, and let the upstream speak HTTP",
                    notes,
                );
                return transport;
            }
            [] => {
                line::wrong::<()>(directive, "transport http { ... }", notes);
                return transport;
            }
        }
        for one in directive.block.iter().flatten() {
            transport.line(one, notes);
        }
        transport
    }

    fn line(&mut self, one: &Directive, notes: &mut Notes) -> Option<()> {
        let place = &one.name.place;
        match one.name.text.as_str() {
            "versions" => self.versions(one, notes)?,
            "tls" => {
                line::alone(one, notes)?;
                self.speaks_tls(place, notes);
            }
            "tls_insecure_skip_verify" => {
                line::alone(one, notes)?;
                self.speaks_tls(place, notes);
                self.tls.verify = false;
            }
            "tls_trusted_ca_certs" => {
                let file = line::one(one, "tls_trusted_ca_certs /FILE.pem", notes)?;
                self.speaks_tls(place, notes);
                if !file.text.starts_with('/') {
                    let what = format!("`{}` depends on where a node was started", shown(&file.text));
                    return notes.error(
                        &file.place,
                        what,
                        "write the whole path, from `/`, as it is on every node",
                    );
                }
                self.tls.authorities = Some(PathBuf::from(&file.text));
            }
            "tls_server_name" => {
                let name = line::one(one, "tls_server_name NAME", notes)?;
                self.speaks_tls(place, notes);
                if name.text.contains('{') {
                    let what = format!("`{}` is not the name of a host", shown(&name.text));
                    return notes.error(&name.place, what, "write the name in the upstream's certificate");
                }
                self.tls.name = Some(name.text.clone());
            }
            "dial_timeout" => {
                self.connect_timeout =
                    Some(HumanDuration(duration::of_line(one, 10 * MS..=60 * SECOND, notes)?));
            }
            "response_header_timeout" => {
                self.response_timeout = Some(HumanDuration(duration::of_line(one, 10 * MS..=HOUR, notes)?));
            }
            "read_timeout" | "write_timeout" => {
                self.silence(duration::of_line(one, SECOND..=WEEK, notes)?, one, notes);
            }
            "keepalive" if one.arguments.first().is_some_and(|word| word.text == "off") => {
                self.idle = Some((0, place.clone()));
            }
            "keepalive" | "keepalive_interval" => {
                duration::of_line(one, Duration::ZERO..=WEEK, notes)?;
                let what = format!(
                    "`{}` has no meaning here: twinsite closes idle connections by itself",
                    one.name.text
                );
                notes.trap(place, what, "remove it");
            }
            "keepalive_idle_conns" | "keepalive_idle_conns_per_host" => self.idle_connections(one, notes)?,
            "compression" => {
                let word = line::one(one, "compression off", notes)?;
                if word.text != "off" {
                    let what = "twinsite asks upstreams for nothing that the client did not ask for";
                    return notes.error(&word.place, what, "write `compression off`, or remove it");
                }
            }
            _ => {
                let remedy = "remove it; known are versions, tls, tls_insecure_skip_verify, tls_trusted_ca_certs, \
                              tls_server_name, dial_timeout, response_header_timeout, read_timeout, write_timeout, \
                              keepalive, keepalive_idle_conns and compression off";
                return line::unknown("option", &one.name, remedy, notes);
            }
        }
        Some(())
    }

    fn versions(&mut self, one: &Directive, notes: &mut Notes) -> Option<()> {
        for version in line::some(one, "versions 1.1", notes)? {
            match version.text.as_str() {
                "1.1" | "2" => {}
                "h2c" if self.speaks.as_ref().is_some_and(|(speaks, _)| *speaks == Speaks::Https) => {
                    let what = "`h2c` is HTTP/2 without TLS, and the upstream is to be spoken to by TLS";
                    return notes.error(&version.place, what, "write `versions 1.1`, or remove `tls`");
                }
                "h2c" => self.speaks = Some((Speaks::H2c, version.place.clone())),
                _ => {
                    return line::unknown(
                        "version",
                        version,
                        "write `versions 1.1`, or `versions h2c`",
                        notes,
                    );
                }
            }
        }
        Some(())
    }

    fn speaks_tls(&mut self, place: &Place, notes: &mut Notes) {
        if let Some((Speaks::H2c, at)) = &self.speaks {
            let what = "`h2c` is HTTP/2 without TLS, and the upstream is to be spoken to by TLS";
            notes.error::<()>(at, what, "write `versions 1.1`, or remove `tls`");
        }
        self.speaks = Some((Speaks::Https, place.clone()));
    }

    /// The longer of both, as one silence is all that a route knows.
    fn silence(&mut self, silence: Duration, one: &Directive, notes: &mut Notes) {
        if silence > HOUR {
            let what = format!(
                "`{}`: only a WebSocket may be silent for that long, a body at most an hour",
                one.name.text
            );
            notes.trap(&one.name.place, what, "write at most `1h` if WebSockets need no more");
        }
        let longer = |before: Option<HumanDuration>, now| before.max(Some(HumanDuration(now)));
        self.body_idle_timeout = longer(self.body_idle_timeout, silence.min(HOUR));
        self.tunnel_idle_timeout = longer(self.tunnel_idle_timeout, silence);
    }

    fn idle_connections(&mut self, one: &Directive, notes: &mut Notes) -> Option<()> {
        let form = format!("{} NUMBER", one.name.text);
        let number = line::number(one, &form, notes)?;
        if number > 10_000 {
            return notes.error(&one.name.place, format!("{number} is out of bounds"), "use 0 to 10000");
        }
        // The one for each host is what twinsite has.
        if self.idle.is_none() || one.name.text.ends_with("_per_host") {
            self.idle = Some((number, one.name.place.clone()));
        }
        Some(())
    }
}
