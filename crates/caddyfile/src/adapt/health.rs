//! Health checks. Caddy has some for each `reverse_proxy`; twinsite looks after each upstream once, for all routes.

use super::notes::{Notes, shown};
use super::path::Paths;
use super::{duration, line};
use crate::document::Directive;
use crate::place::Place;
use std::time::Duration;
use twinsite_model::spec::{HealthSpec, HumanDuration};

/// An upstream that is found dead later than this is worth a word.
const SLOW: Duration = Duration::from_secs(10);

/// What one `reverse_proxy` says of it, with the place of each line.
#[derive(Debug, Default)]
pub(super) struct Said {
    path: Option<(String, Place)>,
    interval: Option<(Duration, Place)>,
    timeout: Option<(Duration, Place)>,
    rise: Option<(u32, Place)>,
    fall: Option<(u32, Place)>,
    eject_after: Option<(u32, Place)>,
    eject_for: Option<(Duration, Place)>,
}

impl Said {
    /// Reads a line if it is about health.
    pub(super) fn line(&mut self, line: &Directive, notes: &mut Notes) -> bool {
        const MS: Duration = Duration::from_millis(1);
        const HOUR: Duration = Duration::from_secs(3_600);
        let place = || line.name.place.clone();
        match line.name.text.as_str() {
            "health_uri" | "health_path" => self.path = path(line, notes).map(|path| (path, place())),
            "health_interval" => {
                self.interval = duration::of_line(line, 50 * MS..=HOUR, notes).map(|it| (it, place()));
            }
            "health_timeout" => {
                self.timeout = duration::of_line(line, 10 * MS..=HOUR / 12, notes).map(|it| (it, place()));
            }
            "health_passes" => self.rise = count(line, 100, notes).map(|it| (it, place())),
            "health_fails" => self.fall = count(line, 100, notes).map(|it| (it, place())),
            "health_status" => status(line, notes),
            "max_fails" => self.eject_after = count(line, 10_000, notes).map(|it| (it, place())),
            "fail_duration" => {
                self.eject_for = duration::of_line(line, 100 * MS..=HOUR, notes).map(|it| (it, place()));
            }
            _ => return false,
        }
        true
    }

    /// Whether Caddy looks whether upstreams are well.
    pub(super) fn is_probed(&self) -> bool {
        self.path.is_some()
    }
}

fn path(line: &Directive, notes: &mut Notes) -> Option<String> {
    let word = line::one(line, &format!("{} /PATH", line.name.text), notes)?;
    let problem = match Paths::new(&word.text) {
        Ok(_) if word.text.ends_with('*') => "a probe asks for one path",
        Ok(_) => return Some(word.text.clone()),
        Err(problem) => problem,
    };
    notes.error(&word.place, format!("`{}`: {problem}", shown(&word.text)), "write a path as in `/health`")
}

fn count(line: &Directive, max: u32, notes: &mut Notes) -> Option<u32> {
    let form = format!("{} NUMBER", line.name.text);
    let number = line::number(line, &form, notes)?;
    if !(1..=max).contains(&number) {
        return notes.error(
            &line.name.place,
            format!("{number} is out of bounds"),
            format!("use 1 to {max}"),
        );
    }
    Some(number)
}

fn status(line: &Directive, notes: &mut Notes) {
    let Some(word) = line::one(line, "health_status 2xx", notes) else { return };
    if !matches!(word.text.as_str(), "2xx" | "200") {
        let what =
            format!("`{}`: an upstream is well if it answers 2xx, and not otherwise", shown(&word.text));
        notes.error::<()>(&word.place, what, "write `health_status 2xx`, and let the upstream answer so");
    }
}

/// What counts for all: what the first says who says it.
#[derive(Debug, Default)]
pub(super) struct Health {
    first: Option<Said>,
}

