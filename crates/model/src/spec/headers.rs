//! Changes of headers on their way.

use super::template::{Template, is_token_byte};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Headers that belong to one connection, or say where a message ends: whoever changes them breaks the proxy, or lets one
/// request smuggle another (RFC 9110 section 7.6.1, RFC 9112 section 6).
const NOT_OURS: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-accept",
];

/// The name of a header that may be changed, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(String);

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderNameError {
    /// It is none.
    #[error("`{0}` is not the name of a header")]
    NotAName(String),
    /// It belongs to one connection.
    #[error("`{0}` belongs to a single connection, and the proxy sets it itself; remove it")]
    NotOurs(String),
}

impl HeaderName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HeaderName {
    type Error = HeaderNameError;

    fn try_from(written: String) -> Result<Self, HeaderNameError> {
        let name = written.to_ascii_lowercase();
        if !(1..=256).contains(&name.len()) || !name.bytes().all(is_token_byte) {
            return Err(HeaderNameError::NotAName(
                written.chars().take(64).flat_map(char::escape_debug).collect(),
            ));
        }
        if NOT_OURS.contains(&name.as_str()) {
            return Err(HeaderNameError::NotOurs(name));
        }
        Ok(Self(name))
    }
}

impl From<HeaderName> for String {
    fn from(name: HeaderName) -> Self {
        name.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is changed: first what is removed, then what is set, then what is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Headers that go.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<HeaderName>,
    /// Headers that have this value alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<HeaderName, Template>,
    /// Headers that have this value too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<HeaderName, Template>,
}

impl HeaderEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_and_not_of_one_connection() {
        let name = |written: &str| HeaderName::try_from(written.to_owned());
        assert_eq!(name("X-Real-IP").unwrap().as_str(), "x-real-ip");
        assert_eq!(name("Transfer-Encoding"), Err(HeaderNameError::NotOurs("transfer-encoding".to_owned())));
        assert_eq!(name("a b"), Err(HeaderNameError::NotAName("a b".to_owned())));
        assert_eq!(name("a:\r\n"), Err(HeaderNameError::NotAName("a:\\r\\n".to_owned())));
        assert!(name("").is_err() && name(&"x".repeat(257)).is_err());
    }

    #[test]
    fn what_is_not_changed_is_not_written() {
        let edits: HeaderEdits =
            toml::from_str("remove = [\"Server\"]\nset.X-Forwarded-Proto = \"{scheme}\"\n").unwrap();
        assert_eq!(edits.remove.len(), 1);
        let written = serde_json::to_string(&edits).unwrap();
        assert_eq!(written, r#"{"remove":["server"],"set":{"x-forwarded-proto":"{scheme}"}}"#);
        assert_eq!(serde_json::to_string(&HeaderEdits::default()).unwrap(), "{}");
        assert!(toml::from_str::<HeaderEdits>("set.Connection = \"close\"").is_err());
    }
}
