//! Reads a Caddyfile: words, directives, blocks, snippets and imports, each with its place; and says what it means here. See
//! `OVERVIEW.md`.

mod adapt;
mod document;
mod error;
#[cfg(test)]
mod fuzz;
mod import;
mod lexer;
mod parse;
mod place;
mod text;

pub use adapt::{AdaptError, Adapted, Trap, Wishes, adapt};
pub use document::{Directive, Document, Site, Word};
pub use error::{CaddyfileError, Problem};
pub use place::Place;

use std::sync::Arc;

/// What a Caddyfile may refer to beside itself.
pub trait Surroundings {
    /// The value of an environment variable, if it is set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The files that a path or a pattern with `*` names, as seen from the file that imports them: each with its name for
    /// people and its text. In the order of their names. Says in a few words why not, if they cannot be read.
    fn files(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;
}

/// Reads a Caddyfile; `name` is what messages call it.
pub fn read(name: &str, text: &str, surroundings: &dyn Surroundings) -> Result<Document, CaddyfileError> {
    let file: Arc<str> = Arc::from(name);
    let words = lexer::words(&text::characters(&file, text, surroundings)?)?;
    parse::Parser::new(surroundings).document(words)
}
