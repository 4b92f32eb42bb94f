//! Writes reports into a folder of the node's data.

use super::lookout::{Lookout, Seen, is_told};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinsite_agents::Machine;
use twinsite_consensus::{Change, TokioRuntime};
use twinsite_controller::Notice;
use twinsite_drill::archive::Archive;
use twinsite_drill::engine::Report;
use twinsite_health::OutsideAnswers;
use twinsite_model::State;

/// The folder, in the node's data.
const FOLDER: &str = "reports";
/// Changes that wait to be looked at. More are not kept: a report is worth less than a node's peace.
const WAITING_MAX: usize = 1_024;

/// Where what happens is told.
#[derive(Clone)]
pub struct Incidents {
    seen: mpsc::Sender<Seen>,
}

impl Incidents {
    /// Where to tell, and what writes.
    pub fn new(data: &Path, state: Arc<State>) -> (Self, Writer) {
        let (seen, inbox) = mpsc::channel(WAITING_MAX);
        let writer = Writer { folder: data.join(FOLDER), inbox, lookout: Lookout::new(state) };
        (Self { seen }, writer)
    }

    /// Tells of a change, without waiting.
    pub fn tell(&self, change: &Change) {
        if !change.events.iter().any(is_told) {
            return;
        }
        let seen = Seen::Change { events: change.events.clone(), state: Arc::clone(&change.state) };
        if self.seen.try_send(seen).is_err() {
            tracing::debug!("too much happens for a report of all of it");
        }
    }
}

/// Makes reports of what it is told, and writes them.
pub struct Writer {
    folder: PathBuf,
    inbox: mpsc::Receiver<Seen>,
    lookout: Lookout,
}

impl Writer {
    /// Until told to stop.
    pub async fn run(
        mut self,
        mut outside: watch::Receiver<OutsideAnswers>,
        mut notices: broadcast::Receiver<Notice>,
        stop: CancellationToken,
    ) {
        loop {
            let due = self.lookout.next_due().map(|at| at.since(TokioRuntime::wall_now()));
            let sleep = async {
                match due {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let seen = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(seen) = self.inbox.recv() => seen,
                Ok(()) = outside.changed() => Seen::Outside(outside.borrow_and_update().clone()),
                notice = notices.recv() => match notice {
                    Ok(notice) => Seen::Notice(notice),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = sleep => {
                    while let Some(report) = self.lookout.take_due(TokioRuntime::wall_now()) {
                        self.write(report).await;
                    }
                    continue;
                }
            };
            if let Some(report) = self.lookout.see(TokioRuntime::wall_now(), seen) {
                self.write(report).await;
            }
        }
    }

    /// A report that cannot be written is lost, and said to be.
    async fn write(&self, report: Report) {
        let archive = Archive::at(&self.folder);
        let (what, description) = (report.scenario.clone(), report.description.clone());
        metrics::counter!("twinsite_reports_total", "of" => what.clone()).increment(1);
        let written = tokio::task::spawn_blocking(move || archive.keep(&report, None)).await;
        match written {
            Ok(Ok(path)) => {
                tracing::warn!(of = %what, %description, path = %path.display(), "a report was written");
            }
            Ok(Err(error)) => tracing::error!(of = %what, %description, %error, "no report could be written"),
            Err(error) => tracing::error!(of = %what, %error, "no report could be written"),
        }
    }
}
