//! What a test has measured, where `cargo xtask accept` finds it for its report.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

/// How often a test repeats itself: its sample, or what the environment asks for.
pub(crate) fn count(variable: &str, sample: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(sample)
}

/// Times that must not exceed a limit. They are said when this is dropped, so that those of a test that fails are too.
pub(crate) struct Times {
    what: String,
    limit: Duration,
    noted: Vec<Duration>,
}

impl Times {
    pub(crate) fn new(what: impl Into<String>, limit: Duration) -> Self {
        Self { what: what.into(), limit, noted: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn note(&mut self, time: Duration) {
        self.noted.push(time);
        let Self { what, limit, noted } = self;
        assert!(
            time <= *limit,
            "{what}, number {}: {time:?}, and at most {limit:?} are allowed",
            noted.len()
        );
    }
}

impl Drop for Times {
    fn drop(&mut self) {
        self.noted.sort_unstable();
        let (Some(max), Some(median)) = (self.noted.last(), self.noted.get(self.noted.len() / 2)) else {
            return;
        };
        let ms = |time: &Duration| time.as_secs_f64() * 1_000.0;
        let line = format!(
            r#"{{"what":"{}","count":{},"median_ms":{:.1},"max_ms":{:.1},"limit_ms":{:.0}}}"#,
            self.what,
            self.noted.len(),
            ms(median),
            ms(max),
            ms(&self.limit)
        );
        println!("{line}");
        let Some(path) = std::env::var_os("TWINSITE_MEASURED") else { return };
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
            drop(writeln!(file, "{line}"));
        }
    }
}
