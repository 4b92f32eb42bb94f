//! What the disk promises: everything acknowledged, or a clear refusal.

use super::harness::{End, Net, Node, cluster_name, options, proposal, wait_for};
use crate::changes::Published;
use crate::disk::{self, Contents, Disk, DiskError, Identity, MemoryDisk, RedbDisk, Urgency, Write};
use crate::log_store::LogStore;
use crate::raft_types::Types;
use crate::state_machine::StateMachine;
use crate::{ProposeError, StopReason, TokioRuntime};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use twinsite_model::{ClusterName, Format, Generation, NodeId};

pub(crate) fn identity(node: u64) -> Identity {
    Identity { cluster: cluster_name(), node: NodeId(node), new_disk: 77 }
}

fn open(directory: &Path) -> Result<RedbDisk, DiskError> {
    RedbDisk::open(directory, &identity(1))
}

fn contents(directory: &Path) -> Result<Contents, DiskError> {
    open(directory)?.load()
}

struct Builder;

impl StoreBuilder<Types<TokioRuntime>, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types<TokioRuntime>>> {
        let directory = TempDir::new().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(open(directory.path()).unwrap());
        let contents = disk.load().unwrap();
        let published = Arc::new(Published::new(16));
        let log = LogStore::new(Arc::clone(&disk), Arc::clone(&published), &contents).unwrap();
        let machine = StateMachine::new(published, disk, None, Format::NEWEST).unwrap();
        Ok((directory, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_storage_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

/// A disk with something of everything.
async fn fill(disk: &dyn Disk, entries: u64) {
    for index in 0..entries {
        let bytes = format!("entry {index} ").repeat(10).into_bytes();
        disk::write(disk, vec![Write::Entry { index, bytes }]).await.unwrap();
    }
    let snapshot = Write::Snapshot { header: b"header".to_vec(), content: vec![5; 100_000].into() };
    disk::write(disk, vec![snapshot, Write::Vote(b"vote".to_vec())]).await.unwrap();
    let purge = vec![Write::PurgeThrough(entries / 4), Write::Purged(b"purged".to_vec())];
    disk::write(disk, purge).await.unwrap();
    disk::write(disk, vec![Write::TruncateFrom(entries - 3), Write::Generation(Generation(2))])
        .await
        .unwrap();
    disk::write(disk, vec![Write::Peers(b"peers".to_vec())]).await.unwrap();
    disk.submit(vec![Write::Committed(b"committed".to_vec())], Urgency::Eventually, Box::new(drop));
}

#[tokio::test]
async fn what_was_written_is_read_back_and_equals_the_model() {
    let directory = TempDir::new().unwrap();
    let disk = open(directory.path()).unwrap();
    assert_eq!(disk.load().unwrap(), Contents { disk: 77, generation: Generation(1), ..Contents::default() });
    fill(&disk, 40).await;
    disk.close();
    let model = MemoryDisk::new(77);
    fill(&model, 40).await;
    let found = contents(directory.path()).unwrap();
    assert_eq!(found, model.load().unwrap());
    assert_eq!(found.log.first().unwrap().0, 11);
    assert_eq!(found.log.last().unwrap().0, 36);
}

#[tokio::test]
async fn a_closed_disk_takes_no_more() {
    let directory = TempDir::new().unwrap();
    let disk = open(directory.path()).unwrap();
    disk.close();
    assert_eq!(disk::write(&disk, vec![Write::Vote(vec![1])]).await, Err(DiskError::Closed));
}

#[test]
fn a_directory_in_use_of_another_node_or_cluster_is_refused() {
    let directory = TempDir::new().unwrap();
    let first = open(directory.path()).unwrap();
    assert!(matches!(open(directory.path()), Err(DiskError::Locked { .. })));
    first.close();
    assert!(open(directory.path()).is_ok());

    let other = RedbDisk::open(directory.path(), &identity(2)).err().unwrap();
    assert!(matches!(other, DiskError::OtherNode { found: NodeId(1), expected: NodeId(2), .. }), "{other}");
    let cluster = Identity { cluster: ClusterName::new("other").unwrap(), ..identity(1) };
    let other = RedbDisk::open(directory.path(), &cluster).err().unwrap();
    assert!(matches!(&other, DiskError::OtherCluster { found, .. } if found == "test"), "{other}");
    assert!(!other.to_string().contains('\n'));
    // Refusing damaged nothing.
    assert!(open(directory.path()).is_ok());
}

/// The log and the state hold secrets.
#[test]
fn the_database_is_its_users_alone() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(RedbDisk::FILE);
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    open(directory.path()).unwrap().close();
    assert_eq!(mode(), 0o600);
    // As an earlier program left it.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    open(directory.path()).unwrap().close();
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let directory = TempDir::new().unwrap();
    open(directory.path()).unwrap().close();
    RedbDisk::set_format_for_test(directory.path(), disk::FORMAT + 1);
    let newer = open(directory.path()).err().unwrap();
    assert!(matches!(newer, DiskError::NewerFormat { found: 2, newest: 1, .. }), "{newer}");
}

#[tokio::test]
async fn a_missing_half_is_damage_and_not_a_new_disk() {
    for missing in [RedbDisk::FILE, RedbDisk::WATERMARK_FILE] {
        let directory = TempDir::new().unwrap();
        let disk = open(directory.path()).unwrap();
        fill(&disk, 8).await;
        disk.close();
        std::fs::remove_file(directory.path().join(missing)).unwrap();
        assert!(matches!(contents(directory.path()), Err(DiskError::Damaged { .. })), "{missing}");
    }
}

/// Without the number of its commits, a database is thrown away only if it was never begun.
#[tokio::test]
async fn an_unreadable_database_is_kept_and_an_unformatted_one_replaced() {
    let directory = TempDir::new().unwrap();
    let disk = open(directory.path()).unwrap();
    fill(&disk, 8).await;
    disk.close();
    std::fs::remove_file(directory.path().join(RedbDisk::WATERMARK_FILE)).unwrap();
    let file = directory.path().join(RedbDisk::FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() / 2);
    bytes[0] ^= 0xff;
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(contents(directory.path()), Err(DiskError::Damaged { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "what may be somebody's only copy was touched");

    for never_begun in [Vec::new(), vec![0; 4_096]] {
        std::fs::write(&file, never_begun).unwrap();
        assert_eq!(contents(directory.path()).unwrap().disk, 77);
        std::fs::remove_file(directory.path().join(RedbDisk::WATERMARK_FILE)).unwrap();
    }
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let disk = open(directory.path()).unwrap();
    fill(&disk, 8).await;
    let file = directory.path().join(RedbDisk::FILE);
    let old = std::fs::read(&file).unwrap();
    disk::write(&disk, vec![Write::Vote(b"newer".to_vec())]).await.unwrap();
    disk.close();
    std::fs::write(&file, old).unwrap();
    let refused = contents(directory.path()).unwrap_err();
    assert!(matches!(&refused, DiskError::Damaged { what, .. } if what.contains("newest")), "{refused}");
}

/// Flips bytes of a data directory, one at a time, as a healthy close and as a crash leave it, and demands that each
/// is refused or changes nothing. `TWINSITE_FLIPS` sets the count; `all` means every byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_never_silent() {
    let directory = TempDir::new().unwrap();
    let disk = open(directory.path()).unwrap();
    fill(&disk, 60).await;
    disk::write(&disk, vec![Write::Vote(b"last vote".to_vec())]).await.unwrap();
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let crashed = [read(RedbDisk::FILE), read(RedbDisk::WATERMARK_FILE)];
    disk.close();
    let closed = [read(RedbDisk::FILE), read(RedbDisk::WATERMARK_FILE)];
    let expected = contents(directory.path()).unwrap();

    let count = std::env::var("TWINSITE_FLIPS").unwrap_or_else(|_| "120".to_owned());
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    let mut tried = 0;
    for (image, kind) in [(&closed, "closed"), (&crashed, "crashed")] {
        let flips = flips_of(image, &count, &mut random);
        let workers: Vec<_> = flips
            .chunks(flips.len().div_ceil(2))
            .map(|flips| {
                let (flips, image, expected) = (flips.to_vec(), image.clone(), expected.clone());
                std::thread::spawn(move || {
                    let outcomes = flips.iter().map(|flip| flip_one(&image, *flip, &expected, kind));
                    outcomes.filter(|refused| *refused).count()
                })
            })
            .collect();
        tried += flips.len();
        refused += workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>();
    }
    assert!(refused > tried / 20, "only {refused} of {tried} flips were noticed: the sweep hits nothing");
}

/// (file, offset, mask)
type Flip = (usize, usize, u8);

fn flips_of(image: &[Vec<u8>; 2], count: &str, random: &mut fastrand::Rng) -> Vec<Flip> {
    if count == "all" {
        return (0..2).flat_map(|file| (0..image[file].len()).map(move |at| (file, at, 0x40))).collect();
    }
    let count: usize = count.parse().expect("TWINSITE_FLIPS is a number or `all`");
    // The header decides which commit counts, so every bit of its first byte group is tried in any case.
    let header = (0..16).flat_map(|at| [1, 2, 4, 0x40].map(|mask| (0, at, mask)));
    let watermark = [0, 8, 64, 72].map(|at| (1, at, 0x10));
    let sampled = (0..count).map(|_| (0, random.usize(..image[0].len()), 1 << random.u8(..8)));
    header.chain(watermark).chain(sampled.collect::<Vec<_>>()).collect()
}

/// Whether the flip was refused; panics if it was silent.
fn flip_one(image: &[Vec<u8>; 2], (file, at, mask): Flip, expected: &Contents, kind: &str) -> bool {
    let directory = TempDir::new().unwrap();
    for (index, name) in [RedbDisk::FILE, RedbDisk::WATERMARK_FILE].into_iter().enumerate() {
        let mut bytes = image[index].clone();
        if index == file {
            bytes[at] ^= mask;
        }
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    match contents(directory.path()) {
        Err(_) => true,
        Ok(found) => {
            // `committed` is written when there is time; the crash may have come before.
            let found = Contents { committed: expected.committed.clone(), ..found };
            assert!(found == *expected, "silent damage: {kind}, file {file}, byte {at}, mask {mask:#x}");
            false
        }
    }
}

/// A file that is full after so many more bytes.
#[derive(Debug)]
struct Limited {
    file: redb::backends::FileBackend,
    left: Arc<AtomicI64>,
}

impl Limited {
    fn room(&self, bytes: i64) -> std::io::Result<()> {
        if self.left.fetch_sub(bytes, Ordering::SeqCst) < bytes {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Limited {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room(i64::try_from(data.len()).unwrap())?;
        self.file.write(offset, data)
    }
}

fn open_limited(directory: &Path, left: &Arc<AtomicI64>) -> RedbDisk {
    RedbDisk::open_by(directory, &identity(1), |path| {
        let mut file = std::fs::File::options();
        let file = file.read(true).write(true).create(true).truncate(false).open(path).unwrap();
        let file = redb::backends::FileBackend::new(file)?;
        Ok(Limited { file, left: Arc::clone(left) })
    })
    .unwrap()
}

pub(crate) async fn single(disk: Arc<dyn Disk>) -> Node {
    let net = Net::new();
    let end: End = net.end(1);
    let node = Node::start(options(1), disk, end).await.unwrap();
    net.attach(&node);
    node
}

pub(crate) async fn found(node: &Node) {
    node.initialize(&BTreeMap::from([(NodeId(1), "node-1".to_owned())])).await.unwrap();
    wait_for(node, "leadership", |status| status.is_leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_node_cleanly_and_loses_nothing_acknowledged() {
    for room in [100_000, 400_000, 1_000_000] {
        let directory = TempDir::new().unwrap();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let node = single(Arc::new(open_limited(directory.path(), &left))).await;
        found(&node).await;
        left.store(room, Ordering::SeqCst);
        let mut acknowledged = Vec::new();
        let stopped = loop {
            let request = format!("r{}", acknowledged.len());
            match node.propose(&proposal(&request)).await {
                Ok(_) => acknowledged.push(request),
                Err(ProposeError::Stopped(reason)) => break reason,
                Err(ProposeError::OutcomeUnknown) => break node.stopped().await,
                Err(error) => assert!(error.retryable(), "{error}"),
            }
        };
        assert!(matches!(&stopped, StopReason::Disk(DiskError::Full { .. })), "{stopped}");
        assert!(!acknowledged.is_empty());
        let refused = node.read_index().await.unwrap_err();
        assert!(!refused.retryable(), "{refused}");
        node.shutdown().await;
        drop(node);

        let node = single(Arc::new(open(directory.path()).unwrap())).await;
        wait_for(&node, "leadership", |status| status.is_leader).await;
        node.wait_applied(node.read_index().await.unwrap(), super::harness::DEADLINE).await.unwrap();
        for request in &acknowledged {
            assert!(super::harness::remembers(&node, request), "{request} is lost");
        }
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_restarts_from_its_disk_through_many_snapshots() {
    let directory = TempDir::new().unwrap();
    for life in 0..4 {
        let net = Net::new();
        let mut options = options(1);
        (options.snapshot_after, options.keep_after_snapshot) = (20, 5);
        let disk = Arc::new(open(directory.path()).unwrap());
        let node = Node::start(options, disk, net.end(1)).await.unwrap();
        net.attach(&node);
        if life == 0 {
            found(&node).await;
        }
        wait_for(&node, "leadership", |status| status.is_leader).await;
        let index = loop {
            if let Ok(index) = node.read_index().await {
                break index;
            }
        };
        node.wait_applied(index, super::harness::DEADLINE).await.unwrap();
        for request in 0..life * 50 {
            assert!(super::harness::remembers(&node, &format!("r{request}")), "life {life}: r{request}");
        }
        for request in life * 50..(life + 1) * 50 {
            while node.propose(&proposal(&format!("r{request}"))).await.is_err() {}
        }
        wait_for(&node, "a purged log", |status| status.purged.is_some()).await;
        node.shutdown().await;
    }
    let kept = contents(directory.path()).unwrap();
    assert!(kept.log.len() < 100 && kept.snapshot.is_some(), "{} entries", kept.log.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_is_recovered_on_its_directory_and_only_there() {
    let directory = TempDir::new().unwrap();
    let (name, survivor) = (cluster_name(), NodeId(1));
    let missing = crate::recover(directory.path(), &name, survivor, Generation(2)).await.unwrap_err();
    assert!(matches!(missing, crate::RecoveryError::Disk(DiskError::Missing { .. })), "{missing}");

    let node = single(Arc::new(open(directory.path()).unwrap())).await;
    node.initialize(&BTreeMap::from([
        (NodeId(1), "node-1".to_owned()),
        (NodeId(2), "node-2".to_owned()),
        (NodeId(3), "node-3".to_owned()),
    ]))
    .await
    .unwrap();
    let running = crate::recover(directory.path(), &name, survivor, Generation(2)).await.unwrap_err();
    assert!(matches!(running, crate::RecoveryError::Disk(DiskError::Locked { .. })), "{running}");
    node.shutdown().await;
    drop(node);

    let other = ClusterName::new("other").unwrap();
    assert!(crate::recover(directory.path(), &other, survivor, Generation(2)).await.is_err());
    assert!(crate::recover(directory.path(), &name, NodeId(2), Generation(2)).await.is_err());
    let recovered = crate::recover(directory.path(), &name, survivor, Generation(5)).await.unwrap();
    assert_eq!((recovered.lost, recovered.generation), (vec![NodeId(2), NodeId(3)], Generation(5)));
    let again = crate::recover(directory.path(), &name, survivor, Generation(5)).await.unwrap_err();
    assert!(matches!(again, crate::RecoveryError::GenerationNotNewer { .. }), "{again}");

    let node = single(Arc::new(open(directory.path()).unwrap())).await;
    wait_for(&node, "leadership", |status| status.is_leader).await;
    while node.propose(&proposal("alone")).await.is_err() {}
    assert_eq!(node.generation(), Generation(5));
    node.shutdown().await;
}

/// A disk that fails while nobody waits for it must not leave a leader that only sends heartbeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_fails_gives_up() {
    let mut cluster = super::harness::Cluster::start(3).await;
    cluster.propose("before").await;
    let leader = cluster.leader().await;
    let broken = leader.node().0;
    cluster.disks[&broken].fail(Some(DiskError::Io { path: "/x".into(), why: "broken".into() }));
    let failed = leader.propose(&proposal("lost or not")).await;
    assert!(failed.is_err(), "{failed:?}");
    assert!(matches!(leader.stopped().await, StopReason::Disk(_)));
    cluster.nodes.remove(&broken);
    cluster.propose("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_can_be_shut_down_before_it_takes_part() {
    let mut late = options(1);
    late.start_delay = std::time::Duration::from_mins(1);
    let node = Node::start(late, Arc::new(MemoryDisk::new(1)), Net::new().end(1)).await.unwrap();
    tokio::time::timeout(super::harness::DEADLINE, node.shutdown()).await.unwrap();
    assert_eq!(node.stopped().await, StopReason::Shutdown);
    assert!(!node.propose(&proposal("x")).await.unwrap_err().retryable() || !node.status().borrow().started);
}
