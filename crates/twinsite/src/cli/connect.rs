//! The way from a command to the cluster.

use super::CliError;
use super::arguments::ClientArguments;
use crate::client_file::ClientFile;
use crate::identity::{Credentials, server_name};
use twinsite_api::{ApiError, Client, ClientOptions, ClientTls, Reason};

/// A client by the file that was named or found.
pub fn connect(arguments: &ClientArguments) -> Result<Client, CliError> {
    client(&ClientFile::find(arguments.client.as_deref())?)
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
