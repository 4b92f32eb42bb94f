//! Whatever the text: a document, or one error that names its place.

use crate::{Surroundings, read};
use proptest::prelude::*;
use twinsite_fuzz::{config, corpus, mutated};

struct Around;

impl Surroundings for Around {
    fn variable(&self, name: &str) -> Option<String> {
        name.len().is_multiple_of(2).then(|| format!("{name} {{ {name}"))
    }

    fn files(&self, pattern: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        if pattern.contains('*') {
            Err("no".to_owned())
        } else {
            Ok(vec![("other".to_owned(), format!("{pattern} x"))])
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fuzz_caddyfile(bytes in mutated(corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"), "Caddyfile"))) {
        let text = String::from_utf8_lossy(&bytes);
        match read("Caddyfile", &text, &Around) {
            Ok(document) => prop_assert!(document.sites.iter().all(|site| !site.addresses.is_empty())),
            Err(error) => {
                let lines = text.split('\n').count();
                prop_assert!(error.place.line <= lines.max(1), "{error}");
                prop_assert!(!error.to_string().contains('\n') || text.contains('\n'), "{error}");
            }
        }
    }
}
