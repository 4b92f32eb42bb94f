//! The right to answer at a floating IP.

use twinsite_model::{FloatingIpName, Token};

/// Asked before every byte is read from or written to a client of a floating IP. One that was lost never comes back.
pub trait Authority: Send + Sync + 'static {
    /// The address.
    fn ip(&self) -> &FloatingIpName;
    /// The token under which it is held.
    fn token(&self) -> Token;
    /// Whether it is still held, by the clock that counts through suspend.
    fn holds(&self) -> bool;
}
