//! The order in which Caddy goes through the directives of a block, which is not the one in which they are written.

use super::directive::Item;

/// Directives that may be written here, in Caddy's order.
const ORDER: [&str; 8] =
    ["header", "redir", "request_header", "encode", "handle", "route", "respond", "reverse_proxy"];

/// Puts the directives of a block in order. Those of one name: the longer path first, then any matcher before none, else
/// as they are written.
pub(super) fn sort(items: &mut [Item<'_>]) {
    items.sort_by_key(|item| ORDER.iter().position(|name| *name == item.name).unwrap_or(ORDER.len()));
    for same in items.chunk_by_mut(|a, b| a.name == b.name) {
        // `comes_before` does not put everything in one line (a path and a named matcher are equal to it, and not so two
        // paths), so the outcome depends on the way of sorting. This is Caddy's for lists of usual length.
        for end in 1..same.len() {
            let mut at = end;
            while at > 0 && comes_before(&same[at], &same[at - 1]) {
                same.swap(at, at - 1);
                at -= 1;
            }
        }
    }
}

fn comes_before(one: &Item<'_>, other: &Item<'_>) -> bool {
    match (path(one), path(other)) {
        (Some(one), Some(other)) => {
            let (begin, other_begin) = (one.trim_end_matches('*'), other.trim_end_matches('*'));
            if begin == other_begin {
                // Without `*` it is one path only.
                one.len() < other.len()
            } else if begin.len() == other_begin.len() {
                begin < other_begin
            } else {
                begin.len() > other_begin.len()
            }
        }
        _ => one.to.matcher().is_some() && other.to.matcher().is_none(),
    }
}

fn path<'i>(item: &'i Item<'_>) -> Option<&'i str> {
    item.to.matcher().and_then(|matcher| matcher.only_path.as_deref())
}
