//! What a site answers by itself, and how answers are made smaller: `redir`, `respond`, `encode`.

use super::line;
use super::notes::{Notes, shown};
use super::template;
use crate::document::{Directive, Word};
use twinsite_model::spec::{Compression, RedirectSpec, RespondSpec, Template};

/// `redir [<matcher>] TO [CODE]`.
pub(super) fn redirect(directive: &Directive, arguments: &[Word], notes: &mut Notes) -> Option<RedirectSpec> {
    let (to, code) = match arguments {
        [to] => (to, None),
        [to, code] => (to, Some(code)),
        [] if directive.arguments.len() == 1 => {
            let what = "the only word is taken for a matcher, and nothing says where to";
            return notes.error(&directive.name.place, what, "write `redir * /path`, or `redir /from /to`");
        }
        _ => return line::wrong(directive, "redir https://{host}{uri} permanent", notes),
    };
    if directive.block.is_some() {
        return line::wrong(directive, "redir https://{host}{uri} permanent", notes);
    }
    let status = match code.map(|code| code.text.as_str()) {
        None | Some("temporary" | "302") => 302,
        Some("permanent" | "301") => 301,
        Some("303") => 303,
        Some("307") => 307,
        Some("308") => 308,
        Some(other) => {
            let what = format!("`{}` sends nobody elsewhere here", shown(other));
            let place = code.map_or(&directive.name.place, |code| &code.place);
            return notes.error(place, what, "write `temporary`, `permanent`, 301, 302, 303, 307 or 308");
        }
    };
    let target = template::read(to, notes)?;
    if target.parts().is_empty() {
        return notes.error(
            &to.place,
            "nothing says where to",
            "write an address, as in `https://{host}{uri}`",
        );
    }
    Some(RedirectSpec { to: target, status })
}

/// `respond [<matcher>] [BODY] [STATUS]`, the body perhaps in a block.
pub(super) fn respond(directive: &Directive, arguments: &[Word], notes: &mut Notes) -> Option<RespondSpec> {
    let is_status = |word: &Word| word.text.len() == 3 && word.text.bytes().all(|byte| byte.is_ascii_digit());
    let (mut body, status) = match arguments {
        [] => (None, None),
        [status] if is_status(status) => (None, Some(status)),
        [body] => (Some(body), None),
        [body, status] => (Some(body), Some(status)),
        [_, _, more, ..] => {
            return notes.error(&more.place, "`respond` has too many words", "write `respond BODY STATUS`");
        }
    };
    for one in directive.block.iter().flatten() {
        match one.name.text.as_str() {
            "body" => body = Some(line::one(one, "body TEXT", notes)?),
            _ => return line::unknown("option", &one.name, "remove it; known is `body`", notes),
        }
    }
    let status = match status {
        None => 200,
        Some(word) => match word.text.parse() {
            Ok(status @ 200..=599) => status,
            _ => {
                let what = format!("`{}` is not the status of an answer", shown(&word.text));
                return notes.error(&word.place, what, "write 200 to 599");
            }
        },
    };
    let text = body.map_or_else(|| Some(Template::default()), |body| template::read(body, notes))?;
    // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
    if let (204 | 205 | 304, Some(body)) = (status, body.filter(|_| !text.parts().is_empty())) {
        return notes.error(&body.place, format!("an answer of status {status} has no body"), "remove it");
    }
    Some(RespondSpec { status, body: text })
}

/// `encode [<matcher>] [gzip|zstd ...]`, or a block of them.
pub(super) fn encode(
    directive: &Directive,
    arguments: &[Word],
    notes: &mut Notes,
) -> Option<Vec<Compression>> {
    let mut ways: Vec<Compression> = Vec::new();
    let mut names: Vec<&Word> = arguments.iter().collect();
    for one in directive.block.iter().flatten() {
        match one.name.text.as_str() {
            "gzip" | "zstd" => {
                if let Some(level) = one.arguments.first() {
                    return notes.error(&level.place, "the level is twinsite's choice", "remove it");
                }
                names.push(&one.name);
            }
            // Where twinsite begins too.
            "minimum_length" if line::number(one, "minimum_length 512", notes)? == 512 => {}
            "minimum_length" => {
                let what = "answers are compressed from 512 bytes on, whatever is written here";
                return notes.error(&one.name.place, what, "remove it");
            }
            _ => return line::unknown("option", &one.name, "remove it; known are `gzip` and `zstd`", notes),
        }
    }
    for name in names {
        let way = match name.text.as_str() {
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => return line::unknown("encoding", name, "use `zstd` and `gzip`", notes),
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    if ways.is_empty() {
        ways = vec![Compression::Zstd, Compression::Gzip];
    }
    Some(ways)
}

/// What to write instead of `request_body`, which is one bound for all requests here.
pub(super) fn request_body(directive: &Directive) -> String {
    let lines = directive.block.iter().flatten();
    let mut sizes = lines.filter(|one| one.name.text == "max_size").filter_map(|one| one.arguments.first());
    let bytes = sizes.next().and_then(|word| bytes(&word.text));
    let bytes = bytes.map_or_else(|| "BYTES".to_owned(), |bytes| bytes.to_string());
    format!(
        "remove it, and write `body_bytes_max = {bytes}` below [proxy] in cluster.toml, which counts for all requests"
    )
}

fn bytes(size: &str) -> Option<u64> {
    let end = size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len());
    let (number, unit) = size.split_at(end);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "ki" | "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mi" | "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
