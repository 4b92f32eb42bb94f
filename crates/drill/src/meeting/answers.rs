//! How an instance answers HTTP: as it should, or as broken servers do. Told by a file that only this machine's users
//! reach, so that no client can break an instance.

use super::routes::Answer;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde::Deserialize;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

/// The body of an answer, whole or not.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The longest file that is believed, in bytes; a word is shorter.
const FILE_BYTES_MAX: u64 = 64;
/// How late slow answers are: later than any probe waits, sooner than a client of a drill loses patience.
const SLOW: Duration = Duration::from_millis(1_500);
/// How long the last byte of a truncated answer is waited for before the connection breaks.
const LAST_BYTE: Duration = Duration::from_mins(1);

/// How an instance answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// As it should.
    #[default]
    Well,
    /// Well, and a second and a half late.
    Slow,
    /// With the status 500.
    Errors,
    /// With the status 200, and words that say that it is not well.
    Wrong,
    /// With the status 200, and all but the last byte: what the meeting service does while its Redis hangs.
    Truncated,
}

const WORDS: [(Answers, &str); 5] = [
    (Answers::Well, "well"),
    (Answers::Slow, "slow"),
    (Answers::Errors, "errors"),
    (Answers::Wrong, "wrong"),
    (Answers::Truncated, "truncated"),
];

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = WORDS.iter().find(|(answers, _)| answers == self);
        f.write_str(known.map_or("", |(_, word)| word))
    }
}

impl Answers {
    /// What the file says at this moment; well, if it says nothing that is known.
    pub(super) async fn told_by(file: &Path) -> Self {
        match tokio::fs::metadata(file).await {
            Ok(told) if told.len() <= FILE_BYTES_MAX => {}
            _ => return Self::Well,
        }
        let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
        let known = WORDS.iter().find(|(_, word)| *word == text.trim());
        known.map_or(Self::Well, |(answers, _)| *answers)
    }

    /// What is answered instead of asking the instance at all.
    pub(super) async fn instead(self) -> Option<Answer> {
        match self {
            Self::Well | Self::Truncated => None,
            Self::Slow => {
                sleep(SLOW).await;
                None
            }
            Self::Errors => {
                Some(with_status(StatusCode::INTERNAL_SERVER_ERROR, "{\"error\":\"out of order\"}"))
            }
            Self::Wrong => Some(with_status(StatusCode::OK, "{\"status\":\"error\"}")),
        }
    }

    /// What becomes of an answer on its way out.
    pub(super) async fn put_on_wire(self, answer: Answer) -> Response<Body> {
        let (mut head, body) = answer.into_parts();
        let Ok(whole) = body.collect().await;
        let whole = whole.to_bytes();
        let begun = match (self, whole.len().checked_sub(1)) {
            (Self::Truncated, Some(last)) => whole.slice(..last),
            _ => {
                return Response::from_parts(
                    head,
                    Full::new(whole).map_err(|never| match never {}).boxed_unsync(),
                );
            }
        };
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
        let end = async {
            sleep(LAST_BYTE).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        let frames = stream::iter([Ok(Frame::data(begun))]).chain(stream::once(end));
        Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
    }
}

fn with_status(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
