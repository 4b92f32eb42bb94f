//! One drill on the live cluster: before, the steps, until all has settled, the way back, the report.

use super::cluster::{LiveCluster, LiveStatus, Probes, Seen};
use super::limits::{self, ANSWER_MAX, BEFORE, exceeded, steps_at_most};
use super::places::Places;
use super::report::{self, Measured};
use super::watchman::{Abort, Watchman};
use crate::engine::run::wall_now;
use crate::engine::{ApiError, Check, Report, WatchItem, verdict};
use crate::scenario::{Limits, Scenario};
use futures_util::future::BoxFuture;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use twinsite_model::spec::FloatingIpSpec;
use twinsite_model::{ClusterSpec, DrillId, DrillOutcome, Event, NodeName, SiteName, Timing, WallTime};

/// How often everything is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often the cluster is asked how it is, unless something was just asked of it: a large state is a large answer.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one look at the cluster may take.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Changes of the cluster that are kept for the report.
const JOURNAL_MAX: usize = 20_000;
/// How often those who watch are told.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What a drill was begun with.
#[derive(Debug, Clone)]
pub struct Mandate {
    /// Its id.
    pub drill: DrillId,
    /// As whom the runner asks the cluster: what was paused by this is its own.
    pub me: String,
    /// The agreed specification.
    pub spec: ClusterSpec,
    /// The address.
    pub ip: FloatingIpSpec,
}

/// A part of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Looked at in peace, before the first step.
    Before,
    /// The steps of the scenario.
    Steps,
    /// Until all has settled.
    Settling,
    /// The way back.
    WayBack,
}

/// Where a drill is, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The part.
    pub phase: Phase,
    /// What happens, in a few words.
    pub what: String,
    /// What the clients saw so far.
    pub seen: Seen,
    /// Why it is broken off.
    pub aborting: Option<String>,
}

/// A drill that is over.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub outcome: DrillOutcome,
    /// What was measured.
    pub report: Report,
}

/// Runs an admissible scenario whose guards hold. Whatever happens, the way back is gone; nothing of it is an error.
pub fn run<'a>(
    scenario: &'a Scenario,
    mandate: &'a Mandate,
    live: &'a dyn LiveCluster,
    probes: &'a dyn Probes,
    tell: &'a mut (dyn FnMut(Progress) + Send),
) -> BoxFuture<'a, Finished> {
    Box::pin(async move {
        let began = wall_now();
        match Run::open(scenario, mandate, live, probes, tell).await {
            Ok(mut run) => {
                let aborted = run.perform().await.err();
                run.finish(aborted, began).await
            }
            Err(why) => report::not_begun(scenario, &mandate.spec, began, &why),
        }
    })
}

pub(super) struct Run<'a> {
    pub(super) scenario: &'a Scenario,
    mandate: &'a Mandate,
    pub(super) live: &'a dyn LiveCluster,
    probes: &'a dyn Probes,
    tell: &'a mut (dyn FnMut(Progress) + Send),
    pub(super) timing: Timing,
    limits: Limits,
    pub(super) places: Places,
    pub(super) watchman: Watchman,
    changes: mpsc::Receiver<WatchItem>,
    journal: Vec<WatchItem>,
    before: LiveStatus,
    pub(super) newest: LiveStatus,
    phase: Phase,
    what: String,
    told: Option<Instant>,
    looked: Option<Instant>,
    deadline: Instant,
    /// When the first step was about to be taken.
    fault: (Instant, WallTime),
    /// What was done, and when.
    actions: Vec<(Instant, String)>,
    /// What the scenario expects, each with what came of it.
    expectations: Vec<Check>,
    /// What did not go as the scenario says.
    broken: Vec<String>,
    /// Why it was broken off.
    aborted: Option<String>,
    /// Whether the drill has paused automatic moves, and nobody has ended that.
    pub(super) paused: bool,
}

