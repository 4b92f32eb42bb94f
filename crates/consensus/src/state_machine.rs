//! Applies committed entries to the state, in memory, and keeps snapshots of it on disk.

use crate::changes::{Change, Published};
use crate::disk::{self, Disk, DiskError, Write};
use crate::error::StopReason;
use crate::pb;
use crate::raft_types::{
    Entry, LogId, Membership, Outcome, Payload, Snapshot, SnapshotMeta, StoredMembership, Types,
};
use crate::wire;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{AsyncRuntime, OptionalSend};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use twinsite_model::{Format, State, encoding};

/// The state machine of one node.
#[derive(Clone)]
pub(crate) struct StateMachine {
    core: Arc<Mutex<Core>>,
    published: Arc<Published>,
    disk: Arc<dyn Disk>,
    /// The newest encoding that is read.
    format_max: Format,
}

/// What entries change.
#[derive(Clone, Default)]
struct Core {
    applied: Option<LogId>,
    membership: StoredMembership,
    state: State,
    /// Every id that was ever a member and no longer is.
    retired: BTreeSet<u64>,
    snapshot: Option<(SnapshotMeta, Bytes)>,
}

impl StateMachine {
    /// A state machine that holds the given snapshot; openraft installs it and applies the log from there.
    pub(crate) fn new(
        published: Arc<Published>,
        disk: Arc<dyn Disk>,
        snapshot: Option<(Vec<u8>, Bytes)>,
        format_max: Format,
    ) -> Result<Self, DiskError> {
        let snapshot = snapshot.map(|(header, content)| open_snapshot(&header, content)).transpose()?;
        let core = Core { snapshot, ..Core::default() };
        Ok(Self { core: Arc::new(Mutex::new(core)), published, disk, format_max })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // A panic inside leaves an entry half applied at worst, and then openraft ends the node.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_one(&self, entry: &Entry) -> io::Result<Outcome> {
        let mut core = self.core();
        let outcome = match &entry.payload {
            Payload::Blank => None,
            Payload::Membership(membership) => {
                core.adopt(StoredMembership::new(Some(entry.log_id), membership.clone()));
                self.published.set_retired(&core.retired);
                None
            }
            Payload::Normal(command) => {
                let index = entry.log_id.index;
                let proposal =
                    encoding::decode_proposal_as(&command.0, self.format_max).map_err(|error| {
                        // Never skipped: a node that leaves out what it cannot read holds another state than the rest.
                        let reason = StopReason::Undecodable { index, why: error.to_string() };
                        self.published.stop(reason.clone());
                        io::Error::other(reason)
                    })?;
                let before = core.state.revision;
                let applied = core.state.apply(index, &proposal);
                if applied.revision != before {
                    self.published.publish(Change {
                        revision: applied.revision,
                        events: applied.events.clone(),
                        state: Arc::new(core.state.clone()),
                        skipped: false,
                    });
                }
                Some(applied)
            }
        };
        core.applied = Some(entry.log_id);
        self.published.set_applied(entry.log_id.index);
        Ok(Outcome(outcome))
    }

    /// Makes a snapshot current, on disk and in memory, unless a newer one is.
    async fn keep(&self, meta: &SnapshotMeta, content: &Bytes) -> io::Result<()> {
        let durable = {
            let mut core = self.core();
            if core.snapshot.as_ref().is_some_and(|(current, _)| current.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            core.snapshot = Some((meta.clone(), content.clone()));
            let header = wire::encode(&wire::from_snapshot(meta, content));
            // Handed to the disk under the lock, so that two snapshots reach it in the order decided here.
            let (done, is_done) = tokio::sync::oneshot::channel();
            self.disk.submit(
                vec![Write::Snapshot { header, content: content.clone() }],
                disk::Urgency::Now,
                Box::new(move |result| drop(done.send(result))),
            );
            is_done
        };
        durable.await.unwrap_or(Err(DiskError::Closed)).map_err(|error| {
            self.published.stop(StopReason::Disk(error.clone()));
            io::Error::other(error)
        })
    }
}

impl Core {
    fn adopt(&mut self, membership: StoredMembership) {
        let is_member = |membership: &Membership, node: &u64| membership.get_node(node).is_some();
        let gone = self.membership.nodes().map(|(node, _)| *node);
        self.retired.extend(gone.filter(|node| !is_member(membership.membership(), node)));
        self.membership = membership;
    }

    fn content(&self) -> Bytes {
        let content = pb::SnapshotContent {
            state: encoding::encode_state(&self.state).into(),
            retired: self.retired.iter().copied().collect(),
        };
        wire::encode(&content).into()
    }
}

/// Reads a snapshot's header and checks the content against it.
fn open_snapshot(header: &[u8], content: Bytes) -> Result<(SnapshotMeta, Bytes), DiskError> {
    let damaged = |what: wire::WireError| DiskError::Damaged {
        path: "of this node".to_owned(),
        what: format!("the snapshot: {what}"),
    };
    let header: pb::SnapshotHeader = wire::decode(header).map_err(damaged)?;
    let meta = wire::to_snapshot(header, &content).map_err(damaged)?;
    Ok((meta, content))
}

impl<RT: AsyncRuntime> RaftStateMachine<Types<RT>> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let core = self.core();
        Ok((core.applied, core.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<Types<RT>>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_one(&entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { view: self.core().clone(), machine: self.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, content: Bytes) -> io::Result<()> {
        let undecodable = |why: String| {
            let index = meta.last_log_id.map_or(0, |id| id.index);
            let reason = StopReason::Undecodable { index, why: format!("a snapshot up to it: {why}") };
            self.published.stop(reason.clone());
            io::Error::other(reason)
        };
        let decoded: pb::SnapshotContent =
            wire::decode(&content).map_err(|error| undecodable(error.to_string()))?;
        let state = encoding::decode_state_as(&decoded.state, self.format_max)
            .map_err(|error| undecodable(error.to_string()))?;
        self.keep(meta, &content).await?;

        let mut core = self.core();
        core.applied = meta.last_log_id;
        core.membership = meta.last_membership.clone();
        core.retired = decoded.retired.into_iter().collect();
        core.state = state;
        self.published.set_retired(&core.retired);
        let state = Arc::new(core.state.clone());
        let revision = state.revision;
        self.published.publish(Change { revision, events: Vec::new(), state, skipped: true });
        if let Some(last) = core.applied {
            self.published.set_applied(last.index);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.core().snapshot.clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Encodes a snapshot of the state as it was when it was asked for.
pub(crate) struct Builder {
    view: Core,
    machine: StateMachine,
}

impl<RT: AsyncRuntime> RaftSnapshotBuilder<Types<RT>> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let content = self.view.content();
        let meta =
            SnapshotMeta { last_log_id: self.view.applied, last_membership: self.view.membership.clone() };
        self.machine.keep(&meta, &content).await?;
        Ok(Snapshot { meta, snapshot: content })
    }
}
