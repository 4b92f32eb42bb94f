//! Snippets and files, put where they are imported.

use crate::Surroundings;
use crate::document::Word;
use crate::error::{CaddyfileError, Problem};
use crate::{lexer, text};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Imports within imports.
const DEPTH_MAX: usize = 32;
/// Words of all imports together.
const WORDS_MAX: usize = 100_000;

/// What can be imported, and what was.
pub(crate) struct Imports<'s> {
    surroundings: &'s dyn Surroundings,
    snippets: BTreeMap<String, Vec<Word>>,
    imported: usize,
}

impl<'s> Imports<'s> {
    pub(crate) fn new(surroundings: &'s dyn Surroundings) -> Self {
        Self { surroundings, snippets: BTreeMap::new(), imported: 0 }
    }

    /// A snippet that can be imported from now on.
    pub(crate) fn define(&mut self, name: &str, at: &Word, words: Vec<Word>) -> Result<(), CaddyfileError> {
        if self.snippets.contains_key(name) {
            return Err(Problem::SnippetTwice(name.to_owned()).at(&at.place));
        }
        self.snippets.insert(name.to_owned(), words);
        Ok(())
    }

    /// What stands in the place of an `import`: `import NAME [ARGUMENTS...] [{ BLOCK }]`, all words of it but the last brace.
    pub(crate) fn resolve(&mut self, import: &[Word]) -> Result<Vec<Word>, CaddyfileError> {
        let [keyword, name, rest @ ..] = import else {
            return match import.first() {
                Some(keyword) => Err(Problem::ImportOfNothing.at(&keyword.place)),
                None => Ok(Vec::new()),
            };
        };
        let cut = rest.iter().position(Word::is_begin).unwrap_or(rest.len());
        let (arguments, block) = rest.split_at(cut);
        let block = block.get(1..).unwrap_or_default();
        let depth = keyword.depth + 1;
        if depth > DEPTH_MAX {
            return Err(Problem::ImportsTooDeep(DEPTH_MAX).at(&keyword.place));
        }
        let found = match self.snippets.get(&name.text) {
            Some(words) => words.clone(),
            None => self.files(name)?,
        };
        let mut words = Vec::new();
        for word in found {
            for mut word in filled(word, arguments, block)? {
                word.depth = depth;
                words.push(word);
            }
            if self.imported + words.len() > WORDS_MAX {
                return Err(Problem::TooManyWords(WORDS_MAX).at(&keyword.place));
            }
        }
        self.imported += words.len();
        if let Some(first) = words.first_mut() {
            first.begins_line = true;
        }
        Ok(words)
    }

    fn files(&self, name: &Word) -> Result<Vec<Word>, CaddyfileError> {
        let files = self.surroundings.files(&name.text, &name.place.file);
        let files = files.map_err(|why| Problem::Import { name: name.text.clone(), why }.at(&name.place))?;
        let mut words = Vec::new();
        for (file, content) in files {
            let characters = text::characters(&Arc::from(file), &content, self.surroundings)?;
            words.extend(lexer::words(&characters)?);
        }
        Ok(words)
    }
}

/// A word with the arguments of its import in it; several where it stands for several, or for the block.
fn filled(word: Word, arguments: &[Word], block: &[Word]) -> Result<Vec<Word>, CaddyfileError> {
    if word.text == "{block}" && !word.is_quoted {
        return Ok(block.to_vec());
    }
    let inner = word.text.strip_prefix("{args[").and_then(|rest| rest.strip_suffix("]}"));
    if let Some((from, to)) = inner.and_then(|range| range.split_once(':')) {
        let bound = |text: &str, open: usize| if text.is_empty() { Ok(open) } else { text.parse() };
        let bounds = bound(from, 0).and_then(|from| Ok((from, bound(to, arguments.len())?)));
        let (from, to) = bounds.map_err(|_| Problem::BadArgument(word.text.clone()).at(&word.place))?;
        let some = arguments.get(from..to).ok_or_else(|| missing(&word, &word.text, arguments))?;
        let place_of =
            |argument: &Word| Word { place: word.place.clone(), begins_line: false, ..argument.clone() };
        let mut words: Vec<_> = some.iter().map(place_of).collect();
        if let Some(first) = words.first_mut() {
            first.begins_line = word.begins_line;
        }
        return Ok(words);
    }
    let mut text = String::new();
    let mut is_quoted = word.is_quoted;
    let mut rest = word.text.as_str();
    while let Some(begin) = rest.find("{args") {
        let placeholder = match rest[begin..].find('}') {
            Some(end) => &rest[begin..=begin + end],
            None => break,
        };
        let index = placeholder.trim_end_matches('}').trim_start_matches("{args");
        // `{args.0}` is the older way to write it.
        let index = index
            .strip_prefix('.')
            .or_else(|| index.strip_prefix('[').and_then(|index| index.strip_suffix(']')));
        let Some(index) = index else {
            return Err(Problem::BadArgument(placeholder.to_owned()).at(&word.place));
        };
        let index: usize =
            index.parse().map_err(|_| Problem::BadArgument(placeholder.to_owned()).at(&word.place))?;
        let argument = arguments.get(index).ok_or_else(|| missing(&word, placeholder, arguments))?;
        text += &rest[..begin];
        text += &argument.text;
        is_quoted |= argument.is_quoted;
        rest = &rest[begin + placeholder.len()..];
    }
    text += rest;
    Ok(vec![Word { text, is_quoted, ..word }])
}

fn missing(word: &Word, placeholder: &str, arguments: &[Word]) -> CaddyfileError {
    Problem::NoSuchArgument { placeholder: placeholder.to_owned(), given: arguments.len() }.at(&word.place)
}
