//! What differs between two specifications, for people: a line for each thing.

use super::{ClusterSpec, to_json};
use serde_json::{Map, Value};
use std::fmt;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where, as a person would point at it: `route (static).balance`.
    pub key: String,
    /// What was there, as JSON; none for what is new.
    pub before: Option<String>,
    /// What is there now; none for what is gone.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, before, after } = self;
        match (before, after) {
            (None, Some(after)) => write!(f, "+ {key}: {after}"),
            (Some(before), None) => write!(f, "- {key}: {before}"),
            (Some(before), Some(after)) => write!(f, "~ {key}: {before} -> {after}"),
            (None, None) => write!(f, "  {key}"),
        }
    }
}

/// Everything that differs, in the order of the keys. Things with a name are compared with their namesakes, wherever they
/// stand; that they stand in another order is a change of its own.
pub fn changes(former: &ClusterSpec, new: &ClusterSpec) -> Vec<Change> {
    let value = |spec: &ClusterSpec| serde_json::from_slice(&to_json(spec)).unwrap_or(Value::Null);
    let mut found = Vec::new();
    compare("", Some(&value(former)), Some(&value(new)), &mut found);
    found
}

fn compare(key: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    match (before, after) {
        (Some(before), Some(after)) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            for name in keys(before, after) {
                let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(&inner, before.get(&name), after.get(&name), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) if are_named(before) && are_named(after) => {
            compare_named(key, before, after, found);
        }
        _ => found.push(Change {
            key: key.to_owned(),
            before: before.map(Value::to_string),
            after: after.map(Value::to_string),
        }),
    }
}

fn keys(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let new = after.keys().filter(|name| !before.contains_key(*name));
    before.keys().chain(new).cloned().collect()
}

fn name(value: &Value) -> Option<&str> {
    value.get("name")?.as_str()
}

fn are_named(values: &[Value]) -> bool {
    values.iter().all(|value| name(value).is_some())
}

fn compare_named(key: &str, before: &[Value], after: &[Value], found: &mut Vec<Change>) {
    let in_list = |list: &[Value], wanted: &Value| list.iter().position(|value| name(value) == name(wanted));
    let label = |value: &Value| format!("{key} ({})", name(value).unwrap_or_default());
    for value in before {
        compare(&label(value), Some(value), in_list(after, value).map(|at| &after[at]), found);
    }
    for value in after.iter().filter(|value| in_list(before, value).is_none()) {
        compare(&label(value), None, Some(value), found);
    }
    let order = |list: &[Value], other: &[Value]| -> Vec<String> {
        let both = list.iter().filter(|value| in_list(other, value).is_some());
        both.filter_map(name).map(str::to_owned).collect()
    };
    let (former, new) = (order(before, after), order(after, before));
    if former != new {
        let order = |names: Vec<String>| Some(names.join(", "));
        found.push(Change { key: format!("{key}: order"), before: order(former), after: order(new) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::sound_spec;
    use crate::spec::Balance;

    fn said(change: impl FnOnce(&mut ClusterSpec)) -> Vec<String> {
        let (former, mut new) = (sound_spec(), sound_spec());
        change(&mut new);
        changes(&former, &new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_the_same_is_not_said() {
        assert!(said(|_| ()).is_empty());
    }

    #[test]
    fn a_value_is_said_with_its_place() {
        assert_eq!(
            said(|spec| {
                spec.routes[1].balance = Balance::First;
                spec.health.rise = 7;
            }),
            ["~ health.rise: 2 -> 7", "~ route (static).balance: \"round_robin\" -> \"first\""]
        );
        assert_eq!(
            said(|spec| spec.routes[0].room_query = None),
            ["- route (signalling).room_query: \"roomId\""]
        );
    }

    #[test]
    fn what_has_a_name_is_compared_with_its_namesake() {
        let lines = said(|spec| drop(spec.routes.remove(0)));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("- route (signalling): {"), "{lines:?}");
        let lines = said(|spec| {
            let mut more = spec.upstreams[0].clone();
            more.name = crate::samples::upstream("gra-meet-9");
            spec.upstreams.insert(0, more);
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("+ upstream (gra-meet-9): {"), "{lines:?}");
    }

    #[test]
    fn another_order_is_a_change_too() {
        let lines = said(|spec| spec.routes.swap(0, 1));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("~ route: order: signalling, static"), "{lines:?}");
    }
}
