//! Puts words together: options, snippets, sites, directives and their blocks.

use crate::Surroundings;
use crate::document::{Directive, Document, Site, Word};
use crate::error::{CaddyfileError, Problem};
use crate::import::Imports;
use std::collections::VecDeque;

/// Blocks within blocks.
const DEPTH_MAX: usize = 32;

/// Reads one file after the other into one document.
pub(crate) struct Parser<'s> {
    imports: Imports<'s>,
    words: VecDeque<Word>,
}

impl<'s> Parser<'s> {
    pub(crate) fn new(surroundings: &'s dyn Surroundings) -> Self {
        Self { imports: Imports::new(surroundings), words: VecDeque::new() }
    }

    /// All of them.
    pub(crate) fn document(mut self, words: Vec<Word>) -> Result<Document, CaddyfileError> {
        self.words = words.into();
        let mut document = Document::default();
        let mut is_first = true;
        while let Some(word) = self.words.front() {
            if word.is_begin() {
                let Some(begin) = self.words.pop_front() else { break };
                if !is_first {
                    return Err(Problem::OptionsNotFirst.at(&begin.place));
                }
                document.options = self.block(&begin, 1)?;
            } else if word.is_end() {
                return Err(Problem::EndWithoutBlock.at(&word.place));
            } else if word.text == "import" && !word.is_quoted {
                self.import_here()?;
            } else if word.text.starts_with("&(") {
                let name = word.text.trim_start_matches("&(").trim_end_matches(')').to_owned();
                return Err(Problem::NamedRoute(name).at(&word.place));
            } else if word.text.starts_with('(') && !word.is_quoted {
                self.snippet()?;
            } else {
                document.sites.push(self.site()?);
            }
            is_first = false;
        }
        Ok(document)
    }

    /// Whether the next word is in the line of those before it.
    fn line_goes_on(&self) -> bool {
        self.words.front().is_some_and(|word| !word.begins_line)
    }

    /// The next word, if it is in the line of those before it.
    fn next_of_line(&mut self) -> Option<Word> {
        if self.line_goes_on() { self.words.pop_front() } else { None }
    }

    /// Puts what is imported at the front. Its line must hold nothing else, as everywhere.
    fn import_here(&mut self) -> Result<(), CaddyfileError> {
        let import = self.directive_words()?;
        let imported = self.imports.resolve(&import)?;
        self.put_in_front(imported);
        Ok(())
    }

    fn put_in_front(&mut self, words: Vec<Word>) {
        for word in words.into_iter().rev() {
            self.words.push_front(word);
        }
    }

