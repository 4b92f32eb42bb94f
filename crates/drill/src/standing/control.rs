//! What others may ask of the process that keeps a lab: one line of JSON over a Unix socket that only root can reach, and
//! one line back. A line that is too long, too late or makes no sense gets an answer that says so, and does nothing.

use super::status::LabStatus;
use crate::wan::{Percent, Shape};
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use twinsite_model::SiteName;
use twinsite_model::spec::HumanDuration;

/// The version of what is said.
const VERSION: u32 = 1;
/// The longest line that may be asked, in bytes.
const QUESTION_MAX: u64 = 4_096;
/// The longest answer, in bytes: the status of the greatest lab has 20,000.
const ANSWER_MAX: u64 = 256 * 1024;
/// How long somebody may take to ask, and to take the answer.
const ASKING_MAX: Duration = Duration::from_secs(5);
/// How many may ask at once; more wait.
const ASKERS_MAX: usize = 16;
/// How long an answer may take: a process that is killed has ten seconds to be gone.
const ANSWERING_MAX: Duration = Duration::from_secs(15);
/// The greatest delay that a link may be given.
const DELAY_MAX: Duration = Duration::from_mins(1);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// What runs, and how its links are.
    Status,
    /// Change a direction between two sites.
    Link(LinkChange),
    /// Make a direction whole.
    Heal {
        /// The site that sends.
        from: SiteName,
        /// The site that receives.
        to: SiteName,
    },
    /// Make all directions whole, and give all hosts the network back.
    HealAll,
    /// Cut a host off, or give it the network back.
    Host {
        /// Its name, as the status shows it.
        name: String,
        /// Nothing passes to it and from it; else everything does.
        cut: bool,
    },
    /// Do something to a process.
    Process {
        /// Its name, as the status shows it.
        name: String,
        /// What.
        act: ProcessAct,
    },
    /// End everything.
    Down,
}

/// What can be done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessAct {
    /// kill -9.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// Start it, if it does not run.
    Start,
}

/// A change of one direction between two sites. What is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkChange {
    /// The site that sends.
    pub from: SiteName,
    /// The site that receives.
    pub to: SiteName,
    /// Nothing passes.
    #[serde(default)]
    pub cut: bool,
    /// How long each packet is on its way; a minute at most.
    #[serde(default)]
    pub delay: Option<HumanDuration>,
    /// Up to so much more, at random; a minute at most.
    #[serde(default)]
    pub jitter: Option<HumanDuration>,
    /// Bytes per second, at least one.
    #[serde(default)]
    pub rate: Option<u64>,
    /// So many of a hundred packets are lost.
    #[serde(default)]
    pub loss_percent: Option<Percent>,
}

impl LinkChange {
    /// The direction afterwards, or why it cannot be so.
    pub(super) fn applied(&self, before: Shape) -> Result<Shape, String> {
        for (what, value) in [("delay", self.delay), ("jitter", self.jitter)] {
            if value.is_some_and(|value| value.0 > DELAY_MAX) {
                return Err(format!("{what}: at most {}", humantime::format_duration(DELAY_MAX)));
            }
        }
        if self.rate == Some(0) {
            return Err("rate: at least one byte a second; to let nothing pass, cut the link".to_owned());
        }
        Ok(Shape {
            cut: before.cut || self.cut,
            delay: self.delay.map_or(before.delay, |delay| delay.0),
            jitter: self.jitter.map_or(before.jitter, |jitter| jitter.0),
            rate: self.rate.or(before.rate),
            loss: self.loss_percent.unwrap_or(before.loss),
        })
    }
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// How the lab is.
    Status(Box<LabStatus>),
    /// It was done; a line that says what is so now.
    Done(String),
    /// It was not done; a line that says why.
    Refused(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    version: u32,
    wish: Wish,
}

/// The version alone, of whatever else there is.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    version: u32,
    answer: Answer,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens, or nobody answers.
    #[error("{}: {source}; the process that keeps the lab does not answer", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What came back makes no sense.
    #[error("{}: {problem}; the lab is of another version of twinsite", path.display())]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// How long who asks waits for an answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Asks the process that keeps a lab.
pub fn ask(control: &Path, wish: Wish, patience: Duration) -> Result<Answer, ControlError> {
    let question = serde_json::to_vec(&Question { version: VERSION, wish });
    let asked = || -> io::Result<String> {
        let mut stream = Stream::connect(control)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(ASKING_MAX))?;
        stream.write_all(&question?)?;
        stream.write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line)?;
        if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
    };
    let line = asked().map_err(|source| ControlError::Silent { path: control.to_owned(), source })?;
    let strange = |problem: String| ControlError::Strange { path: control.to_owned(), problem };
    let reply: Reply = serde_json::from_str(&line).map_err(|error| strange(error.to_string()))?;
    if reply.version == VERSION {
        Ok(reply.answer)
    } else {
        Err(strange(format!("version {}, not {VERSION}", reply.version)))
    }
}

