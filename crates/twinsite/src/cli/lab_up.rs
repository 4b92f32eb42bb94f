//! `twinsite lab up`: starts the process that keeps the lab, and waits with the person until it is up.

use super::lab_arguments::UpArguments;
use super::{CliError, Exit};
use crate::lab_keeper::{self, Word};
use crate::local_cluster;
use crate::progress::Progress;
use crate::signals::interrupted;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use twinsite_drill::layout::Store;
use twinsite_drill::process::Launcher;
use twinsite_drill::standing::Register;

/// What the process says while it starts, at most.
const WORDS_MAX: u64 = 1024 * 1024;
/// How long it may take to end when it is not wanted any more.
const END_MAX: Duration = Duration::from_secs(30);
/// How much of its log is shown when it has ended without a word, in bytes.
const TAIL_BYTES: usize = 2_000;

/// `twinsite lab up`, in the background.
pub fn run(arguments: &UpArguments) -> Result<Exit, CliError> {
    let program = std::env::current_exe().map_err(CliError::Output)?;
    let store = lab_keeper::store(arguments, &Launcher::new(&program))?;
    if store == Store::Embedded && !arguments.embedded {
        anstream::eprintln!("{}", local_cluster::NO_REDIS);
    }
    let log = Register::default().open_log(&arguments.name)?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("--detached");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    super::runtime()?.block_on(async {
        let keeper = command.spawn();
        let keeper = keeper
            .map_err(|source| CliError::System { what: "start the process that keeps the lab", source })?;
        wait(arguments, keeper).await
    })
}

async fn wait(arguments: &UpArguments, mut keeper: Child) -> Result<Exit, CliError> {
    let progress = Progress::new();
    progress.hint("making the network");
    // It gives up when this is closed before it is ready, however we end.
    let wanted = keeper.stdin.take();
    let Some(out) = keeper.stdout.take() else { unreachable!("its output is a pipe") };
    let mut words = BufReader::new(out.take(WORDS_MAX)).lines();
    loop {
        let line = tokio::select! {
            line = words.next_line() => line,
            () = interrupted() => {
                progress.say("ending all processes");
                drop(wanted);
                drop(timeout(END_MAX, keeper.wait()).await);
                progress.end();
                return Ok(Exit::Refused);
            }
        };
        let word = line.ok().flatten().and_then(|line| serde_json::from_str(&line).ok());
        match word {
            Some(Word::Waiting { stage, done, of }) => progress.starting(&stage, done, of),
            Some(Word::Ready(ready)) => {
                progress.end();
                return lab_keeper::print(&ready, arguments.json).map(|()| Exit::Done);
            }
            Some(Word::Failed { why, code }) => {
                drop(timeout(END_MAX, keeper.wait()).await);
                progress.end();
                return Err(CliError::OfLab { why, code });
            }
            None => {
                progress.end();
                return Err(without_a_word(arguments, keeper).await?);
            }
        }
    }
}

/// The process has ended, or makes no sense: why, and nothing of it stays.
async fn without_a_word(arguments: &UpArguments, mut keeper: Child) -> Result<CliError, CliError> {
    let failed = |source| CliError::System { what: "end the process that keeps the lab", source };
    keeper.start_kill().map_err(failed)?;
    let status = keeper.wait().await.map_err(failed)?;
    let tail = match Register::default().find(&arguments.name) {
        // It is another one's.
        Ok(found) if found.is_kept() => String::new(),
        Ok(found) => {
            let log = std::fs::read(found.log()).unwrap_or_default();
            found.remove()?;
            String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL_BYTES)..]).trim_end().to_owned()
        }
        Err(_) => String::new(),
    };
    let tail = if tail.is_empty() { tail } else { format!("; its last words:\n{tail}") };
    Ok(CliError::Refused(format!("the process that keeps the lab ended ({status}) before it was up{tail}")))
}
