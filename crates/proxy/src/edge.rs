//! A client's connection as HTTP sees it: in clear, or what TLS makes of it.

use crate::client_io::ClientIo;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// The connection: as it is, or inside TLS. Every byte of it goes through [`ClientIo`], which asks for the right to answer.
pub(crate) type Edge = Either<ClientIo, Box<TlsStream<ClientIo>>>;
