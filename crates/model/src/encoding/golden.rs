//! What each format writes, byte for byte: `golden/v1/*.bin` and so on. See `golden/README.md` for how files are added.

use super::{
    decode_proposal, decode_proposal_as, decode_state, decode_state_as, encode_proposal, encode_state,
};
use crate::samples;
use crate::state::{Format, State};
use std::fs;
use std::path::{Path, PathBuf};

fn directory(format: Format) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{}", format.0))
}

/// The bytes of a golden file. A file that does not exist yet is written when the environment asks for it; one that
/// exists is never touched.
fn golden(format: Format, name: &str, written_now: &[u8]) -> Vec<u8> {
    let path = directory(format).join(format!("{name}.bin"));
    if !path.exists() && std::env::var_os("TWINSITE_ADD_GOLDEN").is_some() {
        fs::create_dir_all(directory(format)).unwrap();
        fs::write(&path, written_now).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; see golden/README.md", path.display()))
}

#[test]
fn every_command_is_written_and_read_as_in_the_golden_files() {
    for (name, proposal) in samples::proposals() {
        let bytes = encode_proposal(&proposal);
        let format = proposal.command.required_format();
        let kept = golden(format, name, &bytes);
        assert!(kept == bytes, "{name}: this program writes other bytes than the format's first one did");
        assert_eq!(decode_proposal(&kept), Ok(proposal), "{name}");
    }
}

fn states() -> [(&'static str, State); 7] {
    [
        ("state", samples::rich_state()),
        ("state-empty", State::default()),
        ("state-longer-lease", samples::state_with_longer_lease()),
        ("state-errand", samples::state_with_errand()),
        ("state-drill", samples::state_with_drill()),
        ("state-places", samples::state_with_places()),
        ("state-edge", samples::state_with_edge()),
    ]
}

#[test]
fn the_state_is_written_and_read_as_in_the_golden_files() {
    for (name, state) in states() {
        let bytes = encode_state(&state);
        let kept = golden(state.format, name, &bytes);
        assert!(kept == bytes, "{name}: this program writes other bytes than the format's first one did");
        assert_eq!(decode_state(&kept), Ok(state), "{name}");
    }
}

#[test]
fn no_golden_file_is_left_without_a_test() {
    for format in (Format::FIRST.0..=Format::NEWEST.0).map(Format) {
        let proposals = samples::proposals().into_iter();
        let of_format = proposals.filter(|(_, proposal)| proposal.command.required_format() == format);
        let mut known: Vec<_> = of_format.map(|(name, _)| format!("{name}.bin")).collect();
        let states = states().into_iter().filter(|(_, state)| state.format == format);
        known.extend(states.map(|(name, _)| format!("{name}.bin")));
        known.sort();
        let mut found: Vec<_> = fs::read_dir(directory(format))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, known, "format {}", format.0);
    }
}

/// A program that knows older formats only stops at everything that later ones brought, and reads all else.
#[test]
fn an_older_program_reads_what_its_format_has_and_stops_at_the_rest() {
    for known in [Format::FIRST, Format::ERRANDS, Format::DRILLS, Format::PLACES, Format::ROUTES] {
        for (name, proposal) in samples::proposals() {
            let read = decode_proposal_as(&encode_proposal(&proposal), known);
            if proposal.command.required_format() <= known {
                assert_eq!(read, Ok(proposal), "{name}");
            } else {
                assert!(read.unwrap_err().needs_newer_version(), "{name}");
            }
        }
        for (name, state) in states() {
            let read = decode_state_as(&encode_state(&state), known);
            if state.format <= known {
                assert_eq!(read, Ok(state), "{name}");
            } else {
                assert!(read.unwrap_err().needs_newer_version(), "{name}");
            }
        }
    }
}
