//! Doing the steps.

use super::run::Run;
use super::{ApiError, EngineError};
use crate::process::ProcessName;
use crate::scenario::{Action, Condition, Processes, Recover, RedisAction, SiteTarget};
use crate::wan::Shape;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use twinsite_model::spec::NodeKind;
use twinsite_model::{NodeName, SiteName};

/// How long each node of a rolling restart may take to be healthy again.
const RESTART_PATIENCE: Duration = Duration::from_secs(30);

/// A step that was not done as written; the drill goes to its way back.
struct Failed(String);

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self(error.to_string())
    }
}

impl From<super::BackendError> for Failed {
    fn from(error: super::BackendError) -> Self {
        Self(error.to_string())
    }
}

impl Run<'_> {
    /// Does all steps, up to the first that cannot be done.
    pub(super) async fn perform_steps(&mut self) -> Result<(), EngineError> {
        let scenario = self.scenario;
        for (number, step) in scenario.steps().enumerate() {
            sleep(step.after.0).await;
            if let Err(Failed(why)) = self.perform_action(&step.action).await {
                self.broken.push(format!("step {}: {why}", number + 1));
                break;
            }
        }
        Ok(())
    }

    fn did(&mut self, what: String) {
        self.tell_now(&what);
        self.actions.push((Instant::now(), what));
    }

    async fn perform_action(&mut self, action: &Action) -> Result<(), Failed> {
        match action {
            Action::Kill(processes) => {
                let processes = self.hit(processes).await;
                self.did(format!("kill -9: {}", list(&processes)));
                self.backend.kill(&processes).await?;
            }
            Action::Freeze(processes) => {
                let processes = self.hit(processes).await;
                self.did(format!("SIGSTOP: {}", list(&processes)));
                for process in &processes {
                    self.backend.freeze(process)?;
                }
            }
            Action::Thaw(processes) => {
                let processes = self.resolve(processes).await;
                self.did(format!("SIGCONT: {}", list(&processes)));
                for process in &processes {
                    self.backend.thaw(process)?;
                }
            }
            Action::Stop(processes) => {
                let processes = self.hit(processes).await;
                self.did(format!("SIGTERM: {}", list(&processes)));
                for process in &processes {
                    self.backend.terminate(process).await?;
                }
            }
            Action::Start(processes) => {
                let processes = self.resolve(processes).await;
                self.did(format!("start: {}", list(&processes)));
                for process in &processes {
                    self.backend.start(process)?;
                }
            }
            Action::Redis(action) => self.redis(*action).await?,
            Action::Cut(cut) => {
                let (from, to) = (self.roles.site(&cut.from), self.roles.site(&cut.to));
                self.did(format!("cut: {from} -> {to}"));
                self.cut(&from, &to)?;
            }
            Action::Isolate(site) => self.isolate(site)?,
            Action::Shape(shaping) => {
                let (from, to) = (self.roles.site(&shaping.from), self.roles.site(&shaping.to));
                let shape = Shape {
                    cut: self.backend.link(&from, &to).cut,
                    delay: shaping.delay.0,
                    jitter: shaping.jitter.0,
                    rate: shaping.rate,
                    loss: shaping.loss_percent,
                };
                self.did(format!("{from} -> {to}: {shape}"));
                self.backend.set_link(&from, &to, shape)?;
            }
            Action::HealLinks => {
                self.did("all links whole".to_owned());
                self.heal_links()?;
            }
            Action::Switchover(destination) => {
                let to = self.roles.site(&destination.to);
                self.did(format!("switchover to {to}"));
                self.api.switchover(&to).await?;
            }
            Action::Failover(destination) => {
                let to = self.roles.site(&destination.to);
                self.did(format!("failover to {to}"));
                self.api.failover(&to).await?;
            }
            Action::Pause(duration) => {
                self.did(format!("pause for {duration}"));
                self.api.pause(duration.0).await?;
            }
            Action::Resume => {
                self.did("resume".to_owned());
                self.api.resume().await?;
            }
            Action::Recover(recover) => self.recover(recover).await?,
            Action::RestartRolling => self.restart_rolling().await?,
            Action::Wait(wait) => {
                let within = wait.within.in_timing(&self.timing);
                if !self.wait(wait.until, within).await {
                    return Err(Failed(format!("not so within {within:?}: {}", wait.until.as_str())));
                }
            }
        }
        Ok(())
    }

    async fn resolve(&mut self, processes: &Processes) -> Vec<ProcessName> {
        // While there is no quorum, those last known count.
        self.status().await;
        self.roles.processes(processes, &self.recorder.recording())
    }

    async fn hit(&mut self, processes: &Processes) -> Vec<ProcessName> {
        let processes = self.resolve(processes).await;
        self.roles.hit(&processes);
        processes
    }

    async fn redis(&mut self, action: RedisAction) -> Result<(), Failed> {
        let redis = ProcessName::Redis;
        match action {
            RedisAction::Kill => {
                self.did("kill -9: redis".to_owned());
                self.backend.kill(&[redis]).await?;
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
        }
        Ok(())
    }

    fn cut(&mut self, from: &SiteName, to: &SiteName) -> Result<(), super::BackendError> {
        let shape = self.backend.link(from, to);
        self.backend.set_link(from, to, Shape { cut: true, ..shape })
    }

    fn isolate(&mut self, site: &SiteTarget) -> Result<(), Failed> {
        let site = self.roles.site(site);
        self.did(format!("cut: {site} from all other sites"));
        let others: Vec<_> = self.layout.sites.iter().filter(|other| **other != site).cloned().collect();
        for other in others {
            self.cut(&site, &other)?;
            self.cut(&other, &site)?;
        }
        Ok(())
    }

    pub(super) fn heal_links(&mut self) -> Result<(), super::BackendError> {
        let sites = self.layout.sites.clone();
        for (from, to) in sites.iter().flat_map(|from| sites.iter().map(move |to| (from, to))) {
            if from != to {
                self.backend.set_link(from, to, Shape::default())?;
            }
        }
        Ok(())
    }

    /// What a person does when the quorum is gone for good: stop what still runs, make one survivor the cluster.
    async fn recover(&mut self, recover: &Recover) -> Result<(), Failed> {
        let candidates = self.roles.nodes(&recover.on);
        let may_own = |name: &&NodeName| self.layout.node(name).is_some_and(|node| node.kind.may_own());
        let survivor = candidates.iter().find(may_own).cloned();
        let survivor = survivor.ok_or_else(|| Failed(format!("{}: nobody there may own", recover.on)))?;
        for node in candidates {
            self.backend.terminate(&ProcessName::Node(node)).await?;
        }
        let voters = self.layout.nodes.iter().filter(|node| node.kind != NodeKind::Edge);
        let lost: Vec<_> = voters.map(|node| node.name.clone()).filter(|name| *name != survivor).collect();
        self.did(format!("forced recovery on {survivor}"));
        self.backend.recover(&survivor, &lost, recover.attest_power_off).await?;
        self.did(format!("start: {survivor}"));
        self.backend.start(&ProcessName::Node(survivor))?;
        Ok(())
    }

    /// Followers first, then the leader, the owner last: each change of role happens once.
    async fn restart_rolling(&mut self) -> Result<(), Failed> {
        let status = self.api.status().await?;
        let owner = status.owner.map(|(owner, _)| owner);
        let mut nodes: Vec<_> = self.layout.nodes.iter().map(|node| node.name.clone()).collect();
        nodes.sort_by_key(|node| (Some(node) == owner.as_ref(), Some(node) == status.leader.as_ref()));
        for node in nodes {
            let processes = [ProcessName::Node(node.clone()), ProcessName::Guardian(node.clone())];
            self.did(format!("restart: {node}"));
            self.roles.hit(&processes);
            for process in &processes {
                self.backend.terminate(process).await?;
            }
            for process in processes.iter().rev() {
                self.backend.start(process)?;
            }
            if !self.wait(Condition::Healthy, RESTART_PATIENCE).await {
                return Err(Failed(format!(
                    "not healthy within {RESTART_PATIENCE:?} after {node} came back"
                )));
            }
        }
        Ok(())
    }
}

fn list(processes: &[ProcessName]) -> String {
    let mut text = String::new();
    for (index, process) in processes.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{process}", if index > 0 { ", " } else { "" });
    }
    text
}
