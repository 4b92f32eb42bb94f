//! A run drawn to scale: lanes under each other, time from left to right, as SVG for the page.

use super::markup::Escaped;
use super::scale::{Scale, duration, moment};
use crate::engine::{GapSpan, Origin, RunReport, TimelineEntry};
use std::fmt::Write as _;

/// The whole drawing.
const WIDTH: f64 = 1_120.0;
/// Where time begins and ends.
const LEFT: f64 = 225.0;
const RIGHT: f64 = 1_100.0;
/// The height of the axis, above and below.
const AXIS: f64 = 22.0;
/// The height of one row of a lane.
const ROW: f64 = 18.0;
/// The height of a bar in it.
const BAR: f64 = 10.0;
/// The space between lanes.
const SPACE: f64 = 12.0;
/// The width of a letter in labels, about.
const LETTER: f64 = 5.7;
/// Letters of a label.
const LABEL_MAX: usize = 58;
/// Rows of labels in a lane.
const LABEL_ROWS: usize = 4;
/// Marks and bars that are drawn of one lane; the table and the JSON have all.
const DRAWN_MAX: usize = 2_000;
/// The names of the phases, in their order.
const PHASES: [&str; 7] = ["detect", "drain", "fence", "move", "observe", "announce", "verify"];
/// What is shown before the first step, in milliseconds, at least.
const BEFORE_MS: i64 = 250;
/// A close-up is worth its place when it is of so much of the whole, at most.
const CLOSE_UP: f64 = 0.6;

/// What of a run is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

/// The whole run, and if its moves are a small part of it a window of these alone.
pub(super) fn windows(run: &RunReport) -> (Window, Option<Window>) {
    let spans = &run.spans;
    let last = run.timeline.iter().map(|entry| entry.at_ms).max().unwrap_or_default();
    let to_ms = spans.observed_ms.max(if spans.observed_ms > 0 { 0 } else { last }).max(1);
    let whole = Window { from_ms: -(to_ms / 20).max(BEFORE_MS), to_ms };
    let phases = spans.phases.iter().map(|phase| phase.to_ms);
    // Without a move there is nothing that the pauses between answers say.
    let gaps = spans.gaps.iter().map(|gap| gap.to_ms).filter(|_| !spans.phases.is_empty());
    let Some(end) = phases.chain(gaps).max() else { return (whole, None) };
    let margin = (end / 6).max(20);
    let close =
        Window { from_ms: whole.from_ms.max(-margin), to_ms: end.saturating_add(margin).min(whole.to_ms) };
    let length = |window: Window| window.to_ms.saturating_sub(window.from_ms) as f64;
    (whole, (length(close) < CLOSE_UP * length(whole)).then_some(close))
}

/// The gap that the report's number is of: where hosts are asked, that of new connections.
pub(super) fn main_gap(run: &RunReport, origin: Origin) -> Option<&GapSpan> {
    let length = |gap: &&GapSpan| gap.to_ms.saturating_sub(gap.from_ms);
    let http = run.spans.gaps.iter().filter(|gap| gap.clients != "WebSocket");
    match origin {
        Origin::Lab => http.into_iter().find(|gap| gap.clients == "new connections"),
        _ => http.max_by_key(length),
    }
}

/// Draws a run.
pub(super) fn draw(run: &RunReport, origin: Origin, window: Window, title: &str) -> String {
    let mut drawing = Drawing {
        scale: Scale::new((window.from_ms, window.to_ms), (LEFT, RIGHT)),
        body: String::new(),
        y: AXIS + 6.0,
    };
    drawing.events(run, "drill", "steps of the drill", "step");
    drawing.events(run, "cluster", "the cluster", "event");
    drawing.phases(run);
    drawing.gaps(run);
    drawing.answers(run);
    let bottom = drawing.y;
    let height = bottom + AXIS + 4.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\" class=\"picture\">\n",
        Escaped(title)
    );
    drawing.background(&mut svg, main_gap(run, origin), bottom);
    svg.push_str(&drawing.body);
    svg.push_str("</svg>\n");
    svg
}

struct Drawing {
    scale: Scale,
    body: String,
    /// Where the next lane begins.
    y: f64,
}

