//! Addresses of sites.

use super::host;
use super::notes::{Notes, shown};
use crate::document::Word;
use twinsite_model::spec::Scheme;

/// One address: by which scheme, and for which host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    /// None for any.
    pub(super) host: Option<String>,
}

/// `example.com`, `http://example.com`, `*.example.com`, `:80` and their like.
pub(super) fn read(word: &Word, notes: &mut Notes) -> Option<Address> {
    let wrong = |what: &str, remedy: &str, notes: &mut Notes| {
        notes.error(&word.place, format!("`{}`: {what}", shown(&word.text)), remedy)
    };
    let (scheme, rest) = match word.text.split_once("://") {
        None => (None, word.text.as_str()),
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some(_) => return wrong("the scheme is not supported", "write `http://` or `https://`", notes),
    };
    if rest.contains('/') {
        return wrong(
            "a site has no path",
            "write the host alone, and `handle /path/* {` in the site",
            notes,
        );
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let scheme = match (scheme, port) {
        (Some(scheme), None) => scheme,
        (None | Some(Scheme::Http), Some("80")) => Scheme::Http,
        (None | Some(Scheme::Https), Some("443")) | (None, None) => Scheme::Https,
        (Some(_), Some("80" | "443")) => {
            return wrong("scheme and port do not fit together", "write one of them", notes);
        }
        (_, Some(_)) => {
            let remedy = "write the host alone: ports are those of the [[floating_ip]] in cluster.toml";
            return wrong("a site is at port 80 or 443 only", remedy, notes);
        }
    };
    if host.is_empty() || host == "*" {
        return Some(Address { scheme, host: None });
    }
    match host::read(host) {
        Some(host) => Some(Address { scheme, host: Some(host) }),
        None => {
            let remedy = "write `example.com`, `*.example.com` for all names below, or `[2001:db8::1]`";
            wrong("this is not a host", remedy, notes)
        }
    }
}
