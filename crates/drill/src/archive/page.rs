//! A report as one page that needs nothing else: no other file, no network, no script.

use super::markup::Escaped;
use super::picture::{draw, windows};
use super::scale::{duration, moment};
use super::utc;
use crate::engine::{CountReport, LimitReport, Origin, Report, RunReport, Verdict};
use std::fmt::Write as _;

/// Runs that are drawn each on their own; the table has all.
const DRAWN_MAX: usize = 50;
/// Lines of what happened that the page has room for, of each run.
const LINES_MAX: usize = 5_000;

/// The report as a page of HTML. Everything from the report is text in it.
pub fn page(report: &Report) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{} \u{2013} {}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        Escaped(&report.scenario),
        report.verdict.as_str(),
        include_str!("page.css")
    );
    head(&mut html, report);
    if report.is_audited() {
        cards(&mut html, report);
    }
    broken(&mut html, report);
    drawn(&mut html, report);
    html.push_str("<div class=\"columns\">\n");
    limits(&mut html, report);
    audit(&mut html, report);
    html.push_str("</div>\n");
    if report.runs.len() > 1 {
        runs(&mut html, report);
    }
    if let Some(run) = chosen(report) {
        if report.is_audited() {
            clients(&mut html, run);
        }
        events(&mut html, run, report.runs.len() > 1);
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// The run that is shown first: of those that went wrong, or of all, the one with the longest gap.
fn chosen(report: &Report) -> Option<&RunReport> {
    let gap = |run: &&RunReport| (!run.broken.is_empty(), run.gap_ms.http, std::cmp::Reverse(run.run));
    report.runs.iter().max_by_key(gap)
}

fn head(html: &mut String, report: &Report) {
    let verdict = report.verdict.as_str();
    let times = match report.runs.len() {
        1 => "1 run".to_owned(),
        runs => format!("{runs} runs"),
    };
    let place = match report.origin {
        Origin::Loopback => "on loopback addresses",
        Origin::Lab => "in a lab",
        Origin::Live => "on a live cluster",
        Origin::Real => "no drill: it happened",
    };
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        html,
        "<header><span class=\"verdict {verdict}\">{verdict}</span><h1>{}</h1></header>\n\
         <p class=\"description\">{}</p>\n\
         <p class=\"meta\">{} &middot; {place} &middot; timings <b>{}</b> &middot; session store <b>{}</b> &middot; {times}</p>\n",
        Escaped(&report.scenario),
        Escaped(&report.description),
        utc(report.began_ms).replace('T', " ").replace('Z', " UTC"),
        Escaped(&report.profile),
        Escaped(&report.store),
    );
}

/// The numbers that are looked for first.
fn cards(html: &mut String, report: &Report) {
    html.push_str("<div class=\"cards\">\n");
    let gap = |what: &str, gap: fn(&RunReport) -> Option<u64>| {
        let mut all: Vec<_> = report.runs.iter().filter_map(gap).collect();
        all.sort_unstable();
        let median = all.get(all.len() / 2).map_or_else(|| "\u{2013}".to_owned(), |ms| duration(*ms));
        let more = match all.as_slice() {
            [] | [_] => "without an answer".to_owned(),
            [first, .., last] => format!("median; {} to {}", duration(*first), duration(*last)),
        };
        (what.to_owned(), median, more, false)
    };
    let sum = |count: fn(&RunReport) -> u64| report.runs.iter().map(count).fold(0, u64::saturating_add);
    let failed = sum(|run| run.requests.failed);
    let requests = failed.saturating_add(sum(|run| run.requests.ok));
    let lost: usize = report.runs.iter().map(|run| run.tunnels.lost).fold(0, usize::saturating_add);
    let back: usize = report.runs.iter().map(|run| run.tunnels.back).fold(0, usize::saturating_add);
    let longest = report.runs.iter().map(|run| run.tunnels.longest_ms).max().unwrap_or_default();
    let two = report.audit.two_hosts_ms.unwrap_or_default().max(report.audit.dual_answer_ms);
    let asked =
        report.runs.iter().filter_map(|run| run.answering.as_ref()).map(|found| found.probed_every_us);
    let asked = asked.max().map_or_else(
        || "by clients' answers".to_owned(),
        |us| format!("each host asked every {:.1} ms", us as f64 / 1_000.0),
    );
    let all = [
        gap("HTTP gap", |run| run.gap_ms.http),
        gap("WebSocket gap", |run| run.gap_ms.websocket),
        (
            "failed requests".to_owned(),
            failed.to_string(),
            format!("of {requests} by patient clients"),
            false,
        ),
        (
            "WebSockets lost".to_owned(),
            lost.to_string(),
            format!("{back} back, after at most {}", duration(longest)),
            back < lost,
        ),
        ("two answering at once".to_owned(), duration(two), asked, two > 0),
    ];
    for (what, number, more, bad) in all {
        let class = if bad { "card bad" } else { "card" };
        let _ = writeln!(
            html,
            "<div class=\"{class}\"><div class=\"what\">{what}</div><div class=\"number\">{number}</div>\
             <div class=\"more\">{more}</div></div>"
        );
    }
    html.push_str("</div>\n");
}

