//! Whatever the text: a scenario, or errors that name the file.

use super::Scenario;
use proptest::prelude::*;
use twinsite_fuzz::{config, corpus, mutated};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fuzz_scenario(
        bytes in mutated(corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios"), "toml"))
    ) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(errors) = Scenario::parse("drill.toml", &text) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| error.to_string().starts_with("drill.toml")));
        }
    }
}
