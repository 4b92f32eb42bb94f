//! Damaged input for decoders. See `OVERVIEW.md`.

use proptest::prelude::*;
use proptest::sample::Index;
use std::path::Path;

/// Inputs for each decoder, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 20_000;
/// Damages to one input, at most.
const DAMAGES_MAX: usize = 8;
/// An input never grows beyond this, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// How many inputs a decoder gets. A failure is kept in the folder `proptest-regressions`, as usual.
pub fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        ProptestConfig { cases: CASES, ..default }
    }
}

/// All files below a folder with this ending.
///
/// # Panics
///
/// If there is none: a fuzz test without examples finds nothing.
pub fn corpus(folder: impl AsRef<Path>, ending: &str) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.as_ref().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    let corpus: Vec<_> = files.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    assert!(!corpus.is_empty(), "no .{ending} files in {}", folder.as_ref().display());
    corpus
}

/// One thing that happens to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Cut(Index),
    Splice { at: Index, from: Index, begin: Index, length: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    // Numbers that are at an edge of something are worth more than others.
    let byte =
        prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'[', b'='])];
    prop_oneof![
        (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<Index>(), prop::collection::vec(byte, 1..12))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1_usize..64).prop_map(|(at, length)| Damage::Remove(at, length)),
        (any::<Index>(), 1_usize..64, 1_usize..20)
            .prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<Index>(), any::<Index>(), 1_usize..256)
            .prop_map(|(at, from, begin, length)| Damage::Splice { at, from, begin, length }),
    ]
}

/// Examples, each with up to eight damages; now and then an undamaged one.
///
/// # Panics
///
/// If there are no examples.
pub fn mutated(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    assert!(!corpus.is_empty(), "no examples");
    (any::<Index>(), prop::collection::vec(damage(), 0..=DAMAGES_MAX)).prop_map(move |(which, damages)| {
        let mut bytes = which.get(&corpus).clone();
        for damage in damages {
            apply(&mut bytes, damage, &corpus);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    })
}

fn apply(bytes: &mut Vec<u8>, damage: Damage, corpus: &[Vec<u8>]) {
    let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match damage {
        Damage::Flip(at, bit) if !bytes.is_empty() => *at.get_mut(bytes) ^= bit,
        Damage::Set(at, byte) if !bytes.is_empty() => *at.get_mut(bytes) = byte,
        Damage::Flip(..) | Damage::Set(..) => {}
        Damage::Insert(at, new) => {
            let at = place(at, bytes);
            bytes.splice(at..at, new);
        }
        Damage::Remove(at, length) => {
            let at = place(at, bytes);
            let end = (at + length).min(bytes.len());
            bytes.drain(at..end);
        }
        Damage::Repeat(at, length, times) => {
            let at = place(at, bytes);
            let end = (at + length).min(bytes.len());
            let part = bytes[at..end].repeat(times);
            bytes.splice(at..at, part);
        }
        Damage::Cut(at) => bytes.truncate(place(at, bytes)),
        Damage::Splice { at, from, begin, length } => {
            let other = from.get(corpus);
            let begin = place(begin, other);
            let end = (begin + length).min(other.len());
            let at = place(at, bytes);
            bytes.splice(at..at, other[begin..end].iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeSet;

    #[test]
    fn examples_come_damaged_in_many_ways_and_sometimes_whole() {
        let corpus = vec![b"one example".to_vec(), b"another".to_vec()];
        let inputs = mutated(corpus.clone());
        let mut runner = TestRunner::deterministic();
        let seen: Vec<_> = (0..500).map(|_| inputs.new_tree(&mut runner).unwrap().current()).collect();
        assert!(corpus.iter().all(|example| seen.contains(example)));
        assert!(seen.iter().collect::<BTreeSet<_>>().len() > 300);
        assert!(seen.iter().any(|bytes| bytes.len() > 20) && seen.iter().any(|bytes| bytes.len() < 4));
    }
}
