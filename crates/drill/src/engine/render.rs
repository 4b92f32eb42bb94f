//! The report for people. Colours are written as terminal codes; `anstream` takes them out where there is no terminal.

use super::report::{Report, RunReport, Verdict};
use anstyle::{AnsiColor, Style};
use std::io::{self, Write};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const DIM: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();

impl Report {
    /// Writes the report for people. Give it an `anstream` stream, which drops the colours where nobody sees them.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let runs = self.runs.len();
        let times = if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") };
        writeln!(
            out,
            "{STRONG}{}{STRONG:#}  {} ({}, {}, {times})",
            self.scenario, self.description, self.profile, self.store
        )?;
        writeln!(out)?;
        if let [run] = self.runs.as_slice() {
            write_timeline(run, out)?;
        } else {
            for run in &self.runs {
                writeln!(out, "  run {:>3}  {}", run.run, summary(run))?;
            }
        }
        writeln!(out)?;
        if let Some(run) = self.runs.last() {
            write_phases(run, out)?;
            if self.is_audited() {
                write_numbers(run, out)?;
            } else if let Some(gap) = run.gap_ms.http {
                writeln!(
                    out,
                    "  no answer from the address: {gap} ms, by probes of the node that writes this"
                )?;
            }
        }
        for limit in &self.limits {
            let median =
                limit.median_ms.map_or_else(|| "nothing measured".to_owned(), |ms| format!("{ms} ms"));
            let (style, mark) = match (limit.holds(), self.verdict.unjudged()) {
                (true, _) => (GOOD, "held"),
                (false, Some(_)) => (DIM, "not judged"),
                (false, None) => (BAD, "broken"),
            };
            writeln!(
                out,
                "  limit {:<15} {median} of {} ms: {style}{mark}{style:#}",
                limit.name, limit.limit_ms
            )?;
        }
        let audit = &self.audit;
        let line = self.is_audited().then(|| {
            format!(
            "audit: dual answers {} ms, stale writes {}, tokens {}, split rooms {}, wrong announcements {} ms",
            audit.dual_answer_ms,
            audit.stale_epoch_writes,
            if audit.epochs_monotonic { "only grew" } else { "SHRANK" },
            audit.split_rooms,
            audit.announced_mismatch_ms,
            )
        });
        writeln!(out, "  {}", line.as_deref().unwrap_or("evidence:"))?;
        for line in audit.evidence.iter().take(20) {
            writeln!(out, "    {DIM}{line}{DIM:#}")?;
        }
        writeln!(out)?;
        let style = match self.verdict {
            Verdict::Pass => GOOD,
            Verdict::Fail => BAD,
            Verdict::Aborted | Verdict::Disturbed => WARN,
        };
        write!(out, "{style}{}{style:#}", self.verdict.as_str())?;
        match self.verdict {
            Verdict::Disturbed => {
                writeln!(
                    out,
                    ": this machine itself stood still; run it again when nothing else is done here"
                )?;
            }
            _ => writeln!(out)?,
        }
        self.broken.iter().try_for_each(|line| writeln!(out, "  {BAD}{line}{BAD:#}"))
    }
}

fn write_timeline(run: &RunReport, out: &mut dyn Write) -> io::Result<()> {
    for entry in &run.timeline {
        let style = if entry.source == "drill" { STRONG } else { Style::new() };
        writeln!(
            out,
            "  {:>+7} ms  {DIM}{:<8}{DIM:#} {style}{}{style:#}",
            entry.at_ms, entry.source, entry.what
        )?;
    }
    Ok(())
}

fn write_phases(run: &RunReport, out: &mut dyn Write) -> io::Result<()> {
    let phases = &run.phases_ms;
    let named = [
        ("detect", phases.detect),
        ("drain", phases.drain),
        ("fence", phases.fence),
        ("move", phases.r#move),
        ("observe", phases.observe),
        ("announce", phases.announce),
        ("verify", phases.verify),
    ];
    let known: Vec<_> = named.iter().filter_map(|(name, ms)| Some(format!("{name} {} ms", (*ms)?))).collect();
    let phases = if known.is_empty() { "nothing moved".to_owned() } else { known.join(", ") };
    writeln!(out, "  phases: {phases}")
}

fn write_numbers(run: &RunReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  clients: {}", summary(run))?;
    if let Some(hosts) = &run.answering {
        writeln!(
            out,
            "  hosts: two answered at once {} ms, nobody {} ms; each asked every {:.1} ms, at most {} ms apart",
            hosts.two_hosts_ms,
            hosts.nobody_ms,
            hosts.probed_every_us as f64 / 1_000.0,
            hosts.probes_apart_max_ms,
        )?;
    }
    if let Some(stalled) = run.machine_stalled_ms.filter(|ms| *ms > 0) {
        writeln!(out, "  machine: stood still for up to {stalled} ms of half a second")?;
    }
    for (reason, count) in &run.requests.failures {
        writeln!(out, "    {count} requests: {reason}")?;
    }
    Ok(())
}

fn summary(run: &RunReport) -> String {
    let ms = |gap: Option<u64>| gap.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    format!(
        "gap http {}, websocket {}; requests {} ok, {} retried, {} failed; attempts {} refused, {} broken; tunnels {} lost, {} back, longest {} ms",
        ms(run.gap_ms.http),
        ms(run.gap_ms.websocket),
        run.requests.ok,
        run.requests.retried,
        run.requests.failed,
        run.attempts.refused,
        run.attempts.broken,
        run.tunnels.lost,
        run.tunnels.back,
        run.tunnels.longest_ms,
    )
}
