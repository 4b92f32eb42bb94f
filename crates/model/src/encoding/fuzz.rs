//! Whatever the bytes: an error, or a value that is written and read the same again.

use super::{decode_proposal, decode_state, encode_proposal, encode_state};
use proptest::prelude::*;
use twinsite_fuzz::{config, corpus, mutated};

fn inputs() -> impl Strategy<Value = Vec<u8>> {
    mutated(corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"), "bin"))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fuzz_log_entry(bytes in inputs()) {
        if let Ok(proposal) = decode_proposal(&bytes) {
            prop_assert_eq!(decode_proposal(&encode_proposal(&proposal)), Ok(proposal));
        }
    }

    #[test]
    fn fuzz_state(bytes in inputs()) {
        if let Ok(state) = decode_state(&bytes) {
            prop_assert_eq!(decode_state(&encode_state(&state)), Ok(state));
        }
    }
}
