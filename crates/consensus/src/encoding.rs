//! Stands in for the model's encoding: a table in memory, and its row numbers as bytes. Valid in one process.

use std::sync::{Mutex, PoisonError};
use twinsite_model::{Proposal, State};

static PROPOSALS: Mutex<Vec<Proposal>> = Mutex::new(Vec::new());
static STATES: Mutex<Vec<State>> = Mutex::new(Vec::new());

#[derive(Debug, thiserror::Error)]
#[error("not a row of the table")]
pub(crate) struct DecodeError;

fn put<T: Clone>(table: &Mutex<Vec<T>>, value: &T) -> Vec<u8> {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.push(value.clone());
    (table.len() as u64 - 1).to_le_bytes().to_vec()
}

fn get<T: Clone>(table: &Mutex<Vec<T>>, bytes: &[u8]) -> Result<T, DecodeError> {
    let row = u64::from_le_bytes(bytes.try_into().map_err(|_| DecodeError)?);
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.get(row as usize).cloned().ok_or(DecodeError)
}

pub(crate) fn encode_proposal(proposal: &Proposal) -> Vec<u8> {
    put(&PROPOSALS, proposal)
}
pub(crate) fn decode_proposal(bytes: &[u8]) -> Result<Proposal, DecodeError> {
    get(&PROPOSALS, bytes)
}
pub(crate) fn encode_state(state: &State) -> Vec<u8> {
    put(&STATES, state)
}
pub(crate) fn decode_state(bytes: &[u8]) -> Result<State, DecodeError> {
    get(&STATES, bytes)
}
