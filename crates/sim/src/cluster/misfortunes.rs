//! What happens to the nodes, and how it is undone.

use super::Mistake;
use super::disk::SimDisk;
use super::life::{Life, MS};
use super::node::Node;
use super::people::Replacement;
use super::plan::Misfortune;
use crate::clock::TrueTime;
use crate::runtime::Executor;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use twinsite_announce::There;
use twinsite_model::spec::SiteSpec;
use twinsite_model::{Format, NodeId};
use twinsite_sessions::Why;

/// How long a stopped node lies there before its supervisor starts it again, at most.
const RESTART_MAX: TrueTime = 2_000 * MS;
/// What a slow disk takes for a sync: longer than the voters' lease.
const SLOW_SYNC: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy)]
pub(super) enum Undo {
    Start,
    Thaw,
    GoOn,
    CutOne(NodeId, NodeId),
    Rejoin,
    FastDisk,
    ReachProvider,
}

impl Life {
    pub(super) fn misfortune(&mut self, number: u64) {
        if self.plan.misfortunes.is_empty() {
            return;
        }
        let which = self.plan.misfortunes[self.random.usize(..self.plan.misfortunes.len())];
        let node = self.random.usize(..self.nodes.len());
        let id = self.nodes[node].id;
        self.note(|| format!("#{number} {which:?} ({id})"));
        if let Some(name) = name(which) {
            self.count(name, 1);
        }
        match which {
            Misfortune::Crash => self.crash(node),
            Misfortune::CrashOfAll => (0..self.nodes.len()).for_each(|node| self.crash(node)),
            Misfortune::PowerLoss => self.power_loss(node),
            Misfortune::SiteLoss => {
                let site = self.some_site();
                for node in self.nodes_of(&site) {
                    self.power_loss(node);
                }
            }
            Misfortune::Restart => self.nodes[node].end(),
            Misfortune::Freeze => {
                self.nodes[node].freeze(true);
                self.undo_later(node, Undo::Thaw, 3_000 * MS);
            }
            Misfortune::Suspend | Misfortune::GuestPause => {
                Executor::hold_still(self.nodes[node].machine, which == Misfortune::GuestPause);
                self.undo_later(node, Undo::GoOn, 3_000 * MS);
            }
            Misfortune::Drift => {
                let rate = self.plan.rate(&mut self.random);
                Executor::change_clock(self.nodes[node].machine, |clock, now| clock.set_rate(now, rate));
            }
            Misfortune::WallClock => {
                let error = if self.random.bool() { 0 } else { self.random.i64(-3_600_000..=3_600_000) };
                Executor::change_clock(self.nodes[node].machine, |clock, _| clock.set_wall_error(error));
            }
            Misfortune::OneWayCut => {
                let other = self.nodes[self.random.usize(..self.nodes.len())].id;
                self.net.cut(id, other, true);
                self.undo_later(node, Undo::CutOne(id, other), 4_000 * MS);
            }
            Misfortune::Isolation => self.split(&[id], None),
            Misfortune::SiteIsolation => {
                let site = self.some_site();
                let part: Vec<_> = self.nodes_of(&site).into_iter().map(|node| self.nodes[node].id).collect();
                self.split(&part, None);
            }
            Misfortune::Split | Misfortune::Bridge => {
                let part: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
                let part: Vec<_> = part.into_iter().filter(|_| self.random.bool()).collect();
                self.split(&part, (which == Misfortune::Bridge).then_some(id));
            }
            Misfortune::Ring => self.ring(),
            Misfortune::SlowDisk => {
                self.nodes[node].disk.set_health(|health| health.sync_max = SLOW_SYNC);
                self.undo_later(node, Undo::FastDisk, 4_000 * MS);
            }
            // A person looks after that one.
            Misfortune::FullDisk if self.disaster.recovering == Some(node) => {}
            Misfortune::FullDisk => {
                self.nodes[node].disk.set_health(|health| health.is_full = true);
                self.undo_later(node, Undo::FastDisk, 2_000 * MS);
            }
            Misfortune::LostDisk => self.lose_disk(node),
            // Rarely: there is not much to see afterwards.
            Misfortune::Disaster if self.random.u32(..8) == 0 => self.disaster(),
            Misfortune::Disaster => {}
            Misfortune::Upstreams => self.upstreams(),
            Misfortune::ProviderAway => self.provider_away(),
            Misfortune::MovedByHand => self.moved_by_hand(id),
            Misfortune::Upgrade => {
                self.nodes[node].format = Format::NEWEST;
                self.nodes[node].end();
            }
            Misfortune::FlippedBit => self.flip_a_bit(node),
            Misfortune::TouchedFile => self.touch_file(),
            Misfortune::RedisEmptied
            | Misfortune::RedisPromoted
            | Misfortune::RedisHangs
            | Misfortune::RedisRefuses => self.trouble_redis(which),
        }
    }

    fn some_site(&mut self) -> SiteSpec {
        let sites = &self.plan.spec.sites;
        sites[self.random.usize(..sites.len())].clone()
    }

