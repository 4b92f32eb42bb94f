//! Matchers: which requests a directive is for.

use super::condition::Condition;
use super::host;
use super::line;
use super::notes::{Notes, shown};
use super::path::Paths;
use crate::document::{Directive, Word};
use std::collections::BTreeMap;
use std::rc::Rc;
use twinsite_model::spec::{Pattern, Scheme};

/// Of one matcher; each becomes a route of its own.
const ALTERNATIVES_MAX: usize = 64;

/// One matcher: a request must look like one of its alternatives.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) alternatives: Vec<Condition>,
    /// Its path as it is written, if it has exactly one: by that Caddy sorts directives.
    pub(super) only_path: Option<String>,
    /// What a route of it can be called.
    pub(super) name: String,
}

/// The named matchers of a block and of those around it. One that is wrong is known, and none.
pub(super) type Named = BTreeMap<String, Option<Rc<Matcher>>>;

/// Adds what a block defines.
pub(super) fn define(directives: &[Directive], named: &mut Named, notes: &mut Notes) {
    let mut own: Vec<&str> = Vec::new();
    for definition in directives.iter().filter(|directive| is_definition(directive)) {
        let name = definition.name.text.as_str();
        if own.contains(&name) {
            let what = format!("`{}` is defined twice in this block", shown(name));
            notes.error::<()>(&definition.name.place, what, "give each matcher its own name");
        }
        own.push(name);
        named.insert(name.to_owned(), read(definition, notes).map(Rc::new));
    }
}

/// Whether it is `@name ...`.
pub(super) fn is_definition(directive: &Directive) -> bool {
    directive.name.text.starts_with('@')
}

/// For whom a directive is.
#[derive(Debug, Clone)]
pub(super) enum For {
    /// All requests.
    All,
    /// Some.
    Some(Rc<Matcher>),
}

impl For {
    pub(super) fn matcher(&self) -> Option<&Matcher> {
        match self {
            Self::All => None,
            Self::Some(matcher) => Some(matcher),
        }
    }
}

/// Takes the matcher from the front of a directive's arguments, if there is one: `*`, `/path` or `@name`.
pub(super) fn token<'d>(
    arguments: &'d [Word],
    named: &Named,
    notes: &mut Notes,
) -> Option<(For, &'d [Word])> {
    let Some((first, rest)) = arguments.split_first() else { return Some((For::All, arguments)) };
    if first.text == "*" {
        return Some((For::All, rest));
    }
    if first.text.starts_with('/') {
        let condition = Condition { paths: path(first, notes)?, ..Condition::default() };
        let matcher = Matcher {
            alternatives: vec![condition],
            only_path: Some(first.text.clone()),
            name: String::new(),
        };
        return Some((For::Some(Rc::new(matcher)), rest));
    }
    if first.text.starts_with('@') {
        let Some(matcher) = named.get(&first.text) else {
            let what = format!("there is no matcher `{}`", shown(&first.text));
            return notes.error(&first.place, what, "define it in this block or in one around it");
        };
        return Some((For::Some(Rc::clone(matcher.as_ref()?)), rest));
    }
    Some((For::All, arguments))
}

/// What a definition has said so far.
#[derive(Default)]
struct Said {
    paths: Vec<(String, Paths)>,
    /// Each with its alternatives.
    headers: BTreeMap<String, Vec<Pattern>>,
    query: BTreeMap<String, Vec<Pattern>>,
    rest: Condition,
}

fn read(definition: &Directive, notes: &mut Notes) -> Option<Matcher> {
    let mut said = Said::default();
    let errors = notes.errors.len();
    match (definition.arguments.as_slice(), &definition.block) {
        ([], Some(lines)) if !lines.is_empty() => {
            for one in lines {
                if one.block.is_some() && is_known(&one.name.text) {
                    line::wrong::<()>(one, &format!("{} VALUE", one.name.text), notes);
                } else {
                    said.add(&one.name, &one.arguments, notes);
                }
            }
        }
        ([name, values @ ..], None) => said.add(name, values, notes),
        // `not { ... }` and its like.
        ([name, ..], Some(_)) if !is_known(&name.text) => said.add(name, &[], notes),
        _ => {
            let what = format!("the matcher `{}` says nothing, or too much", shown(&definition.name.text));
            let remedy = "write `@name path /a /b`, or a block of such lines";
            return notes.error(&definition.name.place, what, remedy);
        }
    }
    if notes.errors.len() > errors {
        return None;
    }
    let only_path = match said.paths.as_slice() {
        [(written, _)] => Some(written.clone()),
        _ => None,
    };
    let name = definition.name.text.trim_start_matches('@').to_owned();
    let Some(alternatives) = said.alternatives() else {
        let what =
            format!("`{}` stands for more than {ALTERNATIVES_MAX} routes", shown(&definition.name.text));
        return notes.error(&definition.name.place, what, "name fewer paths and values in one matcher");
    };
    Some(Matcher { alternatives, only_path, name })
}

fn is_known(kind: &str) -> bool {
    matches!(kind, "path" | "host" | "method" | "header" | "query" | "protocol")
}