/// A wish, and the way back to who has it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The socket of the process that keeps a lab. Nobody is listened to any more once it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    asked: mpsc::Receiver<Asked>,
    listening: JoinHandle<()>,
}

impl ControlSocket {
    /// Listens. Call it on a tokio runtime.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        // Its folder is closed to others already.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let (queue, asked) = mpsc::channel(ASKERS_MAX);
        Ok(Self { asked, listening: tokio::spawn(listen(listener, queue)) })
    }

    /// What is wished for next.
    pub(super) async fn next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: UnixListener, queue: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let queue = queue.clone();
                tokio::spawn(async move {
                    // Who goes away, or takes too long, has only themselves to tell.
                    drop(attend(stream, &queue).await);
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the lab's control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(stream: UnixStream, queue: &mpsc::Sender<Asked>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = Vec::new();
    let mut reading = tokio::io::BufReader::new(reading.take(QUESTION_MAX));
    let answer = match timeout(ASKING_MAX, reading.read_until(b'\n', &mut line)).await {
        Err(_) => Answer::Refused(format!("no whole line within {ASKING_MAX:?}")),
        Ok(read) => {
            read?;
            match understood(&line) {
                Ok(wish) => carried_out(wish, queue).await,
                Err(problem) => Answer::Refused(problem),
            }
        }
    };
    let mut reply = serde_json::to_vec(&Reply { version: VERSION, answer })?;
    reply.push(b'\n');
    timeout(ASKING_MAX, writing.write_all(&reply)).await?
}

/// What a line asks for.
fn understood(line: &[u8]) -> Result<Wish, String> {
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err(format!("no line: it ends with a newline, within {QUESTION_MAX} bytes"));
    };
    let Versioned { version } = serde_json::from_slice(line).map_err(|error| {
        format!("not understood: {error}; a line is {{\"version\":{VERSION},\"wish\":...}}")
    })?;
    if version != VERSION {
        return Err(format!("version {version} is not understood, only {VERSION}"));
    }
    let question: Question =
        serde_json::from_slice(line).map_err(|error| format!("not understood: {error}"))?;
    Ok(question.wish)
}

async fn carried_out(wish: Wish, queue: &mpsc::Sender<Asked>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let carried_out = async {
        queue.send(Asked { wish, answer }).await.ok()?;
        answered.await.ok()
    };
    match timeout(ANSWERING_MAX, carried_out).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Refused("the lab is going down".to_owned()),
        Err(_) => Answer::Refused(format!("not done within {ANSWERING_MAX:?}; it may be yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        understood(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_line_is_understood_or_refused_with_the_reason() {
        assert_eq!(understood(b"{\"version\":1,\"wish\":\"status\"}\n"), Ok(Wish::Status));
        let change =
            r#"{"version":1,"wish":{"link":{"from":"gra","to":"sbg","delay":"150ms","loss_percent":20}}}"#;
        let Ok(Wish::Link(change)) = understood(format!("{change}\n").as_bytes()) else { panic!("{change}") };
        let shape = change.applied(Shape { rate: Some(7), ..Shape::default() }).unwrap();
        assert_eq!((shape.delay, shape.rate, shape.cut), (Duration::from_millis(150), Some(7), false));
        assert_eq!(shape.loss, Percent::try_from(20).unwrap());

        assert!(refused("").contains("newline"));
        assert!(refused("{\"version\":1").contains("newline"));
        assert!(refused("nonsense\n").contains("not understood"));
        assert!(refused("{\"version\":2,\"wish\":\"new\"}\n").contains("version 2"));
        assert!(refused("{\"version\":1,\"wish\":\"explode\"}\n").contains("explode"));
        let unknown = r#"{"version":1,"wish":{"link":{"from":"gra","to":"sbg","speed":1}}}"#;
        assert!(refused(&format!("{unknown}\n")).contains("speed"));
        let name = r#"{"version":1,"wish":{"heal":{"from":"../x","to":"sbg"}}}"#;
        assert!(refused(&format!("{name}\n")).contains("is not a name"));
    }

    #[test]
    fn what_makes_no_sense_of_a_link_is_refused() {
        let change = LinkChange {
            from: "gra".parse().unwrap(),
            to: "sbg".parse().unwrap(),
            cut: false,
            delay: None,
            jitter: None,
            rate: None,
            loss_percent: None,
        };
        let before = Shape { cut: true, ..Shape::default() };
        assert_eq!(change.applied(before), Ok(before), "what is not named stays");
        let long = Some(HumanDuration(Duration::from_secs(61)));
        assert!(LinkChange { delay: long, ..change.clone() }.applied(before).unwrap_err().contains("1m"));
        assert!(
            LinkChange { jitter: long, ..change.clone() }.applied(before).unwrap_err().contains("jitter")
        );
        assert!(LinkChange { rate: Some(0), ..change }.applied(before).unwrap_err().contains("cut"));
    }
}