impl Drawing {
    /// The axis above and below, the first step, and the gap through all lanes.
    fn background(&self, svg: &mut String, gap: Option<&GapSpan>, bottom: f64) {
        let top = AXIS;
        let height = bottom - top;
        if let Some((gap, (from, to))) =
            gap.and_then(|gap| Some((gap, self.scale.span(gap.from_ms, gap.to_ms)?)))
        {
            let length = duration(gap.to_ms.saturating_sub(gap.from_ms).unsigned_abs());
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(
                svg,
                "<rect class=\"gap-band\" x=\"{from:.2}\" y=\"{top}\" width=\"{:.2}\" height=\"{height:.1}\">\
                 <title>no answer for {length}</title></rect>",
                (to - from).max(1.0)
            );
        }
        for mark in self.scale.marks() {
            let x = self.scale.x(mark);
            let line = if mark == 0 { "zero" } else { "grid" };
            let label = moment(mark);
            let anchor = if x > RIGHT - 24.0 { "end" } else { "middle" };
            let _ = writeln!(
                svg,
                "<line class=\"{line}\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{top}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"axis\" x=\"{x:.2}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>\
                 <text class=\"axis\" x=\"{x:.2}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>",
                top - 7.0,
                bottom + 15.0
            );
        }
    }

    /// A new lane with its name; says where its first row is.
    fn lane(&mut self, name: &str) -> f64 {
        let y = self.y;
        let _ = writeln!(
            self.body,
            "<line class=\"lane\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"lane-name\" x=\"0\" y=\"{:.1}\">{}</text>",
            y + 14.0,
            Escaped(name)
        );
        y + 4.0
    }

    fn close(&mut self, rows: usize) {
        self.y += 4.0 + ROW * rows.max(1) as f64 + SPACE;
    }

    fn row_name(&mut self, y: f64, name: &str) {
        let x = LEFT - 8.0;
        let _ = writeln!(
            self.body,
            "<text class=\"row-name\" x=\"{x}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            y + BAR,
            Escaped(name)
        );
    }

    fn bar(&mut self, y: f64, (from, to): (f64, f64), class: &str, title: &str) {
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{from:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{BAR}\">\
             <title>{}</title></rect>",
            y + 2.0,
            (to - from).max(1.0),
            Escaped(title)
        );
    }

    /// A word beside a bar, on the side where there is room.
    fn beside(&mut self, y: f64, (from, to): (f64, f64), text: &str) {
        let needs = text.len() as f64 * LETTER + 10.0;
        let (x, anchor) = if to + needs < RIGHT { (to + 5.0, "start") } else { (from - 5.0, "end") };
        let _ = writeln!(
            self.body,
            "<text class=\"value\" x=\"{x:.2}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            y + BAR + 1.0,
            Escaped(text)
        );
    }

    /// What one source says, each a mark with its words as far as there is room.
    fn events(&mut self, run: &RunReport, source: &str, name: &str, class: &str) {
        let entries: Vec<_> = run
            .timeline
            .iter()
            .filter(|entry| entry.source == source && self.scale.holds(entry.at_ms))
            .take(DRAWN_MAX)
            .collect();
        if entries.is_empty() {
            return;
        }
        let top = self.lane(name);
        let places = places(&entries, &self.scale);
        let rows = places.iter().flatten().map(|place| place.row + 1).max().unwrap_or(1);
        // Those without words have the lower edge for themselves.
        let edge = if places.iter().any(Option::is_none) { ROW / 2.0 } else { 0.0 };
        let bottom = top + ROW * rows as f64 + edge;
        for (entry, place) in entries.iter().zip(&places) {
            let x = self.scale.x(entry.at_ms);
            let title = format!("{} {}", moment(entry.at_ms), entry.what);
            let y = place.as_ref().map_or(bottom - 3.0, |place| top + ROW * place.row as f64 + ROW / 2.0);
            let radius = if place.is_some() { 3.0 } else { 2.0 };
            let _ = writeln!(
                self.body,
                "<g class=\"{class}\"><line x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{y:.1}\" y2=\"{bottom:.1}\"/>\
                 <circle cx=\"{x:.2}\" cy=\"{y:.1}\" r=\"{radius}\"/><title>{}</title></g>",
                Escaped(&title)
            );
            if let Some(place) = place {
                let _ = writeln!(
                    self.body,
                    "<text class=\"label\" x=\"{:.2}\" y=\"{:.1}\" text-anchor=\"{}\">{}</text>",
                    place.x,
                    y + 3.5,
                    place.anchor,
                    Escaped(&place.text)
                );
            }
        }
        self.close(rows);
        self.y += edge;
    }

    fn phases(&mut self, run: &RunReport) {
        let known: Vec<_> = PHASES
            .iter()
            .filter(|name| {
                let mut of_name = run.spans.phases.iter().filter(|span| span.phase == **name);
                of_name.any(|span| self.scale.span(span.from_ms, span.to_ms).is_some())
            })
            .collect();
        if known.is_empty() {
            return;
        }
        let top = self.lane("phases of the move");
        for (row, name) in known.iter().enumerate() {
            let y = top + ROW * row as f64;
            self.row_name(y, name);
            let spans = run.spans.phases.iter().filter(|span| span.phase == **name);
            for span in spans.take(DRAWN_MAX) {
                let Some(place) = self.scale.span(span.from_ms, span.to_ms) else { continue };
                let took = duration(span.to_ms.saturating_sub(span.from_ms).unsigned_abs());
                self.bar(y, place, &format!("phase {name}"), &format!("{name}: {took}"));
                if run.spans.phases.iter().filter(|other| other.phase == **name).count() <= 3 {
                    self.beside(y, place, &took);
                }
            }
        }
        self.close(known.len());
    }

