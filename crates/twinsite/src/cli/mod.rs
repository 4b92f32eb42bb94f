//! The command line. One module for each thing that can be done; `arguments` says what can be typed.

mod adapt;
mod apply;
pub mod arguments;
mod check;
pub mod connect;
mod drill;
pub mod drill_arguments;
mod drill_check;
mod drill_history;
mod drill_progress;
mod drill_random;
mod drill_run;
pub mod events;
mod explain;
mod lab;
pub mod lab_arguments;
mod lab_status;
mod lab_up;
mod live_drill;
mod live_drill_text;
mod moves;
pub mod output;
mod recover;
mod rto;
mod schema;
mod sim;
pub mod spec_arguments;
mod specs;
mod status;
mod upkeep;
mod words;

use crate::config::ConfigError;
use crate::identity::IdentityError;
use arguments::{Arguments, Command};
use clap::CommandFactory;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use twinsite_api::{ApiError, MoveKind, Reason};
use twinsite_consensus::grpc::TlsError;
use twinsite_consensus::{DiskError, RecoveryError, StartError, StopReason};
use twinsite_drill::archive::ArchiveError;
use twinsite_drill::engine::{EngineError, Verdict};
use twinsite_drill::lab::{Lab, LabError};
use twinsite_drill::meeting::{self, MeetingConfig, MeetingError};
use twinsite_drill::process::ProcessError;
use twinsite_drill::standing::RegisterError;
use twinsite_floating_ip::ProviderError;
use twinsite_floating_ip::guardian::GuardianError;
use twinsite_proxy::ProxyError;

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the answer was printed.
    Done,
    /// Refused, or a limit was broken.
    Refused,
    /// A file that was to be checked is wrong.
    Wrong,
    /// The answer is one node's own: there is no quorum.
    NoQuorum,
    /// Something came too late, but the machine that measured stood still meanwhile.
    Disturbed,
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Done,
            Verdict::Fail | Verdict::Aborted => Self::Refused,
            Verdict::Disturbed => Self::Disturbed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Wrong => 2,
            Exit::NoQuorum => 3,
            Exit::Disturbed => CODE_DISTURBED,
        })
    }
}

/// Why a command failed: one line that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// A configuration file is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate and its key do not work together, or with the authority's.
    #[error("{0}; check tls.ca, tls.cert and tls.key")]
    Tls(#[from] TlsError),
    /// Standard output is broken.
    #[error("cannot print: {0}")]
    Output(io::Error),
    /// The system refused something that it should not.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("data directory {}: {source}; check that it may be written and that the disk is not full", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What a forced recovery left cannot be read.
    #[error(
        "data directory {}: {what}, and what it said of the recovery is lost; the recovery itself stands: remove the file,          start the node, and take the lost nodes out with `twinsite members remove`",
        path.display()
    )]
    DamagedNote {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An address cannot be listened on.
    #[error("{key} {address}: {}", bind_problem(source))]
    Bind {
        /// The key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The guardian went away and did not come back.
    #[error(
        "the guardian is gone and did not come back: nothing is held without it; start `twinsite guardian`"
    )]
    NoGuardian,
    /// A task of the node ended that it cannot be without.
    #[error(transparent)]
    Task(#[from] twinsite_agents::TaskEnded),
    /// The consensus ended.
    #[error(transparent)]
    Stopped(#[from] StopReason),
    /// The consensus cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The forced recovery failed.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The proxy cannot start.
    #[error(transparent)]
    Proxy(ProxyError),
    /// A floating IP cannot be held on this host.
    #[error("floating IP {0}")]
    FloatingIp(#[from] ProviderError),
    /// There is no guardian, or it cannot work.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
    /// A cluster on this machine cannot be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// There is no lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A lab cannot be noted or found.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The lab could not be made by the process that was started for it.
    #[error("{why}")]
    OfLab {
        /// What it said.
        why: String,
        /// The exit code that it gave.
        code: u8,
    },
    /// It was asked for, and not done.
    #[error("{0}")]
    Refused(String),
    /// A file that was asked for cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A report of a drill cannot be kept, found or read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A drill could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The sample meeting instance cannot run.
    #[error(transparent)]
    Meeting(#[from] MeetingError),
    /// The cluster said no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
}

impl From<ProxyError> for CliError {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Bind { address, source } => Self::Bind { key: "node.http or https", address, source },
            other @ (ProxyError::Thread(_) | ProxyError::AccessLog { .. }) => Self::Proxy(other),
        }
    }
}

fn bind_problem(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => "in use by another program; stop it, or choose another port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "not allowed; ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => source.to_string(),
    }
}