impl<'a> Run<'a> {
    /// The first look. Without one there is nothing to report but why.
    async fn open(
        scenario: &'a Scenario,
        mandate: &'a Mandate,
        live: &'a dyn LiveCluster,
        probes: &'a dyn Probes,
        tell: &'a mut (dyn FnMut(Progress) + Send),
    ) -> Result<Self, String> {
        let timing = mandate.spec.timing();
        let changes = live.watch().await.map_err(|error| error.to_string())?;
        let before = live.look().await.map_err(|error| error.to_string())?;
        let places = Places::new(&mandate.spec, &mandate.ip, &before.cluster)?;
        let ip = mandate.ip.name.clone();
        let watchman = Watchman::new(mandate.drill, mandate.me.clone(), ip, &timing, &before);
        let now = Instant::now();
        Ok(Self {
            scenario,
            mandate,
            live,
            probes,
            tell,
            limits: super::admissible::measured(&scenario.limits),
            places,
            watchman,
            changes,
            journal: Vec::new(),
            newest: before.clone(),
            before,
            phase: Phase::Before,
            what: "looking at the cluster in peace".to_owned(),
            told: None,
            looked: None,
            deadline: now + steps_at_most(scenario, &timing),
            fault: (now, wall_now()),
            actions: Vec::new(),
            expectations: Vec::new(),
            broken: Vec::new(),
            aborted: None,
            paused: false,
            timing,
        })
    }

    /// Everything up to the way back.
    async fn perform(&mut self) -> Result<(), Abort> {
        self.pass(BEFORE).await?;
        if !self.wait(ANSWER_MAX, Self::answering).await? {
            return Err(Abort::because("the floating address does not answer at this node"));
        }
        self.fault = (Instant::now(), wall_now());
        self.probes.begin();
        self.phase = Phase::Steps;
        if let Err(why) = self.perform_steps().await? {
            self.broken.push(why);
        }
        self.phase = Phase::Settling;
        self.now("watching it settle");
        let settle = self.scenario.observe.settle.in_timing(&self.timing);
        if !self.wait(settle, |run| run.answering() && !run.newest.cluster.moving).await? {
            self.broken.push(format!("it did not settle within {settle:?} after the last step"));
        }
        self.pass(self.scenario.observe.hold.0).await?;
        let moves = verdict::moves(&self.journal);
        let checks = verdict::expectations(
            &self.scenario.expect,
            |node| self.places.site_of(node),
            &self.before.cluster,
            &self.newest.cluster,
            &self.places.other_site,
            moves,
        );
        self.broken.extend(checks.iter().filter(|check| !check.holds).map(|check| check.line.clone()));
        self.expectations = checks;
        Ok(())
    }

    /// The way back, and the report.
    async fn finish(mut self, aborted: Option<Abort>, began: WallTime) -> Finished {
        let after = self.owner();
        let may_move = aborted.as_ref().is_none_or(|abort| abort.may_move);
        if let Some(abort) = &aborted {
            self.aborted = Some(abort.why.clone());
            self.did(format!("broken off: {}", abort.why));
            self.broken.insert(0, format!("broken off: {}", abort.why));
        }
        self.phase = Phase::WayBack;
        let within = self.scenario.way_back.within.in_timing(&self.timing);
        let why = aborted.as_ref().map(|abort| abort.why.as_str());
        let back = self.way_back(why, may_move, Instant::now() + within.max(limits::ASK_MAX)).await;
        if let Err(problem) = back {
            self.broken.push(format!("the way back: {problem}"));
        }
        self.take_changes().ok();
        let measured = Measured {
            scenario: self.scenario,
            spec: &self.mandate.spec,
            ip: &self.mandate.ip.name,
            limits: self.limits.clone(),
            began,
            fault: self.fault,
            recording: self.probes.recording(),
            journal: self.journal,
            actions: self.actions,
            expectations: self.expectations,
            broken: self.broken,
            aborted: aborted.is_some(),
            owners: (owner_in_words(&self.before), after),
        };
        let report = measured.report();
        let outcome = match (aborted, report.passed()) {
            (Some(_), _) => DrillOutcome::Aborted,
            (None, true) => DrillOutcome::Passed,
            (None, false) => DrillOutcome::Failed,
        };
        Finished { outcome, report }
    }

    /// Says what happens now.
    pub(super) fn now(&mut self, what: &str) {
        what.clone_into(&mut self.what);
        self.told = None;
        self.tell();
    }