impl Health {
    /// The place of the first word about it.
    pub(super) fn place(&self) -> Option<&Place> {
        let said = self.first.as_ref()?;
        let durations = [&said.interval, &said.timeout, &said.eject_for];
        let counts = [&said.rise, &said.fall, &said.eject_after];
        let path = said.path.iter().map(|(_, place)| place);
        let rest = durations.into_iter().flatten().map(|(_, place)| place);
        path.chain(rest).chain(counts.into_iter().flatten().map(|(_, place)| place)).next()
    }

    /// Takes what one `reverse_proxy` says, where no other has said it.
    pub(super) fn add(&mut self, said: Said, notes: &mut Notes) {
        let is_first = self.first.as_ref().is_none_or(|first| first.path.is_none());
        if let Some((path, place)) = said.path.as_ref().filter(|(path, _)| is_first && path == "/health") {
            let what = format!(
                "multiparty-meeting has no `{path}`: it answers 200 to any path, also when it is not well"
            );
            notes.trap(
                place,
                what,
                "write `socket_io = true` below [health], so that a handshake must answer too",
            );
        }
        if let (Some((_, place)), None) = (&said.eject_after, &said.eject_for) {
            let what = "without `fail_duration` Caddy counts no failures; twinsite does, and leaves an upstream out for 5s";
            notes.trap(place, what, "write `fail_duration`, or remove `max_fails`");
        }
        let Some(first) = &mut self.first else {
            self.first = Some(said);
            self.warn_of_slowness(notes);
            return;
        };
        keep(&mut first.path, said.path, notes);
        keep(&mut first.interval, said.interval, notes);
        keep(&mut first.timeout, said.timeout, notes);
        keep(&mut first.rise, said.rise, notes);
        keep(&mut first.fall, said.fall, notes);
        keep(&mut first.eject_after, said.eject_after, notes);
        keep(&mut first.eject_for, said.eject_for, notes);
        self.warn_of_slowness(notes);
    }

    fn warn_of_slowness(&self, notes: &mut Notes) {
        let interval = self.first.as_ref().and_then(|said| said.interval.as_ref());
        let (Some((_, place)), Some(spec)) = (interval, self.spec()) else { return };
        let found = spec.interval.0 * spec.fall;
        if found > SLOW {
            let what = format!(
                "an upstream that dies is found only after {} (`fall` = {} probes, one each {})",
                HumanDuration(found),
                spec.fall,
                spec.interval
            );
            notes.trap(place, what, "write a shorter `health_interval`; twinsite's own is 1s");
        }
    }

    /// As twinsite says it. What nobody says is as it is without a Caddyfile.
    pub(super) fn spec(&self) -> Option<HealthSpec> {
        self.place()?;
        let said = self.first.as_ref()?;
        let mut spec = HealthSpec::default();
        if let Some((path, _)) = &said.path {
            spec.path.clone_from(path);
        }
        let duration = |said: &Option<(Duration, Place)>| said.as_ref().map(|(it, _)| HumanDuration(*it));
        let count = |said: &Option<(u32, Place)>| said.as_ref().map(|(it, _)| *it);
        spec.interval = duration(&said.interval).unwrap_or(spec.interval);
        spec.timeout = duration(&said.timeout).unwrap_or(spec.timeout);
        spec.rise = count(&said.rise).unwrap_or(spec.rise);
        spec.fall = count(&said.fall).unwrap_or(spec.fall);
        spec.eject_for = duration(&said.eject_for).unwrap_or(spec.eject_for);
        // Caddy's own number where a duration says that failures count.
        let ejects = said.eject_for.as_ref().map(|_| 1);
        spec.eject_after = count(&said.eject_after).or(ejects).unwrap_or(spec.eject_after);
        Some(spec)
    }
}

fn keep<T: PartialEq>(first: &mut Option<(T, Place)>, said: Option<(T, Place)>, notes: &mut Notes) {
    match (&first, said) {
        (Some((is, place)), Some((other, at))) if *is != other => {
            let what = format!(
                "twinsite looks after each upstream once for all routes, and line {} says it otherwise; that one counts",
                place.line
            );
            notes.trap(&at, what, "write the same for all, or below [health] what you want");
        }
        (None, said) => *first = said,
        _ => {}
    }
}
