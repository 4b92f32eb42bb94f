//! As much of JSON Schema as the format's schema uses. What it uses beyond that fails the test, so nothing is passed over.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// Words that say nothing about what is right.
const REMARKS: [&str; 6] = ["$schema", "$defs", "title", "description", "default", "examples"];

pub(super) struct Validator(pub(super) Value);

impl Validator {
    pub(super) fn is_valid(&self, value: &Value) -> bool {
        self.holds(&self.0, value)
    }

    /// What a reference means.
    pub(super) fn resolved<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        while let Some(reference) = schema["$ref"].as_str() {
            schema = self.0.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        }
        schema
    }

    fn holds(&self, schema: &Value, value: &Value) -> bool {
        if let Value::Bool(anything) = schema {
            return *anything;
        }
        let keywords = schema.as_object().unwrap();
        keywords.iter().filter(|(keyword, _)| !REMARKS.contains(&keyword.as_str())).all(
            |(keyword, wanted)| {
                let which = || wanted.as_array().unwrap().iter().filter(|one| self.holds(one, value)).count();
                match keyword.as_str() {
                    "$ref" => self.holds(self.resolved(schema), value),
                    "type" => is_a(wanted.as_str().unwrap(), value),
                    "const" => value == wanted,
                    "anyOf" => which() > 0,
                    "oneOf" => which() == 1,
                    "pattern" => {
                        let pattern = Regex::new(wanted.as_str().unwrap()).unwrap();
                        value.as_str().is_none_or(|text| pattern.is_match(text))
                    }
                    "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
                    "maximum" => value.as_f64().is_none_or(|number| number <= wanted.as_f64().unwrap()),
                    "minItems" => {
                        value.as_array().is_none_or(|list| list.len() as u64 >= wanted.as_u64().unwrap())
                    }
                    "items" => {
                        value.as_array().is_none_or(|list| list.iter().all(|one| self.holds(wanted, one)))
                    }
                    "required" => value.as_object().is_none_or(|object| {
                        wanted
                            .as_array()
                            .unwrap()
                            .iter()
                            .all(|key| object.contains_key(key.as_str().unwrap()))
                    }),
                    "properties" => value.as_object().is_none_or(|object| {
                        let mut keys = wanted.as_object().unwrap().iter();
                        keys.all(|(key, schema)| {
                            object.get(key).is_none_or(|value| self.holds(schema, value))
                        })
                    }),
                    "additionalProperties" => {
                        value.as_object().is_none_or(|object| self.others(keywords, wanted, object))
                    }
                    unknown => panic!("the schema says `{unknown}`, of which this knows nothing"),
                }
            },
        )
    }

    /// Whether what is not among the properties is right.
    fn others(&self, keywords: &Map<String, Value>, wanted: &Value, object: &Map<String, Value>) -> bool {
        let named = keywords["properties"].as_object().unwrap();
        let mut others = object.iter().filter(|(key, _)| !named.contains_key(*key));
        others.all(|(_, value)| self.holds(wanted, value))
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("the schema says `{unknown}`, which is no type that this knows"),
    }
}
