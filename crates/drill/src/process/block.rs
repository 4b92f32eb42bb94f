//! A block of loopback addresses of one's own, so that runs at the same time do not meet.

use crate::layout::BLOCKS;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// A claimed block. The kernel gives it back when this value, or the process, ends.
#[derive(Debug)]
pub struct Block {
    number: u8,
    _claim: UnixListener,
}

/// Every block is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {} blocks of loopback addresses are in use by other demos or drills; end one of them first",
    BLOCKS.count()
)]
pub struct NoBlock;

impl Block {
    /// Claims a free block. The name of an abstract socket is taken by the first who binds it, and freed by the
    /// kernel at the end of its life.
    pub fn claim() -> Result<Self, NoBlock> {
        BLOCKS.into_iter().find_map(Self::claim_number).ok_or(NoBlock)
    }

    fn claim_number(number: u8) -> Option<Self> {
        let address = SocketAddr::from_abstract_name(format!("twinsite/demo/{number}")).ok()?;
        let claim = UnixListener::bind_addr(&address).ok()?;
        Some(Self { number, _claim: claim })
    }

    /// The block's number: `P` of `127.P.0.0/16`.
    pub fn number(&self) -> u8 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_claimed_once_and_given_back() {
        let first = Block::claim().unwrap();
        let second = Block::claim().unwrap();
        assert_ne!(first.number(), second.number());
        let number = second.number();
        assert!(Block::claim_number(number).is_none());
        drop(second);
        assert!(Block::claim_number(number).is_some());
    }
}
