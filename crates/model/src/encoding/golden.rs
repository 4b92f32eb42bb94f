//! What version 1 writes, byte for byte: `golden/v1/*.bin`. See `golden/README.md` for how files are added.

use super::{decode_proposal, decode_state, encode_proposal, encode_state};
use crate::samples;
use std::fs;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

/// The bytes of a golden file. A file that does not exist yet is written when the environment asks for it; one that
/// exists is never touched.
fn golden(name: &str, written_now: &[u8]) -> Vec<u8> {
    let path = directory().join(format!("{name}.bin"));
    if !path.exists() && std::env::var_os("TWINSITE_ADD_GOLDEN").is_some() {
        fs::create_dir_all(directory()).unwrap();
        fs::write(&path, written_now).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; see golden/README.md", path.display()))
}

#[test]
fn every_command_is_written_and_read_as_in_the_golden_files() {
    for (name, proposal) in samples::proposals() {
        let bytes = encode_proposal(&proposal);
        let kept = golden(name, &bytes);
        assert!(kept == bytes, "{name}: this program writes other bytes than version 1 did");
        assert_eq!(decode_proposal(&kept), Ok(proposal), "{name}");
    }
}

#[test]
fn the_state_is_written_and_read_as_in_the_golden_files() {
    let states = [
        ("state", samples::rich_state()),
        ("state-empty", crate::State::default()),
        ("state-longer-lease", samples::state_with_longer_lease()),
    ];
    for (name, state) in states {
        let bytes = encode_state(&state);
        let kept = golden(name, &bytes);
        assert!(kept == bytes, "{name}: this program writes other bytes than version 1 did");
        assert_eq!(decode_state(&kept), Ok(state), "{name}");
    }
}

#[test]
fn no_golden_file_is_left_without_a_test() {
    let mut known: Vec<_> = samples::proposals().into_iter().map(|(name, _)| format!("{name}.bin")).collect();
    known.extend(["state", "state-empty", "state-longer-lease"].map(|name| format!("{name}.bin")));
    known.sort();
    let mut found: Vec<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, known);
}
