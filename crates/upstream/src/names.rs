//! The addresses of a name. Every WebSocket needs a connection of its own, and must not wait for a resolver that is slow, nor
//! be refused because of one that is broken.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

/// How long an answer is believed.
const FRESH: Duration = Duration::from_secs(5);
/// How long the last good answer stands in for one that does not come.
const KEPT: Duration = Duration::from_hours(1);
/// How long a resolver may take.
const LOOKUP: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

#[derive(Debug)]
struct Answer {
    addresses: Arc<[SocketAddr]>,
    /// When it was last confirmed.
    since: Instant,
    /// When it is to be asked for again.
    again: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<HashMap<String, Answer>>);

impl Names {
    /// The addresses of `host:port`.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Arc<[SocketAddr]>, String> {
        if let Ok(address) = name.parse() {
            return Ok(Arc::from([address]));
        }
        {
            let mut known = self.known();
            let now = Instant::now();
            if let Some(known) = known.get_mut(name) {
                if now < known.again {
                    return Ok(Arc::clone(&known.addresses));
                }
                known.again = now + LOOKUP; // one asks, and the others go on with what is known
            }
        }
        let found = match timeout(LOOKUP, lookup_host(name)).await {
            Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect::<Arc<[_]>>(),
            Ok(Err(error)) => return self.last_good(name, error.to_string()),
            Err(_) => return self.last_good(name, format!("no answer within {} s", LOOKUP.as_secs())),
        };
        if found.is_empty() {
            return self.last_good(name, "it has no address".to_owned());
        }
        let now = Instant::now();
        let answer = Answer { addresses: Arc::clone(&found), since: now, again: now + FRESH };
        self.known().insert(name.to_owned(), answer);
        Ok(found)
    }

    /// What was last known, if that is not too long ago. It is asked for again after a while, not by each connection.
    fn last_good(&self, name: &str, why: String) -> Result<Arc<[SocketAddr]>, String> {
        let mut known = self.known();
        let now = Instant::now();
        let answer =
            known.get_mut(name).filter(|answer| now < answer.since + KEPT).ok_or_else(|| why.clone())?;
        if answer.again <= now {
            tracing::warn!(name, why, "a name's last good addresses stand in for an answer");
            answer.again = now + FRESH;
        }
        Ok(Arc::clone(&answer.addresses))
    }

    /// Nobody answers at any of its addresses: it may have moved.
    pub(crate) fn doubt(&self, name: &str) {
        if let Some(answer) = self.known().get_mut(name) {
            answer.again = Instant::now();
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.len() > 64 {
            known.retain(|_, answer| now < answer.since + KEPT);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_again_when_it_is_doubted() {
        let names = Names::default();
        let first = names.addresses("localhost:80").await.unwrap();
        assert!(first.iter().all(|address| address.ip().is_loopback()));
        let second = names.addresses("localhost:80").await.unwrap();
        assert!(Arc::ptr_eq(&first, &second), "the resolver was asked again");
        names.doubt("localhost:80");
        let third = names.addresses("localhost:80").await.unwrap();
        assert!(!Arc::ptr_eq(&first, &third));
        assert_eq!(first, third);
    }

    #[tokio::test]
    async fn the_last_good_answer_stands_in_for_none() {
        let names = Names::default();
        let now = Instant::now();
        let addresses: Arc<[SocketAddr]> = Arc::from(["192.0.2.1:80".parse().unwrap()]);
        let known = |since| Answer { addresses: Arc::clone(&addresses), since, again: now };
        names.known().insert("gone.invalid:80".to_owned(), known(now));
        assert_eq!(names.addresses("gone.invalid:80").await, Ok(addresses.clone()));
        names.known().insert("gone.invalid:80".to_owned(), known(now.checked_sub(KEPT).unwrap_or(now)));
        if now.checked_sub(KEPT).is_some() {
            assert!(names.addresses("gone.invalid:80").await.is_err(), "too old");
        }
        assert!(names.addresses("never.invalid:80").await.is_err());
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let names = Names::default();
        assert_eq!(names.addresses("[::1]:80").await.unwrap()[0], "[::1]:80".parse().unwrap());
        assert!(names.known().is_empty());
    }
}
