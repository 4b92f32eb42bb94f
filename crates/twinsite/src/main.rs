//! twinsite: a high-availability controller for services that run at two sites.
//!
//! This binary assembles the crates: `cli` is what people type, `node` is one running node, `demo` a whole cluster
//! on one machine. What each part decides or stores is in the crate that is named after it.

#![allow(unreachable_pub, reason = "a binary exports nothing; `pub` says what a module offers")]

mod cli;
mod client_file;
mod compare;
mod config;
mod demo;
mod drill_api;
mod guardian;
mod identity;
mod incident;
mod janitor;
mod lab_keeper;
mod local_cluster;
mod node;
mod peer;
mod progress;
mod recovery_note;
mod scenarios;
mod sealed_file;
mod signals;
mod telemetry;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::arguments::Arguments::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            anstream::eprintln!("twinsite: {error}");
            ExitCode::from(error.code())
        }
    }
}
