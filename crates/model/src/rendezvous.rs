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

/// The place of the key among the addresses: the highest score, the earlier one on a tie. `None` if there are
/// none.
pub fn choose<'a, T>(
    candidates: impl IntoIterator<Item = T>,
    address: impl Fn(&T) -> &'a str,
    key: &[u8],
) -> Option<T> {
    let mut best: Option<(u64, T)> = None;
    for candidate in candidates {
        let candidate_score = score(address(&candidate), key);
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
