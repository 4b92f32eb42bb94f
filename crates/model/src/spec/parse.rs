//! Reading and writing the specification.

use super::{ClusterSpec, SPEC_VERSION, validate};
use serde::Serialize;

/// Why a specification cannot be used: one line that says what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It cannot be read.
    #[error("{0}")]
    Syntax(String),
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

/// Reads and validates a specification in TOML, as people write it.
pub fn from_toml(text: &str) -> Result<ClusterSpec, SpecError> {
    let spec: ClusterSpec =
        toml::from_str(text).map_err(|error| SpecError::Syntax(error.to_string().trim_end().to_owned()))?;
    checked(spec)
}

/// Reads and validates a specification in JSON, as the log keeps it.
pub fn from_json(text: &[u8]) -> Result<ClusterSpec, SpecError> {
    let spec: ClusterSpec =
        serde_json::from_slice(text).map_err(|error| SpecError::Syntax(error.to_string()))?;
    checked(spec)
}

/// Writes a specification, or a part of one, as the log keeps it.
#[allow(clippy::expect_used)] // see the message
pub fn to_json(part: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(part)
        .expect("every key of a specification is text, and no part of it fails to be written")
}

fn checked(spec: ClusterSpec) -> Result<ClusterSpec, SpecError> {
    if spec.version != SPEC_VERSION {
        return Err(SpecError::Version { found: spec.version });
    }
    let findings = validate::check(&spec);
    if findings.is_empty() { Ok(spec) } else { Err(SpecError::Invalid(findings)) }
}
