//! Changes of headers: `header`, `request_header`, `header_up` and `header_down`, and what several are together.

use super::notes::{Notes, shown};
use super::template;
use crate::document::{Directive, Word};
use crate::place::Place;
use std::collections::BTreeMap;
use std::mem;
use twinsite_model::spec::{HeaderEdits, HeaderName, Template};

/// Whose headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Request,
    Answer,
}

/// What happens to a header. Caddy does it in this order within one directive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Add(Template),
    Set(Template),
    /// It gets the value that twinsite gives it anyway.
    LeftToTwinsite,
    Remove,
}

/// What one directive changes.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    place: Place,
    list: Vec<(HeaderName, What)>,
    /// Whether it is done when the answer goes out, and not before there is one.
    is_deferred: bool,
}

impl Changes {
    pub(super) fn none(place: &Place) -> Self {
        Self { place: place.clone(), list: Vec::new(), is_deferred: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Reads `FIELD VALUE` of a line, or the lines of a block.
    pub(super) fn read(
        place: &Place,
        arguments: &[Word],
        block: Option<&[Directive]>,
        of: Of,
        notes: &mut Notes,
    ) -> Option<Self> {
        let mut changes = Self::none(place);
        match (arguments, block) {
            ([field, values @ ..], None) => changes.line(field, values, of, notes),
            ([], Some(lines)) if of == Of::Answer => {
                for line in lines {
                    changes.line_of_block(line, notes);
                }
            }
            _ => {
                let remedy = match of {
                    Of::Request => "write `request_header FIELD VALUE`, one line for each",
                    Of::Answer => "write `header FIELD VALUE`, or a block of such lines",
                };
                return notes.error(place, "no headers are said here, or twice", remedy);
            }
        }
        changes.put_in_order();
        Some(changes)
    }

    fn line_of_block(&mut self, line: &Directive, notes: &mut Notes) {
        let place = &line.name.place;
        match line.name.text.as_str() {
            "defer" if line.arguments.is_empty() && line.block.is_none() => self.is_deferred = true,
            "match" => {
                let remedy = "change the headers of all answers of the route";
                notes.error::<()>(place, "`match` looks at the answer, which a route cannot", remedy);
            }
            _ if line.block.is_some() => {
                notes.error::<()>(place, "a header has no block", "write `FIELD VALUE`");
            }
            _ => self.line(&line.name, &line.arguments, Of::Answer, notes),
        }
    }

    /// `[+|-|>]FIELD [VALUE]`.
    pub(super) fn line(&mut self, field: &Word, values: &[Word], of: Of, notes: &mut Notes) {
        let Some((name, what)) = self.change(field, values, of, notes) else { return };
        let is_same = |(other, done): &(HeaderName, What)| {
            *other == name && mem::discriminant(done) == mem::discriminant(&what)
        };
        if !matches!(what, What::Remove) && self.list.iter().any(is_same) {
            let problem = format!("`{}` is written twice", shown(&field.text));
            notes.error::<()>(&field.place, problem, "write it once: Caddy takes the last one only");
            return;
        }
        self.list.push((name, what));
    }

    /// The order of [`What`]; what is read line by line needs it once all is read.
    pub(super) fn put_in_order(&mut self) {
        self.list.sort_by_key(|(_, what)| match what {
            What::Add(_) => 0,
            What::Set(_) | What::LeftToTwinsite => 1,
            What::Remove => 2,
        });
    }

    fn change(
        &mut self,
        field: &Word,
        values: &[Word],
        of: Of,
        notes: &mut Notes,
    ) -> Option<(HeaderName, What)> {
        let (sign, name) = match field.text.split_at_checked(1) {
            Some((sign @ ("+" | "-" | "?" | ">"), name)) => (sign, name),
            _ => ("", field.text.as_str()),
        };
        if sign == "?" {
            let remedy = "write it without `?`, so that it is set always, or let the upstream set it";
            return notes.error(
                &field.place,
                "a value only for answers without one cannot be said here",
                remedy,
            );
        }
        let name = header_name(name, field, notes)?;
        if sign == "-" {
            self.is_deferred |= of == Of::Answer;
            return match values {
                [] => Some((name, What::Remove)),
                [value, ..] => {
                    let what = "a header that is removed has a value here";
                    notes.error(&value.place, what, "remove the value, or the `-`")
                }
            };
        }
        self.is_deferred |= sign == ">" && of == Of::Answer;
        let value = match values {
            [value] => value,
            [] => {
                let what = format!("`{}` has no value", shown(&field.text));
                return notes.error(
                    &field.place,
                    what,
                    "write the value, or `-` before the name to remove it",
                );
            }
            [_, replacement, ..] => {
                let what = "replacing a part of a header is not supported";
                return notes.error(
                    &replacement.place,
                    what,
                    "write the whole value, in quotation marks if it has spaces",
                );
            }
        };
        let value = template::read(value, notes)?;
        if of == Of::Answer && tells_of_client(name.as_str()) {
            let what = format!(
                "`{name}` is set on answers here, where it tells clients about themselves; it was left out"
            );
            let remedy = "remove it, or write `header_up` in `reverse_proxy` if it was meant for the upstream; twinsite sends \
                          upstreams X-Forwarded-For, -Proto, -Host, -Port and X-Real-IP by itself";
            notes.trap(&field.place, what, remedy);
            return None;
        }
        if of == Of::Request && sign != "+" && is_ours(name.as_str(), &value.to_string()) {
            return Some((name, What::LeftToTwinsite));
        }
        Some((name, if sign == "+" { What::Add(value) } else { What::Set(value) }))
    }
}

fn header_name(name: &str, field: &Word, notes: &mut Notes) -> Option<HeaderName> {
    if name.contains('*') && name != "*" {
        let what = format!("`{}` stands for several headers", shown(&field.text));
        return notes.error(&field.place, what, "write each by its name");
    }
    HeaderName::try_from(name.to_owned())
        .map_err(|error| notes.error::<()>(&field.place, error.to_string(), "write a name as in `X-Real-IP`"))
        .ok()
}

/// Headers in which a proxy tells an upstream who the client is.
fn tells_of_client(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "x-real-ip" | "forwarded")
}

/// Whether twinsite sets this header of a request to this value by itself.
fn is_ours(name: &str, value: &str) -> bool {
    match name {
        "x-forwarded-for" | "x-real-ip" => matches!(value, "{remote_ip}" | "{client_ip}"),
        "x-forwarded-proto" => value == "{scheme}",
        "x-forwarded-host" | "host" => matches!(value, "{host}" | "{hostport}"),
        "x-forwarded-port" => value == "{port}",
        _ => false,
    }
}

/// The order in which Caddy changes an answer's headers: what is not deferred from the outside inwards, then the rest from
/// the inside outwards.
pub(super) fn in_order_of_answer<'c>(
    changes: impl DoubleEndedIterator<Item = &'c Changes> + Clone,
) -> Vec<&'c Changes> {
    let at_once = changes.clone().filter(|changes| !changes.is_deferred);
    at_once.chain(changes.rev().filter(|changes| changes.is_deferred)).collect()
}

