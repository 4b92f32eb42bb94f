//! Round trips, and everything that must be refused.

use super::{DecodeError, decode_proposal, decode_state, drill, encode_proposal, encode_state, wire};
use crate::{arbitrary, samples};
use proptest::prelude::*;
use prost::Message;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_proposal_survives_the_log(proposal in arbitrary::proposal()) {
        prop_assert_eq!(decode_proposal(&encode_proposal(&proposal)), Ok(proposal));
    }

    #[test]
    fn any_state_survives_a_snapshot(state in arbitrary::state()) {
        prop_assert_eq!(decode_state(&encode_state(&state)), Ok(state));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_proposal(&bytes);
        let _ = decode_state(&bytes);
        for letters in [*b"tp\0\x01", *b"ts\0\x01"] {
            if let Some(header) = bytes.first_chunk_mut() {
                *header = letters;
            }
            let _ = decode_proposal(&bytes);
            let _ = decode_state(&bytes);
        }
    }

    #[test]
    fn damaged_entries_never_panic(
        proposal in arbitrary::proposal(),
        state in arbitrary::state(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = encode_proposal(&proposal);
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let _ = decode_proposal(&bytes);
        let _ = decode_proposal(&bytes[..place]);
        let mut bytes = encode_state(&state);
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let _ = decode_state(&bytes);
        let _ = decode_state(&bytes[..place]);
    }
}

/// A sample's message, changed, with the header of format 1.
fn altered_proposal(name: &str, alter: impl FnOnce(&mut wire::LogProposal)) -> Vec<u8> {
    let (_, proposal) = samples::proposals().into_iter().find(|(known, _)| *known == name).unwrap();
    let mut message = wire::LogProposal::decode(&encode_proposal(&proposal)[4..]).unwrap();
    alter(&mut message);
    [b"tp\0\x01".to_vec(), message.encode_to_vec()].concat()
}

fn altered_state(alter: impl FnOnce(&mut wire::Snapshot)) -> Vec<u8> {
    let mut message = wire::Snapshot::decode(&encode_state(&samples::rich_state())[4..]).unwrap();
    alter(&mut message);
    [b"ts\0\x01".to_vec(), message.encode_to_vec()].concat()
}

fn is_newer(result: &Result<impl std::fmt::Debug, DecodeError>) -> bool {
    matches!(result, Err(error) if error.needs_newer_version())
}

#[test]
fn a_later_format_is_left_to_a_newer_program() {
    let mut bytes = encode_proposal(&samples::proposals()[0].1);
    bytes[3] = 7;
    let error = decode_proposal(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "written by a newer version of twinsite (format 7): upgrade this node, then start it again"
    );
    assert!(is_newer(&decode_state(&altered_state(|state| state.format = 7))));
}

#[test]
fn an_unknown_command_is_left_to_a_newer_program() {
    let mut bytes = altered_proposal("assign", |proposal| proposal.command = None);
    // Field 900, a message of no bytes: a command that does not exist.
    bytes.extend([0xa2, 0x38, 0x00]);
    assert!(is_newer(&decode_proposal(&bytes)));
}

#[test]
fn an_unknown_field_is_left_to_a_newer_program() {
    let mut bytes = encode_state(&samples::rich_state());
    bytes.extend([0xa0, 0x38, 0x05]); // field 900, the number 5
    assert!(is_newer(&decode_state(&bytes)));
}

#[test]
fn an_unknown_choice_is_left_to_a_newer_program() {
    use wire::log_proposal::Command;
    let bytes = altered_proposal("start-step", |proposal| {
        if let Some(Command::StartStep(command)) = &mut proposal.command {
            command.step = 99;
        }
    });
    assert_eq!(decode_proposal(&bytes), Err(DecodeError::Newer { what: "Step 99".to_owned() }));
    assert!(is_newer(&decode_state(&altered_state(|state| state.history[0].outcome = -3))));
}

