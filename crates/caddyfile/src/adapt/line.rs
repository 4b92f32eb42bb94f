//! What a line may have: so many arguments, a block or none.

use super::notes::{Notes, shown};
use crate::document::{Directive, Word};

/// The only argument of a line without a block. `form` is how it is written rightly.
pub(super) fn one<'d>(line: &'d Directive, form: &str, notes: &mut Notes) -> Option<&'d Word> {
    let [argument] = some(line, form, notes)? else { return wrong(line, form, notes) };
    Some(argument)
}

/// The arguments of a line without a block, at least one.
pub(super) fn some<'d>(line: &'d Directive, form: &str, notes: &mut Notes) -> Option<&'d [Word]> {
    if line.arguments.is_empty() || line.block.is_some() {
        return wrong(line, form, notes);
    }
    Some(&line.arguments)
}

/// A line of one word.
pub(super) fn alone(line: &Directive, notes: &mut Notes) -> Option<()> {
    if line.arguments.is_empty() && line.block.is_none() {
        return Some(());
    }
    wrong(line, &line.name.text, notes)
}

/// Says how a line is written rightly.
pub(super) fn wrong<T>(line: &Directive, form: &str, notes: &mut Notes) -> Option<T> {
    let what = format!("`{}` has too few words here, too many, or a block", shown(&line.name.text));
    notes.error(&line.name.place, what, format!("write `{form}`"))
}

/// A whole number.
pub(super) fn number(line: &Directive, form: &str, notes: &mut Notes) -> Option<u32> {
    let word = one(line, form, notes)?;
    word.text.parse().ok().or_else(|| {
        let what = format!("`{}` is not a whole number", shown(&word.text));
        notes.error(&word.place, what, format!("write `{form}`"))
    })
}

/// Something of a kind that there is none of here.
pub(super) fn unknown<T>(kind: &str, word: &Word, remedy: &str, notes: &mut Notes) -> Option<T> {
    notes.error(&word.place, format!("the {kind} `{}` is not supported", shown(&word.text)), remedy)
}
