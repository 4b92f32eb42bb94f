//! What documents mean, as a person would write it down.

mod directives;
mod errors;
mod examples;
mod fuzz;
mod order;
mod requests;
mod traps;

use super::{AdaptError, Adapted, Wishes, adapt};
use crate::{Document, Surroundings};
use twinsite_model::spec::{HeaderEdits, RouteSpec, Scheme};

struct Nothing;

impl Surroundings for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn files(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("there are none".to_owned())
    }
}

fn document(text: &str) -> Document {
    crate::read("Caddyfile", text, &Nothing).unwrap()
}

/// All upstreams at one site.
fn wishes() -> Wishes {
    Wishes { site: Some("gra".parse().unwrap()), ..Wishes::default() }
}

#[track_caller]
fn adapted(text: &str) -> Adapted {
    adapt(&document(text), &wishes()).unwrap()
}

/// Every error as `line:column: what`.
#[track_caller]
fn errors(text: &str) -> Vec<String> {
    let said = |error: &AdaptError| {
        assert!(!error.remedy.is_empty() && !error.to_string().contains('\n'), "{error}");
        format!("{}:{}: {}", error.place.line, error.place.column, error.what)
    };
    adapt(&document(text), &wishes()).unwrap_err().iter().map(said).collect()
}

/// Expects one error at `line:column`, and these words in it.
#[track_caller]
fn wrong(text: &str, place: &str, words: &str) {
    let errors = errors(text);
    let is_it =
        errors.len() == 1 && errors[0].starts_with(&format!("{place}: ")) && errors[0].contains(words);
    assert!(is_it, "expected {place}: …{words}…, found {errors:#?}");
}

/// A site with these directives, from line 2 on.
fn site(directives: &str) -> String {
    format!("http://a.org {{\n{directives}\n}}\n")
}

/// The routes of a document, each in a line.
#[track_caller]
fn routes(text: &str) -> Vec<String> {
    adapted(text).routes.iter().map(line).collect()
}

fn line(route: &RouteSpec) -> String {
    let scheme = match route.matches.scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        None => "any",
    };
    let mut line = format!("{}: {scheme}://{}{}", route.name, route.hosts.join(","), route.path);
    if !route.matches.methods.is_empty() {
        line += &format!(" {}", route.matches.methods.join(","));
    }
    for (name, pattern) in route.matches.headers.iter().chain(&route.matches.query) {
        line += &format!(" {name}={pattern}");
    }
    let names: Vec<_> = route.upstreams.iter().map(ToString::to_string).collect();
    if let Some(redirect) = &route.redirect {
        line += &format!(" -> {} {}", redirect.status, redirect.to);
    } else if let Some(respond) = &route.respond {
        line += &format!(" -> {} {:?}", respond.status, respond.body.to_string());
    } else {
        line += &format!(" -> {} {:?}", names.join(","), route.balance);
    }
    line + &edits(">", &route.request_headers) + &edits("<", &route.response_headers)
}

fn edits(sign: &str, edits: &HeaderEdits) -> String {
    let removed = edits.remove.iter().map(|name| format!(" {sign}-{name}"));
    let set = edits.set.iter().map(|(name, value)| format!(" {sign}{name}={value}"));
    let added = edits.add.iter().map(|(name, value)| format!(" {sign}+{name}={value}"));
    removed.chain(set).chain(added).collect()
}
