//! What every proxy is asked for.

use crate::accounting::{memory, on_processor};
use crate::error::BenchError;
use crate::load::{Answered, Requests, Speaks, as_fast_as_possible, at_a_rate};
use crate::peers::{OTHER_PROCESSOR, Peer, Places, Running};
use crate::sockets::Echoed;
use serde::Serialize;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: What,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Requests(Requests),
    /// At half of what it can do at most.
    Half(Requests),
    /// TLS 1.3 handshakes, none of them resumed.
    Handshakes,
    Messages {
        bytes: usize,
        connections: usize,
        tls: bool,
    },
    Idle {
        connections: usize,
        tls: bool,
    },
}

/// All cases.
pub(crate) const CASES: [Case; 14] = [
    Case { name: "small", what: What::Requests(requests("/small", 32, Speaks::Http1)) },
    Case { name: "small-half", what: What::Half(requests("/small", 32, Speaks::Http1)) },
    Case { name: "64k", what: What::Requests(requests("/64k", 16, Speaks::Http1)) },
    Case { name: "10m", what: What::Requests(requests("/10m", 4, Speaks::Http1)) },
    Case { name: "small-tls", what: What::Requests(requests("/small", 32, Speaks::Tls)) },
    Case { name: "64k-tls", what: What::Requests(requests("/64k", 16, Speaks::Tls)) },
    Case { name: "small-h2", what: What::Requests(requests("/small", 8, Speaks::Http2)) },
    Case { name: "handshakes", what: What::Handshakes },
    Case { name: "ws-64", what: What::Messages { bytes: 64, connections: 64, tls: false } },
    Case { name: "ws-16k", what: What::Messages { bytes: 16 * 1024, connections: 16, tls: false } },
    Case { name: "ws-64-tls", what: What::Messages { bytes: 64, connections: 64, tls: true } },
    Case { name: "ws-idle-5000", what: What::Idle { connections: 5_000, tls: false } },
    Case { name: "ws-idle-9000", what: What::Idle { connections: 9_000, tls: false } },
    Case { name: "ws-idle-5000-tls", what: What::Idle { connections: 5_000, tls: true } },
];

const fn requests(path: &'static str, connections: u32, speaks: Speaks) -> Requests {
    Requests { path, connections, speaks }
}

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Measured {
    /// Time on a processor for each answer, message or, of idle ones, handshake, in microseconds.
    pub(crate) cpu_us: f64,
    /// Answers or messages in a second.
    pub(crate) per_second: f64,
    /// How long a message took, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<u64>,
    /// Memory for each connection, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
}

/// Does it to one proxy, which is started for it.
pub(crate) fn measure(
    case: Case,
    peer: Peer,
    programs: &Programs<'_>,
    places: &Places,
    lasts: Duration,
) -> Result<Measured, BenchError> {
    let running = Running::start(peer, programs.twinsite, places, programs.folder)?;
    let processes = running.processes()?;
    let before = on_processor(&processes);
    let per = |count: u64| {
        let used = on_processor(&processes).saturating_sub(before);
        used.as_secs_f64() * 1e6 / count.max(1) as f64
    };
    let check = |failed: u64, of: u64| {
        if failed == 0 && of > 0 {
            return Ok(());
        }
        Err(BenchError::Failures { proxy: peer.to_string(), case: case.name.to_owned(), failed, of })
    };
    match case.what {
        What::Requests(requests) => {
            let answered = as_fast_as_possible(requests, places, lasts)?;
            let cpu_us = per(answered.good);
            check(answered.bad, answered.good + answered.bad)?;
            Ok(Measured { cpu_us, per_second: answered.per_second, p50_us: None, p99_us: None, memory: None })
        }
        What::Half(requests) => {
            let most = as_fast_as_possible(requests, places, lasts)?;
            let before = on_processor(&processes);
            let answered = at_a_rate(requests, places, lasts, most.per_second / 2.0, programs.folder)?;
            let used = on_processor(&processes).saturating_sub(before);
            let cpu_us = used.as_secs_f64() * 1e6 / answered.good.max(1) as f64;
            check(answered.bad, answered.good + answered.bad)?;
            let Answered { per_second, p50_us, p99_us, .. } = answered;
            Ok(Measured { cpu_us, per_second, p50_us, p99_us, memory: None })
        }
        What::Handshakes => {
            let mut generator = Generator::start("handshakes", places, &[lasts.as_secs().to_string()])?;
            let shaken: Echoed = generator.line()?;
            let cpu_us = per(shaken.good);
            check(shaken.lost, shaken.good)?;
            let per_second = shaken.good as f64 / shaken.seconds;
            let (p50_us, p99_us) = (Some(shaken.p50_us), Some(shaken.p99_us));
            Ok(Measured { cpu_us, per_second, p50_us, p99_us, memory: None })
        }
        What::Messages { bytes, connections, tls } => {
            let mut arguments =
                [connections, bytes, lasts.as_secs() as usize].map(|number| number.to_string()).to_vec();
            arguments.extend(tls.then(|| "--tls".to_owned()));
            let mut generator = Generator::start("echo", places, &arguments)?;
            let echoed: Echoed = generator.line()?;
            let cpu_us = per(echoed.good);
            check(echoed.lost, echoed.good)?;
            let per_second = echoed.good as f64 / echoed.seconds;
            let (p50_us, p99_us) = (Some(echoed.p50_us), Some(echoed.p99_us));
            Ok(Measured { cpu_us, per_second, p50_us, p99_us, memory: None })
        }
        What::Idle { connections, tls } => {
            let empty = memory(&processes);
            let mut arguments = vec![connections.to_string()];
            arguments.extend(tls.then(|| "--tls".to_owned()));
            let mut generator = Generator::start("idle", places, &arguments)?;
            let open: usize = generator.line()?;
            let cpu_us = per(open as u64);
            // What was only needed for the handshakes is given back first.
            std::thread::sleep(Duration::from_secs(1));
            let memory = memory(&processes).saturating_sub(empty) / open.max(1) as u64;
            Ok(Measured { cpu_us, per_second: 0.0, p50_us: None, p99_us: None, memory: Some(memory) })
        }
    }
}

/// What is run, and where its files go.
pub(crate) struct Programs<'a> {
    pub(crate) twinsite: &'a Path,
    pub(crate) folder: &'a Path,
}

/// This program again, as a generator or upstream on the other processor.
pub(crate) struct Generator(Child);

impl Generator {
    pub(crate) fn start(role: &str, places: &Places, arguments: &[String]) -> Result<Self, BenchError> {
        let start = |source| BenchError::Start { program: role.to_owned(), source };
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", OTHER_PROCESSOR]).arg(std::env::current_exe().map_err(start)?).arg(role);
        if role == "upstream" {
            command.args(places.upstreams.map(|one| one.to_string()));
        } else {
            let by_tls = role == "handshakes" || arguments.iter().any(|argument| argument == "--tls");
            command.arg(if by_tls { places.tls() } else { places.proxy }.to_string());
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(command.spawn().map_err(start)?))
    }

    /// What it says in one line.
    fn line<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        let mut line = String::new();
        if let Some(out) = self.0.stdout.as_mut() {
            BufReader::new(out).read_line(&mut line).map_err(BenchError::io("generator"))?;
        }
        serde_json::from_str(&line).map_err(|_| {
            let mut why = String::new();
            if let Some(error) = self.0.stderr.as_mut() {
                // What it says last is all there is to know.
                error.read_to_string(&mut why).ok();
            }
            BenchError::Load { program: "generator".to_owned(), why: why.trim().to_owned() }
        })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
