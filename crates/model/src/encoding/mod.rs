//! How commands and states are written into the log, into snapshots and onto the wire between nodes.
//!
//! Every piece begins with a mark and the version of the encoding. What is unknown is an error, never a guess: a node
//! that cannot read a committed entry must stop, because skipping it would make its state differ from the others'.

mod codes;
mod command;
mod operation;
mod pieces;
mod state;

/// The wire types, generated from `proto/twinsite/internal/v1/log.proto`.
mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/twinsite.internal.v1.rs"));
}

use crate::command::Proposal;
use crate::spec::SpecError;
use crate::state::{Format, State};
use prost::Message;

/// The first byte of every piece, so that foreign bytes are told from an old version.
const MARK: u8 = 0xA7;

/// Why bytes cannot be read. Never retryable: the same bytes stay unreadable to this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// These are not our bytes.
    #[error("these bytes were not written by twinsite")]
    Foreign,
    /// A newer version of the program wrote them.
    #[error("written in format {0} by a newer version of the program, which must read it")]
    NewerFormat(u32),
    /// They hold a command, or a value of an enumeration, that this version does not know.
    #[error("{0} is unknown to this version: a newer one wrote it and must read it")]
    Unknown(&'static str),
    /// They do not follow the format.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl DecodeError {
    /// Whether a newer version of the program can be expected to read the same bytes.
    pub const fn needs_newer_version(&self) -> bool {
        matches!(self, Self::NewerFormat(_) | Self::Unknown(_))
    }
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<SpecError> for DecodeError {
    fn from(error: SpecError) -> Self {
        match error {
            SpecError::Version { found } => Self::NewerFormat(found),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Writes a log entry.
pub fn encode_proposal(proposal: &Proposal) -> Vec<u8> {
    seal(Format::FIRST, &command::to_pb(proposal))
}

/// Reads a log entry.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal, DecodeError> {
    command::from_pb(pb::LogProposal::decode(open(bytes)?)?)
}

/// Writes a snapshot.
pub fn encode_state(state: &State) -> Vec<u8> {
    seal(Format::FIRST, &state::to_pb(state))
}

/// Reads a snapshot.
pub fn decode_state(bytes: &[u8]) -> Result<State, DecodeError> {
    state::from_pb(pb::LogState::decode(open(bytes)?)?)
}

fn seal(format: Format, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 3);
    bytes.push(MARK);
    bytes.extend_from_slice(&(format.0 as u16).to_le_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

fn open(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes {
        [MARK, low, high, body @ ..] => {
            let format = u32::from(u16::from_le_bytes([*low, *high]));
            if format > Format::NEWEST.0 {
                return Err(DecodeError::NewerFormat(format));
            }
            if format < Format::FIRST.0 {
                return Err(DecodeError::Foreign);
            }
            Ok(body)
        }
        _ => Err(DecodeError::Foreign),
    }
}

#[cfg(test)]
mod tests;
