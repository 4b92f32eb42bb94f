//! Names that a Caddyfile does not give: made of what they stand for, each once.

use std::collections::BTreeSet;
use twinsite_model::ids::NAME_LENGTH_MAX;

/// The names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// A free name like this text: `/socket.io/*` is `socket-io`. A second one is `socket-io-2`.
    pub(super) fn free(&mut self, like: &str, otherwise: &str) -> String {
        let name = plain(like);
        let name = if name.is_empty() { otherwise.to_owned() } else { name };
        let mut free = name.clone();
        let mut number = 1_usize;
        while !self.0.insert(free.clone()) {
            number += 1;
            let ending = format!("-{number}");
            free = name.chars().take(NAME_LENGTH_MAX - ending.len()).chain(ending.chars()).collect();
        }
        free
    }
}

/// Letters, digits and single `-` between them.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            name.push(character.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(NAME_LENGTH_MAX);
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_used_once() {
        let mut names = Names::default();
        assert_eq!(names.free("/socket.io/*", "rest"), "socket-io");
        assert_eq!(names.free("/socket.io*", "rest"), "socket-io-2");
        assert_eq!(names.free("/*", "rest"), "rest");
        assert_eq!(names.free("É/Über", "rest"), "ber");
        let long = "x".repeat(60);
        assert_eq!(names.free(&long, "rest").len(), 48);
        assert_eq!(names.free(&long, "rest"), format!("{}-2", "x".repeat(46)));
    }
}
