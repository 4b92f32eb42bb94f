//! Delivers `announcedIp` to this site's meeting instances, and reads it back. What to deliver, and when, is decided in
//! `twinsite-agents`.

use super::observe::outside_view;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use twinsite_agents::{Instances, Outside};
use twinsite_announce::{Announcement, Announcer, Reconciled};
use twinsite_controller::OutsideView;
use twinsite_health::{OutsideAnswers, ReadBack};
use twinsite_model::{ClusterName, ClusterSpec, FloatingIpName, UpstreamName};
use twinsite_upstream::Target;

/// A handle to the delivery.
#[derive(Clone)]
pub struct Announced {
    /// Told when something changed that an announcement may follow from.
    pub again: Arc<Notify>,
    read_back: Arc<ReadBack>,
    instances: Arc<Vec<UpstreamName>>,
}

impl Announced {
    /// For the instances of this node's configuration.
    pub fn new(read_back: Arc<ReadBack>, instances: Vec<UpstreamName>) -> Self {
        Self { again: Arc::default(), read_back, instances: Arc::new(instances) }
    }

    /// Follows a new specification.
    pub fn configure(&self, spec: &ClusterSpec) {
        let mine = spec.upstreams.iter().filter(|upstream| self.instances.contains(&upstream.name));
        self.read_back
            .configure(mine.map(|upstream| (upstream.name.clone(), Target::of(upstream))).collect());
    }
}

/// The files of this node's instances, written where it may take its time.
pub struct Files {
    announcer: Option<Announcer>,
    read_back: Arc<ReadBack>,
}

impl Files {
    /// These files.
    pub const fn new(announcer: Announcer, read_back: Arc<ReadBack>) -> Self {
        Self { announcer: Some(announcer), read_back }
    }
}

impl Instances for Files {
    async fn deliver(&mut self, wanted: Announcement) -> Option<Vec<Reconciled>> {
        let mut writer = self.announcer.take()?;
        let written = tokio::task::spawn_blocking(move || {
            let done = writer.reconcile(&wanted);
            (writer, done)
        });
        let (writer, done) = written.await.ok()?; // an error only at the end of the process
        self.announcer = Some(writer);
        Some(done)
    }

    fn read_soon(&self) {
        self.read_back.read_soon();
    }
}

/// What probes from here found.
pub struct Probed(pub watch::Receiver<OutsideAnswers>);

impl Outside for Probed {
    fn answers(&mut self, cluster: &ClusterName) -> BTreeMap<FloatingIpName, OutsideView> {
        let answers = self.0.borrow_and_update();
        answers.iter().map(|(ip, answer)| (ip.clone(), outside_view(answer.for_cluster(cluster)))).collect()
    }

    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await; // the probes have ended, and so will the node
        }
    }
}
