//! Durations as Caddy writes them: `30s`, `1m30s`, `1.5h`, `2d`.

use super::line;
use super::notes::{Notes, shown};
use crate::document::{Directive, Word};
use std::ops::RangeInclusive;
use std::time::Duration;
use twinsite_model::spec::HumanDuration;

/// The duration that a line has as its only argument, within what twinsite can do.
pub(super) fn of_line(
    line: &Directive,
    allowed: RangeInclusive<Duration>,
    notes: &mut Notes,
) -> Option<Duration> {
    let word = line::one(line, &format!("{} DURATION", shown(&line.name.text)), notes)?;
    of_word(word, allowed, notes)
}

/// The duration that a word is.
pub(super) fn of_word(word: &Word, allowed: RangeInclusive<Duration>, notes: &mut Notes) -> Option<Duration> {
    let Some(duration) = parse(&word.text) else {
        let what = format!("`{}` is not a duration", shown(&word.text));
        return notes.error(&word.place, what, "write it with a unit, as in `250ms`, `30s` or `10m`");
    };
    if !allowed.contains(&duration) {
        let (min, max) = (HumanDuration(*allowed.start()), HumanDuration(*allowed.end()));
        let what = format!("`{}` is out of bounds", shown(&word.text));
        return notes.error(&word.place, what, format!("use {min} to {max}"));
    }
    Some(duration)
}

fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0_u128);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        nanos = nanos.checked_add(of_unit(number, unit)?)?;
        rest = after;
    }
    // An empty text is none.
    let nanos = u64::try_from(nanos).ok().filter(|_| !text.is_empty())?;
    Some(Duration::from_nanos(nanos))
}

fn of_unit(number: &str, unit: &str) -> Option<u128> {
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.len() > 9 {
        return None;
    }
    let (whole, digits): (u64, u64) = (whole.parse().ok()?, part.parse().ok()?);
    let part = u128::from(digits) * unit / 10_u128.pow(u32::try_from(part.len()).ok()?);
    u128::from(whole).checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("250ms", 250),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "30", "s", "1x", "1.s", ".5s", "-1s", "1s2", "1..2s", "99999999999999999999d"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
