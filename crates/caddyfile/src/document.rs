//! What is written in a Caddyfile.

use crate::place::Place;

/// A whole file, with what it imports put in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The global options.
    pub options: Vec<Directive>,
    /// The sites, in their order.
    pub sites: Vec<Site>,
}

/// One site: its addresses, and what is to be done there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// At least one.
    pub addresses: Vec<Word>,
    /// In their order.
    pub directives: Vec<Directive>,
}

/// A directive, a subdirective, an option or the definition of a matcher: its name, its arguments, its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The first word.
    pub name: Word,
    /// The others of its line.
    pub arguments: Vec<Word>,
    /// What is between its braces, if it has any.
    pub block: Option<Vec<Directive>>,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What it says, without quotation marks.
    pub text: String,
    /// Where.
    pub place: Place,
    /// Whether it was in quotation marks, or a text of several lines: then braces in it are no blocks.
    pub is_quoted: bool,
    /// Whether it is the first of its line; one that goes on after `\` is the same line.
    pub(crate) begins_line: bool,
    /// Within how many imports it was found.
    pub(crate) depth: usize,
}

impl Word {
    /// Whether a block begins with this word.
    pub(crate) fn is_begin(&self) -> bool {
        self.text == "{" && !self.is_quoted
    }

    /// Whether a block ends with it.
    pub(crate) fn is_end(&self) -> bool {
        self.text == "}" && !self.is_quoted
    }
}
