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
//! The floating address is dialled through relays too; its link is that to the site which holds it when a connection
//! comes in, and a cut is felt there after the handshake.
//!
//! Known difference from a real path: a target that refuses is seen as "connected, then reset".

mod direction;
mod relay;

pub(crate) use direction::Direction;
pub use direction::{Percent, Shape, TooMuch};

use relay::{Relay, Route};
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

/// A relayed address that moves from site to site: what nodes of `from` dial at `via` arrives at `target`, over the
/// link to the site that holds it at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloatingPassage {
    /// The site that dials.
    pub from: SiteName,
    /// Where the relay listens.
    pub via: SocketAddr,
    /// The real address.
    pub target: SocketAddr,
}

/// Says which site holds the floating address now. May read files.
pub type Holder = Arc<dyn Fn() -> Option<SiteName> + Send + Sync>;

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
    /// Streams lose nothing.
    #[error("packets are lost only where there are packets: in a lab (--lab)")]
    NoPackets,
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
    directions: Arc<BTreeMap<Pair, Arc<Direction>>>,
    listeners: BTreeMap<Pair, Vec<Arc<Relay>>>,
    tasks: JoinSet<()>,
}

impl Wan {
    /// Starts a relay for each passage. Needs a tokio runtime. What is `held` is let go when the last relay has
    /// let go of its address, which is a moment after the end of this value.
    pub fn start(
        passages: &[Passage],
        floating: &[FloatingPassage],
        holder: &Holder,
        held: &Arc<impl Send + Sync + 'static>,
    ) -> Result<Self, WanError> {
        let mut directions: BTreeMap<Pair, Arc<Direction>> = BTreeMap::new();
        for passage in passages {
            directions.entry((passage.from.clone(), passage.to.clone())).or_default();
            directions.entry((passage.to.clone(), passage.from.clone())).or_default();
        }
        let directions = Arc::new(directions);
        let mut wan = Self { directions, listeners: BTreeMap::new(), tasks: JoinSet::new() };
        for passage in passages {
            let there = wan.direction(&passage.from, &passage.to)?;
            let back = wan.direction(&passage.to, &passage.from)?;
            let relay = wan.relay(passage.via, passage.target, Route::Fixed(there, back), held)?;
            wan.listeners.entry((passage.from.clone(), passage.to.clone())).or_default().push(relay);
        }
        // Not among the listeners: whether an attempt crosses a cut is only known when the holder is.
        for passage in floating {
            let route = Route::ToHolder {
                from: passage.from.clone(),
                directions: Arc::clone(&wan.directions),
                holder: Arc::clone(holder),
            };
            wan.relay(passage.via, passage.target, route, held)?;
        }
        Ok(wan)
    }

    fn relay(
        &mut self,
        via: SocketAddr,
        target: SocketAddr,
        route: Route,
        held: &Arc<impl Send + Sync + 'static>,
    ) -> Result<Arc<Relay>, WanError> {
        let relay = Relay::listen(via, target, route).map_err(|source| WanError::Listen { via, source })?;
        let relay = Arc::new(relay);
        let (serving, held) = (Arc::clone(&relay), Arc::clone(held));
        self.tasks.spawn(async move {
            serving.serve().await;
            drop((serving, held));
        });
        Ok(relay)
    }

    fn direction(&self, from: &SiteName, to: &SiteName) -> Result<Arc<Direction>, WanError> {
        let direction = self.directions.get(&(from.clone(), to.clone()));
        direction.map(Arc::clone).ok_or_else(|| WanError::NoLink { from: from.clone(), to: to.clone() })
    }

    /// Changes what one direction does to bytes, from now on.
    pub fn shape(&self, from: &SiteName, to: &SiteName, shape: Shape) -> Result<(), WanError> {
        if shape.loss != Percent::ZERO {
            return Err(WanError::NoPackets);
        }
        self.direction(from, to)?.set(shape);
        let pair = (from.clone(), to.clone());
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
