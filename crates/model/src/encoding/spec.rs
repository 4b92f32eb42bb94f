//! The specification inside an encoding: JSON, with the version of its own format beside it.
//!
//! It is read as it stands, without validation: it was validated before it was proposed, and a later, stricter
//! program must still be able to read what its cluster agreed on.

use super::{DecodeError, wire};
use crate::spec::{ClusterSpec, NodeSpec, SPEC_VERSION, to_json};
use serde::de::DeserializeOwned;
use std::sync::Arc;

pub(super) fn write(spec: &ClusterSpec) -> wire::SpecJson {
    wire::SpecJson { version: SPEC_VERSION, json: to_json(spec) }
}

pub(super) fn read(spec: &wire::SpecJson) -> Result<Arc<ClusterSpec>, DecodeError> {
    read_json(spec).map(Arc::new)
}

pub(super) fn write_node(node: &NodeSpec) -> wire::SpecJson {
    wire::SpecJson { version: SPEC_VERSION, json: to_json(node) }
}

pub(super) fn read_node(node: &wire::SpecJson) -> Result<NodeSpec, DecodeError> {
    read_json(node)
}

fn read_json<T: DeserializeOwned>(part: &wire::SpecJson) -> Result<T, DecodeError> {
    if part.version > SPEC_VERSION {
        return Err(DecodeError::newer(format!("version {} of the specification", part.version)));
    }
    serde_json::from_slice(&part.json).map_err(|error| DecodeError::invalid("spec", error))
}
