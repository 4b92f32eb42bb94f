//! Whether a process still lives. Its number alone does not tell: numbers are given anew; together with the time of the
//! start they are not.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How often is looked whether a process has ended.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One process, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine did (`starttime` in proc(5)).
    pub started: u64,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    /// It runs, or waits for something.
    Running,
    /// It was stopped in its tracks.
    Frozen,
    /// It has ended, or never began.
    Gone,
}

impl ProcessState {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Gone => "gone",
        }
    }

    /// What the process with this number does now.
    pub fn of(pid: u32) -> Self {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(Self::Gone, |stat| parse(&stat).0)
    }
}

impl Life {
    /// This process.
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id()).ok_or_else(|| io::Error::other("/proc does not show this process"))
    }

    /// The process that has this number now, if any; one that has ended and whose parent does not care has none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse(&stat);
        (state != ProcessState::Gone).then_some(Self { pid, started: started? })
    }

    /// Sends it a signal, if it has not ended: its number may be another one's, a descriptor of it is not.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let number = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(number) = number else { return Ok(()) };
        match pidfd_open(number, PidfdFlags::empty()) {
            Ok(process) if self.goes_on() => match pidfd_send_signal(&process, signal) {
                Err(Errno::SRCH) => Ok(()),
                sent => Ok(sent?),
            },
            Ok(_) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; false if that takes longer.
    pub fn wait(self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.goes_on() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Whether it has not ended.
    pub fn goes_on(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The state and the start of a line of `/proc/PID/stat`. The name of the program is in it, with whatever characters.
fn parse(stat: &str) -> (ProcessState, Option<u64>) {
    let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let state = match fields.next().unwrap_or_default() {
        "T" | "t" => ProcessState::Frozen,
        "" | "Z" | "X" | "x" => ProcessState::Gone,
        _ => ProcessState::Running,
    };
    // The state is the third of all fields, the start the twenty-second.
    (state, fields.nth(18).and_then(|started| started.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_number_that_was_given_anew_is_another_life() {
        let own = Life::own().unwrap();
        assert!(own.goes_on());
        assert!(!Life { started: own.started + 1, ..own }.goes_on());
    }

    #[test]
    fn who_has_ended_does_not_live_although_nobody_has_asked_how() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let life = Life::of(child.id()).unwrap();
        life.signal(Signal::KILL).unwrap();
        assert!(life.wait(Duration::from_secs(10)));
        assert!(fs::exists(format!("/proc/{}", life.pid)).unwrap(), "its parent has not asked yet");
        assert_eq!(ProcessState::of(life.pid), ProcessState::Gone);
        child.wait().unwrap();
        life.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn names_of_programs_do_not_confuse() {
        let stat = "7 (a) b) T 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse(stat), (ProcessState::Frozen, Some(4_711)));
        assert_eq!(parse("nonsense"), (ProcessState::Gone, None));
    }
}