/// What is left of a header that came in, and what it has beside that.
#[derive(Debug)]
struct Outcome<'c> {
    is_kept: bool,
    values: Vec<&'c Template>,
}

/// All of them, one after the other, as a route says it.
pub(super) fn together<'c>(
    changes: impl IntoIterator<Item = &'c Changes>,
    notes: &mut Notes,
) -> Option<HeaderEdits> {
    let mut outcomes: BTreeMap<&HeaderName, Outcome<'c>> = BTreeMap::new();
    let mut last = None;
    for one in changes {
        last = Some(&one.place);
        for (name, what) in &one.list {
            let outcome = outcomes.entry(name).or_insert(Outcome { is_kept: true, values: Vec::new() });
            match what {
                What::Add(value) => outcome.values.push(value),
                What::Set(value) => *outcome = Outcome { is_kept: false, values: vec![value] },
                What::LeftToTwinsite => *outcome = Outcome { is_kept: true, values: Vec::new() },
                What::Remove => *outcome = Outcome { is_kept: false, values: Vec::new() },
            }
        }
    }
    let mut edits = HeaderEdits::default();
    for (name, outcome) in outcomes {
        match (outcome.is_kept, outcome.values.as_slice()) {
            (true, []) => {}
            (true, [value]) => {
                edits.add.insert(name.clone(), (*value).clone());
            }
            (false, []) => {
                edits.remove.insert(name.clone());
            }
            (false, [value]) => {
                edits.set.insert(name.clone(), (*value).clone());
            }
            (false, [value, more]) => {
                edits.set.insert(name.clone(), (*value).clone());
                edits.add.insert(name.clone(), (*more).clone());
            }
            _ => {
                let what = format!("`{name}` gets more values than a route can add");
                let remedy = "write them as one value, with commas between them";
                return last.and_then(|place| notes.error(place, what, remedy));
            }
        }
    }
    Some(edits)
}
