//! The way to an upstream: what its name stands for, TLS, and which HTTP it speaks.
//!
//! Requests and probes go the same way, so that what is probed is what is used.
//!
//! | module | what it does |
//! |---|---|
//! | `target` | an upstream, as far as reaching it goes |
//! | `names` | addresses of names: asked for again and again, and the last good answer kept for a while |
//! | `trust` | what an upstream's certificate must be |
//! | `pem` | what is wrong with a file of certificates or keys, without telling what is in it |
//! | `discovery` | whether somebody who should speak HTTP/2 in clear does |
//! | `connector` | all of it together: a [`Stream`] |

mod connector;
mod discovery;
mod names;
mod pem;
mod stream;
mod target;
mod trust;

pub use connector::{ConnectError, Connector, Purpose, Spoken};
pub use pem::pem_problem;
pub use stream::Stream;
pub use target::Target;
pub use trust::anybody;
