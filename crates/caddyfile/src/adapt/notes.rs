//! What is found out on the way: errors, and what surprises.

use crate::place::Place;

/// Something that twinsite cannot do, or cannot understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct AdaptError {
    /// Where it is written.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Something that is supported, and does not do what one might think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// Where it is written.
    pub place: Place,
    /// What surprises.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl std::fmt::Display for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: warning: {}; {}", self.place, self.what, self.remedy)
    }
}

/// Both, as they are found. The same thing in a snippet that is imported twice is told once.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) errors: Vec<AdaptError>,
    traps: Vec<Trap>,
}

impl Notes {
    /// Keeps an error. Gives nothing, as what is wrong is.
    pub(super) fn error<T>(
        &mut self,
        place: &Place,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Option<T> {
        let error = AdaptError { place: place.clone(), what: what.into(), remedy: remedy.into() };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
        None
    }

    pub(super) fn trap(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        let trap = Trap { place: place.clone(), what: what.into(), remedy: remedy.into() };
        if !self.traps.contains(&trap) {
            self.traps.push(trap);
        }
    }

    /// Both file by file, in the order of their places.
    pub(super) fn into_parts(mut self) -> (Vec<AdaptError>, Vec<Trap>) {
        let mut files = Vec::new();
        let places = self.errors.iter().map(|error| &error.place);
        for place in places.chain(self.traps.iter().map(|trap| &trap.place)) {
            if !files.contains(&place.file) {
                files.push(place.file.clone());
            }
        }
        let rank =
            |place: &Place| (files.iter().position(|file| *file == place.file), place.line, place.column);
        self.errors.sort_by_key(|error| rank(&error.place));
        self.traps.sort_by_key(|trap| rank(&trap.place));
        (self.errors, self.traps)
    }
}

/// What somebody wrote, fit for a message of one line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown += "...";
    }
    shown
}
