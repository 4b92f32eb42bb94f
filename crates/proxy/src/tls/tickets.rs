//! Session tickets under keys that all nodes share, so that a client resumes its TLS session with whichever node has
//! the address now (RFC 8446 section 2.2; RFC 5077 section 4 for the form of a ticket).

use arc_swap::ArcSwap;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::Arc;
use twinsite_model::TicketSecret;
use twinsite_model::ticket_keys::TICKET_LIFETIME;

/// Bytes of a key's name at the beginning of each ticket.
const NAME_BYTES: usize = 16;
/// The longest ticket that is looked at, in bytes; ours have a few hundred.
const TICKET_BYTES_MAX: usize = 16 * 1024;
/// What keys are derived for: a change of the form of tickets changes this.
const NAME_OF: &[u8] = b"twinsite ticket name 1";
const KEY_OF: &[u8] = b"twinsite ticket key 1";

/// How many bytes to derive.
struct Length(usize);

impl ring::hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Bytes for one purpose (RFC 5869). None only for more than 255 hashes.
fn derive<const N: usize>(secret: &TicketSecret, purpose: &[u8]) -> Option<[u8; N]> {
    let mut derived = [0; N];
    let pseudorandom = Salt::new(HKDF_SHA256, b"twinsite").extract(secret.expose());
    pseudorandom.expand(&[purpose], Length(N)).ok()?.fill(&mut derived).ok()?;
    Some(derived)
}

struct Key {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl Key {
    fn new(secret: &TicketSecret) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &derive::<32>(secret, KEY_OF)?).ok()?;
        Some(Self { name: derive(secret, NAME_OF)?, key: LessSafeKey::new(key) })
    }
}

/// The keys in force. Clones share them. Without keys no tickets are given.
#[derive(Clone)]
pub(super) struct Tickets {
    keys: Arc<ArcSwap<Keys>>,
    random: SystemRandom,
}

#[derive(Default)]
struct Keys {
    secrets: Vec<TicketSecret>,
    /// The newest first: tickets are made with that one, and read with all.
    keys: Vec<Key>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self { keys: Arc::default(), random: SystemRandom::new() }
    }
}

impl Tickets {
    /// Puts keys in force, the newest first. Those of earlier times stay in the list as long as their tickets may be used.
    pub(super) fn set(&self, secrets: &[TicketSecret]) {
        if self.keys.load().secrets != secrets {
            let keys = secrets.iter().filter_map(Key::new).collect();
            self.keys.store(Arc::new(Keys { secrets: secrets.to_vec(), keys }));
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.keys.load().keys.len()).finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.load().keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        // RFC 8446 section 4.6.1: seven days at most.
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX).min(604_800)
    }

    /// Name, nonce, what is hidden, tag. The nonce is drawn: with 96 bits a key may make 2^32 tickets (NIST SP 800-38D 8.3).
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut hidden = plain.to_vec();
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce_once, Aad::from(key.name), &mut hidden).ok()?;
        Some([&key.name[..], &nonce, &hidden].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, hidden) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.load();
        let key = keys.keys.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut hidden = hidden.to_vec();
        let plain = key.key.open_in_place(nonce, Aad::from(key.name), &mut hidden).ok()?.len();
        hidden.truncate(plain);
        Some(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tickets(secrets: &[u8]) -> Tickets {
        let tickets = Tickets::default();
        let secrets: Vec<_> = secrets.iter().map(|byte| TicketSecret::new([*byte; 32])).collect();
        tickets.set(&secrets);
        tickets
    }

    #[test]
    fn another_node_with_the_same_keys_reads_a_ticket() {
        let ticket = tickets(&[1]).encrypt(b"session").unwrap();
        assert_eq!(tickets(&[1]).decrypt(&ticket).unwrap(), b"session");
        assert_ne!(ticket, tickets(&[1]).encrypt(b"session").unwrap(), "each has a nonce of its own");
    }

    #[test]
    fn an_older_key_still_reads_and_a_forgotten_one_does_not() {
        let ticket = tickets(&[1]).encrypt(b"session").unwrap();
        assert_eq!(tickets(&[2, 1]).decrypt(&ticket).unwrap(), b"session");
        assert_eq!(tickets(&[3, 2]).decrypt(&ticket), None);
    }

    #[test]
    fn without_keys_there_are_no_tickets() {
        let none = Tickets::default();
        assert!(!none.enabled() && none.encrypt(b"x").is_none() && none.decrypt(&[0; 64]).is_none());
    }

    #[test]
    fn no_secret_is_shown() {
        assert!(!format!("{:?}", tickets(&[7])).contains('7'));
    }

    proptest! {
        #[test]
        fn a_changed_ticket_is_none(plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let tickets = tickets(&[1, 2]);
            let mut ticket = tickets.encrypt(&plain).unwrap();
            prop_assert_eq!(tickets.decrypt(&ticket), Some(plain));
            let at = at.index(ticket.len());
            ticket[at] ^= 1 << bit;
            prop_assert_eq!(tickets.decrypt(&ticket), None);
        }

        #[test]
        fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(tickets(&[1]).decrypt(&bytes), None);
        }
    }
}
