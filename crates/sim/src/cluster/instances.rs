//! The meeting instances, as far as they are told what to announce: a file for each, and the token beside it. They
//! outlive the nodes that write them, and every node of a site writes those of its site.

use super::process::Raft;
use super::sight::Sight;
use crate::runtime::{Executor, SimRuntime};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use twinsite_agents::{Instances, timing};
use twinsite_announce::{AnnounceError, Announcement, Missing, Reconciled, There, compare};
use twinsite_consensus::AsyncRuntime;
use twinsite_model::{ClusterSpec, NodeId, SiteName, Token, UpstreamName};

/// How long another process is let write first.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a file takes to be on the disk, at most.
const WRITTEN_WITHIN: Duration = Duration::from_millis(8);
/// How long an instance takes to say what it announces, at most.
const SAID_WITHIN: Duration = Duration::from_millis(10);
/// After something was delivered, instances are asked so many times as often, so many times.
const HURRY_FACTOR: u32 = 5;
const HURRIED: u32 = 10;

/// What a node wrote.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) upstream: UpstreamName,
    pub(super) site: SiteName,
    pub(super) by: NodeId,
    pub(super) wanted: Announcement,
    /// The newest token that was ever beside the file, since somebody had a hand in it.
    pub(super) newest: Option<Token>,
    /// The newest token under which a node of the site had answered for the address before.
    pub(super) answered: Option<Token>,
}

