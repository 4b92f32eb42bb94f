//! Paths as both Caddy and a route can say them: one path, or all that begin so.

use std::fmt;
use twinsite_model::spec::validate::path_pattern;

/// `/health`, or `/socket.io/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    begin: String,
    is_open: bool,
}

impl Default for Paths {
    fn default() -> Self {
        Self { begin: "/".to_owned(), is_open: true }
    }
}

impl Paths {
    /// Reads a pattern of Caddy's. Says in a few words why it cannot be one here.
    pub(super) fn new(pattern: &str) -> Result<Self, &'static str> {
        if pattern == "*" {
            return Ok(Self::default());
        }
        path_pattern(pattern)?;
        let open = pattern.strip_suffix('*');
        Ok(Self { begin: open.unwrap_or(pattern).to_owned(), is_open: open.is_some() })
    }

    /// Whether it is every path.
    pub(super) fn is_any(&self) -> bool {
        self.is_open && self.begin == "/"
    }

    /// Whether one of these paths begins so.
    pub(super) fn begins_with(&self, begin: &str) -> bool {
        self.begin.starts_with(begin)
    }

    /// The paths that are in both; none if there are none.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// Whether all paths of the other are in this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self.is_open { other.begin.starts_with(&self.begin) } else { self == other }
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.begin, if self.is_open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(pattern: &str) -> Paths {
        Paths::new(pattern).unwrap()
    }

    #[test]
    fn paths_meet_where_one_is_in_the_other() {
        let meet = |a: &str, b: &str| paths(a).and(&paths(b)).map(|both| both.to_string());
        assert_eq!(meet("/a/*", "/a/b"), Some("/a/b".to_owned()));
        assert_eq!(meet("/a/b/*", "/a/*"), Some("/a/b/*".to_owned()));
        assert_eq!(meet("*", "/a"), Some("/a".to_owned()));
        assert_eq!(meet("/a", "/a"), Some("/a".to_owned()));
        assert_eq!(meet("/a/*", "/a"), None);
        assert_eq!(meet("/a", "/b"), None);
        assert!(paths("/*").is_any() && paths("*").is_any() && !paths("/").is_any());
        assert!(Paths::new("*.png").is_err() && Paths::new("/a/*/b").is_err() && Paths::new("/a?b").is_err());
    }
}
