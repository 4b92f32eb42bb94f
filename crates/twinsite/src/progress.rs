//! What is going on, for those who wait.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// What is going on, on one line of a terminal, or a line each time it changes.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            None,
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, terminal }
    }

    /// Whether somebody looks at a terminal, where a line can change.
    pub fn is_on_terminal(&self) -> bool {
        self.terminal
    }

    /// So many of those that are waited for are ready.
    pub fn starting(&self, stage: &str, done: usize, of: usize) {
        if self.terminal || done == of {
            self.say(&format!("waiting for {stage}: {done}/{of}"));
        }
    }

    /// Says on a terminal what may be over, or refused, at once; elsewhere it is not worth a line.
    pub fn hint(&self, text: &str) {
        if self.terminal {
            self.bar.set_message(text.to_owned());
        }
    }

    /// Says what is going on now.
    pub fn say(&self, text: &str) {
        if self.terminal {
            self.bar.set_message(text.to_owned());
        } else {
            anstream::eprintln!("{text}");
        }
    }

    /// Leaves the line to others.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
