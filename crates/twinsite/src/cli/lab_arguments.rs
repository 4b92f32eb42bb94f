//! What can be typed after `twinsite lab`.

use super::arguments::{ProfileArgument, duration};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use twinsite_drill::process::Words;
use twinsite_drill::standing::LabName;
use twinsite_drill::wan::Percent;
use twinsite_model::SiteName;
use twinsite_model::spec::HumanDuration;

/// `lab`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Make a lab and start a cluster in it, which goes on when this command has ended
    Up(UpArguments),
    /// Show what runs, how the links are, and which hosts have the floating address
    #[command(after_help = "Examples:
  twinsite lab status
  twinsite lab status --json | jq '.hosts[].processes[] | select(.state != \"running\")'

The exit code is 4 if there is no lab, or if nobody keeps it any more.")]
    Status(LabQueryArguments),
    /// Open a shell on a host, or run a command there
    Shell(ShellArguments),
    /// Make a direction between two sites slow, narrow or lossy, cut it, or heal it
    Link(LinkArguments),
    /// Cut a host off, as a switch that dies does: nothing passes, and its interface stays up
    Cut(CutArguments),
    /// kill -9 of a process
    #[command(after_help = "Examples:
  twinsite lab kill gra-1
  twinsite lab kill gra-1/guardian
  twinsite lab kill redis")]
    Kill(ProcessArguments),
    /// Stop a process in its tracks (SIGSTOP)
    #[command(after_help = "Examples:
  twinsite lab freeze gra-1
  twinsite lab freeze redis")]
    Freeze(ProcessArguments),
    /// Let a frozen process go on
    #[command(after_help = "Examples:
  twinsite lab thaw gra-1")]
    Thaw(ProcessArguments),
    /// Start a process that does not run
    #[command(after_help = "Examples:
  twinsite lab start gra-1")]
    Start(ProcessArguments),
    /// End everything of a lab, and remove all that it made
    Down(DownArguments),
}

