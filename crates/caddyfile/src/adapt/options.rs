//! Global options.

use super::line;
use super::notes::{Notes, shown};
use crate::document::{Directive, Word};
use std::net::IpAddr;
use twinsite_model::spec::Cidr;

/// Those that say something here.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) trusted_proxies: Vec<Cidr>,
    /// Whether clients without TLS are sent to where it is.
    pub(super) redirects: bool,
}

/// What Caddy calls `private_ranges`.
const PRIVATE: [&str; 6] =
    ["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "::1/128"];

/// Reads them.
pub(super) fn read(options: &[Directive], notes: &mut Notes) -> Options {
    let mut read = Options { trusted_proxies: Vec::new(), redirects: true };
    for option in options {
        read.option(option, notes);
    }
    read
}

impl Options {
    fn option(&mut self, option: &Directive, notes: &mut Notes) -> Option<()> {
        let place = &option.name.place;
        let name = option.name.text.as_str();
        match name {
            "email" | "acme_ca" | "acme_ca_root" | "acme_eab" | "acme_dns" | "cert_issuer"
            | "local_certs" | "skip_install_trust" | "key_type" | "ocsp_stapling" | "ocsp_interval"
            | "renew_interval" | "on_demand_tls" | "cert_lifetime" => {
                let what =
                    format!("`{name}` has no meaning here: twinsite gets no certificates by itself yet");
                notes.trap(place, what, "write files in [[certificate]]");
            }
            "debug"
            | "admin"
            | "log"
            | "grace_period"
            | "shutdown_delay"
            | "persist_config"
            | "storage"
            | "storage_clean_interval"
            | "storage_check"
            | "metrics" => {
                let what = format!("`{name}` has no meaning here");
                notes.trap(place, what, "remove it; a node's own settings are in its node.toml");
            }
            "auto_https" => {
                let word = line::one(option, "auto_https off", notes)?;
                match word.text.as_str() {
                    "off" | "disable_redirects" => self.redirects = false,
                    "disable_certs" | "ignore_loaded_certs" | "prefer_wildcard" => {}
                    _ => return line::unknown("value", word, "write `off` or `disable_redirects`", notes),
                }
            }
            "servers" if option.arguments.is_empty() => {
                for one in option.block.iter().flatten() {
                    self.server(one, notes);
                }
            }
            "servers" => {
                let what = "options of one listener only are not supported";
                return notes.error(place, what, "write `servers {`, for all of them");
            }
            "http_port" | "https_port" | "default_bind" => {
                let what = format!("the option `{name}` is not supported");
                return notes.error(
                    place,
                    what,
                    "remove it: ports are those of the [[floating_ip]] in cluster.toml",
                );
            }
            "order" => {
                let what = "another order of directives is not supported";
                return notes.error(
                    place,
                    what,
                    "remove it, and write directives in `route { ... }` in their order",
                );
            }
            _ => {
                let remedy = "remove it; known are auto_https, servers, and those that have no meaning here (email, log, ...)";
                return line::unknown("option", &option.name, remedy, notes);
            }
        }
        Some(())
    }

    fn server(&mut self, one: &Directive, notes: &mut Notes) -> Option<()> {
        let place = &one.name.place;
        match one.name.text.as_str() {
            "trusted_proxies" => self.trust(one, notes)?,
            // twinsite looks from the right always, which is what this asks for.
            "trusted_proxies_strict" => line::alone(one, notes)?,
            "protocols" => {
                let versions = line::some(one, "protocols h1 h2", notes)?;
                if let Some(h3) = versions.iter().find(|version| version.text == "h3") {
                    notes.trap(&h3.place, "twinsite speaks no HTTP/3; clients use HTTP/2", "remove `h3`");
                }
                let known = |version: &&Word| !matches!(version.text.as_str(), "h1" | "h2" | "h3");
                if let Some(other) = versions.iter().find(known) {
                    return line::unknown("protocol", other, "write `h1` and `h2`", notes);
                }
            }
            "client_ip_headers" => {
                for header in line::some(one, "client_ip_headers X-Forwarded-For", notes)? {
                    if !header.text.eq_ignore_ascii_case("x-forwarded-for") {
                        let what =
                            format!("a client's address is not looked for in `{}`", shown(&header.text));
                        return notes.error(
                            &header.place,
                            what,
                            "let the proxy in front send X-Forwarded-For",
                        );
                    }
                }
            }
            "metrics" | "name" | "log_credentials" => {
                let what = format!("`{}` has no meaning here", one.name.text);
                notes.trap(place, what, "remove it");
            }
            "timeouts" => {
                let remedy = "remove it; `head_timeout` and `keep_alive_timeout` below [proxy] bound how long clients may take";
                return line::unknown("option", &one.name, remedy, notes);
            }
            "max_header_size" => {
                return line::unknown(
                    "option",
                    &one.name,
                    "remove it; see `head_bytes_max` below [proxy]",
                    notes,
                );
            }
            _ => {
                let remedy = "remove it; known are trusted_proxies, trusted_proxies_strict, client_ip_headers and protocols";
                return line::unknown("option", &one.name, remedy, notes);
            }
        }
        Some(())
    }

    /// `trusted_proxies static private_ranges 192.0.2.0/24`.
    fn trust(&mut self, one: &Directive, notes: &mut Notes) -> Option<()> {
        const FORM: &str = "trusted_proxies static 192.0.2.0/24 ...";
        let [source, ranges @ ..] = line::some(one, FORM, notes)? else { return None };
        if source.text != "static" {
            return line::unknown("source", source, "write `trusted_proxies static` and the ranges", notes);
        }
        if ranges.is_empty() {
            return line::wrong(one, FORM, notes);
        }
        for range in ranges {
            if range.text == "private_ranges" {
                for private in PRIVATE {
                    self.trust_range(private);
                }
            } else if !self.trust_range(&range.text) {
                let what = format!("`{}` is not a range of addresses", shown(&range.text));
                notes.error::<()>(
                    &range.place,
                    what,
                    "write `192.0.2.0/24`, `192.0.2.1` or `private_ranges`",
                );
            }
        }
        Some(())
    }

    /// Whether it is one. Unlike in cluster.toml, bits of hosts may be set in it, and the length may be missing.
    fn trust_range(&mut self, text: &str) -> bool {
        let Some(range) = range(text) else { return false };
        if !self.trusted_proxies.contains(&range) {
            self.trusted_proxies.push(range);
        }
        true
    }
}

fn range(text: &str) -> Option<Cidr> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Some(width), |length| length.parse().ok())?;
    let hosts = width.checked_sub(length)?;
    let base = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(hosts).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(hosts).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    };
    format!("{base}/{length}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_may_have_bits_of_hosts() {
        let said = |text: &str| range(text).map(|range| range.to_string());
        assert_eq!(said("10.1.2.3/8"), Some("10.0.0.0/8".to_owned()));
        assert_eq!(said("10.1.2.3"), Some("10.1.2.3/32".to_owned()));
        assert_eq!(said("::1"), Some("::1/128".to_owned()));
        assert_eq!(said("0.0.0.0/0"), Some("0.0.0.0/0".to_owned()));
        assert!(said("10.0.0.0/33").is_none() && said("x").is_none() && said("10.0.0.0/").is_none());
    }
}
