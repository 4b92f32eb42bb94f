//! Rendezvous hashing (highest random weight, Thaler and Ravishankar 1998): losing one upstream moves only its
//! own keys, and every node computes the same place from the same list, without a shared table.

use xxhash_rust::xxh64::Xxh64;

/// The score of one upstream for one key: XXH64 with seed 0 of the upstream's address followed by the key. This
/// is the function of Caddy's `ip_hash`, so that a move from Caddy keeps every client where it was.
pub fn score(address: &str, key: &[u8]) -> u64 {
    let mut hasher = Xxh64::new(0);
    hasher.update(address.as_bytes());
    hasher.update(key);
    hasher.digest()
}

/// The place of the key among addresses of unequal weights (weighted rendezvous hashing: the greatest of weight over the
/// negative logarithm of the score as a fraction). With equal weights the same as [`choose`].
pub fn choose_weighted<'a, T>(
    candidates: impl IntoIterator<Item = T>,
    address_and_weight: impl Fn(&T) -> (&'a str, u32),
    key: &[u8],
) -> Option<T> {
    highest(candidates, |candidate| {
        let (address, weight) = address_and_weight(candidate);
        f64::from(weight) / -fraction(score(address, key)).ln()
    })
}

/// A score as a number between zero and one, both excluded.
pub fn fraction(score: u64) -> f64 {
    // 52 bits, so that neither end is reached by rounding.
    ((score >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// The place of the key among the addresses: the highest score, the earlier one on a tie. `None` if there are
/// none.
pub fn choose<'a, T>(
    candidates: impl IntoIterator<Item = T>,
    address: impl Fn(&T) -> &'a str,
    key: &[u8],
) -> Option<T> {
    highest(candidates, |candidate| score(address(candidate), key))
}

fn highest<T, S: PartialOrd>(candidates: impl IntoIterator<Item = T>, score: impl Fn(&T) -> S) -> Option<T> {
    let mut best: Option<(S, T)> = None;
    for candidate in candidates {
        let candidate_score = score(&candidate);
        if best.as_ref().is_none_or(|(top, _)| candidate_score > *top) {
            best = Some((candidate_score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(addresses: &[&'static str], ip: &str) -> usize {
        let numbered = addresses.iter().enumerate();
        choose(numbered, |(_, address)| address, ip.as_bytes()).map(|(index, _)| index).unwrap()
    }

    /// The vectors of Caddy's own test of `ip_hash`, and three with the addresses of the meeting service.
    #[test]
    fn places_clients_as_caddy_does() {
        let plain = ["0.0.0.1", "0.0.0.2", "0.0.0.3"];
        assert_eq!(place(&plain, "172.0.0.1"), 0);
        assert_eq!(place(&plain, "172.0.0.2"), 1);
        assert_eq!(place(&plain, "172.0.0.3"), 0);
        assert_eq!(place(&plain, "172.0.0.4"), 1);
        let meeting = ["multiparty-1:3443", "multiparty-2:3443", "multiparty-3:3443"];
        assert_eq!(place(&meeting, "192.0.2.10"), 1);
        assert_eq!(place(&meeting, "198.51.100.7"), 0);
        assert_eq!(place(&meeting, "2001:db8::1"), 1);
        assert_eq!(score(meeting[1], b"192.0.2.10"), 0xdc25_c1bf_cec5_63a2);
        assert_eq!(score(meeting[0], b"198.51.100.7"), 0x88cf_d9a8_f706_ab47);
        assert_eq!(score(meeting[1], b"2001:db8::1"), 0xe08e_9c49_0ab7_813b);
    }

    #[test]
    fn weights_are_kept_and_a_heavier_one_takes_from_all_others_alike() {
        let all = [("a:1", 1), ("b:1", 2), ("c:1", 1)];
        let place = |weights: &[(&'static str, u32)], key: &str| {
            choose_weighted(weights.to_vec(), |it| *it, key.as_bytes()).unwrap().0
        };
        let count =
            |name: &str| (0..20_000).filter(|key: &u32| place(&all, &key.to_string()) == name).count();
        for (name, share) in [("a:1", 5_000), ("b:1", 10_000), ("c:1", 5_000)] {
            assert!(count(name).abs_diff(share) < 400, "{name}: {}", count(name));
        }
        let heavier = [("a:1", 3), ("b:1", 2), ("c:1", 1)];
        for key in (0..2_000_u32).map(|key| key.to_string()) {
            let (before, after) = (place(&all, &key), place(&heavier, &key));
            assert!(before == after || after == "a:1");
        }
    }

    #[test]
    fn equal_weights_are_no_weights() {
        let all = ["a:1", "b:1", "c:1", "d:1"];
        for key in (0..5_000_u32).map(|key| key.to_string()) {
            let weighted = choose_weighted(all, |address| (*address, 7), key.as_bytes());
            assert_eq!(weighted, choose(all, |address| *address, key.as_bytes()));
        }
        assert!(fraction(0) > 0.0 && fraction(u64::MAX) < 1.0);
    }

    #[test]
    fn losing_one_upstream_moves_only_its_own_keys() {
        let all = ["a:1", "b:1", "c:1", "d:1"];
        let fewer = ["a:1", "b:1", "d:1"];
        for client in 0..2_000_u32 {
            let key = client.to_string();
            let before = all[place(&all, &key)];
            let after = fewer[place(&fewer, &key)];
            assert!(before == "c:1" || before == after);
        }
    }
}
