//! The JSON Schema of the format, for editors and other programs.
//!
//! It is written by hand beside the types, with a description of everything. That it says what the types say is tested:
//! reading a scenario names the words that it takes wherever it meets one that it does not know, and these must be the
//! schema's. What depends on other values ("no earlier step has hit a node") only [`super::Scenario::parse`] finds.

/// The schema, draft 2020-12.
pub const fn json_schema() -> &'static str {
    include_str!("schema.json")
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod validation;