#[test]
fn a_newer_specification_is_left_to_a_newer_program() {
    let bytes = altered_state(|state| state.spec.as_mut().unwrap().version = 2);
    assert!(is_newer(&decode_state(&bytes)));
}

#[test]
fn what_is_always_written_must_be_there() {
    use wire::log_proposal::Command;
    let missing = |field| Err(DecodeError::Missing { field });
    let bytes = altered_proposal("assign", |proposal| proposal.command = None);
    assert_eq!(decode_proposal(&bytes).map(|_| ()), missing("command"));
    let bytes = altered_proposal("close-operation", |proposal| {
        if let Some(Command::CloseOperation(command)) = &mut proposal.command {
            command.outcome = 0;
        }
    });
    assert_eq!(decode_proposal(&bytes).map(|_| ()), missing("outcome"));
    let bytes = altered_proposal("pin-room", |proposal| {
        if let Some(Command::PinRoom(command)) = &mut proposal.command {
            command.token = None;
        }
    });
    assert_eq!(decode_proposal(&bytes).map(|_| ()), missing("token"));
    let bytes = altered_state(|state| state.sessions_token = None);
    assert_eq!(decode_state(&bytes).map(|_| ()), missing("token"));
}

#[test]
fn values_that_are_never_written_are_refused() {
    let invalid = |bytes: Vec<u8>| matches!(decode_state(&bytes), Err(DecodeError::Invalid { .. }));
    assert!(invalid(altered_state(|state| state.pins[0].room.push(0))));
    assert!(invalid(altered_state(|state| state.announced[0].address = vec![1, 2, 3])));
    assert!(invalid(altered_state(|state| "Not A Name".clone_into(&mut state.drains[0].upstream))));
    assert!(invalid(altered_state(|state| state.pins.swap(0, 1))));
    assert!(invalid(altered_state(|state| state.retired_nodes.push(9))));
    assert!(invalid(altered_state(|state| state.requests[0].id.clear())));
    assert!(invalid(altered_state(|state| state.history[0].ended_ms = None)));
    assert!(invalid(altered_state(|state| state.spec.as_mut().unwrap().json.truncate(10))));
    assert!(invalid(altered_state(|state| state.format = 0)));
    assert!(invalid(altered_state(|state| state.floating_ips[0].errands = 1)), "format 1 has no errands");
    let errand = altered_proposal("send-errand", |_| {}); // with the header of format 1
    assert!(matches!(decode_proposal(&errand), Err(DecodeError::Invalid { .. })));
    let drill = altered_proposal("begin-drill", |_| {});
    assert!(matches!(decode_proposal(&drill), Err(DecodeError::Invalid { .. })));
    let drill = drill::write(&samples::state_with_drill().drill.unwrap());
    assert!(invalid(altered_state(|state| state.drill = Some(drill))), "format 1 has no drills");
}

#[test]
fn a_proposal_is_no_state_and_a_state_no_proposal() {
    let proposal = encode_proposal(&samples::proposals()[0].1);
    let state = encode_state(&samples::rich_state());
    assert_eq!(decode_state(&proposal), Err(DecodeError::NotThis { expected: "a state" }));
    assert_eq!(decode_proposal(&state), Err(DecodeError::NotThis { expected: "a proposal" }));
    assert_eq!(decode_proposal(b"t"), Err(DecodeError::NotThis { expected: "a proposal" }));
    let zeros = vec![0; super::PROPOSAL_BYTES_MAX + 1];
    assert!(matches!(decode_proposal(&zeros), Err(DecodeError::TooLarge { .. })));
}

/// A specification that today's rules would refuse is still what the cluster agreed on.
#[test]
fn the_agreed_specification_is_read_without_judging_it() {
    let mut state = samples::rich_state();
    let mut spec = samples::spec();
    spec.nodes.clear();
    state.spec = Some(std::sync::Arc::new(spec));
    assert_eq!(decode_state(&encode_state(&state)), Ok(state));
}
