//! `twinsite-bench`: the proxy beside others. See `OVERVIEW.md`.

mod accounting;
mod cases;
mod error;
mod load;
mod peers;
mod report;
mod sockets;
mod upstream;

use cases::{CASES, Generator, Programs, measure};
use clap::{Parser, Subcommand};
use error::BenchError;
use peers::{Peer, Places};
use report::Report;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "The proxy of twinsite beside nginx, HAProxy and Caddy, on this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare proxies: each alone on processor 0, upstreams and clients on processor 1
    Proxy(Comparison),
    /// Be the upstreams
    #[command(hide = true)]
    Upstream { addresses: Vec<SocketAddr> },
    /// Be clients that wait for echoes
    #[command(hide = true)]
    Echo {
        at: SocketAddr,
        connections: usize,
        bytes: usize,
        seconds: u64,
        #[arg(long)]
        tls: bool,
    },
    /// Be clients that shake hands and go
    #[command(hide = true)]
    Handshakes { at: SocketAddr, seconds: u64 },
    /// Be clients that wait for nothing
    #[command(hide = true)]
    Idle {
        at: SocketAddr,
        connections: usize,
        #[arg(long)]
        tls: bool,
    },
}

#[derive(clap::Args)]
struct Comparison {
    /// The program that is measured
    #[arg(long, default_value = "target/release/twinsite")]
    twinsite: PathBuf,
    /// How often every proxy meets every case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long requests and messages last
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only this proxy; may be given several times
    #[arg(long, value_enum)]
    proxy: Vec<Peer>,
    /// Only this case; may be given several times
    #[arg(long, value_parser = CASES.map(|case| case.name))]
    case: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Proxy(comparison) => compare(&comparison),
        Command::Upstream { addresses } => upstream::serve(&addresses).map_err(BenchError::io("upstream")),
        Command::Echo { at, connections, bytes, seconds, tls } => {
            sockets::echo(at, tls, connections, bytes, Duration::from_secs(seconds))
                .map_err(BenchError::io("echo"))
        }
        Command::Handshakes { at, seconds } => {
            sockets::handshakes(at, Duration::from_secs(seconds)).map_err(BenchError::io("handshakes"))
        }
        Command::Idle { at, connections, tls } => {
            sockets::idle(at, tls, connections).map_err(BenchError::io("idle"))
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("twinsite-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(comparison: &Comparison) -> Result<(), BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::io("a folder for the configurations"))?;
    let places = places()?;
    let programs = Programs { twinsite: &comparison.twinsite, folder: folder.path() };
    let _upstreams = Generator::start("upstream", &places, &[])?;
    let (mut report, mut failed) = (Report::default(), 0);
    for round in 1..=comparison.rounds {
        for case in CASES {
            if !comparison.case.is_empty() && !comparison.case.iter().any(|name| name == case.name) {
                continue;
            }
            for peer in Peer::ALL {
                if !comparison.proxy.is_empty() && !comparison.proxy.contains(&peer) {
                    continue;
                }
                anstream::eprintln!("round {round}/{}: {} {peer}", comparison.rounds, case.name);
                let lasts = Duration::from_secs(comparison.seconds);
                match measure(case, peer, &programs, &places, lasts) {
                    Ok(measured) => report.note(case.name, peer, measured),
                    Err(error) => {
                        anstream::eprintln!("  {error}");
                        failed += 1;
                    }
                }
            }
        }
    }
    if comparison.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| BenchError::io("the report")(error.into()))?;
        anstream::println!("{json}");
    } else {
        anstream::print!("{}", report.table());
    }
    if failed > 0 { Err(BenchError::NotAll(failed)) } else { Ok(()) }
}

/// Ports that nobody has: three in a row for the proxy, which twinsite needs for its other listeners, and one for TLS.
fn places() -> Result<Places, BenchError> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut blocks = (0..100).map(|block| 21_000 + 10 * block).filter(|first| (*first..*first + 7).all(free));
    let first: u16 =
        blocks.next().ok_or_else(|| BenchError::io("ports")(std::io::ErrorKind::AddrInUse.into()))?;
    Ok(Places { proxy: at(first), upstreams: [at(first + 3), at(first + 4), at(first + 5)] })
}