    /// The machines of a site, by the name that a node keeps when it joins again.
    fn nodes_of(&self, site: &SiteSpec) -> Vec<usize> {
        let nodes = self.plan.spec.nodes.iter().enumerate();
        nodes.filter(|(_, node)| node.site == site.name).map(|(place, _)| place).collect()
    }

    /// Counts what is lost with a process just now.
    fn count_loss(&mut self, node: usize) {
        if !self.is_moving(node) {
            return;
        }
        let Some(raft) = self.nodes[node].raft() else { return };
        let id = self.nodes[node].id;
        if raft.status().borrow().is_leader {
            self.count("leaders lost in the middle of a move", 1);
        }
        let state = raft.state();
        if state.floating_ips.values().any(|entry| entry.owner.as_ref().is_some_and(|owner| owner.node == id))
        {
            self.count("owners lost in the middle of a move", 1);
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            self.count_loss(node);
            let noticed = Duration::from_nanos(self.around(self.plan.noticed_within / 2));
            let lost = self.nodes[node].kill(noticed);
            self.count("batches lost in a crash", lost as u64);
            self.undo_later(node, Undo::Start, RESTART_MAX);
        }
    }

    fn power_loss(&mut self, node: usize) {
        self.count_loss(node);
        self.go_on(node);
        let lost = self.nodes[node].power_off();
        self.count("batches lost in a crash", lost as u64);
        self.undo_later(node, Undo::Start, RESTART_MAX);
    }

    fn can_lose_a_disk(&self) -> bool {
        let damaged = self.nodes.iter().any(|node| node.disk.is_damaged());
        self.replacement.is_none() && self.requests > 0 && self.disaster.lost.is_empty() && !damaged
    }

    /// Not before the last one is replaced: two of three would be a loss of the quorum for good.
    fn lose_disk(&mut self, node: usize) {
        if self.can_lose_a_disk() {
            self.replace_disk(node);
        }
    }

    /// The machine gets an empty disk, and joins again.
    pub(super) fn replace_disk(&mut self, node: usize) {
        let old = self.nodes[node].id;
        self.nodes[node].power_off();
        if self.mistake == Some(Mistake::ReuseNodeId) {
            // Copied from the old one, so that not even the number of its directory tells.
            self.nodes[node].disk = SimDisk::new(1_000 + old.0, self.plan.disk);
            return self.undo_later(node, Undo::Start, RESTART_MAX);
        }
        self.ids += 1;
        let new = NodeId(self.ids);
        let disk = SimDisk::new(1_000 + self.ids, self.plan.disk);
        let known = self.plan.spec.nodes.iter().map(|node| node.id).chain([new]).collect();
        // Whoever sets a machine up takes the newest program: an older one may not read what was agreed meanwhile.
        self.nodes[node] = Node::new(new, self.nodes[node].machine, disk, &self.net, known);
        self.sight.take(old);
        if let Some(redis) = &self.meetings.redis {
            redis.rename(old, new);
        }
        self.sight.put(new, self.plan.spec.nodes[node].site.clone(), self.nodes[node].kernel.clone());
        self.note(|| format!("{old} has lost its disk and joins again as {new}"));
        self.replacement = Some(Replacement { old, new });
        self.undo_later(node, Undo::Start, RESTART_MAX);
    }

    /// The machine loses its power, and what its disk kept is not what it was.
    fn flip_a_bit(&mut self, node: usize) {
        if !self.can_lose_a_disk() {
            return;
        }
        self.power_loss(node);
        self.nodes[node].disk.damage();
    }

    fn provider_away(&mut self) {
        let site = self.some_site();
        let everywhere = self.random.bool();
        let nodes = self.nodes_of(&site).into_iter();
        let nodes: Vec<_> = if everywhere { (0..self.nodes.len()).collect() } else { nodes.collect() };
        self.provider.set_away_from(nodes.into_iter().map(|node| self.nodes[node].id).collect());
        self.undo_later(0, Undo::ReachProvider, 3_000 * MS);
    }

    pub(super) fn moved_by_hand(&mut self, to: NodeId) {
        self.count("addresses moved at the console", 1);
        let to = if self.random.u32(..4) == 0 { None } else { Some(to) };
        self.provider.moved_by_hand(to);
    }

    fn upstreams(&mut self) {
        let site = self.some_site().name;
        let (all, well) = (self.random.bool(), self.random.u32(..3) == 0);
        let upstreams: Vec<_> =
            self.plan.spec.upstreams.iter().filter(|upstream| upstream.site == site).collect();
        let chosen = self.random.usize(..upstreams.len().max(1));
        let chosen: Vec<_> = upstreams
            .into_iter()
            .enumerate()
            .filter(|(place, _)| all || *place == chosen)
            .map(|(_, upstream)| upstream.name.clone())
            .collect();
        self.sight.change(|health| {
            for upstream in chosen {
                health.insert(upstream, well);
            }
        });
    }