    /// `(name) { ... }`: kept as words, to be read where they are imported.
    fn snippet(&mut self) -> Result<(), CaddyfileError> {
        let Some(header) = self.words.pop_front() else { return Ok(()) };
        let name = header.text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(Problem::SnippetName.at(&header.place));
        };
        let begin = self.words.pop_front().filter(|word| word.is_begin() && !word.begins_line);
        let begin = begin.ok_or_else(|| Problem::SnippetName.at(&header.place))?;
        let inner = self.words_of_block(&begin)?;
        self.imports.define(name, &header, inner)
    }

    /// `address[, address] { ... }`, or the same without braces to the end of the file.
    fn site(&mut self) -> Result<Site, CaddyfileError> {
        let mut addresses: Vec<Word> = Vec::new();
        let mut another = true;
        loop {
            let Some(word) = self.words.front() else {
                return match addresses.last().filter(|_| another) {
                    Some(last) => Err(Problem::AddressMissing.at(&last.place)),
                    None => Ok(Site { addresses, directives: Vec::new() }),
                };
            };
            if word.begins_line && !another {
                let directives = self.rest_of_file()?;
                return Ok(Site { addresses, directives });
            }
            if word.is_begin() {
                if let Some(last) = addresses.last().filter(|_| another) {
                    return Err(Problem::AddressMissing.at(&last.place));
                }
                let Some(begin) = self.words.pop_front() else { continue };
                let directives = self.block(&begin, 1)?;
                return Ok(Site { addresses, directives });
            }
            if word.is_end() {
                return Err(Problem::EndWithoutBlock.at(&word.place));
            }
            let Some(mut word) = self.words.pop_front() else { continue };
            check_brace(&word)?;
            if word.text == "import" {
                return Err(Problem::ImportOfAddresses.at(&word.place));
            }
            another = word.text.ends_with(',');
            word.text.truncate(word.text.len() - usize::from(another));
            if word.text.contains(',') {
                return Err(Problem::CommaInAddress(word.text).at(&word.place));
            }
            if word.text.is_empty() {
                return Err(Problem::AddressMissing.at(&word.place));
            }
            addresses.push(word);
        }
    }

    /// What a site without braces has.
    fn rest_of_file(&mut self) -> Result<Vec<Directive>, CaddyfileError> {
        let mut directives = Vec::new();
        while let Some(word) = self.words.front() {
            if word.is_end() {
                return Err(Problem::EndWithoutBlock.at(&word.place));
            }
            if word.text.starts_with('(') && !word.is_quoted {
                return Err(Problem::SiteWithoutBraces.at(&word.place));
            }
            directives.extend(self.directive(1)?);
        }
        Ok(directives)
    }

    /// The directives up to the end of a block that has begun.
    fn block(&mut self, begin: &Word, depth: usize) -> Result<Vec<Directive>, CaddyfileError> {
        if depth > DEPTH_MAX {
            return Err(Problem::BlocksTooDeep(DEPTH_MAX).at(&begin.place));
        }
        if self.line_goes_on() {
            return Err(Problem::BeginWithinLine.at(&begin.place));
        }
        let mut directives = Vec::new();
        loop {
            let Some(word) = self.words.front() else {
                return Err(Problem::BlockWithoutEnd.at(&begin.place));
            };
            if word.is_end() {
                self.words.pop_front();
                self.check_end()?;
                return Ok(directives);
            }
            directives.extend(self.directive(depth)?);
        }
    }

    /// One directive; none where something else was imported in its place.
    fn directive(&mut self, depth: usize) -> Result<Option<Directive>, CaddyfileError> {
        let Some(name) = self.words.pop_front() else { return Ok(None) };
        if name.is_begin() {
            return Err(Problem::BlockOfNothing.at(&name.place));
        }
        if name.text == "import" && !name.is_quoted {
            self.words.push_front(name);
            self.import_here()?;
            return Ok(None);
        }
        if name.text.starts_with('(') && name.text.ends_with(')') && !name.is_quoted {
            return Err(Problem::SitesWithinSite.at(&name.place));
        }
        check_brace(&name)?;
        let mut directive = Directive { name, arguments: Vec::new(), block: None };
        while let Some(word) = self.next_of_line() {
            if word.is_begin() {
                directive.block = Some(self.block(&word, depth + 1)?);
                break;
            }
            if word.is_end() {
                // `name }` ends the block as `}` on a line of its own does.
                self.words.push_front(word);
                break;
            }
            check_brace(&word)?;
            directive.arguments.push(word);
        }
        Ok(Some(directive))
    }

    /// After the end of a block a line may only end another.
    fn check_end(&self) -> Result<(), CaddyfileError> {
        match self.words.front() {
            Some(word) if !word.begins_line && !word.is_end() => {
                Err(Problem::WordAfterBlock(word.text.clone()).at(&word.place))
            }
            _ => Ok(()),
        }
    }

    /// The words of a line, with those of its block: what an `import` is made of.
    fn directive_words(&mut self) -> Result<Vec<Word>, CaddyfileError> {
        let mut words: Vec<_> = self.words.pop_front().into_iter().collect();
        while let Some(word) = self.next_of_line() {
            if word.is_end() {
                self.words.push_front(word);
                break;
            }
            if word.is_begin() {
                let inner = self.words_of_block(&word)?;
                words.push(word);
                words.extend(inner);
                break;
            }
            words.push(word);
        }
        Ok(words)
    }

    /// The words of a block that has begun, without its end, which is passed.
    fn words_of_block(&mut self, begin: &Word) -> Result<Vec<Word>, CaddyfileError> {
        let (mut inner, mut depth) = (Vec::new(), 1_usize);
        while let Some(word) = self.words.pop_front() {
            depth += usize::from(word.is_begin());
            depth -= usize::from(word.is_end());
            if depth == 0 {
                self.check_end()?;
                return Ok(inner);
            }
            inner.push(word);
        }
        Err(Problem::BlockWithoutEnd.at(&begin.place))
    }
}

