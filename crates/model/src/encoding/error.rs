//! Why bytes could not be read.

/// Why bytes are not an entry of the log or a state. Reading the same bytes again never helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer program wrote it. The node must stop: a guess would give it a state that the others do not have.
    #[error("written by a newer version of twinsite ({what}): upgrade this node, then start it again")]
    Newer {
        /// What is not known here.
        what: String,
    },
    /// It is something else altogether.
    #[error("these bytes are not {expected}")]
    NotThis {
        /// What was expected.
        expected: &'static str,
    },
    /// It is longer than anything that is ever written.
    #[error("{bytes} bytes are too many: at most {max} are read")]
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many are allowed.
        max: usize,
    },
    /// Something that is always written is not there.
    #[error("damaged: `{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Something has a value that is never written.
    #[error("damaged: `{field}`: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It is no protobuf message of this kind.
    #[error("damaged: {0}")]
    Malformed(#[from] prost::DecodeError),
}

impl DecodeError {
    /// Whether a newer version of the program can be expected to read the same bytes.
    pub const fn needs_newer_version(&self) -> bool {
        matches!(self, Self::Newer { .. })
    }

    pub(super) fn invalid(field: &'static str, problem: impl ToString) -> Self {
        Self::Invalid { field, problem: problem.to_string() }
    }

    pub(super) fn newer(what: String) -> Self {
        Self::Newer { what }
    }
}