/// Which lab.
#[derive(Debug, Args)]
pub struct LabQueryArguments {
    /// Which lab [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<LabName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `lab up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite lab up
  twinsite lab up --profile lan --name fast
  twinsite lab up --ipv6
  twinsite lab up --foreground
  twinsite lab up --meeting-program 'node meeting.mjs'     rehearse with your own server

The program of --meeting-program is started here, on a host for each instance, with these options after its own words:
  --exit-with-stdin --listen ADDRESS:PORT --name NAME --announced-file FILE --answers-file FILE
It answers GET /health with 200 as soon as it serves, and announces the address that is in the announced file at that
moment. --exit-with-stdin and --answers-file (how to answer: `well`, `slow`, `errors`, `wrong` or `truncated`) may be ignored;
a script can turn the others into what a server wants.

Needs root, iproute2 and /dev/net/tun. Nothing outside the lab is touched: every host is a network namespace of its own,
called twinsite-lab-PID-HOST.")]
pub struct UpArguments {
    /// The timings
    #[arg(long, value_enum, default_value_t = ProfileArgument::Wan)]
    pub profile: ProfileArgument,
    /// Proxies at each of the two sites
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub nodes_per_site: u8,
    /// Meeting instances at each of the two sites
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub instances_per_site: u8,
    /// Use IPv6, and no IPv4
    #[arg(long)]
    pub ipv6: bool,
    /// Keep session placement in the replicated state, without Redis
    #[arg(long, conflicts_with = "redis")]
    pub embedded: bool,
    /// Do not do without a Redis [default: with one, if there is a redis-server]
    #[arg(long)]
    pub redis: bool,
    /// The program of the meeting instances, with its arguments [default: a sample server]
    #[arg(long, value_name = "COMMAND")]
    pub meeting_program: Option<Words>,
    /// What the lab and its cluster are called
    #[arg(long, value_name = "NAME", default_value = "lab")]
    pub name: LabName,
    /// Keep the lab in this process, until Ctrl-C or `twinsite lab down`
    #[arg(long)]
    pub foreground: bool,
    /// Print how the lab is reached as JSON
    #[arg(long)]
    pub json: bool,
    /// How `lab up` starts the process that keeps the lab
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `lab shell`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite lab shell gra-1
  twinsite lab shell gra-1 -- ip address show eth0
  twinsite lab shell clients -- curl -s http://10.88.0.10:8080/health
  twinsite lab shell clients -- twinsite status

The exit code is that of the shell or command. TWINSITE_LAB and TWINSITE_LAB_HOST say where it runs, and commands of
twinsite find the lab's cluster there.")]
pub struct ShellArguments {
    /// The host: a node, a meeting instance, `redis` or `clients`
    #[arg(value_name = "NODE")]
    pub host: String,
    /// What to run there [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// Which lab [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<LabName>,
}

/// `lab link`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite lab link gra sbg --delay 30ms --jitter 5ms
  twinsite lab link gra sbg --loss 20
  twinsite lab link sbg gra --rate 125000                  a megabit a second
  twinsite lab link gra wit --cut                          the way back stays open
  twinsite lab link gra wit --heal
  twinsite lab link --heal --all

What is not named stays as it is. Clients reach every site whatever becomes of the links.")]
pub struct LinkArguments {
    /// The site that sends
    #[arg(required_unless_present = "all")]
    pub from: Option<SiteName>,
    /// The site that receives
    #[arg(required_unless_present = "all")]
    pub to: Option<SiteName>,
    /// What becomes of packets
    #[command(flatten)]
    pub change: ShapeArguments,
    /// Make it whole
    #[arg(long, conflicts_with = "ShapeArguments")]
    pub heal: bool,
    /// Every direction between any two sites
    #[arg(long, requires = "heal", conflicts_with = "from")]
    pub all: bool,
    /// Which lab [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<LabName>,
}

/// What becomes of packets.
#[derive(Debug, Args)]
#[group(required = false, multiple = true)]
pub struct ShapeArguments {
    /// How long each packet is on its way
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub delay: Option<HumanDuration>,
    /// Up to so much more, at random; the order is kept
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub jitter: Option<HumanDuration>,
    /// So many of a hundred packets are lost
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub loss: Option<Percent>,
    /// So many bytes a second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Nothing passes
    #[arg(long)]
    pub cut: bool,
}

impl ShapeArguments {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        let Self { delay, jitter, loss, rate, cut } = self;
        delay.is_none() && jitter.is_none() && loss.is_none() && rate.is_none() && !cut
    }
}

/// `lab cut`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite lab cut gra-1
  twinsite lab cut gra-1 --heal
  twinsite lab link --heal --all                           all hosts and links")]
pub struct CutArguments {
    /// The host, as `lab status` shows it
    pub host: String,
    /// Give it the network back
    #[arg(long)]
    pub heal: bool,
    /// Which lab [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<LabName>,
}

/// `lab kill`, `freeze`, `thaw` and `start`.
#[derive(Debug, Args)]
pub struct ProcessArguments {
    /// The process, as `lab status` shows it
    pub process: String,
    /// Which lab [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<LabName>,
}

/// `lab down`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite lab down
  twinsite lab down --name fast
  twinsite lab down --all

Ends what runs in the lab's namespaces too, shells included. Done again, or after the process that keeps the lab was
killed, it removes what is left.")]
pub struct DownArguments {
    /// Which lab [default: the only one]
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub name: Option<LabName>,
    /// Every lab of this machine
    #[arg(long)]
    pub all: bool,
}

fn percent(text: &str) -> Result<Percent, String> {
    let number: u8 =
        text.trim_end_matches('%').parse().map_err(|_| "write a whole number, as in 20".to_owned())?;
    Percent::try_from(number).map_err(|error| error.to_string())
}
