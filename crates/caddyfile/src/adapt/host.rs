//! Hosts as both Caddy and a route can say them: one name, or all below one.

use twinsite_model::spec::validate::is_host_name;

/// Reads `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`. None if it is nothing of that.
pub(super) fn read(text: &str) -> Option<String> {
    let host = text.to_ascii_lowercase();
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(host);
    }
    is_host_name(host.strip_prefix("*.").unwrap_or(&host)).then_some(host)
}

/// The hosts that both stand for; none if there are none.
pub(super) fn and<'h>(one: &'h str, other: &'h str) -> Option<&'h str> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// Whether all hosts of the other are of this.
pub(super) fn covers(one: &str, other: &str) -> bool {
    let below = one.strip_prefix('*').is_some_and(|ending| other.ends_with(ending));
    one == other || below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_meet_where_one_is_below_the_other() {
        assert_eq!(and("*.a.org", "b.a.org"), Some("b.a.org"));
        assert_eq!(and("*.c.a.org", "*.a.org"), Some("*.c.a.org"));
        assert_eq!(and("a.org", "*.a.org"), None);
        assert_eq!(read("A.Org"), Some("a.org".to_owned()));
        assert!(read("a.*.org").is_none() && read("").is_none() && read("[::1]").is_some());
    }
}