/// Damaged, foreign or outdated data (`EX_CONFIG` of sysexits.h): a supervisor must not restart into it.
const CODE_DATA: u8 = 78;

/// What was measured says nothing, for the machine stood still: scripts may try again.
const CODE_DISTURBED: u8 = 5;

impl CliError {
    /// The exit code that scripts see.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Engine(EngineError::Disturbed { .. }) => CODE_DISTURBED,
            Self::Unreachable(_) | Self::Register(RegisterError::Unknown { .. }) => 4,
            Self::OfLab { code, .. } => *code,
            Self::Api(error) if error.reason == Reason::NoQuorum => 3,
            Self::Api(error) if matches!(error.reason, Reason::Unavailable | Reason::NotLeader) => 4,
            Self::Disk(error) if error.is_lasting() => CODE_DATA,
            Self::Start(error) if error.is_lasting() => CODE_DATA,
            Self::Stopped(reason) if reason.is_lasting() => CODE_DATA,
            Self::DamagedNote { .. } => CODE_DATA,
            _ => 1,
        }
    }
}

/// Does what was typed.
pub fn run(arguments: Arguments) -> Result<Exit, CliError> {
    match arguments.command {
        Command::Adapt(arguments) => adapt::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "twinsite", &mut io::stdout());
            Ok(Exit::Done)
        }
        Command::Node(arguments) => crate::node::run(&arguments).map(|()| Exit::Done),
        Command::Guardian(arguments) => crate::guardian::run(&arguments).map(|()| Exit::Done),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Lab(command) => lab::run(&command),
        Command::Drill(command) => drill::run(&command),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Janitor(arguments) => Ok(crate::janitor::run(&arguments)),
        command => {
            connect::enter(&command)?;
            let lab = match &command {
                Command::Demo(arguments) => crate::demo::enter_lab(arguments)?,
                Command::CompareFailover(_) => crate::compare::enter_lab()?,
                _ => None,
            };
            let runtime = runtime()?;
            let outcome = runtime.block_on(run_async(command, lab));
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            outcome
        }
    }
}

/// What commands run on.
pub fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.map_err(|source| CliError::System { what: "start the runtime", source })
}

async fn run_async(command: Command, lab: Option<Arc<Lab>>) -> Result<Exit, CliError> {
    match command {
        Command::Demo(arguments) => crate::demo::run(arguments, lab).await,
        Command::CompareFailover(arguments) => crate::compare::run(arguments, lab).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Watch(arguments) => events::watch(&arguments).await,
        Command::Events(arguments) => events::list(&arguments).await,
        Command::Rto(arguments) => rto::run(&arguments).await,
        Command::Explain(arguments) => explain::run(&arguments).await,
        Command::Switchover(arguments) => moves::run(MoveKind::Switchover, &arguments).await,
        Command::Failover(arguments) => moves::run(MoveKind::Failover, &arguments).await,
        Command::Abort(arguments) => moves::abort(&arguments).await,
        Command::Breaker(command) => upkeep::breaker(&command).await,
        Command::Apply(arguments) => apply::run(&arguments).await,
        Command::Spec(command) => specs::run(&command).await,
        Command::Pause(arguments) => upkeep::pause(&arguments).await,
        Command::Resume(arguments) => upkeep::resume(&arguments).await,
        Command::Upstream(command) => upkeep::upstream(&command).await,
        Command::Sessions(arguments) => upkeep::sessions(&arguments).await,
        Command::Members(command) => upkeep::members(&command).await,
        Command::Recover(arguments) => recover::run(&arguments).await,
        Command::MeetingInstance(arguments) => {
            crate::node::exit_with_stdin(arguments.exit_with_stdin);
            let config = MeetingConfig {
                listen: arguments.listen,
                name: arguments.name,
                announced_file: arguments.announced_file,
                answers_file: arguments.answers_file,
            };
            meeting::run(config).await?;
            Ok(Exit::Done)
        }
        Command::Adapt(_)
        | Command::Check(_)
        | Command::Completion { .. }
        | Command::Node(_)
        | Command::Guardian(_)
        | Command::Lab(_)
        | Command::Drill(_)
        | Command::Schema(_)
        | Command::Janitor(_)
        | Command::Sim(_) => {
            unreachable!("handled without a shared runtime")
        }
    }
}
