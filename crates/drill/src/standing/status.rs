//! How a lab is, in words that go over its control socket and to scripts.

use super::LabName;
use crate::lab::HostPlace;
use crate::lab::holding::Holding;
use crate::lab::life::ProcessState;
use crate::wan::{Percent, Shape};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use twinsite_model::spec::HumanDuration;
use twinsite_model::{Profile, SiteName};

/// How a lab is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabStatus {
    /// Its name.
    pub name: LabName,
    /// The process that keeps it.
    pub pid: u32,
    /// When it was begun, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// The timings of its cluster.
    pub profile: Profile,
    /// The floating address.
    pub floating: SocketAddr,
    /// The file by which commands reach its cluster.
    pub client_file: PathBuf,
    /// The folder with a folder for each process, and its log in it.
    pub directory: PathBuf,
    /// Its hosts, the clients' last.
    pub hosts: Vec<HostStatus>,
    /// Every direction between two sites.
    pub links: Vec<LinkStatus>,
    /// Why nothing is carried between the sites any more, if that is so.
    pub links_ended: Option<String>,
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Where it is.
    #[serde(flatten)]
    pub place: HostPlace,
    /// What should run on it.
    pub processes: Vec<ProcessStatus>,
    /// Whether nothing passes to it and from it.
    #[serde(rename = "cut")]
    pub is_cut: bool,
    /// What its kernel says of the floating address; none where that can never be.
    pub floating: Option<Holding>,
}

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its name, by which it is killed, frozen, thawed and started.
    pub name: String,
    /// Its number; none if it does not run.
    pub pid: Option<u32>,
    /// What it does.
    pub state: ProcessState,
    /// Its log.
    pub log: PathBuf,
}

/// How a direction between two sites is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The site that sends.
    pub from: SiteName,
    /// The site that receives.
    pub to: SiteName,
    /// Nothing passes.
    pub cut: bool,
    /// How long each packet is on its way.
    pub delay: HumanDuration,
    /// Up to so much more, at random.
    pub jitter: HumanDuration,
    /// Bytes per second; none for no limit.
    pub rate: Option<u64>,
    /// So many of a hundred packets are lost.
    pub loss_percent: Percent,
}

impl LinkStatus {
    pub(super) fn of(from: &SiteName, to: &SiteName, shape: Shape) -> Self {
        Self {
            from: from.clone(),
            to: to.clone(),
            cut: shape.cut,
            delay: HumanDuration(shape.delay),
            jitter: HumanDuration(shape.jitter),
            rate: shape.rate,
            loss_percent: shape.loss,
        }
    }

    /// The same, for people.
    pub fn shape(&self) -> Shape {
        Shape {
            cut: self.cut,
            delay: self.delay.0,
            jitter: self.jitter.0,
            rate: self.rate,
            loss: self.loss_percent,
        }
    }
}
