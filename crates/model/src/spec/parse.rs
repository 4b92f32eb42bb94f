//! Reading and writing the specification.

use super::{ClusterSpec, NodeSpec, SPEC_VERSION, validate};

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

/// Writes a specification as the log keeps it.
pub fn to_json(spec: &ClusterSpec) -> Vec<u8> {
    serde_json::to_vec(spec).unwrap_or_default()
}

/// Reads a specification from the log. It was validated before it was proposed; rules that became stricter since
/// must not stop a node from reading what the cluster agreed on.
pub(crate) fn from_log(text: &[u8]) -> Result<ClusterSpec, SpecError> {
    let version: VersionOnly =
        serde_json::from_slice(text).map_err(|error| SpecError::Syntax(error.to_string()))?;
    if version.version > SPEC_VERSION {
        return Err(SpecError::Version { found: version.version });
    }
    serde_json::from_slice(text).map_err(|error| SpecError::Syntax(error.to_string()))
}

/// Writes one node as the log keeps it.
pub(crate) fn node_to_json(node: &NodeSpec) -> Vec<u8> {
    serde_json::to_vec(node).unwrap_or_default()
}

/// Reads one node from the log.
pub(crate) fn node_from_json(text: &[u8]) -> Result<NodeSpec, SpecError> {
    serde_json::from_slice(text).map_err(|error| SpecError::Syntax(error.to_string()))
}

/// What is read before anything else, because everything else depends on it.
#[derive(serde::Deserialize)]
struct VersionOnly {
    version: u32,
}

fn checked(spec: ClusterSpec) -> Result<ClusterSpec, SpecError> {
    if spec.version != SPEC_VERSION {
        return Err(SpecError::Version { found: spec.version });
    }
    let findings = validate::check(&spec);
    if findings.is_empty() { Ok(spec) } else { Err(SpecError::Invalid(findings)) }
}
