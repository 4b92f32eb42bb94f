//! Cuts a text into words, by the rules of Caddy's own lexer.

use crate::document::Word;
use crate::error::{CaddyfileError, Problem};
use crate::place::Place;
use crate::text::Character;

/// All words.
pub(crate) fn words(text: &[Character]) -> Result<Vec<Word>, CaddyfileError> {
    let mut lexer = Lexer { text, at: 0, begins_line: true };
    let mut words = Vec::new();
    while let Some(word) = lexer.word()? {
        words.push(word);
    }
    Ok(words)
}

struct Lexer<'a> {
    text: &'a [Character],
    at: usize,
    /// Whether the next word is the first of its line.
    begins_line: bool,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).map(|character| character.is)
    }

    fn word(&mut self) -> Result<Option<Word>, CaddyfileError> {
        self.skip_space();
        let Some(first) = self.text.get(self.at) else { return Ok(None) };
        let place = first.place.clone();
        let begins_line = std::mem::replace(&mut self.begins_line, false);
        let (text, is_quoted) = match first.is {
            quote @ ('"' | '`') => (self.quotation(quote, &place)?, true),
            '<' if self.peek(1) == Some('<') => (self.several_lines(&place)?, true),
            _ => (self.bare(), false),
        };
        Ok(Some(Word { text, place, is_quoted, begins_line, depth: 0 }))
    }

    /// Spaces, ends of lines and comments. A comment begins where a word could; `\` at the end of a line joins the next.
    fn skip_space(&mut self) {
        while let Some(is) = self.peek(0) {
            match is {
                '\n' => self.begins_line = true,
                '#' => {
                    while self.peek(1).is_some_and(|is| is != '\n') {
                        self.at += 1;
                    }
                }
                '\\' if self.ends_line(1) => {
                    while self.peek(0) != Some('\n') {
                        self.at += 1;
                    }
                }
                space if space.is_whitespace() => {}
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Whether the line ends after so many characters.
    fn ends_line(&self, ahead: usize) -> bool {
        match self.peek(ahead) {
            Some('\r') => self.peek(ahead + 1) == Some('\n'),
            other => other == Some('\n'),
        }
    }

    /// Up to the next space. `\<` is `<`, so that a word can begin with `<<`; before anything else `\` is itself.
    fn bare(&mut self) -> String {
        let mut text = String::new();
        while let Some(is) = self.peek(0) {
            if is.is_whitespace() || is == '\\' && self.ends_line(1) {
                break;
            }
            if !(is == '\\' && self.peek(1) == Some('<')) {
                text.push(is);
            }
            self.at += 1;
        }
        text
    }

    /// What is between quotation marks, ends of lines too. Between `"` a `\"` is `"`; between backticks nothing is special.
    fn quotation(&mut self, quote: char, place: &Place) -> Result<String, CaddyfileError> {
        self.at += 1;
        let mut text = String::new();
        while let Some(is) = self.peek(0) {
            self.at += 1;
            if is == quote {
                return Ok(text);
            }
            if quote == '"' && is == '\\' && self.peek(0) == Some('"') {
                self.at += 1;
                text.push('"');
            } else {
                text.push(is);
            }
        }
        Err(Problem::QuotationWithoutEnd(quote).at(place))
    }

    /// `<<WORD`, lines, and `WORD` on a line of its own. What that line begins with is taken away from all lines.
    fn several_lines(&mut self, place: &Place) -> Result<String, CaddyfileError> {
        self.at += 2;
        let marker = self.line();
        let is_word = |is: char| is.is_alphanumeric() || matches!(is, '-' | '_');
        if marker.is_empty() || !marker.chars().all(is_word) {
            return Err(Problem::NoMarker.at(place));
        }
        let mut lines = Vec::new();
        while let Some(begin) = self.text.get(self.at) {
            let begin_at = self.at;
            let line = self.line();
            if let Some(padding) = ends_text(&line, &marker) {
                // More words may follow in this line.
                self.at = begin_at + padding.chars().count() + marker.chars().count();
                return without_padding(&lines, padding);
            }
            lines.push((line, begin.place.clone()));
        }
        Err(Problem::TextWithoutEnd(marker).at(place))
    }

    /// The rest of the line without its end, which is passed.
    fn line(&mut self) -> String {
        let rest = &self.text[self.at.min(self.text.len())..];
        let line: String = rest.iter().map(|one| one.is).take_while(|is| *is != '\n').collect();
        self.at += line.chars().count() + 1;
        line.trim_end_matches('\r').to_owned()
    }
}

/// The spaces before the marker, if the line is the last one of the text: nothing follows but more words after a space.
fn ends_text<'l>(line: &'l str, marker: &str) -> Option<&'l str> {
    let inner = line.trim_start();
    let rest = inner.strip_prefix(marker)?;
    let padding = &line[..line.len() - inner.len()];
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(padding)
}

