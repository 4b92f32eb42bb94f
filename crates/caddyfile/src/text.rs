//! The text before it is cut into words: each character with its place, and environment variables put in.

use crate::Surroundings;
use crate::error::{CaddyfileError, Problem};
use crate::place::Place;
use std::sync::Arc;

/// The longest text, in bytes, with the values of its variables.
const BYTES_MAX: usize = 1 << 20;

/// A character and where it was written; one of a variable's value is where the variable is.
#[derive(Debug, Clone)]
pub(crate) struct Character {
    pub(crate) is: char,
    pub(crate) place: Place,
}

/// All characters, with `{$NAME}` and `{$NAME:default}` replaced. Like Caddy, everywhere, also in quotations and comments; a
/// value is not looked through again.
pub(crate) fn characters(
    file: &Arc<str>,
    text: &str,
    surroundings: &dyn Surroundings,
) -> Result<Vec<Character>, CaddyfileError> {
    let mut all = Vec::with_capacity(text.len().min(BYTES_MAX));
    let mut place = Place { file: Arc::clone(file), line: 1, column: 1 };
    let mut bytes = text.len();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    if bytes > BYTES_MAX {
        return Err(Problem::TooLong(BYTES_MAX).at(&place));
    }
    while let Some(is) = rest.chars().next() {
        if let Some(named) = rest.strip_prefix("{$") {
            let end = named.find('}').ok_or_else(|| Problem::VariableWithoutEnd.at(&place))?;
            let value = value(&named[..end], surroundings);
            bytes += value.len();
            if bytes > BYTES_MAX {
                return Err(Problem::TooLong(BYTES_MAX).at(&place));
            }
            all.extend(value.chars().map(|is| Character { is, place: place.clone() }));
            let written = &rest[..=2 + end];
            written.chars().for_each(|is| place.pass(is));
            rest = &rest[written.len()..];
        } else {
            all.push(Character { is, place: place.clone() });
            place.pass(is);
            rest = &rest[is.len_utf8()..];
        }
    }
    Ok(all)
}

/// A variable that is not set is its default, or nothing.
fn value(named: &str, surroundings: &dyn Surroundings) -> String {
    let (name, default) = named.split_once(':').unwrap_or((named, ""));
    surroundings.variable(name).unwrap_or_else(|| default.to_owned())
}

impl Place {
    fn pass(&mut self, character: char) {
        if character == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }
}