    fn gaps(&mut self, run: &RunReport) {
        if run.spans.gaps.is_empty() {
            return;
        }
        let top = self.lane("longest gap of");
        for (row, gap) in run.spans.gaps.iter().take(8).enumerate() {
            let y = top + ROW * row as f64;
            self.row_name(y, &gap.clients);
            let Some(place) = self.scale.span(gap.from_ms, gap.to_ms) else { continue };
            let length = duration(gap.to_ms.saturating_sub(gap.from_ms).unsigned_abs());
            let title = format!("{}: no answer for {length}", gap.clients);
            self.bar(y, place, "gap", &title);
            self.beside(y, place, &length);
        }
        self.close(run.spans.gaps.len().min(8));
    }

    /// One row for each host that was asked, or else for each node that clients heard of.
    fn answers(&mut self, run: &RunReport) {
        let (name, rows): (_, Vec<_>) = if let Some(answering) = &run.answering {
            let hosts = answering.hosts.iter().map(|host| (host.node.as_str(), &host.answered));
            ("probes answered by", hosts.collect())
        } else {
            let nodes = run.spans.nodes.iter().map(|node| (node.node.as_str(), &node.answered));
            ("clients answered by", nodes.collect())
        };
        if rows.is_empty() {
            return;
        }
        let top = self.lane(name);
        for (row, (node, answered)) in rows.iter().take(64).enumerate() {
            let y = top + ROW * row as f64;
            self.row_name(y, node);
            let _ = writeln!(
                self.body,
                "<line class=\"silent\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>",
                y + 2.0 + BAR / 2.0
            );
            for (from, to) in answered.iter().take(DRAWN_MAX) {
                let Some(place) = self.scale.span(*from, *to) else { continue };
                let title = format!("{node} answers from {} to {}", moment(*from), moment(*to));
                self.bar(y, place, "answers", &title);
            }
        }
        self.close(rows.len().min(64));
    }
}

/// Where a label is.
#[derive(Debug, PartialEq)]
struct Place {
    row: usize,
    x: f64,
    anchor: &'static str,
    text: String,
}

/// A place for each label, or none. Marks hang on lines that come from below, so a label is in the highest row of which
/// all lower ones are free: no line goes through a word.
fn places(entries: &[&TimelineEntry], scale: &Scale) -> Vec<Option<Place>> {
    // Up to where each row is taken.
    let mut taken = [f64::MIN; LABEL_ROWS];
    let mut place = |entry: &&TimelineEntry| {
        let x = scale.x(entry.at_ms);
        let text = shortened(&entry.what);
        let width = text.chars().count() as f64 * LETTER + 14.0;
        let fits_right = x + width <= RIGHT + 10.0;
        let (begin, end) = if fits_right { (x - 4.0, x + width) } else { (x - width, x + 8.0) };
        let row = taken.iter().rposition(|until| begin <= *until).map_or(0, |last| last + 1);
        *taken.get_mut(row)? = end;
        let (x, anchor) = if fits_right { (x + 7.0, "start") } else { (x - 7.0, "end") };
        Some(Place { row, x, anchor, text })
    };
    entries.iter().map(&mut place).collect()
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LABEL_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(LABEL_MAX - 1).collect();
    format!("{}\u{2026}", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: i64, what: &str) -> TimelineEntry {
        TimelineEntry { at_ms, source: "drill".into(), what: what.to_owned() }
    }

    #[test]
    fn labels_of_one_row_do_not_overlap() {
        let entries: Vec<_> = (0..200).map(|n| entry(n * 7, "kill -9: node gra-1, node gra-2")).collect();
        let scale = Scale::new((0, 1_400), (LEFT, RIGHT));
        let placed = places(&entries.iter().collect::<Vec<_>>(), &scale);
        let mut until = [f64::MIN; LABEL_ROWS];
        let mut count = 0;
        for place in placed.iter().flatten() {
            let width = place.text.chars().count() as f64 * LETTER;
            let from = if place.anchor == "start" { place.x } else { place.x - width };
            assert!(from > until[place.row], "{place:?} after {until:?}");
            until[place.row] = from + width;
            count += 1;
        }
        assert!(count >= 12, "there is room for some in each row: {count}");
    }

    #[test]
    fn long_words_are_cut_and_short_ones_are_not() {
        assert_eq!(shortened("kill"), "kill");
        assert_eq!(shortened(&"é".repeat(80)).chars().count(), LABEL_MAX);
    }
}
