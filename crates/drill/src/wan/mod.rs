//! The WAN between sites, in user space: a TCP relay for each ordered pair of sites.
//!
//! A node of site `a` that dials an agreed address of site `b` is led (by its dial map) to a relay of the pair
//! `(a, b)`, which forwards to the real address. So links can be cut, slowed and narrowed, per direction, without
//! a line of test code in the product and without privileges.
//!
//! What a cut looks like from the ends:
//! * bytes in the cut direction vanish; the connection stays open, as over a dead path;
//! * a connection attempt that needs the cut direction (its SYN or the answer to it) gets no answer, because a
//!   packet filter on the relay's listening socket drops what arrives;
//! * an end that closes is not heard by the other while that direction is cut;
//! * when the direction heals, connections that lost bytes are reset; the others go on as if nothing had been.
//!
//! Known difference from a real path: a target that refuses is seen as "connected, then reset".

mod direction;
mod relay;

pub use direction::Shape;

use direction::Direction;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;
use twinsite_model::SiteName;

/// One relayed address: what nodes of `from` dial at `via` arrives at `target` in site `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The site that dials.
    pub from: SiteName,
    /// The site of the target.
    pub to: SiteName,
    /// Where the relay listens.
    pub via: SocketAddr,
    /// The real address.
    pub target: SocketAddr,
}

/// Why the WAN cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// A relay's address cannot be listened on.
    #[error("the relay cannot listen on {via}: {source}; is another demo using this block?")]
    Listen {
        /// The address.
        via: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a packet filter.
    #[error("cannot cut {from} -> {to}: {source}")]
    Filter {
        /// The site that dials.
        from: SiteName,
        /// The site of the target.
        to: SiteName,
        /// Why.
        source: io::Error,
    },
    /// There is no relay between these sites.
    #[error("there is no link {from} -> {to}")]
    NoLink {
        /// The site that sends.
        from: SiteName,
        /// The site that receives.
        to: SiteName,
    },
}

type Pair = (SiteName, SiteName);

/// The running relays, and the handle to change them. Dropping it ends them.
#[derive(Debug)]
pub struct Wan {
    directions: BTreeMap<Pair, Arc<Direction>>,
    listeners: BTreeMap<Pair, Vec<Arc<relay::Relay>>>,
    _tasks: JoinSet<()>,
}

impl Wan {
    /// Starts a relay for each passage. Needs a tokio runtime. What is `held` is let go when the last relay has
    /// let go of its address, which is a moment after the end of this value.
    pub fn start(passages: &[Passage], held: &Arc<impl Send + Sync + 'static>) -> Result<Self, WanError> {
        let mut directions: BTreeMap<Pair, Arc<Direction>> = BTreeMap::new();
        let mut listeners: BTreeMap<Pair, Vec<Arc<relay::Relay>>> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for passage in passages {
            let pair = (passage.from.clone(), passage.to.clone());
            let back = (passage.to.clone(), passage.from.clone());
            let there = Arc::clone(directions.entry(pair.clone()).or_default());
            let back = Arc::clone(directions.entry(back).or_default());
            let relay = relay::Relay::listen(passage.via, passage.target, there, back)
                .map_err(|source| WanError::Listen { via: passage.via, source })?;
            let relay = Arc::new(relay);
            listeners.entry(pair).or_default().push(Arc::clone(&relay));
            let held = Arc::clone(held);
            tasks.spawn(async move {
                relay.serve().await;
                drop((relay, held));
            });
        }
        Ok(Self { directions, listeners, _tasks: tasks })
    }

    /// Changes what one direction does to bytes, from now on.
    pub fn shape(&self, from: &SiteName, to: &SiteName, shape: Shape) -> Result<(), WanError> {
        let pair = (from.clone(), to.clone());
        let direction = self
            .directions
            .get(&pair)
            .ok_or_else(|| WanError::NoLink { from: from.clone(), to: to.clone() })?;
        direction.set(shape);
        // A handshake crosses both directions, so either cut silences the listeners of both pairs.
        let back = (to.clone(), from.clone());
        for pair in [&pair, &back] {
            let dark = self.is_cut(&pair.0, &pair.1) || self.is_cut(&pair.1, &pair.0);
            for relay in self.listeners.get(pair).into_iter().flatten() {
                relay.set_dark(dark).map_err(|source| WanError::Filter {
                    from: pair.0.clone(),
                    to: pair.1.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Cuts one direction, and leaves its other properties.
    pub fn cut(&self, from: &SiteName, to: &SiteName) -> Result<(), WanError> {
        let shape = self.shape_of(from, to);
        self.shape(from, to, Shape { cut: true, ..shape })
    }

    /// Makes every direction whole, without delay or limit.
    pub fn heal(&self) -> Result<(), WanError> {
        for (from, to) in self.directions.keys() {
            self.shape(from, to, Shape::default())?;
        }
        Ok(())
    }

    /// What a direction does at present.
    pub fn shape_of(&self, from: &SiteName, to: &SiteName) -> Shape {
        let direction = self.directions.get(&(from.clone(), to.clone()));
        direction.map(|direction| direction.shape()).unwrap_or_default()
    }

    fn is_cut(&self, from: &SiteName, to: &SiteName) -> bool {
        self.shape_of(from, to).cut
    }
}

#[cfg(test)]
mod tests;
