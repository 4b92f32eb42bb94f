//! Directives of a site, read into what they do.

use super::answer;
use super::headers::{Changes, Of};
use super::matcher::{self, For, Named};
use super::notes::{Notes, shown};
use super::order;
use super::proxy::{self, Backends, Rule};
use crate::document::Directive;
use crate::place::Place;
use twinsite_model::spec::{Compression, RedirectSpec, RespondSpec};

/// Directives of one block; each is compared with the others.
const BLOCK_MAX: usize = 1_000;

/// One directive.
#[derive(Debug)]
pub(super) struct Item<'d> {
    pub(super) name: &'d str,
    pub(super) place: &'d Place,
    pub(super) to: For,
    pub(super) what: What<'d>,
}

/// What it does.
#[derive(Debug)]
pub(super) enum What<'d> {
    /// Changes what goes on to whatever is after it.
    Change(Change),
    /// Does what is in its block, and no other block of its kind beside it does anything.
    Handle(Vec<Item<'d>>),
    /// Does what is in its block.
    Route(Vec<Item<'d>>),
    /// Answers, and nothing after it is done.
    Answer(Answer),
}

/// What changes on the way.
#[derive(Debug)]
pub(super) enum Change {
    Answer(Changes),
    Request(Changes),
    Encode(Vec<Compression>),
}

/// Who answers.
#[derive(Debug)]
pub(super) enum Answer {
    Redirect(RedirectSpec),
    Respond(RespondSpec),
    Proxy(Box<Rule>),
}

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// A site's own; `tls` and `log` are read elsewhere.
    Site,
    Handle,
    /// Directives stay as they are written.
    Route,
}

/// Reads the directives of a block.
pub(super) fn block<'d>(
    directives: &'d [Directive],
    around: &Named,
    level: Level,
    backends: &mut Backends,
    notes: &mut Notes,
) -> Vec<Item<'d>> {
    if let Some(one) = directives.get(BLOCK_MAX) {
        let what = format!("this block has more than {BLOCK_MAX} directives");
        notes.error::<()>(&one.name.place, what, "split the site");
        return Vec::new();
    }
    let mut named = around.clone();
    matcher::define(directives, &mut named, notes);
    let of_site = |name: &str| level == Level::Site && matches!(name, "tls" | "log");
    let mut items: Vec<_> = directives
        .iter()
        .filter(|directive| !matcher::is_definition(directive) && !of_site(&directive.name.text))
        .filter_map(|directive| item(directive, &named, backends, notes))
        .collect();
    if level != Level::Route {
        order::sort(&mut items);
    }
    items
}

fn item<'d>(
    directive: &'d Directive,
    named: &Named,
    backends: &mut Backends,
    notes: &mut Notes,
) -> Option<Item<'d>> {
    let (name, place) = (directive.name.text.as_str(), &directive.name.place);
    if !matches!(
        name,
        "header" | "redir" | "request_header" | "encode" | "handle" | "route" | "respond" | "reverse_proxy"
    ) {
        return unsupported(directive, notes);
    }
    let (to, arguments) = matcher::token(&directive.arguments, named, notes)?;
    let lines = directive.block.as_deref();
    let what = match name {
        "header" => changed(Changes::read(place, arguments, lines, Of::Answer, notes)?, Change::Answer)?,
        "request_header" => {
            changed(Changes::read(place, arguments, lines, Of::Request, notes)?, Change::Request)?
        }
        "encode" => What::Change(Change::Encode(answer::encode(directive, arguments, notes)?)),
        "redir" => What::Answer(Answer::Redirect(answer::redirect(directive, arguments, notes)?)),
        "respond" => What::Answer(Answer::Respond(answer::respond(directive, arguments, notes)?)),
        "reverse_proxy" => {
            What::Answer(Answer::Proxy(Box::new(proxy::read(directive, arguments, backends, notes)?)))
        }
        _ => {
            let (Some(lines), []) = (lines, arguments) else {
                let what = format!("`{name}` needs a block, and nothing but a matcher before it");
                return notes.error(place, what, format!("write `{name} /path/* {{`, or `{name} {{`"));
            };
            if name == "handle" {
                What::Handle(block(lines, named, Level::Handle, backends, notes))
            } else {
                What::Route(block(lines, named, Level::Route, backends, notes))
            }
        }
    };
    Some(Item { name, place, to, what })
}

/// A directive of which nothing is left changes nothing, and needs no routes of its own.
fn changed<'d>(changes: Changes, of: impl Fn(Changes) -> Change) -> Option<What<'d>> {
    (!changes.is_empty()).then(|| What::Change(of(changes)))
}

fn unsupported<T>(directive: &Directive, notes: &mut Notes) -> Option<T> {
    let name = directive.name.text.as_str();
    let remedy = match name {
        "file_server" | "root" | "try_files" | "php_fastcgi" | "templates" | "fs" | "acme_server" => {
            "let an upstream serve it, and `reverse_proxy` to that".to_owned()
        }
        "rewrite" | "uri" | "handle_path" | "method" | "map" | "vars" | "copy_response" => {
            "twinsite passes requests on as they come: let the upstream take them so, and use `handle`".to_owned()
        }
        "basic_auth" | "basicauth" | "forward_auth" => "let the upstream ask who somebody is".to_owned(),
        "abort" | "error" | "handle_errors" | "intercept" => {
            "answer with `respond` and a status, as in `respond 404`".to_owned()
        }
        "bind" => "addresses are those of the [[floating_ip]] and of `http` and `https` of each [[node]]".to_owned(),
        "request_body" => answer::request_body(directive),
        "tls" | "log" => "write it in the site's own block, outside of `handle` and `route`".to_owned(),
        "tracing" | "metrics" | "log_skip" | "skip_log" | "log_name" | "log_append" => {
            "remove it: a node has metrics and a log of its own".to_owned()
        }
        _ => "remove it; known are handle, route, header, request_header, encode, redir, respond, reverse_proxy, tls and log"
            .to_owned(),
    };
    notes.error(&directive.name.place, format!("the directive `{}` is not supported", shown(name)), remedy)
}