fn broken(html: &mut String, report: &Report) {
    if report.broken.is_empty() {
        return;
    }
    html.push_str("<section class=\"broken\">\n<h2>What did not hold</h2>\n<ul>\n");
    for line in &report.broken {
        let _ = writeln!(html, "<li>{}</li>", Escaped(line));
    }
    html.push_str("</ul>\n</section>\n");
}

/// The pictures: of the chosen run at once, of the others when they are asked for.
fn drawn(html: &mut String, report: &Report) {
    let Some(first) = chosen(report) else {
        if report.verdict == Verdict::Aborted {
            html.push_str("<section><p>It was aborted before its first step.</p></section>\n");
        }
        return;
    };
    html.push_str("<section class=\"long\">\n");
    picture(html, report, first);
    let others = report.runs.iter().filter(|run| run.run != first.run).take(DRAWN_MAX);
    for run in others {
        let gap = run.gap_ms.http.map_or_else(|| "\u{2013}".to_owned(), duration);
        let _ = writeln!(html, "<details><summary>Run {}, HTTP gap {gap}</summary>", run.run);
        picture(html, report, run);
        html.push_str("</details>\n");
    }
    html.push_str("</section>\n");
}

fn picture(html: &mut String, report: &Report, run: &RunReport) {
    let zero = if report.is_audited() { "the first step" } else { "the decision, or what was noticed" };
    let (whole, close) = windows(run);
    let nobody = || "nobody".to_owned();
    let owner = |owner: &Option<String>| owner.clone().unwrap_or_else(nobody);
    let _ = writeln!(
        html,
        "<h2>Run {} of {}, to scale</h2>\n<p class=\"note\">Time 0 is {zero}. The address was <b>{}</b>'s before, \
         and <b>{}</b>'s when all had settled. The band is the longest time without an answer to HTTP.</p>",
        run.run,
        report.runs.len(),
        Escaped(owner(&run.owner_before)),
        Escaped(owner(&run.owner_after)),
    );
    for (window, title) in
        close.map(|close| (close, "Close-up")).into_iter().chain([(whole, "The whole run")])
    {
        let title = format!("{title}: {} to {}", moment(window.from_ms), moment(window.to_ms));
        let drawing = draw(run, report.origin, window, &title);
        let _ = writeln!(html, "<h3>{title}</h3>\n<div class=\"scroll\">\n{drawing}</div>");
    }
}

fn limits(html: &mut String, report: &Report) {
    if report.limits.is_empty() && report.counts.is_empty() {
        return;
    }
    html.push_str(
        "<section>\n<h2>Limits</h2>\n<table><tr><th>limit</th><th class=\"num\">measured</th>\
         <th class=\"num\">allowed</th><th></th><th></th></tr>\n",
    );
    let bad = if report.verdict.unjudged().is_some() { "not judged" } else { "broken" };
    for limit in &report.limits {
        let LimitReport { name, median_ms, limit_ms } = limit;
        let measured = median_ms.map_or_else(|| "nothing".to_owned(), duration);
        let mark = mark(limit.holds(), "held", bad);
        limit_row(html, name, &mark, &measured, &duration(*limit_ms), (*median_ms, *limit_ms));
    }
    for count in &report.counts {
        let CountReport { name, highest, limit } = count;
        let (measured, allowed) = (highest.to_string(), limit.to_string());
        let mark = mark(count.holds(), "held", bad);
        limit_row(html, name, &mark, &measured, &allowed, (Some(*highest), *limit));
    }
    html.push_str(
        "</table>\n<p class=\"note\">Times: the median of all runs. Counts: the highest.</p>\n</section>\n",
    );
}

fn limit_row(
    html: &mut String,
    name: &str,
    mark: &str,
    measured: &str,
    allowed: &str,
    (value, limit): (Option<u64>, u64),
) {
    let share = match (value, limit) {
        (None | Some(0), _) => 0.0,
        (Some(_), 0) => 100.0,
        (Some(value), limit) => (value as f64 / limit as f64 * 100.0).min(100.0),
    };
    let over = if value.is_some_and(|value| value > limit) { " class=\"over\"" } else { "" };
    let _ = writeln!(
        html,
        "<tr><td class=\"mono\">{}</td><td class=\"num\">{measured}</td><td class=\"num\">{allowed}</td>\
         <td class=\"share\"><div><span{over} style=\"width:{share:.1}%\"></span></div></td>{mark}</tr>",
        Escaped(name),
    );
}

fn mark(holds: bool, good: &str, bad: &str) -> String {
    let (class, sign, word) = if holds { ("good", '\u{2713}', good) } else { ("bad-word", '\u{2717}', bad) };
    format!("<td class=\"mark {class}\">{sign} {word}</td>")
}

