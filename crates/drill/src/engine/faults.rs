//! Faults that are no signals: of hosts, disks, what instances answer, and Redis.

use super::actions::{Failed, list};
use super::run::Run;
use crate::process::ProcessName;
use crate::scenario::{Hosts, Processes, RedisAction, Upstream};
use twinsite_model::NodeName;

impl Run<'_> {
    /// The nodes of hosts that are hit now.
    async fn hosts(&mut self, hosts: &Hosts) -> Vec<NodeName> {
        let nodes = self.hit(&Processes { nodes: Some(hosts.nodes.clone()), ..Processes::default() }).await;
        let name = |process| if let ProcessName::Node(name) = process { Some(name) } else { None };
        nodes.into_iter().filter_map(name).collect()
    }

    pub(super) async fn cut_hosts(&mut self, hosts: &Hosts) -> Result<(), Failed> {
        let nodes = self.hosts(hosts).await;
        self.did(format!("cut: the hosts of {}", list(&nodes)));
        for node in &nodes {
            self.backend.cut_host(node)?;
        }
        Ok(())
    }

    /// The guardians first: a guardian that goes on would end its node.
    pub(super) async fn freeze_hosts(&mut self, hosts: &Hosts) -> Result<(), Failed> {
        let nodes = self.hosts(hosts).await;
        self.did(format!("SIGSTOP of everything on the hosts of {}", list(&nodes)));
        let guardians = nodes.iter().cloned().map(ProcessName::Guardian);
        for process in guardians.chain(nodes.iter().cloned().map(ProcessName::Node)) {
            self.backend.freeze(&process)?;
        }
        Ok(())
    }

    pub(super) async fn flush_firewalls(&mut self, hosts: &Hosts) -> Result<(), Failed> {
        let nodes = self.hosts(hosts).await;
        self.did(format!("nft flush ruleset on the hosts of {}", list(&nodes)));
        for node in &nodes {
            self.backend.flush_firewall(node)?;
        }
        Ok(())
    }

    pub(super) async fn fill_disks(&mut self, hosts: &Hosts) -> Result<(), Failed> {
        let nodes = self.hosts(hosts).await;
        self.did(format!("full: the disks of {}", list(&nodes)));
        for node in &nodes {
            self.backend.set_disk_full(node, true)?;
        }
        Ok(())
    }

    pub(super) async fn free_disks(&mut self, hosts: &Hosts) -> Result<(), Failed> {
        self.status().await;
        let nodes = self.roles.nodes(&hosts.nodes);
        self.did(format!("room on the disks of {}", list(&nodes)));
        for node in &nodes {
            self.backend.set_disk_full(node, false)?;
        }
        Ok(())
    }

    pub(super) fn upstream(&mut self, upstream: &Upstream) -> Result<(), Failed> {
        let instances = self.roles.instances(&upstream.instances, &self.recorder.tunnels());
        self.roles.instances_hit.extend(instances.iter().cloned());
        self.did(format!("answers of {}: {}", list(&instances), upstream.answer));
        for instance in &instances {
            self.backend.set_answers(instance, upstream.answer)?;
        }
        Ok(())
    }

    pub(super) async fn redis(&mut self, action: RedisAction) -> Result<(), Failed> {
        let redis = ProcessName::Redis;
        match action {
            RedisAction::Kill => {
                self.did("kill -9: redis".to_owned());
                self.backend.kill(&[redis]).await?;
                self.redis_refuses = false; // whoever starts anew is a primary
            }
            RedisAction::Start => {
                self.did("start: redis".to_owned());
                self.backend.start(&redis)?;
            }
            RedisAction::Freeze => {
                self.did("SIGSTOP: redis".to_owned());
                self.backend.freeze(&redis)?;
            }
            RedisAction::Thaw => {
                self.did("SIGCONT: redis".to_owned());
                self.backend.thaw(&redis)?;
            }
            RedisAction::Flush => {
                self.did("redis forgets everything".to_owned());
                self.backend.flush_redis().await?;
            }
            RedisAction::Replica => {
                self.did("redis becomes a replica of nobody".to_owned());
                self.backend.set_redis_replica(true).await?;
                self.redis_refuses = true;
            }
            RedisAction::Promote => {
                self.did("redis is a primary again".to_owned());
                self.backend.set_redis_replica(false).await?;
                self.redis_refuses = false;
            }
        }
        Ok(())
    }
}