    fn touch_file(&mut self) {
        let (place, what) = (self.random.usize(..self.files.count()), self.random.u32(..4));
        let touched = self.files.touch(place, |there| match what {
            0 => there.address = None,
            1 => there.address = Some(IpAddr::from([10, 9, 9, 9])),
            2 => there.token = None,
            _ => *there = There::default(),
        });
        self.note(|| format!("what {touched:?} is told was touched ({what})"));
    }

    fn trouble_redis(&mut self, which: Misfortune) {
        let Some(redis) = self.meetings.redis.clone() else { return };
        let long = self.random.u64(10 * MS..=3_000 * MS);
        match which {
            Misfortune::RedisEmptied => redis.lose_everything(long / 2),
            Misfortune::RedisPromoted => {
                let lost = redis.promote_replica(long / 2);
                self.count("writes lost with a Redis", lost as u64);
            }
            Misfortune::RedisHangs => redis.hang(long),
            _ => {
                let whys = [Why::ReadOnly, Why::Refusing, Why::Loading];
                redis.refuse_writes(long, whys[self.random.usize(..whys.len())]);
            }
        }
    }

    /// Two parts do not hear each other; `bridge` hears both.
    fn split(&mut self, part: &[NodeId], bridge: Option<NodeId>) {
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        for from in &ids {
            for to in &ids {
                let bridged = bridge == Some(*from) || bridge == Some(*to);
                if part.contains(from) != part.contains(to) && !bridged {
                    self.net.cut(*from, *to, true);
                }
            }
        }
        self.undo_later(0, Undo::Rejoin, 4_000 * MS);
    }

    fn ring(&mut self) {
        let mut ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        self.random.shuffle(&mut ids);
        for (place, from) in ids.iter().enumerate() {
            for (other, to) in ids.iter().enumerate() {
                let apart = place.abs_diff(other);
                if apart > 1 && apart < ids.len() - 1 {
                    self.net.cut(*from, *to, true);
                }
            }
        }
        self.undo_later(0, Undo::Rejoin, 4_000 * MS);
    }

    pub(super) fn go_on(&mut self, node: usize) {
        let missed = Executor::go_on(self.nodes[node].machine);
        if missed > Duration::ZERO {
            self.nodes[node].kernel.excuse(self.plan.spec.timing().lease);
        }
    }

    pub(super) fn start_within(&mut self, node: usize, within: TrueTime) {
        self.undo_later(node, Undo::Start, within);
    }

    fn undo_later(&mut self, node: usize, undo: Undo, within: TrueTime) {
        self.numbers += 1;
        let at = Executor::now() + self.random.u64(MS..=within);
        self.later.insert((at, self.numbers), (node, undo));
    }

    pub(super) fn undo(&mut self, node: usize, undo: Undo) {
        let id = self.nodes[node].id;
        self.note(|| format!("{undo:?} ({id})"));
        match undo {
            Undo::Start if self.nodes[node].process.is_none() && self.disaster.allows(node) => {
                self.start(node);
            }
            Undo::Start => {}
            Undo::Thaw => self.nodes[node].freeze(false),
            Undo::GoOn => self.go_on(node),
            Undo::CutOne(from, to) => self.net.cut(from, to, false),
            Undo::Rejoin => self.net.mend(),
            Undo::ReachProvider => self.provider.set_away_from(BTreeSet::new()),
            Undo::FastDisk => {
                let health = self.plan.disk;
                self.nodes[node].disk.set_health(|present| *present = health);
            }
        }
    }
}

const fn name(misfortune: Misfortune) -> Option<&'static str> {
    Some(match misfortune {
        Misfortune::Crash => "crashes",
        Misfortune::CrashOfAll => "crashes of all",
        Misfortune::PowerLoss => "power losses",
        Misfortune::SiteLoss => "lost sites",
        Misfortune::Restart => "restarts",
        Misfortune::Freeze => "freezes",
        Misfortune::Suspend => "machines that were suspended",
        Misfortune::GuestPause => "guests that were paused",
        Misfortune::Drift => "clocks that changed",
        Misfortune::WallClock => "wall clocks that were set",
        Misfortune::OneWayCut => "one-way cuts",
        Misfortune::Isolation => "isolated nodes",
        Misfortune::SiteIsolation => "isolated sites",
        Misfortune::Split => "splits",
        Misfortune::Bridge => "bridges",
        Misfortune::Ring => "rings",
        Misfortune::SlowDisk => "slow disks",
        Misfortune::FullDisk => "full disks",
        Misfortune::LostDisk => "lost disks",
        Misfortune::Disaster => "disasters that were near",
        Misfortune::Upstreams => "upstreams that changed",
        Misfortune::ProviderAway => "providers that nobody reached",
        Misfortune::MovedByHand => return None, // people do so in other ways, too, and all are counted
        Misfortune::Upgrade => "upgrades",
        Misfortune::FlippedBit => "flipped bits",
        Misfortune::TouchedFile => "announced files that were touched",
        Misfortune::RedisEmptied => "Redis servers that lost everything",
        Misfortune::RedisPromoted => "replicas that were promoted",
        Misfortune::RedisHangs => "Redis servers that hung",
        Misfortune::RedisRefuses => "Redis servers that took no writes",
    })
}
