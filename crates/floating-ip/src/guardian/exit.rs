//! A process that is watched until it has exited.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// How soon ending a process is tried again.
const KILL_AGAIN: Duration = Duration::from_millis(5);

/// A process, held by a descriptor that can never come to mean another one.
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it began, in the kernel's ticks.
    pub(super) started: u64,
    pidfd: Arc<OwnedFd>,
    exited: CancellationToken,
}

impl Process {
    /// The process at the other end of a line.
    pub(super) fn behind(stream: &UnixStream) -> io::Result<Self> {
        let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let process = Self::open(pid)?;
        // The number may have been given to another process before the descriptor was opened. While the line is open
        // whoever opened it lives, and its number was never anybody else's.
        if is(stream, PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it ended at once"));
        }
        Ok(process)
    }

    /// The process that had this number and began at that time; none if it has exited.
    pub(super) fn recorded(pid: u32, started: u64) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match Self::open(pid) {
            Ok(process) if process.started == started => Ok(Some(process)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_process(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
        let started = start_time(pid)?;
        if is(&pidfd, PollFlags::IN)? {
            // It has exited: what was read may be of another process already.
            return Err(io::ErrorKind::NotFound.into());
        }
        let exited = CancellationToken::new();
        let (waits_for, told) = (Arc::clone(&pidfd), exited.clone());
        // A thread of its own, so that nothing else in this process can delay the news.
        std::thread::Builder::new().name("exit".to_owned()).spawn(move || {
            let mut polled = [PollFd::new(&waits_for, PollFlags::IN)];
            while poll(&mut polled, None) != Ok(1) {}
            told.cancel();
        })?;
        Ok(Self { pid: pid.as_raw_nonzero().get().unsigned_abs(), started, pidfd, exited })
    }

    /// Ends when the process has exited: a signal sent is not an exit.
    pub(super) async fn exited(&self) {
        self.exited.cancelled().await;
    }

    /// Ends it, however often that takes; done when it has exited.
    pub(super) async fn end(&self) {
        let mut failed = false;
        loop {
            match pidfd_send_signal(&self.pidfd, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => return self.exited().await,
                Err(error) if !failed => {
                    tracing::error!(%error, "the node's process cannot be ended; trying again");
                    failed = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.exited() => return,
                () = tokio::time::sleep(KILL_AGAIN) => {}
            }
        }
    }
}

/// Whether one of these is true now.
fn is(what: &impl AsFd, flags: PollFlags) -> io::Result<bool> {
    let mut polled = [PollFd::new(what, flags)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(polled[0].revents().intersects(flags))
}

fn is_no_process(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// When a process began (field 22 of `/proc/PID/stat`; the name before it may hold anything, parentheses included).
fn start_time(pid: Pid) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    let stat = String::from_utf8_lossy(&stat);
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_number_alone_names_no_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let started = start_time(pid).unwrap();
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        assert!(Process::recorded(number, started + 1).unwrap().is_none(), "a later process of that number");
        let process = Process::recorded(number, started).unwrap().unwrap();
        assert_eq!((process.pid, process.started), (number, started));
        process.end().await;
        child.wait().unwrap();
        assert!(Process::recorded(number, started).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_line_that_was_closed_proves_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(Process::behind(&ours).unwrap().pid, std::process::id());
        drop(theirs);
        assert!(Process::behind(&ours).is_err());
    }
}
