//! What a guardian leaves for the one that comes after it: which processes it watched, and what they held.
//!
//! A guardian may itself be killed and started again while its node hangs: the node says nothing to the new one, so
//! the new one must know without being told. The file is written without waiting for the disk: it has to outlive the
//! guardian, not the machine, and after a start of the machine (another boot id) there is nobody left to watch.

use super::Held;
use super::protocol::{Frame, decode, encode};
use prost::Message;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use twinsite_model::Incarnation;

const FILE: &str = "guardian.record";
/// The largest record that is read back. A hundred addresses take about ten kilobytes.
const BYTES_MAX: u64 = 4 << 20;
/// Length and checksum.
const HEAD: usize = 8;

/// One life of a node, as far as its guardian must know it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Life {
    pub(super) incarnation: Incarnation,
    pub(super) pid: u32,
    /// When the process began, in the kernel's ticks: with the number it names a process for good.
    pub(super) started: u64,
    pub(super) held: Vec<Held>,
}

/// The file. Clones share it.
#[derive(Clone)]
pub(super) struct Record(Arc<Mutex<Inner>>);

struct Inner {
    file: File,
    boot: String,
    lives: BTreeMap<Incarnation, Life>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(string, tag = "1")]
    boot: String,
    #[prost(message, repeated, tag = "2")]
    lives: Vec<LifeWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LifeWire {
    #[prost(fixed64, tag = "1")]
    incarnation: u64,
    #[prost(uint32, tag = "2")]
    pid: u32,
    #[prost(uint64, tag = "3")]
    started: u64,
    /// Frames, as the node sent them.
    #[prost(bytes = "vec", tag = "4")]
    held: Vec<u8>,
}

impl Record {
    /// Opens the file, and says whom the guardian before this one watched.
    pub(super) fn open(data: &Path) -> io::Result<(Self, Vec<Life>)> {
        let path = data.join(FILE);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let mut bytes = Vec::new();
        (&file).take(BYTES_MAX).read_to_end(&mut bytes)?;
        let lives = match read(&bytes) {
            Some((written_at, lives)) if written_at == boot => lives,
            Some(_) => Vec::new(),
            None if bytes.is_empty() => Vec::new(),
            None => {
                tracing::warn!("what the guardian before this one watched cannot be read");
                Vec::new()
            }
        };
        let known = lives.iter().map(|life| (life.incarnation, life.clone())).collect();
        Ok((Self(Arc::new(Mutex::new(Inner { file, boot, lives: known }))), lives))
    }

    /// Notes a life and what it holds now.
    pub(super) fn put(&self, life: Life) {
        self.change(|lives| drop(lives.insert(life.incarnation, life)));
    }

    /// A life is over, and what it held is free.
    pub(super) fn remove(&self, incarnation: Incarnation) {
        self.change(|lives| drop(lives.remove(&incarnation)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Incarnation, Life>)) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inner.lives);
        // One write: a process that is killed has done it or not.
        if let Err(error) = inner.file.write_all_at(&bytes(&inner.boot, inner.lives.values()), 0) {
            tracing::warn!(%error, "what is watched could not be noted for a later guardian");
        }
    }
}

fn bytes<'l>(boot: &str, lives: impl Iterator<Item = &'l Life>) -> Vec<u8> {
    let lives = lives.map(|life| LifeWire {
        incarnation: life.incarnation.0,
        pid: life.pid,
        started: life.started,
        held: life
            .held
            .iter()
            .flat_map(|(holding, until, slack)| {
                encode(&Frame::Holding { holding: holding.clone(), until: *until, slack: *slack })
            })
            .collect(),
    });
    let body = Wire { boot: boot.to_owned(), lives: lives.collect() }.encode_to_vec();
    let mut bytes = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn read(bytes: &[u8]) -> Option<(String, Vec<Life>)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<{ HEAD - 4 }>()?;
    let body = rest.get(..u32::from_le_bytes(*length) as usize)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let wire = Wire::decode(body).ok()?;
    let lives = wire.lives.into_iter().map(|life| {
        let (mut frames, mut held) = (life.held, Vec::new());
        while let Some(frame) = decode(&mut frames).ok()? {
            let Frame::Holding { holding, until, slack } = frame else { return None };
            held.push((holding, until, slack));
        }
        Some(Life { incarnation: Incarnation(life.incarnation), pid: life.pid, started: life.started, held })
    });
    Some((wire.boot, lives.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::super::Holding;
    use super::*;
    use std::time::Duration;
    use twinsite_model::{BootTime, FloatingIpName, Token};

    fn life(incarnation: u64) -> Life {
        let holding = |epoch| Holding {
            ip: FloatingIpName::new("public").unwrap(),
            addresses: vec!["127.0.0.10:80".parse().unwrap()],
            interface: Some(twinsite_model::InterfaceName::new("eth0").unwrap()),
            token: Token::new(1, epoch),
        };
        let until = BootTime(Duration::from_millis(1_234));
        let held = vec![(holding(1), until, Duration::from_millis(20)); 2];
        Life { incarnation: Incarnation(incarnation), pid: 77, started: 99, held }
    }

    #[test]
    fn the_next_guardian_reads_what_the_last_one_noted() {
        let data = tempfile::tempdir().unwrap();
        let (record, before) = Record::open(data.path()).unwrap();
        assert_eq!(before, []);
        record.put(life(1));
        record.put(life(2));
        record.remove(Incarnation(1)); // shorter than what was written before
        let (_, lives) = Record::open(data.path()).unwrap();
        assert_eq!(lives, [life(2)]);
    }

    #[test]
    fn nothing_of_another_boot_and_no_flipped_byte_is_believed() {
        let noted = bytes("this boot", [life(3)].iter());
        assert_eq!(read(&noted), Some(("this boot".to_owned(), vec![life(3)])));
        for at in 0..noted.len() {
            let mut flipped = noted.clone();
            flipped[at] ^= 1;
            assert_eq!(read(&flipped), None, "byte {at}");
        }
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join(FILE), noted).unwrap();
        assert_eq!(Record::open(data.path()).unwrap().1, []);
    }
}