fn without_padding(lines: &[(String, Place)], padding: &str) -> Result<String, CaddyfileError> {
    let mut text = String::new();
    for (number, (line, place)) in lines.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        // An empty line needs no spaces.
        if !line.is_empty() {
            let rest = line.strip_prefix(padding);
            text += rest.ok_or_else(|| Problem::Padding(padding.to_owned()).at(place))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Surroundings;
    use crate::text::characters;
    use std::sync::Arc;

    struct Nothing;

    impl Surroundings for Nothing {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "TWO").then(|| "a b".to_owned())
        }

        fn files(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
            Err("there are none".to_owned())
        }
    }

    fn cut(text: &str) -> Result<Vec<Word>, CaddyfileError> {
        words(&characters(&Arc::from("Caddyfile"), text, &Nothing)?)
    }

    /// Words as `line:column:text`, quoted ones with `"`, the first of a line with `>`.
    fn said(text: &str) -> Vec<String> {
        let said = |word: &Word| {
            let (begin, quote) =
                (if word.begins_line { ">" } else { "" }, if word.is_quoted { "\"" } else { "" });
            format!("{}:{}:{begin}{quote}{}{quote}", word.place.line, word.place.column, word.text)
        };
        cut(text).unwrap().iter().map(said).collect()
    }

    #[test]
    fn words_end_at_spaces_and_comments_begin_words() {
        assert_eq!(said("a  b#c\t# d {\n}"), ["1:1:>a", "1:4:b#c", "2:1:>}"]);
        assert_eq!(said("\r\n x\r\n"), ["2:2:>x"]);
        assert!(said("# nothing").is_empty() && said("").is_empty());
    }

    #[test]
    fn quotations_hold_anything() {
        assert_eq!(said(r#"a "b c" d"#), ["1:1:>a", "1:3:\"b c\"", "1:9:d"]);
        assert_eq!(said("\"a\\\"b\\n\" `c\"\\`"), ["1:1:>\"a\"b\\n\"", "1:10:\"c\"\\\""]);
        assert_eq!(said("\"a\nb\" c\nd"), ["1:1:>\"a\nb\"", "2:4:c", "3:1:>d"]);
        assert_eq!(said("a\"b c\""), ["1:1:>a\"b", "1:5:c\""]);
    }

    #[test]
    fn a_line_goes_on_after_a_backslash() {
        assert_eq!(said("a \\\n  b\nc"), ["1:1:>a", "2:3:b", "3:1:>c"]);
        assert_eq!(said("a\\\r\nb"), ["1:1:>a", "2:1:b"]);
        assert_eq!(said("a\\b \\<<x"), ["1:1:>a\\b", "1:5:<<x"]);
    }

    #[test]
    fn variables_are_put_in_before_words_are_cut() {
        assert_eq!(said("x {$TWO} y"), ["1:1:>x", "1:3:a", "1:3:b", "1:10:y"]);
        assert_eq!(said("{$NONE}{$NONE:d:e} {$NONE:}"), ["1:8:>d:e"]);
    }

    #[test]
    fn texts_of_several_lines_lose_their_padding() {
        let text = "respond <<HTML\n    <p>\n\n      a</p>\n    HTML 200\nx";
        assert_eq!(said(text), ["1:1:>respond", "1:9:\"<p>\n\n  a</p>\"", "5:10:200", "6:1:>x"]);
        assert_eq!(said("a <<E\r\nb\r\nE\r\nc"), ["1:1:>a", "1:3:\"b\"", "4:1:>c"]);
        assert_eq!(said("a <<E\nE"), ["1:1:>a", "1:3:\"\""]);
    }

    #[test]
    fn what_does_not_end_is_told_where_it_begins() {
        let place = |text: &str| {
            let error = cut(text).unwrap_err();
            (error.place.line, error.place.column, error.problem)
        };
        assert_eq!(place("a\n \"b"), (2, 2, Problem::QuotationWithoutEnd('"')));
        assert_eq!(place("a {$B"), (1, 3, Problem::VariableWithoutEnd));
        assert_eq!(place("a <<"), (1, 3, Problem::NoMarker));
        assert_eq!(place("a <<E b\nE"), (1, 3, Problem::NoMarker));
        assert_eq!(place("a <<E\nb"), (1, 3, Problem::TextWithoutEnd("E".to_owned())));
        assert_eq!(place("a <<E\n  b\n c\n  E"), (3, 1, Problem::Padding("  ".to_owned())));
    }
}
