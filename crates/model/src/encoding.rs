//! The bytes of log entries and snapshots.
//!
//! Every encoding begins with four bytes: two letters for what it is (`tp` a proposal, `ts` a state) and the format
//! as a big-endian number. A protobuf message follows (`proto/twinsite/internal/v1/log.proto`), with the
//! specification inside as JSON under a version of its own.
//!
//! Reading is strict: whatever this program does not know in full — a later format, command, field or choice — is
//! [`DecodeError::Newer`]. A node that meets it must stop, for skipping or guessing would give it a state that the
//! others do not have.

mod command;
mod drill;
mod errand;
mod error;
mod fields;
mod operation;
mod spec;
mod state;

pub use error::DecodeError;

use crate::command::{Command, Proposal};
use crate::ids::{RequestId, Revision};
use crate::state::{Format, State};
use crate::time::WallTime;
use prost::Message;

/// The longest proposal that is read, in bytes. Proposers keep well below.
pub const PROPOSAL_BYTES_MAX: usize = 16 << 20;
/// The longest state that is read, in bytes.
pub const STATE_BYTES_MAX: usize = 256 << 20;

/// The generated messages.
mod wire {
    #![allow(clippy::pedantic, unreachable_pub)] // generated
    include!(concat!(env!("OUT_DIR"), "/twinsite.internal.v1.rs"));
}

/// What an encoding holds, by the first two bytes of its header.
#[derive(Clone, Copy)]
enum Kind {
    Proposal,
    State,
}

impl Kind {
    const fn letters(self) -> [u8; 2] {
        match self {
            Self::Proposal => *b"tp",
            Self::State => *b"ts",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Proposal => "a proposal",
            Self::State => "a state",
        }
    }

    const fn bytes_max(self) -> usize {
        match self {
            Self::Proposal => PROPOSAL_BYTES_MAX,
            Self::State => STATE_BYTES_MAX,
        }
    }
}

/// Encodes an entry of the log, in the oldest format that has its command.
pub fn encode_proposal(proposal: &Proposal) -> Vec<u8> {
    let message = wire::LogProposal {
        at_ms: proposal.at.0,
        by: proposal.by.clone(),
        request_id: proposal.request.as_ref().map(|id| id.as_str().to_owned()),
        expected_revision: proposal.expected_revision.map(|revision| revision.0),
        command: Some(command::write(&proposal.command)),
    };
    with_header(Kind::Proposal, proposal.command.required_format(), &message)
}

/// Decodes an entry of the log.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal, DecodeError> {
    decode_proposal_as(bytes, Format::NEWEST)
}

/// Decodes an entry of the log as a program does whose newest format is this.
pub fn decode_proposal_as(bytes: &[u8], newest: Format) -> Result<Proposal, DecodeError> {
    let (format, message): (_, wire::LogProposal) = without_header(Kind::Proposal, bytes, newest)?;
    let command = read_command(message.command)?;
    if command.required_format() > format {
        return Err(DecodeError::invalid("command", "the header names a format that does not have it"));
    }
    Ok(Proposal {
        at: WallTime(message.at_ms),
        by: message.by,
        request: message.request_id.map(read_request).transpose()?,
        expected_revision: message.expected_revision.map(Revision),
        command,
    })
}

/// Encodes a state, in the format that the cluster uses.
pub fn encode_state(state: &State) -> Vec<u8> {
    with_header(Kind::State, state.format, &state::write(state))
}

/// Decodes a state.
pub fn decode_state(bytes: &[u8]) -> Result<State, DecodeError> {
    decode_state_as(bytes, Format::NEWEST)
}

/// Decodes a state as a program does whose newest format is this.
pub fn decode_state_as(bytes: &[u8], newest: Format) -> Result<State, DecodeError> {
    let (format, message) = without_header(Kind::State, bytes, newest)?;
    let state = state::read(message, newest)?;
    if state.format == format {
        Ok(state)
    } else {
        Err(DecodeError::invalid("format", "the header and the state name different ones"))
    }
}

fn read_command(command: Option<wire::log_proposal::Command>) -> Result<Command, DecodeError> {
    command::read(fields::required(command, "command")?)
}

fn read_request(id: String) -> Result<RequestId, DecodeError> {
    RequestId::new(id).ok_or_else(|| DecodeError::invalid("request_id", "it must have 1 to 64 bytes"))
}

fn with_header(kind: Kind, format: Format, message: &impl Message) -> Vec<u8> {
    let [first, second] = kind.letters();
    // Formats are small numbers; a reader refuses the largest one as newer than anything.
    let [high, low] = u16::try_from(format.0).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = Vec::with_capacity(4 + message.encoded_len());
    bytes.extend([first, second, high, low]);
    bytes.extend(message.encode_to_vec());
    bytes
}

fn without_header<M: Message + Default>(
    kind: Kind,
    bytes: &[u8],
    newest: Format,
) -> Result<(Format, M), DecodeError> {
    if bytes.len() > kind.bytes_max() {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max: kind.bytes_max() });
    }
    let [first, second, high, low, body @ ..] = bytes else {
        return Err(DecodeError::NotThis { expected: kind.word() });
    };
    if [*first, *second] != kind.letters() {
        return Err(DecodeError::NotThis { expected: kind.word() });
    }
    let format = Format(u32::from(u16::from_be_bytes([*high, *low])));
    if format > newest {
        return Err(DecodeError::newer(format!("format {}", format.0)));
    }
    if format < Format::FIRST {
        return Err(DecodeError::invalid("format", "there is no format 0"));
    }
    let message = M::decode(body)?;
    // Protobuf passes over fields that it does not know. What was passed over is missing from the length.
    if message.encoded_len() == body.len() {
        Ok((format, message))
    } else {
        Err(DecodeError::newer("a command or a field that this program does not know".to_owned()))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