/// A word that is meant to be followed by a block, and is not.
fn check_brace(word: &Word) -> Result<(), CaddyfileError> {
    let forgot = !word.is_quoted && word.text.len() > 1 && word.text.ends_with('{');
    if forgot { Err(Problem::BeginWithoutSpace(word.text.clone()).at(&word.place)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Files and variables of a test.
    struct Around(BTreeMap<&'static str, &'static str>);

    impl Surroundings for Around {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn files(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
            let text = self.0.get(pattern).ok_or_else(|| format!("not beside {from}"))?;
            Ok(vec![(pattern.to_owned(), (*text).to_owned())])
        }
    }

    fn read(text: &str) -> Result<Document, CaddyfileError> {
        let around = Around(BTreeMap::from([
            ("headers", "header A b\nheader C d"),
            ("sites", "b.example {\n respond 2\n}\n"),
            ("itself", "import itself"),
        ]));
        crate::read("Caddyfile", text, &around)
    }

    fn line(directive: &Directive) -> String {
        let words = std::iter::once(&directive.name).chain(&directive.arguments);
        let mut line = words.map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        if let Some(block) = &directive.block {
            line += &format!(" {{{}}}", block.iter().map(line_of).collect::<Vec<_>>().join("; "));
        }
        line
    }

    fn line_of(directive: &Directive) -> String {
        line(directive)
    }

    /// A document in one line.
    fn said(text: &str) -> String {
        let document = read(text).unwrap();
        let mut parts: Vec<String> =
            document.options.iter().map(|option| format!("option {}", line(option))).collect();
        for site in &document.sites {
            let addresses: Vec<_> = site.addresses.iter().map(|word| word.text.as_str()).collect();
            let directives: Vec<_> = site.directives.iter().map(line_of).collect();
            parts.push(format!("{} [{}]", addresses.join("+"), directives.join("; ")));
        }
        parts.join(" | ")
    }

    fn wrong(text: &str) -> (usize, usize, Problem) {
        let error = read(text).unwrap_err();
        (error.place.line, error.place.column, error.problem)
    }

    #[test]
    fn sites_have_addresses_directives_and_blocks() {
        assert_eq!(
            said("{\n email a@b\n}\na b {\n encode gzip\n handle /x/* {\n  respond 1 }\n}\nd {\n}\n"),
            "option email a@b | a+b [encode gzip; handle /x/* {respond 1}] | d []"
        );
    }

    #[test]
    fn a_list_of_addresses_goes_on_after_a_comma() {
        assert_eq!(said("a,\nb c {\n x\n}\n:80 {\n}"), "a+b+c [x] | :80 []");
        assert_eq!(wrong("a, {\n}"), (1, 1, Problem::AddressMissing));
        assert_eq!(wrong("a,"), (1, 1, Problem::AddressMissing));
        assert_eq!(wrong("a,b {\n}"), (1, 1, Problem::CommaInAddress("a,b".to_owned())));
    }

    #[test]
    fn one_site_needs_no_braces() {
        assert_eq!(said("a\nencode gzip\nhandle {\n x\n}\n"), "a [encode gzip; handle {x}]");
        assert_eq!(said("a"), "a []");
    }

    #[test]
    fn snippets_and_files_are_put_where_they_are_imported() {
        assert_eq!(
            said("(s) {\n x {args[0]}-{args.1}\n y {args[:]}\n}\na {\n import s 1 2\n z\n}"),
            "a [x 1-2; y 1 2; z]"
        );
        assert_eq!(
            said("(s) {\n w {\n  {block}\n }\n}\na {\n import s {\n  p 1\n  q\n }\n}"),
            "a [w {p 1; q}]"
        );
        assert_eq!(
            said("import sites\na {\n import headers\n}"),
            "b.example [respond 2] | a [header A b; header C d]"
        );
        assert_eq!(said("(s) {\n x\n}\n(t) {\n import s\n y\n}\na {\n import t\n}"), "a [x; y]");
        assert_eq!(said("(s) {\n x {args[1:]}\n}\na {\n import s 1\n}"), "a [x]");
    }

    #[test]
    fn words_know_where_they_were_written() {
        let document = read("(s) {\n x\n}\na {\n import s\n import headers\n}").unwrap();
        let places: Vec<_> =
            document.sites[0].directives.iter().map(|one| one.name.place.to_string()).collect();
        assert_eq!(places, ["Caddyfile:2:2", "headers:1:1", "headers:2:1"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        assert_eq!(wrong("a {\n x"), (1, 3, Problem::BlockWithoutEnd));
        assert_eq!(wrong("a {\n}\n}"), (3, 1, Problem::EndWithoutBlock));
        assert_eq!(wrong("a { x\n}"), (1, 3, Problem::BeginWithinLine));
        assert_eq!(wrong("a{\n}"), (1, 1, Problem::BeginWithoutSpace("a{".to_owned())));
        assert_eq!(wrong("a {\n x{\n }\n}"), (2, 2, Problem::BeginWithoutSpace("x{".to_owned())));
        assert_eq!(wrong("a {\n {\n }\n}"), (2, 2, Problem::BlockOfNothing));
        assert_eq!(wrong("a {\n}\n{\n}"), (3, 1, Problem::OptionsNotFirst));
        assert_eq!(wrong("a {\n} b {\n}"), (2, 3, Problem::WordAfterBlock("b".to_owned())));
        assert_eq!(wrong("&(r) {\n}"), (1, 1, Problem::NamedRoute("r".to_owned())));
        assert_eq!(wrong("() {\n}"), (1, 1, Problem::SnippetName));
        assert_eq!(wrong("(s) {\n}\n(s) {\n}"), (3, 1, Problem::SnippetTwice("s".to_owned())));
        assert_eq!(wrong("a\nx\n(s) {\n}"), (3, 1, Problem::SiteWithoutBraces));
        assert_eq!(wrong("a {\n import\n}"), (2, 2, Problem::ImportOfNothing));
        assert_eq!(
            wrong("a {\n import no\n}"),
            (2, 9, Problem::Import { name: "no".to_owned(), why: "not beside Caddyfile".to_owned() })
        );
        assert_eq!(wrong("a import s {\n}"), (1, 3, Problem::ImportOfAddresses));
        assert_eq!(wrong("a {\n (s) {\n }\n}"), (2, 2, Problem::SitesWithinSite));
        assert_eq!(
            wrong("(s) {\n x {args[1]}\n}\na {\n import s 1\n}"),
            (2, 4, Problem::NoSuchArgument { placeholder: "{args[1]}".to_owned(), given: 1 })
        );
        assert_eq!(
            wrong("(s) {\n x {args[y]}\n}\na {\n import s 1\n}"),
            (2, 4, Problem::BadArgument("{args[y]}".to_owned()))
        );
    }

    #[test]
    fn imports_end() {
        assert_eq!(wrong("a {\n import itself\n}").2, Problem::ImportsTooDeep(32));
        assert_eq!(wrong("(s) {\n import s\n}\na {\n import s\n}").2, Problem::ImportsTooDeep(32));
        let mut twice = String::new();
        for n in 0..20 {
            twice += &format!("(s{}) {{\n import s{n}\n import s{n}\n}}\n", n + 1);
        }
        let text = format!("(s0) {{\n x\n}}\n{twice}a {{\n import s20\n}}");
        assert_eq!(wrong(&text).2, Problem::TooManyWords(100_000));
    }

    #[test]
    fn blocks_are_not_endlessly_deep() {
        let text = format!("a {{\n{}{}}}", "x {\n".repeat(40), "}\n".repeat(40));
        assert_eq!(wrong(&text).2, Problem::BlocksTooDeep(32));
    }
}
