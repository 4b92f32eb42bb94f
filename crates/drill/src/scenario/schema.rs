//! The JSON Schema of the format: made from the types that read it, so that it says what they say.
//!
//! It says what a value may be, and refuses what is no value at all. What depends on other values ("no earlier step has
//! hit a node") only [`super::Scenario::parse`] finds.

use super::Scenario;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// One or more numbers with their units.
const DURATION: &str = "[0-9]+\\s*[a-zA-Zµ]+(\\s*[0-9]+\\s*[a-zA-Zµ]+)*|0";
/// A name of a node, a site or a meeting instance.
const NAME: &str = "^[a-z0-9][a-z0-9-]{0,47}$";

/// The schema, draft 2020-12.
pub fn json_schema() -> Schema {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<Scenario>();
    let title = "A drill of twinsite: the cluster, the clients, what is broken, and what must hold";
    schema.insert("title".to_owned(), title.into());
    schema
}

/// A type that stands for one of another crate in the schema.
macro_rules! stands_for {
    ($(#[$doc:meta])* $name:ident as $as:literal { $($schema:tt)* }) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $as.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ $($schema)* })
            }
        }
    };
}

stands_for! {
    /// The version of the format.
    Version as "Version" { "const": super::FORMAT_VERSION }
}
stands_for! {
    /// The name of a scenario.
    ScenarioName as "ScenarioName" { "type": "string", "pattern": "^[a-z0-9-]{1,64}$" }
}
stands_for! {
    /// The timings.
    ProfileWord as "Profile" { "enum": ["lan", "wan"] }
}
stands_for! {
    /// What meeting instances announce.
    AnnounceWord as "AnnounceMode" {
        "oneOf": [
            { "const": "site", "description": "The site's own address: media never moves." },
            { "const": "floating", "description": "The floating address, while this site holds it." }
        ]
    }
}
stands_for! {
    /// A duration with its unit.
    DurationText as "Duration" {
        "type": "string",
        "pattern": format!("^({DURATION})$"),
        "examples": ["250ms", "3s", "10m"]
    }
}

/// A sum of durations and of timings with these names.
pub(super) fn sum_of(names: &[&str]) -> Schema {
    let term = format!("([0-9]+\\s*\\*\\s*)?({}|{DURATION})", names.join("|"));
    json_schema!({
        "description": format!("A duration, or a sum of durations and timings of the cluster: {}.", names.join(", ")),
        "type": "string",
        "pattern": format!("^\\s*{term}(\\s*\\+\\s*{term}){{0,7}}\\s*$"),
        "examples": ["500ms", "lease + 200ms", "2*lease + 600ms"]
    })
}

/// One of some words with their meanings, or a name.
pub(super) fn word_or_name(words: &[(&str, &str)]) -> Schema {
    let mut any: Vec<_> = words
        .iter()
        .map(|(word, meaning)| serde_json::json!({ "const": word, "description": meaning.trim() }))
        .collect();
    any.push(serde_json::json!({ "type": "string", "pattern": NAME, "description": "This very one." }));
    json_schema!({ "anyOf": any })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonschema::Validator;
    use serde_json::Value;
    use std::path::Path;

    fn validator() -> Validator {
        let schema = json_schema().to_value();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        jsonschema::draft202012::new(&schema).unwrap()
    }

    fn value(text: &str) -> Value {
        serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
    }

    #[test]
    fn every_scenario_is_right_by_the_schema() {
        let validator = validator();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let wrong: Vec<_> = validator.iter_errors(&value(&text)).map(|error| error.to_string()).collect();
            assert_eq!(wrong, Vec::<String>::new(), "{}", path.display());
            seen += 1;
        }
        assert_eq!(seen, super::super::builtins().len());
    }

    /// What is wrong by itself is refused by the schema, and by the program.
    #[test]
    fn what_is_wrong_is_refused_by_both() {
        let validator = validator();
        let least = "version = 1\nname = \"x\"\ndescription = \"y\"\n";
        let step = "[[step]]\ndo.kill = { nodes = \"owner\" }\n";
        assert!(validator.is_valid(&value(&format!("{least}{step}"))));
        let wrong = [
            format!("version = 2\nname = \"x\"\ndescription = \"y\"\n{step}"),
            format!("version = 1\nname = \"X y\"\ndescription = \"y\"\n{step}"),
            format!("version = 1\nname = \"x\"\n{step}"),
            least.to_owned(),
            format!("{least}unknown = 1\n{step}"),
            format!("{least}{step}[topology]\nnodes_per_site = 9\n"),
            format!("{least}{step}[topology]\nprofile = \"man\"\n"),
            format!("{least}{step}[topology]\nannounce = \"both\"\n"),
            format!("{least}{step}[load]\nhttp_clients = 501\n"),
            format!("{least}{step}[load]\nhttp_pause = \"3\"\n"),
            format!("{least}{step}[load]\nhttp_pause = 3\n"),
            format!("{least}{step}[load]\nentry = \"door\"\n"),
            format!("{least}{step}[guards]\nleader = \"nowhere\"\n"),
            format!("{least}{step}[limits]\nhttp_gap = \"lease - 1ms\"\n"),
            format!("{least}{step}[limits]\nhttp_gap = \"leases\"\n"),
            format!("{least}{step}[limits]\nfailed_requests = -1\n"),
            format!("{least}{step}[return]\nby = \"magic\"\n"),
            format!("{least}[[step]]\ndo = \"dance\"\n"),
            format!("{least}[[step]]\ndo.kill = {{ nodes = \"Nobody!\" }}\n"),
            format!("{least}[[step]]\ndo.kill = {{ node = \"owner\" }}\n"),
            format!("{least}[[step]]\nafter = \"soon\"\ndo = \"resume\"\n"),
            format!("{least}[[step]]\ndo.wait = {{ until = \"healthy\" }}\n"),
            format!("{least}[[step]]\ndo.redis = \"drop\"\n"),
            format!(
                "{least}[[step]]\ndo.repeat = {{ times = 0, every = \"1s\", steps = [{{ do = \"resume\" }}] }}\n"
            ),
        ];
        for text in wrong {
            assert!(!validator.is_valid(&value(&text)), "the schema takes:\n{text}");
            assert!(Scenario::parse("x.toml", &text).is_err(), "the program takes:\n{text}");
        }
    }

    /// Every word that the program takes is in the schema, and has its meaning there.
    #[test]
    fn every_word_is_described() {
        let schema = json_schema().to_value();
        let text = schema.to_string();
        for word in
            ["cut-host", "restart-rolling", "survivors", "owner-at-other-site", "truncated", "all-nodes"]
        {
            assert!(text.contains(&format!("\"{word}\"")), "{word}");
        }
        let properties = |value: &Value| value["properties"].as_object().cloned().unwrap_or_default();
        let mut described = 0;
        for part in schema["$defs"].as_object().unwrap().values().chain([&schema]) {
            for (key, property) in properties(part) {
                // A `do` with one key is an action, whose words are beside it.
                let is_action = part["required"] == serde_json::json!([key])
                    && part["properties"].as_object().unwrap().len() == 1;
                assert!(is_action || property["description"].is_string(), "{key}: {property}");
                described += 1;
            }
        }
        assert!(described > 40, "{described}");
    }
}
