//! Text with Caddy's placeholders, as text with twinsite's variables.

use super::notes::{Notes, shown};
use crate::document::Word;
use twinsite_model::spec::Template;

/// The text of a word.
pub(super) fn read(word: &Word, notes: &mut Notes) -> Option<Template> {
    let mut written = String::new();
    let mut rest = word.text.as_str();
    while let Some(at) = rest.find(['\\', '{', '}']) {
        written += &rest[..at];
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("\\{") {
            written += "{{";
            rest = after;
        } else if let Some(after) = rest.strip_prefix("\\}") {
            written += "}}";
            rest = after;
        } else if let Some((name, after)) = placeholder(rest) {
            let Some(variable) = variable(name) else {
                let what = format!("there is no placeholder `{{{}}}` here", shown(name));
                let remedy = "use {host}, {hostport}, {uri}, {path}, {query}, {method}, {scheme}, {port}, {remote_host}, \
                              {client_ip}, {header.NAME} or {query.NAME}; `\\{` is a brace that is meant as it is";
                return notes.error(&word.place, what, remedy);
            };
            written += &format!("{{{variable}}}");
            rest = after;
        } else {
            let brace = &rest[..1];
            written += brace;
            if brace != "\\" {
                written += brace;
            }
            rest = &rest[1..];
        }
    }
    written += rest;
    written
        .parse()
        .map_err(|error| {
            let what = format!("`{}` cannot be written here: {error}", shown(&word.text));
            notes.error::<()>(&word.place, what, "write a shorter text, in one line")
        })
        .ok()
}

/// `{name}` and what follows. Braces around anything that cannot be a name are text, as in `{"a": 1}`.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '$' | '>' | '[' | ']' | '/');
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, after))
}

/// The variable that a placeholder, short or long, is here.
fn variable(placeholder: &str) -> Option<String> {
    let long = placeholder.strip_prefix("http.request.");
    if let Some(name) = placeholder.strip_prefix("header.").or_else(|| long?.strip_prefix("header.")) {
        return Some(format!("header.{name}"));
    }
    if let Some(name) = placeholder.strip_prefix("query.").or_else(|| long?.strip_prefix("uri.query.")) {
        return Some(format!("query.{name}"));
    }
    let variable = match placeholder {
        "host" | "hostport" | "uri" | "path" | "query" | "method" | "scheme" | "port" | "client_ip" => {
            placeholder
        }
        "remote_host" => "remote_ip",
        "uuid" => "request_id",
        "http.vars.client_ip" => "client_ip",
        // Nothing here changes a request's target, so it is the first one still.
        _ => match long? {
            "host" => "host",
            "hostport" => "hostport",
            "uri" | "orig_uri" => "uri",
            "uri.path" | "orig_uri.path" => "path",
            "uri.query" | "orig_uri.query" => "query",
            "method" | "orig_method" => "method",
            "scheme" => "scheme",
            "port" | "local.port" => "port",
            "remote.host" => "remote_ip",
            "uuid" => "request_id",
            _ => return None,
        },
    };
    Some(variable.to_owned())
}
