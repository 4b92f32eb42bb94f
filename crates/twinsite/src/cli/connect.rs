//! The way from a command to the cluster.

use super::CliError;
use super::arguments::{BreakerCommand, ClientArguments, Command, MembersCommand, UpstreamCommand};
use super::spec_arguments::SpecCommand;
use crate::client_file::ClientFile;
use crate::identity::{Credentials, server_name};
use twinsite_api::{ApiError, Client, ClientOptions, ClientTls, Reason};

/// A client by the file that was named or found.
pub fn connect(arguments: &ClientArguments) -> Result<Client, CliError> {
    client(&ClientFile::find(arguments.client.as_deref())?)
}

/// Goes to where the cluster is reached, if that is the network of a lab: this thread, and all that it starts later.
pub fn enter(command: &Command) -> Result<(), CliError> {
    client_of(command).map_or(Ok(()), enter_by)
}

/// The same, for a cluster that is reached so.
pub fn enter_by(client: &ClientArguments) -> Result<(), CliError> {
    // Without a usable file, whoever needs it says so.
    ClientFile::find(client.client.as_deref()).map_or(Ok(()), |file| file.enter())
}

/// How the cluster is reached that a command asks.
fn client_of(command: &Command) -> Option<&ClientArguments> {
    Some(match command {
        Command::Status(arguments) => &arguments.client,
        Command::Watch(arguments) => &arguments.client,
        Command::Explain(arguments) => &arguments.client,
        Command::Switchover(arguments) | Command::Failover(arguments) => &arguments.client,
        Command::Abort(arguments) => &arguments.client,
        Command::Apply(arguments) => &arguments.client,
        Command::Pause(arguments) => &arguments.client,
        Command::Events(arguments)
        | Command::Rto(arguments)
        | Command::Resume(arguments)
        | Command::Sessions(arguments)
        | Command::Breaker(BreakerCommand::Reset(arguments))
        | Command::Spec(SpecCommand::History(arguments))
        | Command::Upstream(UpstreamCommand::List(arguments))
        | Command::Members(MembersCommand::List(arguments)) => &arguments.client,
        Command::Upstream(UpstreamCommand::Drain(arguments) | UpstreamCommand::Undrain(arguments)) => {
            &arguments.client
        }
        Command::Spec(SpecCommand::Show(arguments)) => &arguments.client,
        Command::Spec(SpecCommand::Rollback(arguments)) => &arguments.client,
        Command::Members(MembersCommand::Add(arguments)) => &arguments.client,
        Command::Members(MembersCommand::Remove(arguments) | MembersCommand::Lead(arguments)) => {
            &arguments.client
        }
        Command::Demo(_)
        | Command::Adapt(_)
        | Command::Lab(_)
        | Command::Drill(_)
        | Command::Schema(_)
        | Command::Janitor(_)
        | Command::Sim(_)
        | Command::Node(_)
        | Command::Guardian(_)
        | Command::Check(_)
        | Command::Recover(_)
        | Command::CompareFailover(_)
        | Command::Completion { .. }
        | Command::MeetingInstance(_) => return None,
    })
}

/// A client by this file.
pub fn client(file: &ClientFile) -> Result<Client, CliError> {
    let credentials = Credentials::load(&file.tls)?;
    let tls = ClientTls {
        ca: credentials.ca().to_vec(),
        cert: credentials.cert().to_vec(),
        key: credentials.key().to_vec(),
    };
    let mut options = ClientOptions::new(file.endpoints.clone(), tls, server_name(&file.cluster));
    options.dial = file.dial.clone();
    Ok(Client::new(options)?)
}

/// Whether nobody could be asked, or nobody with a quorum.
pub fn is_out_of_reach(error: &ApiError) -> bool {
    matches!(error.reason, Reason::NoQuorum | Reason::Unavailable | Reason::NotLeader | Reason::Busy)
}