#[derive(Debug)]
struct File {
    site: SiteName,
    there: There,
    newest: Option<Token>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Shelf {
    files: BTreeMap<UpstreamName, File>,
    written: Vec<Written>,
    late: u64,
}

/// The files of all instances. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Files(Arc<Mutex<Shelf>>);

impl Files {
    /// Nobody has been told anything.
    pub(super) fn new(spec: &ClusterSpec) -> Self {
        let file = |site: &SiteName| File {
            site: site.clone(),
            there: There::default(),
            newest: None,
            lock: Arc::default(),
        };
        let files = spec.upstreams.iter().map(|upstream| (upstream.name.clone(), file(&upstream.site)));
        Self(Arc::new(Mutex::new(Shelf { files: files.collect(), ..Shelf::default() })))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every instance announces, with its site.
    pub(super) fn announced(&self) -> Vec<(UpstreamName, SiteName, Option<IpAddr>)> {
        let shelf = self.shelf();
        let files = shelf.files.iter();
        files.map(|(upstream, file)| (upstream.clone(), file.site.clone(), file.there.address)).collect()
    }

    /// Somebody has a hand in one of the files.
    pub(super) fn touch(&self, place: usize, change: impl FnOnce(&mut There)) -> Option<UpstreamName> {
        let mut shelf = self.shelf();
        let (upstream, file) = shelf.files.iter_mut().nth(place)?;
        change(&mut file.there);
        file.newest = file.there.token;
        Some(upstream.clone())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.shelf().files.len()
    }

    /// What was written since the last time, and how often something was refused because it came too late.
    pub(super) fn take_written(&self) -> (Vec<Written>, u64) {
        let mut shelf = self.shelf();
        (std::mem::take(&mut shelf.written), std::mem::take(&mut shelf.late))
    }

    fn of(&self, site: &SiteName) -> BTreeMap<UpstreamName, Option<IpAddr>> {
        let shelf = self.shelf();
        let files = shelf.files.iter().filter(|(_, file)| file.site == *site);
        files.map(|(upstream, file)| (upstream.clone(), file.there.address)).collect()
    }

    /// Has a node read back what the instances of its site announce, until its process ends.
    pub(super) fn read_back(
        &self,
        site: SiteName,
        raft: Raft,
        soon: Arc<Notify>,
    ) -> watch::Receiver<BTreeMap<UpstreamName, Option<IpAddr>>> {
        let (files, known) = (self.clone(), watch::Sender::default());
        let announced = known.subscribe();
        let mut random = Executor::random();
        drop(SimRuntime::spawn(async move {
            let mut hurried = 0_u32;
            loop {
                let lease = timing(&raft).lease;
                let every = (lease / 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
                let pause = if hurried > 0 { every / HURRY_FACTOR } else { every };
                hurried = hurried.saturating_sub(1);
                tokio::select! {
                    biased;
                    () = soon.notified() => hurried = HURRIED,
                    () = SimRuntime::sleep(pause) => {}
                }
                SimRuntime::sleep(up_to(&mut random, SAID_WITHIN)).await;
                let now = files.of(&site);
                known.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
        }));
        announced
    }
}

fn up_to(random: &mut fastrand::Rng, max: Duration) -> Duration {
    Duration::from_nanos(random.u64(..=max.as_nanos() as u64))
}

/// One life of a node, at the files of its site.
pub(super) struct Writer {
    pub(super) me: NodeId,
    pub(super) site: SiteName,
    pub(super) files: Files,
    /// For who has answered.
    pub(super) sight: Sight,
    /// Told when it is worth reading back.
    pub(super) soon: Arc<Notify>,
    pub(super) random: fastrand::Rng,
}

impl Instances for Writer {
    async fn deliver(&mut self, wanted: Announcement) -> Option<Vec<Reconciled>> {
        let mut done = Vec::new();
        for upstream in self.files.of(&self.site).into_keys() {
            let result = self.write(&upstream, wanted).await;
            done.push(Reconciled { upstream, result });
        }
        Some(done)
    }

    fn read_soon(&self) {
        self.soon.notify_one();
    }
}

impl Writer {
    /// As it is done with real files: under a lock, but not for ever, the token first.
    async fn write(&mut self, upstream: &UpstreamName, wanted: Announcement) -> Result<bool, AnnounceError> {
        let lock = self.files.shelf().files.get(upstream).map(|file| Arc::clone(&file.lock));
        let lock = lock.unwrap_or_default();
        let _held = SimRuntime::timeout(LOCK_PATIENCE, lock.lock_owned()).await.ok();
        let missing = self.write_token(upstream, wanted)?;
        if missing.token || missing.address {
            SimRuntime::sleep(up_to(&mut self.random, WRITTEN_WITHIN)).await;
        }
        if missing.address {
            self.write_address(upstream, wanted);
        }
        Ok(missing.address)
    }

    fn write_token(&self, upstream: &UpstreamName, wanted: Announcement) -> Result<Missing, AnnounceError> {
        let mut shelf = self.files.shelf();
        let Some(file) = shelf.files.get_mut(upstream) else {
            return Ok(Missing { token: false, address: false });
        };
        let missing = match compare(file.there, &wanted) {
            Ok(missing) => missing,
            Err(why) => {
                shelf.late += 1;
                return Err(AnnounceError::Stale { path: PathBuf::from(upstream.as_str()), why });
            }
        };
        if missing.token {
            let (site, newest) = (file.site.clone(), file.newest);
            file.there.token = Some(wanted.token);
            file.newest = newest.max(Some(wanted.token));
            let answered = self.sight.has_answered(&site, wanted.address);
            let (upstream, by) = (upstream.clone(), self.me);
            shelf.written.push(Written { upstream, site, by, wanted, newest, answered });
        }
        Ok(missing)
    }

    fn write_address(&self, upstream: &UpstreamName, wanted: Announcement) {
        let mut shelf = self.files.shelf();
        let Some(file) = shelf.files.get_mut(upstream) else { return };
        file.there.address = Some(wanted.address);
        // Whoever stood still meanwhile may write beside a newer token, which the next comparison puts right.
        let (site, by) = (file.site.clone(), self.me);
        let answered = self.sight.has_answered(&site, wanted.address);
        let upstream = upstream.clone();
        shelf.written.push(Written { upstream, site, by, wanted, newest: None, answered });
    }
}
