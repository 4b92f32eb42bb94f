//! Doing the steps.

use super::run::Run;
use super::{ApiError, ClusterApi};
use crate::process::ProcessName;
use crate::scenario::{
    Action, Condition, Destination, NodeTarget, Processes, Recover, Repeat, SiteTarget, SpecChange, Step,
};
use crate::wan::Shape;
use futures_util::future::BoxFuture;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use twinsite_model::spec::NodeKind;
use twinsite_model::{NodeName, SiteName};

/// How long each node of a rolling restart may take to be healthy again.
const RESTART_PATIENCE: Duration = Duration::from_secs(30);

/// How long a person asks again who was told to, and how soon.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A step that was not done as written; the drill goes to its way back.
pub(super) struct Failed(pub(super) String);

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

impl<'a> Run<'a> {
    /// Asks for something, and again, as a person does, while the leader is changing or something else comes first.
    /// Supervisors go on with their work meanwhile: the answer may need what they start.
    pub(super) async fn ask<'b, T>(
        &mut self,
        what: impl Fn(&'b dyn ClusterApi) -> BoxFuture<'b, Result<T, ApiError>>,
    ) -> Result<T, ApiError>
    where
        'a: 'b,
    {
        let deadline = Instant::now() + ASK_PATIENCE;
        loop {
            match self.tended(what(self.api)).await {
                Err(error) if error.retryable && !error.forbidden && Instant::now() < deadline => {
                    sleep(ASK_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    /// Does all steps, up to the first that cannot be done.
    pub(super) async fn perform_steps(&mut self) {
        let scenario = self.scenario;
        let of = scenario.steps().count();
        for (number, step) in scenario.steps().enumerate() {
            self.step = Some((number + 1, of));
            let done = self.perform_step(step).await;
            if self.is_aborted() {
                break;
            }
            if let Err(Failed(why)) = done {
                self.broken.push(format!("step {}: {why}", number + 1));
                break;
            }
        }
        self.step = None;
    }

    async fn perform_step(&mut self, step: &Step) -> Result<(), Failed> {
        self.pause(step.after.in_timing(&self.timing)).await;
        if self.is_aborted() {
            return Ok(());
        }
        match &step.action {
            Action::Repeat(repeat) => self.repeat(repeat).await,
            action => self.perform_action(action).await,
        }
    }

    async fn repeat(&mut self, repeat: &Repeat) -> Result<(), Failed> {
        let every = repeat.every.in_timing(&self.timing);
        for number in 1..=repeat.times {
            let began = Instant::now();
            for step in &repeat.steps {
                self.pause(step.after.in_timing(&self.timing)).await;
                if self.is_aborted() {
                    return Ok(());
                }
                let done = self.perform_action(&step.action).await;
                done.map_err(|Failed(why)| Failed(format!("time {number} of {}: {why}", repeat.times)))?;
            }
            if number < repeat.times {
                self.pause((began + every).saturating_duration_since(Instant::now())).await;
            }
        }
        Ok(())
    }

    pub(super) fn did(&mut self, what: String) {
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
            Action::Upstream(upstream) => self.upstream(upstream)?,
            Action::CutHost(hosts) => self.cut_hosts(hosts).await?,
            Action::FreezeHost(hosts) => self.freeze_hosts(hosts).await?,
            Action::FlushFirewall(hosts) => self.flush_firewalls(hosts).await?,
            Action::FillDisk(hosts) => self.fill_disks(hosts).await?,
            Action::FreeDisk(hosts) => self.free_disks(hosts).await?,
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
                self.backend.heal_links()?;
            }
            Action::Switchover(destination) => {
                let to = self.roles.site(&destination.to);
                self.did(format!("switchover to {to}"));
                let begun = self.ask(|api| api.switchover(&to)).await;
                self.as_wanted(destination, begun)?;
            }
            Action::Failover(destination) => {
                let to = self.roles.site(&destination.to);
                self.did(format!("failover to {to}"));
                let begun = self.ask(|api| api.failover(&to)).await;
                self.as_wanted(destination, begun)?;
            }
            Action::Pause(duration) => {
                self.did(format!("pause for {duration}"));
                self.ask(|api| api.pause(duration.0)).await?;
            }
            Action::Resume => {
                self.did("resume".to_owned());
                self.ask(|api| api.resume()).await?;
            }
            Action::ResetBreaker => {
                self.did("the breaker is closed".to_owned());
                self.ask(|api| api.reset_breaker()).await?;
            }
            Action::Lead(leadership) => self.lead(&leadership.to).await?,
            Action::Apply(change) => self.apply(change).await?,
            Action::Recover(recover) => self.recover(recover).await?,
            Action::RestartRolling => self.restart_rolling().await?,
            Action::Wait(wait) => {
                let within = wait.within.in_timing(&self.timing);
                self.tell_now(&format!("waiting until {}", wait.until.as_str()));
                if !self.wait(wait.until, within).await {
                    return Err(Failed(format!("not so within {within:?}: {}", wait.until.as_str())));
                }
            }
            // Reading the scenario has refused it.
            Action::Repeat(_) => return Err(Failed("it repeats within itself".to_owned())),
        }
        Ok(())
    }

    /// Whether a move was begun, or refused, as the scenario has it.
    fn as_wanted(&mut self, destination: &Destination, begun: Result<(), ApiError>) -> Result<(), Failed> {
        match begun {
            Ok(()) if destination.refused => Err(Failed("it was not refused".to_owned())),
            Err(error) if destination.refused && error.forbidden => {
                self.did(format!("refused: {error}"));
                Ok(())
            }
            begun => Ok(begun?),
        }
    }

    /// Hands the leadership to one of these; the leader itself, if it is one of them, only if there is another.
    async fn lead(&mut self, to: &NodeTarget) -> Result<(), Failed> {
        let leader = self.status().await.and_then(|status| status.leader);
        let others = self.roles.nodes(to);
        let votes = |name: &&NodeName| self.layout.node(name).is_some_and(|node| node.kind.votes());
        let next = others.iter().filter(votes).find(|name| Some(*name) != leader.as_ref()).cloned();
        let Some(next) = next else {
            self.did(format!("{to} leads already"));
            return Ok(());
        };
        self.did(format!("leadership to {next}"));
        self.ask(|api| api.lead(&next)).await?;
        let deadline = Instant::now() + ASK_PATIENCE;
        while self.status().await.and_then(|status| status.leader).as_ref() != Some(&next) {
            if Instant::now() >= deadline {
                return Err(Failed(format!("{next} does not lead after {ASK_PATIENCE:?}")));
            }
            sleep(ASK_AGAIN).await;
        }
        Ok(())
    }

    /// As an operator changes it: reads the agreed specification, changes it, and puts it back.
    async fn apply(&mut self, change: &SpecChange) -> Result<(), Failed> {
        self.did("a changed specification".to_owned());
        let mut spec = self.ask(|api| api.spec()).await?;
        let before = spec.clone();
        spec.policy = change.policy.applied_to(&spec.policy);
        self.ask(|api| api.apply(&spec)).await?;
        self.spec_before.get_or_insert(before);
        Ok(())
    }

    async fn resolve(&mut self, processes: &Processes) -> Vec<ProcessName> {
        // While there is no quorum, those last known count.
        self.status().await;
        self.roles.processes(processes, &self.recorder.tunnels())
    }

    pub(super) async fn hit(&mut self, processes: &Processes) -> Vec<ProcessName> {
        let processes = self.resolve(processes).await;
        self.roles.hit(&processes);
        processes
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

/// Names, with commas between them.
pub(super) fn list(names: &[impl fmt::Display]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{name}", if index > 0 { ", " } else { "" });
    }
    text
}
