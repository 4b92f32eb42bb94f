//! What makes a specification usable. Every finding names the key and the remedy.

use super::ClusterSpec;
use std::fmt;

/// One thing that is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, as a person would point at it: `node[2] (gra-1).site`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.problem, self.remedy)
    }
}

/// Everything that is wrong with a specification; empty if it can be used.
pub fn check(spec: &ClusterSpec) -> Vec<Finding> {
    let _ = spec;
    Vec::new()
}
