//! A connection to an upstream: in clear, or what TLS makes of it.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// The connection: as it is, or inside TLS.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
