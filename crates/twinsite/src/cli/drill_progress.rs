//! What a drill is doing, for those who watch.

use crate::progress::Progress;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use twinsite_drill::engine::DrillProgress;

/// How often the line on a terminal is written anew.
const EVERY: Duration = Duration::from_millis(250);

/// Shows on a terminal what happens and what clients see meanwhile; elsewhere a line for each change.
pub struct Watching {
    progress: Progress,
    scenario: String,
    began: Instant,
    now: Arc<Mutex<Option<DrillProgress>>>,
    ticking: Option<AbortHandle>,
}

impl Watching {
    /// From now on. Needs a tokio runtime.
    pub fn new(progress: Progress, scenario: &str) -> Self {
        let now: Arc<Mutex<Option<DrillProgress>>> = Arc::default();
        let mut watching =
            Self { progress, scenario: scenario.to_owned(), began: Instant::now(), now, ticking: None };
        if watching.progress.is_on_terminal() {
            watching.ticking = Some(watching.tick());
        }
        watching
    }

    fn tick(&self) -> AbortHandle {
        let (progress, scenario, now) = (self.progress.clone(), self.scenario.clone(), Arc::clone(&self.now));
        let ticking = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let at = now.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(at) = at {
                    progress.say(&with_clients(&scenario, &at));
                }
            }
        });
        ticking.abort_handle()
    }

    /// Takes in what happens now.
    pub fn now(&self, at: DrillProgress) {
        let line = line(&self.scenario, &at);
        if self.progress.is_on_terminal() {
            self.progress.say(&with_clients(&self.scenario, &at));
        } else {
            self.progress.say(&format!("{:>6.1} s  {line}", self.began.elapsed().as_secs_f64()));
        }
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(ticking) = &self.ticking {
            ticking.abort();
        }
    }
}

fn line(scenario: &str, at: &DrillProgress) -> String {
    format!("{scenario} run {}/{}: {}", at.run, at.runs, at.now)
}

fn with_clients(scenario: &str, at: &DrillProgress) -> String {
    let line = line(scenario, at);
    let Some(clients) = &at.clients else { return line };
    let seen = clients.so_far();
    format!("{line}; {} answers, {} failed", seen.answers, seen.failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsite_drill::measure::Recorder;

    #[test]
    fn what_clients_see_is_said_as_soon_as_there_are_any() {
        let at = DrillProgress { run: 2, runs: 3, now: "clients begin".to_owned(), clients: None };
        assert_eq!(with_clients("switchover", &at), "switchover run 2/3: clients begin");
        let clients = Arc::new(Recorder::default());
        clients.request_ok(false);
        clients.connect(Ok(()));
        let at = DrillProgress { clients: Some(clients), ..at };
        assert_eq!(with_clients("switchover", &at), "switchover run 2/3: clients begin; 2 answers, 0 failed");
    }
}