fn audit(html: &mut String, report: &Report) {
    let (title, checks) =
        if report.is_audited() { ("Audit", report.audit.checks()) } else { ("Evidence", Vec::new()) };
    let _ = writeln!(html, "<section>\n<h2>{title}</h2>\n<table>");
    for check in checks {
        let mark = mark(check.holds, "holds", "broken");
        let _ = writeln!(html, "<tr>{mark}<td>{}</td></tr>", Escaped(&check.line));
    }
    let runs = report.runs.iter();
    for (run, check) in runs.flat_map(|run| run.expectations.iter().map(move |check| (run.run, check))) {
        if !check.holds || report.runs.len() == 1 {
            let mark = mark(check.holds, "holds", "broken");
            let which = if report.runs.len() == 1 { String::new() } else { format!("run {run}: ") };
            let _ = writeln!(html, "<tr>{mark}<td>{which}{}</td></tr>", Escaped(&check.line));
        }
    }
    html.push_str("</table>\n");
    if !report.audit.evidence.is_empty() {
        html.push_str("<details open><summary>What was seen</summary>\n<ul>\n");
        for line in report.audit.evidence.iter().take(100) {
            let _ = writeln!(html, "<li class=\"mono\">{}</li>", Escaped(line));
        }
        html.push_str("</ul>\n</details>\n");
    }
    html.push_str("</section>\n");
}

fn runs(html: &mut String, report: &Report) {
    html.push_str(
        "<section class=\"long\">\n<h2>Runs</h2>\n<table><tr><th>run</th><th class=\"num\">HTTP gap</th>\
         <th class=\"num\">keep-alive gap</th><th class=\"num\">WebSocket gap</th><th class=\"num\">detect</th>\
         <th class=\"num\">fence</th><th class=\"num\">failed</th><th class=\"num\">refused</th>\
         <th class=\"num\">tunnels lost</th><th>owner before</th><th>after</th></tr>\n",
    );
    let ms = |value: Option<u64>| value.map_or_else(|| "\u{2013}".to_owned(), duration);
    for run in &report.runs {
        let _ = write!(html, "<tr><td>{}{}</td>", run.run, if run.aborted { " (aborted)" } else { "" });
        let numbers = [
            ms(run.gap_ms.http),
            ms(run.gap_ms.keep_alive),
            ms(run.gap_ms.websocket),
            ms(run.phases_ms.detect),
            ms(run.phases_ms.fence),
            run.requests.failed.to_string(),
            run.attempts.refused.to_string(),
            run.tunnels.lost.to_string(),
        ];
        for number in numbers {
            let _ = write!(html, "<td class=\"num\">{number}</td>");
        }
        for owner in [&run.owner_before, &run.owner_after] {
            let _ = write!(html, "<td>{}</td>", Escaped(owner.as_deref().unwrap_or("nobody")));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n</section>\n");
}

/// What clients of each kind had, in numbers.
fn clients(html: &mut String, run: &RunReport) {
    let _ = writeln!(
        html,
        "<section>\n<h2>Clients</h2>\n<table><tr><th></th><th class=\"num\">answered</th><th class=\"num\">tried again</th>\
         <th class=\"num\">failed</th><th>why</th></tr>"
    );
    for (name, requests) in [("keep-alive clients", &run.requests), ("new connections", &run.connects)] {
        let why: Vec<_> =
            requests.failures.iter().take(12).map(|(why, count)| format!("{count} {why}")).collect();
        let _ = writeln!(
            html,
            "<tr><td>{name}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td>{}</td></tr>",
            requests.ok,
            requests.retried,
            requests.failed,
            Escaped(why.join(", "))
        );
    }
    let _ = writeln!(
        html,
        "</table>\n<p class=\"note\">Attempts of HTTP clients, whether or not another one hid it: {} found nobody, {} got no \
         good answer. New connections are never tried again.</p>\n</section>",
        run.attempts.refused, run.attempts.broken
    );
}

fn events(html: &mut String, run: &RunReport, several: bool) {
    let of = if several { format!(" in run {}", run.run) } else { String::new() };
    let _ = writeln!(html, "<section class=\"long\">\n<h2>What happened{of}</h2>\n<table class=\"events\">");
    for entry in run.timeline.iter().take(LINES_MAX) {
        let class = if entry.source == "drill" { " class=\"drill\"" } else { "" };
        let _ = writeln!(
            html,
            "<tr{class}><td class=\"num\">{}</td><td>{}</td><td>{}</td></tr>",
            moment(entry.at_ms),
            Escaped(&entry.source),
            Escaped(&entry.what)
        );
    }
    html.push_str("</table>\n");
    if let Some(more) = run.timeline.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        let _ = writeln!(html, "<p class=\"note\">{more} more are in the report's JSON.</p>");
    }
    html.push_str("</section>\n");
}
