//! Doing the steps, and going the way back.

use super::limits::{ASK_MAX, LEAD_MAX};
use super::run::Run;
use super::watchman::Abort;
use crate::engine::ApiError;
use crate::scenario::{Action, Condition, NodeTarget, Step, Wait};
use futures_util::future::BoxFuture;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use twinsite_model::{SiteName, Verdict};

/// How soon the cluster is asked again for what it cannot do at once.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often the cluster is looked at on the way back.
const BACK_POLL: Duration = Duration::from_millis(50);

/// A step was done, or in words why not; then the drill goes to its way back.
type Done = Result<(), String>;

impl Run<'_> {
    /// Does all steps, up to the first that cannot be done.
    pub(super) async fn perform_steps(&mut self) -> Result<Done, Abort> {
        let scenario = self.scenario;
        for (number, step) in scenario.steps().enumerate() {
            if let Err(why) = self.perform_step(step).await? {
                return Ok(Err(format!("step {}: {why}", number + 1)));
            }
        }
        Ok(Ok(()))
    }

    async fn perform_step(&mut self, step: &Step) -> Result<Done, Abort> {
        self.pass(step.after.in_timing(&self.timing)).await?;
        let Action::Repeat(repeat) = &step.action else { return self.perform_action(&step.action).await };
        let every = repeat.every.in_timing(&self.timing);
        for number in 1..=repeat.times {
            let began = Instant::now();
            for step in &repeat.steps {
                self.pass(step.after.in_timing(&self.timing)).await?;
                if let Err(why) = self.perform_action(&step.action).await? {
                    return Ok(Err(format!("time {number} of {}: {why}", repeat.times)));
                }
            }
            if number < repeat.times {
                self.pass(every.saturating_sub(began.elapsed())).await?;
            }
        }
        Ok(Ok(()))
    }

    async fn perform_action(&mut self, action: &Action) -> Result<Done, Abort> {
        match action {
            Action::Switchover(destination) => {
                let Some(site) = self.places.site(&destination.to) else {
                    return Ok(Err(format!("{}: there is no such site", destination.to)));
                };
                self.switch(&site).await
            }
            Action::Lead(leadership) => self.lead(&leadership.to).await,
            Action::Pause(duration) => {
                self.did(format!("pause for {duration}"));
                let live = self.live;
                // Before the call: whether or not an answer comes, the way back ends it.
                self.paused = true;
                self.ask(|| live.pause(duration.0)).await
            }
            Action::Resume => {
                self.did("resume".to_owned());
                let live = self.live;
                let done = self.ask(|| live.resume()).await?;
                self.paused &= done.is_err();
                Ok(done)
            }
            Action::Wait(wait) => self.wait_for(wait).await,
            // Refused before: `admissible`.
            _ => Ok(Err("it is not done on a live cluster".to_owned())),
        }
    }

    /// The rules are asked first, by a plan; whatever they forbid is not begun.
    async fn switch(&mut self, site: &SiteName) -> Result<Done, Abort> {
        let live = self.live;
        self.now(&format!("asking the rules about {site}"));
        let deadline = Instant::now() + ASK_MAX;
        loop {
            match live.plan(site).await {
                Ok(plan) => match plan.refusal {
                    None => break,
                    Some(refusal) if Instant::now() >= deadline => {
                        return Ok(Err(format!("switchover to {site}: {refusal}")));
                    }
                    Some(_) => {}
                },
                Err(error) if !error.retryable || Instant::now() >= deadline => {
                    return Ok(Err(format!("switchover to {site}: {error}")));
                }
                Err(_) => {}
            }
            self.pass(ASK_AGAIN).await?;
        }
        self.did(format!("switchover to {site}"));
        self.watchman.asks_for_move();
        let done = self.ask(|| live.switchover(site)).await?;
        if done.is_err() {
            self.watchman.was_refused();
        }
        Ok(done)
    }

    /// Hands the leadership to one of these that does not lead already.
    async fn lead(&mut self, to: &NodeTarget) -> Result<Done, Abort> {
        let owner = self.newest.cluster.owner.as_ref().map(|(owner, _)| owner.clone());
        let leader = self.newest.cluster.leader.clone();
        let voters = self.places.voters(to, owner.as_ref());
        let Some(next) = voters.into_iter().find(|voter| Some(voter) != leader.as_ref()) else {
            self.did(format!("leadership to {to}: nobody there who does not lead already"));
            return Ok(Ok(()));
        };
        self.did(format!("leadership to {next}"));
        let live = self.live;
        let done = self.ask(|| live.lead(&next)).await?;
        if done.is_err() {
            return Ok(done);
        }
        let leads = self.wait(LEAD_MAX, |run| run.newest.cluster.leader.as_ref() == Some(&next)).await?;
        Ok(if leads { Ok(()) } else { Err(format!("{next} does not lead after {LEAD_MAX:?}")) })
    }

    async fn wait_for(&mut self, wait: &Wait) -> Result<Done, Abort> {
        let within = wait.within.in_timing(&self.timing);
        let until = wait.until;
        self.now(&format!("until {}", until.as_str()));
        let so = self.wait(within, |run| run.holds(until)).await?;
        Ok(if so { Ok(()) } else { Err(format!("not so within {within:?}: {}", until.as_str())) })
    }

    fn holds(&self, condition: Condition) -> bool {
        let answered = self.answered_by();
        let answered_at = |site: &SiteName| {
            answered.as_ref().and_then(|identity| self.places.site_of(&identity.node)) == Some(site)
        };
        let cluster = &self.newest.cluster;
        match condition {
            Condition::Answering => answered.is_some(),
            Condition::OwnerChanged => {
                let token = answered.as_ref().and_then(|identity| identity.token);
                token.is_some() && token > self.token_before()
            }
            Condition::OwnerAtOtherSite => answered_at(&self.places.other_site),
            Condition::OwnerAtOwnerSite => answered_at(&self.places.owner_site),
            Condition::Led => cluster.leader.is_some(),
            Condition::MovesEnded => !cluster.moving,
            Condition::Healthy => {
                let verdict = |name| cluster.verdicts.get(name).copied().unwrap_or_default();
                cluster.leader.is_some()
                    && cluster.owner.is_some()
                    && !cluster.moving
                    && self.places.nodes().all(|node| cluster.heard.contains(node))
                    && self.places.upstreams().all(|(_, name)| verdict(name) == Verdict::Healthy)
            }
            // There are none.
            Condition::ParticipantsBack => true,
            // Refused before: `admissible`.
            Condition::Silent | Condition::VictimsUnhealthy | Condition::VictimsEnded => false,
        }
    }

    /// Asks again, as a person does, while the leader is changing; everything is looked at meanwhile.
    async fn ask<'b>(
        &mut self,
        ask: impl Fn() -> BoxFuture<'b, Result<(), ApiError>>,
    ) -> Result<Done, Abort> {
        let deadline = Instant::now() + ASK_MAX;
        loop {
            match ask().await {
                Ok(()) => return Ok(Ok(())),
                Err(error) if error.forbidden || !error.retryable || Instant::now() >= deadline => {
                    return Ok(Err(error.to_string()));
                }
                Err(_) => self.pass(ASK_AGAIN).await?,
            }
        }
    }

    /// What the drill set is lifted, and the address goes back to where it was: first automatic moves, without which
    /// nothing that fails now is repaired. `why` it was broken off, if it was.
    pub(super) async fn way_back(
        &mut self,
        why: Option<&str>,
        may_move: bool,
        deadline: Instant,
    ) -> Result<(), String> {
        self.now("the way back");
        let mut problem = Ok(());
        if self.paused {
            problem = self.lift_pause(deadline).await;
        }
        if !may_move {
            self.did("the address stays where it is".to_owned());
            return problem;
        }
        problem.and(self.return_address(why, deadline).await)
    }

    async fn lift_pause(&mut self, deadline: Instant) -> Result<(), String> {
        self.did("resume".to_owned());
        loop {
            match self.live.resume().await {
                Ok(()) => {
                    self.paused = false;
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(format!("the pause could not be ended ({error}); it ends by itself"));
                }
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    async fn return_address(&mut self, why: Option<&str>, deadline: Instant) -> Result<(), String> {
        let (mut called_off, mut asked) = (why.is_none(), 0);
        let mut last = String::new();
        let home = self.places.owner_site.clone();
        loop {
            match self.look_on_way_back().await {
                Err(error) => last = error,
                // Another drill has begun: what becomes of the address is its business.
                Ok(()) if self.newest.drill.is_some_and(|drill| drill != self.drill()) => {
                    return Err("another drill runs: the address was not moved back".to_owned());
                }
                Ok(()) if self.newest.cluster.moving => {
                    if !called_off {
                        called_off = true;
                        self.did("calling the move off".to_owned());
                        let off = timeout(ASK_MAX, self.live.call_off(why.unwrap_or_default())).await;
                        if let Ok(Err(error)) = off {
                            self.did(format!("it can only go forward: {error}"));
                        }
                    }
                    "a move is under way".clone_into(&mut last);
                }
                Ok(()) if self.owner_site() == Some(&home) => return Ok(()),
                Ok(()) => match self.live.plan(&home).await {
                    Ok(plan) if plan.refusal.is_none() => {
                        asked += 1;
                        self.did(format!("switchover to {home}"));
                        self.watchman.asks_for_move();
                        if let Err(error) = self.live.switchover(&home).await {
                            last = error.to_string();
                        }
                    }
                    Ok(plan) => last = plan.refusal.unwrap_or_default(),
                    Err(error) => last = error.to_string(),
                },
            }
            if Instant::now() >= deadline || asked > RETURNS_MAX {
                return Err(format!(
                    "the address is not back at {home} ({last}); `twinsite switchover --to {home}` moves it"
                ));
            }
            sleep(BACK_POLL).await;
        }
    }
}

/// How often the cluster is asked to move the address back: a move may be aborted, and then is asked for anew.
const RETURNS_MAX: u32 = 5;
