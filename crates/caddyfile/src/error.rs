//! Why a Caddyfile cannot be read.

use crate::place::Place;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct CaddyfileError {
    /// The place, as written.
    pub place: Place,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// More than can be read.
    #[error("the file has more than {0} bytes; split it")]
    TooLong(usize),
    /// `{$` without `}`.
    #[error("`{{$` begins an environment variable that does not end; close it with `}}`, as in `{{$NAME}}`")]
    VariableWithoutEnd,
    /// A quotation that does not end.
    #[error("the quotation that begins here does not end; close it with {0}")]
    QuotationWithoutEnd(char),
    /// `<<` and no word after it.
    #[error(
        "`<<` begins a text of several lines and needs a word that ends it, of letters, digits, `-` and `_`, at the end of its line; write \"<<\" in quotation marks if it is meant as it is"
    )]
    NoMarker,
    /// A text of several lines that does not end.
    #[error("the text that begins here does not end; write `{0}` on a line of its own")]
    TextWithoutEnd(String),
    /// A line that is less far to the right than the word that ends the text.
    #[error("this line of the text must begin with the same spaces as its last line, `{0}`")]
    Padding(String),
    /// A block that does not end.
    #[error("the block that begins here does not end; close it with `}}` on a line of its own")]
    BlockWithoutEnd,
    /// `}` without a block.
    #[error("`}}` ends no block; remove it")]
    EndWithoutBlock,
    /// `{` within a line.
    #[error("`{{` begins a block and must be the last word of its line")]
    BeginWithinLine,
    /// `word{`.
    #[error("`{0}` ends with `{{`; put a space before it")]
    BeginWithoutSpace(String),
    /// `} word`.
    #[error("`{0}` follows a block in its line; write it on a line of its own")]
    WordAfterBlock(String),
    /// A block without a directive.
    #[error("a block begins here, and nothing says of what; write a directive before `{{`")]
    BlockOfNothing,
    /// The options are not first.
    #[error("only one block without a name is allowed, before everything else: the global options")]
    OptionsNotFirst,
    /// A list of addresses that ends with a comma.
    #[error("`,` promises another address; write it, or remove the comma")]
    AddressMissing,
    /// A comma within an address.
    #[error("`{0}` contains a comma; put a space after it")]
    CommaInAddress(String),
    /// Something that may be there only once.
    #[error("a snippet `({0})` is already defined")]
    SnippetTwice(String),
    /// `()`.
    #[error("a snippet needs a name, as in `(name)`, and nothing else in its line")]
    SnippetName,
    /// `&(name)`.
    #[error("named routes are not supported; write a snippet `({0})` and `import {0}`")]
    NamedRoute(String),
    /// Sites after one without braces.
    #[error("a site without braces reaches to the end of the file; put braces around each site")]
    SiteWithoutBraces,
    /// `import` alone.
    #[error("`import` needs the name of a snippet or of a file")]
    ImportOfNothing,
    /// Neither a snippet nor a file.
    #[error("`{name}` is no snippet that is defined before, and no file: {why}")]
    Import {
        /// What was asked for.
        name: String,
        /// Why it cannot be read.
        why: String,
    },
    /// An import among addresses.
    #[error("`import` among the addresses of a site is not supported; write the addresses here")]
    ImportOfAddresses,
    /// A file that contains sites, imported within one.
    #[error("sites and snippets cannot be imported within a site; import the file outside of it")]
    SitesWithinSite,
    /// Imports within imports.
    #[error("imports are more than {0} deep; does something import itself?")]
    ImportsTooDeep(usize),
    /// Imports that multiply.
    #[error("with everything that is imported there are more than {0} words")]
    TooManyWords(usize),
    /// `{args[5]}` of three.
    #[error("`{placeholder}` asks for an argument that `import` does not give: there are {given}")]
    NoSuchArgument {
        /// As written.
        placeholder: String,
        /// How many there are.
        given: usize,
    },
    /// `{args[x]}`.
    #[error(
        "`{0}` is no argument; write `{{args[0]}}`, or `{{args[:]}}`, `{{args[1:]}}`, `{{args[:2]}}` as a word by itself for several"
    )]
    BadArgument(String),
    /// Blocks within blocks.
    #[error("blocks are more than {0} deep")]
    BlocksTooDeep(usize),
}

impl Problem {
    pub(crate) fn at(self, place: &Place) -> CaddyfileError {
        CaddyfileError { place: place.clone(), problem: self }
    }
}