    /// Something is done, which the report will say.
    pub(super) fn did(&mut self, what: String) {
        self.now(&what);
        self.actions.push((Instant::now(), what));
    }

    fn tell(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        (self.tell)(Progress {
            phase: self.phase,
            what: self.what.clone(),
            seen: self.probes.seen(),
            aborting: self.aborted.clone(),
        });
    }

    /// Time passes, with everything looked at.
    pub(super) async fn pass(&mut self, how_long: Duration) -> Result<(), Abort> {
        self.wait(how_long, |_| false).await.map(drop)
    }

    /// Waits for something; false if it is not so within the time. An error: the drill is to be broken off.
    pub(super) async fn wait(
        &mut self,
        within: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<bool, Abort> {
        let until = Instant::now() + within;
        // What was asked of the cluster a moment ago must be seen.
        self.looked = None;
        loop {
            self.check().await?;
            if holds(self) {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            sleep(left.min(POLL)).await;
        }
    }

    /// Looks at everything that may end the drill.
    async fn check(&mut self) -> Result<(), Abort> {
        self.tell();
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
        let look = if due { Some(look_at(self.live).await) } else { None };
        self.take_changes()?;
        let now = Instant::now();
        if let Some(look) = look {
            self.looked = Some(now);
            self.watchman.look(now, &look)?;
            // Without an answer the last one is not news: the next look comes at once.
            match look {
                Ok(status) => self.newest = status,
                Err(_) => self.looked = None,
            }
        }
        if self.phase > Phase::Before
            && let Some(why) = exceeded(&self.limits, &self.timing, &self.probes.seen())
        {
            return Err(Abort::because(why));
        }
        if now >= self.deadline {
            return Err(Abort::because("its time is over"));
        }
        Ok(())
    }

    /// Takes in what has changed. All of it is kept, also when something of it ends the drill.
    fn take_changes(&mut self) -> Result<(), Abort> {
        let mut found = Ok(());
        while let Ok(item) = self.changes.try_recv() {
            let heard = self.watchman.hear(&item);
            found = found.and(heard);
            let dull = matches!(item.event, Event::RoomPinned { .. } | Event::RoomsExpired { .. });
            if self.journal.len() < JOURNAL_MAX && !dull {
                self.journal.push(item);
            }
        }
        found
    }

    /// A look on the way back: nothing ends that any more.
    pub(super) async fn look_on_way_back(&mut self) -> Result<(), String> {
        self.tell();
        // What is heard here was asked for here, or was real and is left alone by whoever asks the cluster's rules.
        self.take_changes().ok();
        self.newest = look_at(self.live).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Whether somebody answered a moment ago.
    pub(super) fn answering(&self) -> bool {
        self.answered_by().is_some()
    }

    /// Who answered a moment ago.
    pub(super) fn answered_by(&self) -> Option<crate::measure::Identity> {
        let (at, identity) = self.probes.seen().newest?;
        (at.elapsed() < RECENT).then_some(identity)
    }

    pub(super) fn owner(&self) -> Option<String> {
        owner_in_words(&self.newest)
    }

    pub(super) fn owner_site(&self) -> Option<&SiteName> {
        let (owner, _): &(NodeName, _) = self.newest.cluster.owner.as_ref()?;
        self.places.site_of(owner)
    }

    pub(super) fn token_before(&self) -> Option<twinsite_model::Token> {
        self.before.cluster.owner.as_ref().map(|(_, token)| *token)
    }

    pub(super) const fn drill(&self) -> DrillId {
        self.mandate.drill
    }
}

/// An answer within so long means that somebody answers.
const RECENT: Duration = Duration::from_millis(500);

fn owner_in_words(status: &LiveStatus) -> Option<String> {
    status.cluster.owner.as_ref().map(|(node, token)| format!("{node} ({token})"))
}

/// One look at the cluster, which takes its time or fails.
async fn look_at(live: &dyn LiveCluster) -> Result<LiveStatus, ApiError> {
    let late =
        || ApiError { message: format!("no answer within {LOOK_MAX:?}"), retryable: true, forbidden: false };
    timeout(LOOK_MAX, live.look()).await.unwrap_or_else(|_| Err(late()))
}
