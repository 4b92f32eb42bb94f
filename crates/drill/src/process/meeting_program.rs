//! Which program the meeting instances of a cluster are.

use std::path::PathBuf;

/// The program of the meeting instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MeetingProgram {
    /// The sample, `twinsite meeting-instance`.
    #[default]
    Sample,
    /// Another one, which takes the sample's options: `--exit-with-stdin --listen ADDRESS:PORT --name NAME
    /// --announced-file FILE --answers-file FILE` come after its own words. It answers `GET /health` with 200.
    Other {
        /// The program and its arguments.
        words: Words,
        /// The folder in which it is started, so that files can be named as the person sees them.
        folder: PathBuf,
    },
}

/// A program and its arguments, as a shell would part them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    first: String,
    rest: Vec<String>,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// There is nothing in it.
    #[error("name a program, as in 'node server.js'")]
    Empty,
    /// A quote does not end.
    #[error("a quote or a backslash at its end leaves it open")]
    Open,
}

impl Words {
    /// The program.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// Its arguments.
    pub fn rest(&self) -> &[String] {
        &self.rest
    }
}

impl std::str::FromStr for Words {
    type Err = WordsError;

    /// Parts a line at its blanks; quotes and backslashes keep them together. Nothing else is special: no variables, no pipes.
    fn from_str(line: &str) -> Result<Self, WordsError> {
        let mut words = shlex::split(line).ok_or(WordsError::Open)?.into_iter();
        let first = words.next().filter(|first| !first.is_empty()).ok_or(WordsError::Empty)?;
        Ok(Self { first, rest: words.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_parted_as_a_shell_parts_it() {
        let words: Words = "node 'my server.js' --port $PORT|x".parse().unwrap();
        assert_eq!((words.first(), words.rest().len()), ("node", 3));
        assert_eq!(words.rest(), ["my server.js", "--port", "$PORT|x"]);
        assert_eq!("  ".parse::<Words>(), Err(WordsError::Empty));
        assert_eq!("'' x".parse::<Words>(), Err(WordsError::Empty));
        assert_eq!("node 'x".parse::<Words>(), Err(WordsError::Open));
    }
}
