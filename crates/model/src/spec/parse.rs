//! Reading and writing the specification.

use super::{ClusterSpec, SPEC_VERSION, validate};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest text of a specification that is looked at, in bytes.
pub const SPEC_TEXT_BYTES_MAX: usize = 8 << 20;

/// Why a specification cannot be used: a line for each thing that is wrong, saying where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It cannot be read.
    #[error("{}{problem}", place.map_or_else(String::new, |place| format!("{place}: ")))]
    Syntax {
        /// Where, if that is known.
        place: Option<Place>,
        /// What is wrong, in one line.
        problem: String,
    },
    /// It was written for another version of the format.
    #[error(
        "version = {found}: this program reads version {SPEC_VERSION}; upgrade this node, or write the older format"
    )]
    Version {
        /// What it says.
        found: u32,
    },
    /// It contradicts itself.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<validate::Finding>),
}

/// A place in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl SpecError {
    /// The error with the file's name before each line: `cluster.toml:12:5: ...`.
    pub fn in_file(&self, file: impl fmt::Display) -> String {
        match self {
            Self::Syntax { place: Some(_), .. } => format!("{file}:{self}"),
            Self::Syntax { place: None, .. } | Self::Version { .. } => format!("{file}: {self}"),
            Self::Invalid(findings) => {
                findings.iter().map(|finding| format!("{file}: {finding}")).collect::<Vec<_>>().join("\n")
            }
        }
    }

    fn in_toml(error: &toml::de::Error, text: &str) -> Self {
        let place = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
        });
        Self::Syntax { place, problem: one_line(error.message()) }
    }

    fn in_json(error: &serde_json::Error) -> Self {
        Self::Syntax { place: None, problem: one_line(&error.to_string()) }
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Reads and validates a specification in TOML, as people write it.
pub fn from_toml(text: &str) -> Result<ClusterSpec, SpecError> {
    if text.len() > SPEC_TEXT_BYTES_MAX {
        let problem = format!("{} bytes are too many: at most {SPEC_TEXT_BYTES_MAX} are read", text.len());
        return Err(SpecError::Syntax { place: None, problem });
    }
    let version: VersionOnly = toml::from_str(text).map_err(|error| SpecError::in_toml(&error, text))?;
    check_version(version)?;
    validated(toml::from_str(text).map_err(|error| SpecError::in_toml(&error, text))?)
}

/// Reads and validates a specification in JSON, as the log keeps it.
pub fn from_json(text: &[u8]) -> Result<ClusterSpec, SpecError> {
    let version: VersionOnly = serde_json::from_slice(text).map_err(|error| SpecError::in_json(&error))?;
    check_version(version)?;
    validated(serde_json::from_slice(text).map_err(|error| SpecError::in_json(&error))?)
}

/// Writes a specification, or a part of one, as the log keeps it.
#[allow(clippy::expect_used)] // see the message
pub fn to_json(part: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(part)
        .expect("every key of a specification is text, and no part of it fails to be written")
}

/// Writes a specification as people do. Fails for numbers that TOML cannot hold (above 2^63 - 1).
pub fn to_toml(spec: &ClusterSpec) -> Result<String, SpecError> {
    toml::to_string(spec)
        .map_err(|error| SpecError::Syntax { place: None, problem: one_line(&error.to_string()) })
}

/// What is read before anything else, because everything else depends on it.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

fn check_version(VersionOnly { version }: VersionOnly) -> Result<(), SpecError> {
    if version == SPEC_VERSION { Ok(()) } else { Err(SpecError::Version { found: version }) }
}

fn validated(spec: ClusterSpec) -> Result<ClusterSpec, SpecError> {
    let findings = [validate::check(&spec), validate::without_provider(&spec)].concat();
    if findings.is_empty() { Ok(spec) } else { Err(SpecError::Invalid(findings)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::sound_text;
    use crate::spec::ProviderKind;

    fn error(text: &str) -> String {
        from_toml(text).unwrap_err().in_file("cluster.toml")
    }

    #[test]
    fn a_syntax_error_names_file_line_and_column_in_one_line() {
        let unknown = sound_text().replace("[[site]]\nname = \"sbg\"", "[[site]]\nnaem = \"sbg\"");
        let message = error(&unknown);
        assert!(message.starts_with("cluster.toml:11:1: unknown field `naem`"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        let wrong_type = sound_text().replace("id = 3", "id = \"three\"");
        let message = error(&wrong_type);
        assert!(message.starts_with("cluster.toml:35:6: invalid type"), "{message}");
        let bad_name = sound_text().replace("name = \"gra-1\"", "name = \"Gra 1\"");
        assert!(error(&bad_name).contains("`Gra 1` is not a name"), "{}", error(&bad_name));
        let bad_duration = format!("{}\n[timing]\nlease = \"3 parsecs\"\n", sound_text());
        assert!(error(&bad_duration).contains("write it with a unit"), "{}", error(&bad_duration));
        let message = error("version = 1\ncluster = \"x");
        assert!(message.starts_with("cluster.toml:2:"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }

    #[test]
    fn another_version_is_told_before_its_unknown_keys_are() {
        let newer = sound_text().replace("version = 1", "version = 2\nnew_key = true");
        assert_eq!(from_toml(&newer), Err(SpecError::Version { found: 2 }));
        assert!(error("cluster = \"x\"").contains("missing field `version`"));
    }

    #[test]
    fn a_provider_that_cannot_be_used_yet_is_refused_where_people_write_it() {
        let routed = sound_text().replace("provider = \"loopback\"", "provider = \"ovh\"");
        assert!(error(&routed).contains("no way yet to move an address by `ovh`"), "{}", error(&routed));
        let mut spec = from_toml(&sound_text()).unwrap();
        spec.floating_ips[0].provider = ProviderKind::Ovh;
        assert!(matches!(from_json(&to_json(&spec)), Err(SpecError::Invalid(_))), "nor over the API");
    }

    #[test]
    fn every_finding_has_a_line_of_its_own() {
        let message =
            error(&sound_text().replace("ports = [8080]", "ports = [0]").replace("id = 3", "id = 1"));
        assert_eq!(message.lines().count(), 2, "{message}");
        assert!(message.lines().all(|line| line.starts_with("cluster.toml: ")), "{message}");
    }

    #[test]
    fn a_specification_survives_json() {
        let spec = from_toml(&sound_text()).unwrap();
        assert_eq!(from_json(&to_json(&spec)), Ok(spec));
        assert!(matches!(from_json(b"{}"), Err(SpecError::Syntax { .. })));
        assert!(matches!(from_json(br#"{"version":7,"x":1}"#), Err(SpecError::Version { found: 7 })));
    }

    #[test]
    fn the_example_can_be_used_as_it_is() {
        let spec = from_toml(include_str!("../../../../deploy/example/cluster.toml")).unwrap();
        assert_eq!(validate::warnings(&spec), []);
    }

    #[test]
    fn a_text_without_end_is_not_read() {
        assert!(error(&" ".repeat(SPEC_TEXT_BYTES_MAX + 1)).contains("too many"));
    }
}
