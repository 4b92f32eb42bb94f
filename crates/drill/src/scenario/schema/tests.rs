use super::super::{Scenario, builtins};
use super::json_schema;
use super::validation::Validator;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const LEAST: &str = "version = 1\nname = \"x\"\ndescription = \"y\"\n";
const STEP: &str = "[[step]]\ndo.kill = { nodes = \"owner\" }\n";

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(json_schema()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    Validator(schema)
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
        assert!(validator.is_valid(&value(&text)), "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, builtins().len());
}

/// What is wrong by itself is refused by the schema, and by the program.
#[test]
fn what_is_wrong_is_refused_by_both() {
    let validator = validator();
    assert!(validator.is_valid(&value(&format!("{LEAST}{STEP}"))));
    let mut wrong: Vec<_> = [
        "[topology]\nnodes_per_site = 9\n",
        "[topology]\nprofile = \"man\"\n",
        "[topology]\nannounce = \"both\"\n",
        "[load]\nhttp_clients = 501\n",
        "[load]\nhttp_pause = \"3\"\n",
        "[load]\nhttp_pause = 3\n",
        "[load]\nentry = \"door\"\n",
        "[guards]\nleader = \"nowhere\"\n",
        "[limits]\nhttp_gap = \"lease - 1ms\"\n",
        "[limits]\nhttp_gap = \"leases\"\n",
        "[limits]\nhttp_gap = \"1ms+1ms+1ms+1ms+1ms+1ms+1ms+1ms+1ms\"\n",
        "[limits]\nfailed_requests = -1\n",
        "[return]\nby = \"magic\"\n",
        "[other]\n",
        "[[step]]\ndo = \"dance\"\n",
        "[[step]]\ndo.kill = { nodes = \"Nobody!\" }\n",
        "[[step]]\ndo.kill = { node = \"owner\" }\n",
        "[[step]]\nafter = \"soon\"\ndo = \"resume\"\n",
        "[[step]]\ndo.wait = { until = \"healthy\" }\n",
        "[[step]]\ndo.redis = \"drop\"\n",
        "[[step]]\ndo.shape = { from = \"gra\", to = \"sbg\", loss_percent = 101 }\n",
        "[[step]]\ndo.repeat = { times = 0, every = \"1s\", steps = [{ do = \"resume\" }] }\n",
        "[[step]]\ndo.repeat = { times = 1, every = \"1s\", steps = [] }\n",
    ]
    .map(|rest| format!("{LEAST}{STEP}{rest}"))
    .into();
    wrong.extend([
        format!("version = 2\nname = \"x\"\ndescription = \"y\"\n{STEP}"),
        format!("version = 1\nname = \"X y\"\ndescription = \"y\"\n{STEP}"),
        format!("version = 1\nname = \"x\"\n{STEP}"),
        LEAST.to_owned(),
    ]);
    for text in wrong {
        assert!(!validator.is_valid(&value(&text)), "the schema takes:\n{text}");
        assert!(Scenario::parse("x.toml", &text).is_err(), "the program takes:\n{text}");
    }
}

/// What the program says it takes where it does not know a word.
fn words_taken(text: &str) -> BTreeSet<String> {
    let errors = Scenario::parse("x.toml", text).unwrap_err();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    let problem = &error.problem;
    let (_, words) = problem
        .split_once(", expected ")
        .or_else(|| problem.split_once("is neither a name nor one of "))
        .unwrap_or_else(|| panic!("{text}\n{problem}"));
    let words = words.trim_start_matches("one of ");
    let word = |word: &str| word.trim().trim_matches('`').to_owned();
    // "`a` or `b`" where there are two.
    words.split([',']).flat_map(|part| part.split(" or ")).map(word).filter(|word| !word.is_empty()).collect()
}

/// Walks through the schema with a text that leads the program to the same place.
fn agree(validator: &Validator, schema: &Value, lead: &dyn Fn(&str) -> String, checked: &mut usize) {
    let schema = validator.resolved(schema);
    if let Some(properties) = schema["properties"].as_object() {
        let known: BTreeSet<_> = properties.keys().cloned().collect();
        let taken = words_taken(&lead("{ zzz = 1 }"));
        assert_eq!(taken, known, "{}", lead("{ zzz = 1 }"));
        *checked += 1;
        for (key, property) in properties {
            let inner = |value: &str| lead(&format!("{{ {key} = {value} }}"));
            described(property, key);
            agree(validator, property, &inner, checked);
        }
        return;
    }
    for choice in ["oneOf", "anyOf"] {
        let Some(choices) = schema[choice].as_array() else { continue };
        let mut known = BTreeSet::new();
        for one in choices {
            if let Some(word) = one["const"].as_str() {
                described(one, word);
                known.insert(word.to_owned());
            } else if let Some(action) = one["required"][0].as_str() {
                described(one, action);
                known.insert(action.to_owned());
                // Steps within steps are the same steps.
                if action != "repeat" {
                    let inner = |value: &str| lead(&format!("{{ {action} = {value} }}"));
                    agree(validator, &one["properties"][action], &inner, checked);
                }
            }
        }
        let unknown = if choice == "anyOf" { "\"Zzz!\"" } else { "\"zzz\"" };
        assert_eq!(words_taken(&lead(unknown)), known, "{}", lead(unknown));
        *checked += 1;
    }
}

#[track_caller]
fn described(schema: &Value, what: &str) {
    assert!(schema["description"].as_str().is_some_and(|text| text.len() > 2), "{what}: {schema}");
}

#[test]
fn the_schema_knows_the_words_that_the_program_knows_and_no_others() {
    let validator = validator();
    let mut checked = 0;
    let root = words_taken(&format!("zzz = 1\n{LEAST}{STEP}"));
    let known: BTreeSet<_> = validator.0["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(root, known);
    for (key, part) in validator.0["properties"].as_object().unwrap() {
        described(part, key);
        let table = |value: &str| format!("{LEAST}{key} = {value}\n{STEP}");
        match key.as_str() {
            "step" => {
                let step = |value: &str| format!("{LEAST}step = [{value}]\n");
                agree(&validator, &part["items"], &step, &mut checked);
            }
            "version" | "name" | "description" => {}
            _ => agree(&validator, part, &table, &mut checked),
        }
    }
    assert!(checked > 40, "{checked}");
}
