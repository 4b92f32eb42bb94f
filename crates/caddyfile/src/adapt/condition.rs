//! What a request looks like: all that one route can ask for.

use super::host;
use super::path::Paths;
use std::collections::BTreeMap;
use twinsite_model::spec::{MatchSpec, Pattern, Scheme};

/// All of this. What is empty asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// One of these.
    pub(super) hosts: Vec<String>,
    pub(super) paths: Paths,
    /// One of these.
    pub(super) methods: Vec<String>,
    pub(super) scheme: Option<Scheme>,
    /// By their names in lower case.
    pub(super) headers: BTreeMap<String, Pattern>,
    pub(super) query: BTreeMap<String, Pattern>,
}

/// What two conditions are together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Both {
    /// No request looks like both.
    Never,
    /// One that looks like both.
    Is(Box<Condition>),
    /// A route cannot say it: two patterns for this header or parameter.
    Unsayable(String),
}

impl Condition {
    /// Both together.
    pub(super) fn and(&self, other: &Self) -> Both {
        let Some(hosts) = meet(&self.hosts, &other.hosts, |a, b| host::and(a, b).map(str::to_owned)) else {
            return Both::Never;
        };
        let same = |a: &String, b: &String| (a == b).then(|| a.clone());
        let Some(methods) = meet(&self.methods, &other.methods, same) else { return Both::Never };
        let Some(paths) = self.paths.and(&other.paths) else { return Both::Never };
        if self.scheme.is_some() && other.scheme.is_some() && self.scheme != other.scheme {
            return Both::Never;
        }
        let patterns = patterns(&self.headers, &other.headers)
            .and_then(|headers| Ok((headers, patterns(&self.query, &other.query)?)));
        match patterns {
            Ok((headers, query)) => {
                let scheme = self.scheme.or(other.scheme);
                Both::Is(Box::new(Self { hosts, paths, methods, scheme, headers, query }))
            }
            Err(name) => Both::Unsayable(name),
        }
    }

    /// Whether every request that looks like the other looks like this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let hosts = self.hosts.is_empty()
            || !other.hosts.is_empty()
                && other.hosts.iter().all(|theirs| self.hosts.iter().any(|own| host::covers(own, theirs)));
        let methods = self.methods.is_empty()
            || !other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method));
        let scheme = self.scheme.is_none() || self.scheme == other.scheme;
        let all = |own: &BTreeMap<String, Pattern>, theirs: &BTreeMap<String, Pattern>| {
            own.iter().all(|(name, pattern)| theirs.get(name).is_some_and(|theirs| covers(pattern, theirs)))
        };
        hosts
            && methods
            && scheme
            && self.paths.covers(&other.paths)
            && all(&self.headers, &other.headers)
            && all(&self.query, &other.query)
    }

    /// What a route asks for beside host and path.
    pub(super) fn matches(&self) -> MatchSpec {
        MatchSpec {
            methods: self.methods.clone(),
            scheme: self.scheme,
            headers: self.headers.clone(),
            query: self.query.clone(),
        }
    }
}

/// Those of two lists that are in both, where an empty list is everything; none if nothing is in both.
fn meet<T: Clone + PartialEq>(one: &[T], other: &[T], and: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    match (one, other) {
        ([], any) | (any, []) => Some(any.to_vec()),
        _ => {
            let mut both = Vec::new();
            for found in one.iter().flat_map(|a| other.iter().filter_map(|b| and(a, b))) {
                if !both.contains(&found) {
                    both.push(found);
                }
            }
            (!both.is_empty()).then_some(both)
        }
    }
}

/// What each must look like to please both; the name of one of which that cannot be said.
fn patterns(
    one: &BTreeMap<String, Pattern>,
    other: &BTreeMap<String, Pattern>,
) -> Result<BTreeMap<String, Pattern>, String> {
    let mut both = one.clone();
    for (name, theirs) in other {
        match both.get(name) {
            Some(own) if covers(theirs, own) => {}
            Some(own) if !covers(own, theirs) => return Err(name.clone()),
            _ => {
                both.insert(name.clone(), theirs.clone());
            }
        }
    }
    Ok(both)
}

fn covers(own: &Pattern, theirs: &Pattern) -> bool {
    let (text, other) = (own.to_string(), theirs.to_string());
    own == theirs || text == "*" || !other.contains('*') && own.matches(&other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, pattern: &str) -> Condition {
        let pattern = Pattern::try_from(pattern.to_owned()).unwrap();
        Condition { headers: BTreeMap::from([(name.to_owned(), pattern)]), ..Condition::default() }
    }

    #[test]
    fn conditions_add_up() {
        let get = Condition { methods: vec!["GET".to_owned()], ..Condition::default() };
        let post = Condition { methods: vec!["POST".to_owned()], ..Condition::default() };
        assert_eq!(get.and(&post), Both::Never);
        assert_eq!(get.and(&Condition::default()), Both::Is(Box::new(get.clone())));
        assert!(Condition::default().covers(&get) && !get.covers(&Condition::default()));
        let both = header("a", "*").and(&header("a", "x"));
        assert_eq!(both, Both::Is(Box::new(header("a", "x"))));
        assert_eq!(header("a", "x*").and(&header("a", "*y")), Both::Unsayable("a".to_owned()));
        assert!(header("a", "x*").covers(&header("a", "xy")) && !header("a", "x").covers(&header("b", "x")));
    }
}
