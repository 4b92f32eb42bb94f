//! What has to be written, given what is there.

use crate::decide::Announcement;
use std::net::IpAddr;
use twinsite_model::{Fault, Faults, Token};

/// What an instance is told now. What cannot be read as such is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct There {
    /// The address.
    pub address: Option<IpAddr>,
    /// The token beside it.
    pub token: Option<Token>,
}

/// What has to be written, the token first: ended between the two, the address is put right next time, and nothing older
/// gets in meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Whether the token has.
    pub token: bool,
    /// Whether the address has.
    pub address: bool,
}

/// What is announced follows from a newer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was written under token {written}, which is newer than {given}")]
pub struct Stale {
    /// The token of what is there.
    pub written: Token,
    /// The token that was refused.
    pub given: Token,
}

/// Compares what is there with what should be.
pub fn compare(there: There, wanted: &Announcement) -> Result<Missing, Stale> {
    if let Some(written) = there.token.filter(|written| *written > wanted.token)
        && !Faults::here().has(Fault::OlderAnnouncementReplaces)
    {
        return Err(Stale { written, given: wanted.token });
    }
    Ok(Missing { token: there.token != Some(wanted.token), address: there.address != Some(wanted.address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_and_nothing_older() {
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let wanted = Announcement { address: address(1), token: Token::new(1, 5) };
        let of = |address, token| compare(There { address, token }, &wanted);
        let (older, newer) = (Token::new(1, 4), Token::new(2, 1));
        assert_eq!(of(None, None), Ok(Missing { token: true, address: true }));
        assert_eq!(of(Some(address(1)), Some(wanted.token)), Ok(Missing { token: false, address: false }));
        assert_eq!(of(Some(address(2)), Some(wanted.token)), Ok(Missing { token: false, address: true }));
        assert_eq!(of(Some(address(1)), Some(older)), Ok(Missing { token: true, address: false }));
        for there in [Some(address(1)), Some(address(2)), None] {
            assert_eq!(of(there, Some(newer)), Err(Stale { written: newer, given: wanted.token }));
        }
    }
}
