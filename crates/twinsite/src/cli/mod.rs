//! The command line. One module for each thing that can be done; `arguments` says what can be typed.

pub mod arguments;
mod check;
pub mod output;

use crate::config::ConfigError;
use crate::identity::IdentityError;
use arguments::{Arguments, Command};
use clap::CommandFactory;
use std::io;
use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or the answer was printed.
    Done,
    /// Refused, or a limit was broken.
    Refused,
    /// The answer is one node's own: there is no quorum.
    NoQuorum,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::NoQuorum => 3,
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
    /// Standard output is broken.
    #[error("cannot print: {0}")]
    Output(io::Error),
}

impl CliError {
    /// The exit code that scripts see.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Config(_) | Self::Identity(_) | Self::Output(_) => 1,
        }
    }
}

/// Does what was typed.
pub fn run(arguments: Arguments) -> Result<Exit, CliError> {
    match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "twinsite", &mut io::stdout());
            Ok(Exit::Done)
        }
        _ => Err(CliError::Usage("not yet".to_owned())),
    }
}