impl Said {
    fn add(&mut self, kind: &Word, values: &[Word], notes: &mut Notes) {
        if is_known(&kind.text) && values.is_empty() {
            let remedy = format!("write `{} VALUE`", kind.text);
            notes.error::<()>(&kind.place, format!("`{}` has no value", kind.text), remedy);
            return;
        }
        if let Some(value) = values.iter().find(|value| is_known(&kind.text) && value.text.contains('{')) {
            let what =
                format!("`{}` has a placeholder, and a route looks for a fixed text", shown(&value.text));
            notes.error::<()>(&value.place, what, "write the text");
            return;
        }
        match kind.text.as_str() {
            "path" => {
                for value in values {
                    self.paths.extend(path(value, notes).map(|paths| (value.text.clone(), paths)));
                }
            }
            "host" => values.iter().for_each(|value| self.host(value, notes)),
            "method" => self.rest.methods.extend(values.iter().map(|value| value.text.to_ascii_uppercase())),
            "header" => self.header(kind, values, notes),
            "query" => values.iter().for_each(|value| self.query(value, notes)),
            "protocol" => self.protocol(values, notes),
            other => {
                let what = format!("the matcher `{}` is not supported", shown(other));
                let remedy = "use `path`, `host`, `method`, `header`, `query` and `protocol`; what must not match goes into a \
                              `handle` with a narrower matcher before";
                notes.error::<()>(&kind.place, what, remedy);
            }
        }
    }

    fn host(&mut self, value: &Word, notes: &mut Notes) {
        match host::read(&value.text) {
            Some(host) => self.rest.hosts.push(host),
            None => {
                let what = format!("`{}` is not a host name", shown(&value.text));
                notes.error::<()>(
                    &value.place,
                    what,
                    "write `example.com`, or `*.example.com` for all names below",
                );
            }
        }
    }

    fn header(&mut self, kind: &Word, values: &[Word], notes: &mut Notes) {
        let [name, value] = values else {
            let remedy = "write `header FIELD VALUE`, with `*` at the ends of the value for anything";
            notes.error::<()>(&kind.place, "`header` needs a name and a value", remedy);
            return;
        };
        if name.text.starts_with('!') {
            let what =
                format!("`{}` asks for a header that is not there, which a route cannot", shown(&name.text));
            notes.error::<()>(&name.place, what, "match those that have it in a `handle` before this one");
            return;
        }
        match Pattern::try_from(value.text.clone()) {
            Ok(pattern) => self.headers.entry(name.text.to_ascii_lowercase()).or_default().push(pattern),
            Err(error) => {
                let what = format!("`{}`: {error}", shown(&value.text));
                notes.error::<()>(&value.place, what, "write `*` at the ends of the value only");
            }
        }
    }

    fn query(&mut self, value: &Word, notes: &mut Notes) {
        let parts = value.text.split_once('=').filter(|(name, _)| !name.is_empty());
        let pattern = parts.map(|(name, wanted)| (name, wanted, Pattern::try_from(wanted.to_owned())));
        match pattern {
            Some((name, wanted, Ok(pattern))) if wanted == "*" || !wanted.contains('*') => {
                self.query.entry(name.to_owned()).or_default().push(pattern);
            }
            _ => {
                let what = format!("`{}` is not a parameter and its value", shown(&value.text));
                notes.error::<()>(&value.place, what, "write `NAME=VALUE`, or `NAME=*` for any value");
            }
        }
    }

    fn protocol(&mut self, values: &[Word], notes: &mut Notes) {
        let wanted = match values {
            [value] if value.text == "http" => Ok(Scheme::Http),
            [value] if value.text == "https" => Ok(Scheme::Https),
            [value, ..] => Err(value),
            [] => return,
        };
        match wanted {
            Ok(scheme) if self.rest.scheme.is_none_or(|other| other == scheme) => {
                self.rest.scheme = Some(scheme);
            }
            Ok(_) => {
                let place = &values[0].place;
                notes.error::<()>(place, "`http` and `https` exclude each other", "write one of them");
            }
            Err(value) => {
                let what = format!("the protocol `{}` cannot be asked for", shown(&value.text));
                notes.error::<()>(&value.place, what, "write `http` or `https`");
            }
        }
    }

    /// Every combination of a path and of patterns; none if there are too many.
    fn alternatives(self) -> Option<Vec<Condition>> {
        let mut all = vec![self.rest];
        if !self.paths.is_empty() {
            let with = |base: &Condition, paths: &Paths| Condition { paths: paths.clone(), ..base.clone() };
            all = all.iter().flat_map(|base| self.paths.iter().map(|(_, paths)| with(base, paths))).collect();
        }
        for (name, patterns) in &self.headers {
            all = product(&all, patterns, |one, pattern| {
                one.headers.insert(name.clone(), pattern);
            })?;
        }
        for (name, patterns) in &self.query {
            all = product(&all, patterns, |one, pattern| {
                one.query.insert(name.clone(), pattern);
            })?;
        }
        (all.len() <= ALTERNATIVES_MAX).then_some(all)
    }
}

fn product(
    all: &[Condition],
    patterns: &[Pattern],
    put: impl Fn(&mut Condition, Pattern),
) -> Option<Vec<Condition>> {
    if all.len() * patterns.len() > ALTERNATIVES_MAX {
        return None;
    }
    let mut product = Vec::new();
    for base in all {
        for pattern in patterns {
            let mut one = base.clone();
            put(&mut one, pattern.clone());
            product.push(one);
        }
    }
    Some(product)
}

fn path(value: &Word, notes: &mut Notes) -> Option<Paths> {
    if value.text.contains('{') {
        let what = format!("`{}` has a placeholder, and a route looks for a fixed path", shown(&value.text));
        return notes.error(&value.place, what, "write the path");
    }
    let paths = Paths::new(&value.text);
    if let Ok(paths) = &paths
        && paths.to_string().bytes().any(|byte| byte.is_ascii_uppercase())
    {
        let what = format!(
            "`{}`: to Caddy upper and lower case are the same in paths, to twinsite they are not",
            value.text
        );
        notes.trap(&value.place, what, "write the path as clients ask for it");
    }
    paths
        .map_err(|problem| {
            let what = format!("`{}`: {problem}", shown(&value.text));
            notes.error::<()>(
                &value.place,
                what,
                "write a path as in `/health`, or a beginning as in `/static/*`",
            )
        })
        .ok()
}
