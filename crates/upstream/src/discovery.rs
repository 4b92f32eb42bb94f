//! Whether somebody speaks HTTP/2 in clear without having been asked in HTTP/1.1 first ("prior knowledge", RFC 9113 section
//! 3.3). Who is configured to and does not (Node's `http` server, of which the service's own documents say that it does) would
//! answer every request with an error.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// What a client says first, and its settings: none (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The kind of frame that a server must begin with.
const SETTINGS: u8 = 4;
/// How long an answer is waited for at most: who speaks HTTP/2 says so at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it is remembered that somebody does not: it may have become another program.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Asks, on a connection that is of no more use afterwards. None if nothing is said within `patience`, a second at most.
pub(crate) async fn speaks_http2<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    patience: Duration,
) -> io::Result<Option<bool>> {
    stream.write_all(PREFACE).await?;
    stream.flush().await?;
    let mut head = [0; 9];
    match timeout(PATIENCE.min(patience), stream.read_exact(&mut head)).await {
        Ok(Ok(_)) => Ok(Some(head[3] == SETTINGS && head[5..] == [0; 4])),
        // It hung up.
        Ok(Err(_)) => Ok(Some(false)),
        Err(_) => Ok(None),
    }
}

/// What was found out, by address.
#[derive(Debug, Default)]
pub(crate) struct Discovered(Mutex<HashMap<String, (Instant, bool)>>);

impl Discovered {
    pub(crate) fn known(&self, address: &str) -> Option<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, speaks) = known.get(address)?;
        (*speaks || Instant::now() < *since + REMEMBERED).then_some(*speaks)
    }

    /// Whether it is news.
    pub(crate) fn note(&self, address: &str, speaks: bool) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let former = known.insert(address.to_owned(), (Instant::now(), speaks));
        former.is_none_or(|(_, former)| former != speaks)
    }

    pub(crate) fn forget(&self, address: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8]) -> Option<bool> {
        let (here, mut there) = tokio::io::duplex(1_024);
        let server = async {
            let mut asked = vec![0; PREFACE.len()];
            there.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, PREFACE);
            there.write_all(answer).await.unwrap();
            let _silent = (!answer.is_empty()).then_some(there); // else it hangs up
            std::future::pending::<()>().await;
        };
        tokio::select! {
            found = speaks_http2(here, Duration::from_millis(100)) => found.unwrap(),
            () = server => unreachable!("it waits"),
        }
    }

    #[tokio::test]
    async fn only_settings_are_http_2() {
        assert_eq!(answered(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64").await, Some(true));
        assert_eq!(answered(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await, Some(false));
        assert_eq!(answered(b"").await, Some(false), "it hung up");
        assert_eq!(answered(b"short").await, None, "and then nothing");
        assert_eq!(answered(b"\0\0\x08\x06\0\0\0\0\0________").await, Some(false), "a ping");
    }

    #[test]
    fn that_somebody_does_not_is_forgotten_after_a_while() {
        let found = Discovered::default();
        assert!(found.note("a:1", false) && found.note("b:1", true) && !found.note("a:1", false));
        assert_eq!(
            (found.known("a:1"), found.known("b:1"), found.known("c:1")),
            (Some(false), Some(true), None)
        );
        for (since, _) in found.0.lock().unwrap().values_mut() {
            *since = since.checked_sub(REMEMBERED).unwrap();
        }
        assert_eq!((found.known("a:1"), found.known("b:1")), (None, Some(true)));
        found.forget("b:1");
        assert_eq!(found.known("b:1"), None);
    }
}
