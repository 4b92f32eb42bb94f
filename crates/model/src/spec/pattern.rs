//! A text that something must look like, with `*` for anything at its beginning or end.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `websocket`, `*Upgrade*`, `Mozilla/*`, `*`. Whether upper and lower case differ is up to who compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    open_at_begin: bool,
    open_at_end: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `a*b`.
    #[error("`*` may stand at the beginning and at the end only")]
    StarWithin,
    /// More than can be meant.
    #[error("it is longer than 1024 bytes")]
    TooLong,
}

impl Pattern {
    /// Whether a text looks like this.
    pub fn matches(&self, text: &str) -> bool {
        match (self.open_at_begin, self.open_at_end) {
            (false, false) => text == self.text,
            (false, true) => text.starts_with(&self.text),
            (true, false) => text.ends_with(&self.text),
            (true, true) => text.contains(&self.text),
        }
    }

    /// The same for those to whom `GET` and `get` are one word (of ASCII).
    pub fn matches_in_any_case(&self, text: &[u8]) -> bool {
        let own = self.text.as_bytes();
        let same = |part: Option<&[u8]>| part.is_some_and(|part| part.eq_ignore_ascii_case(own));
        match (self.open_at_begin, self.open_at_end) {
            (false, false) => same(Some(text)),
            (false, true) => same(text.get(..own.len())),
            (true, false) => same(text.len().checked_sub(own.len()).and_then(|from| text.get(from..))),
            (true, true) => own.is_empty() || text.windows(own.len()).any(|part| same(Some(part))),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(written: String) -> Result<Self, PatternError> {
        if written.len() > 1_024 {
            return Err(PatternError::TooLong);
        }
        let (rest, open_at_begin) =
            written.strip_prefix('*').map_or((written.as_str(), false), |rest| (rest, true));
        // A lone star is open on both sides.
        let lone = open_at_begin && rest.is_empty();
        let (text, open_at_end) = rest.strip_suffix('*').map_or((rest, lone), |text| (text, true));
        if text.contains('*') {
            return Err(PatternError::StarWithin);
        }
        Ok(Self { text: text.to_owned(), open_at_begin, open_at_end })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() && self.open_at_begin {
            return f.write_str("*");
        }
        let star = |open| if open { "*" } else { "" };
        write!(f, "{}{}{}", star(self.open_at_begin), self.text, star(self.open_at_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(written: &str) -> Pattern {
        Pattern::try_from(written.to_owned()).unwrap()
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (written, yes, no) in [
            ("websocket", "websocket", "websockets"),
            ("Mozilla/*", "Mozilla/5.0", "xMozilla/"),
            ("*.png", "a.png", "a.png?"),
            ("*Upgrade*", "keep-alive, Upgrade", "keep-alive"),
        ] {
            assert!(pattern(written).matches(yes) && !pattern(written).matches(no), "{written}");
            assert!(pattern(written).matches_in_any_case(yes.to_uppercase().as_bytes()), "{written}");
            assert!(!pattern(written).matches_in_any_case(no.as_bytes()), "{written}");
        }
        assert!(pattern("*").matches("") && pattern("*").matches("x") && pattern("**").matches("x"));
        assert!(pattern("").matches("") && !pattern("").matches("x"));
        assert_eq!(Pattern::try_from("a*b".to_owned()), Err(PatternError::StarWithin));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(written in r"\*?[a-c]{0,3}\*?", text in "[a-c]{0,5}") {
            let read = pattern(&pattern(&written).to_string());
            prop_assert_eq!(read.matches(&text), pattern(&written).matches(&text));
            prop_assert_eq!(read.matches_in_any_case(text.as_bytes()), read.matches(&text));
        }
    }
}
