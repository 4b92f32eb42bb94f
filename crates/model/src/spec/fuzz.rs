//! Whatever the text: a specification that is written and read the same again, or one error that names its place.

use super::{from_json, from_toml, to_json, to_toml};
use proptest::prelude::*;
use twinsite_fuzz::{config, corpus, mutated};

fn inputs() -> impl Strategy<Value = Vec<u8>> {
    mutated(corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/example"), "toml"))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fuzz_specification(bytes in inputs()) {
        let text = String::from_utf8_lossy(&bytes);
        match from_toml(&text) {
            Ok(spec) => {
                if let Ok(written) = to_toml(&spec) {
                    prop_assert_eq!(&from_toml(&written).unwrap(), &spec);
                }
                prop_assert_eq!(from_json(&to_json(&spec)).unwrap(), spec);
            }
            Err(error) => prop_assert!(error.in_file("cluster.toml").starts_with("cluster.toml")),
        }
    }

    /// As the log keeps it: damage of what was sound.
    #[test]
    fn fuzz_specification_in_the_log(bytes in mutated(vec![to_json(&crate::samples::sound_spec())])) {
        if let Ok(spec) = from_json(&bytes) {
            prop_assert_eq!(from_json(&to_json(&spec)).unwrap(), spec);
        }
    }
}
