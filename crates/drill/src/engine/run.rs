//! One run of a scenario.

use super::report::{Check, RunReport, TimelineEntry};
use super::roles::Roles;
use super::{Backend, ClusterApi, ClusterStatus, EngineError, WatchItem, hosts, phases, spans};
use crate::audit::{self, Audit, StoreFollower};
use crate::lab::Prober;
use crate::layout::{Ground, Layout};
use crate::load::Load;
use crate::measure::announced::Settled;
use crate::measure::hosts::{Period, find as who_answered};
use crate::measure::kernel::Sampler;
use crate::measure::{Kind, Recorder, Recording, gap};
use crate::process::ProcessName;
use crate::scenario::{Condition, LeaderPlace, Scenario, WayBackKind};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use twinsite_model::spec::NodeKind;
use twinsite_model::{ClusterSpec, SiteName, Timing, WallTime};

/// How long a healthy cluster may take to have all participants seated and every answer traced.
const WARM_UP_MAX: Duration = Duration::from_secs(20);
/// How long the handing over of the leadership may take.
const LEADER_MAX: Duration = Duration::from_secs(15);
/// How long after the end of a move the last instance may take to announce the right address.
const ANNOUNCE_GRACE: Duration = Duration::from_millis(500);
/// How long is looked at a cluster in peace before the first step.
const QUIET_BEFORE: Duration = Duration::from_millis(300);
/// How often is looked, in pauses, whether something has ended that a supervisor would start.
const TEND_EVERY: Duration = Duration::from_millis(100);
/// How long clients go on after the way back, so that the audit covers the healed cluster too.
const HEALED_HOLD: Duration = Duration::from_millis(1_500);

/// The changes of the cluster since the run began.
#[derive(Debug)]
struct Journal {
    items: Arc<Mutex<Vec<WatchItem>>>,
    task: JoinHandle<()>,
}

impl Journal {
    async fn start(api: &dyn ClusterApi) -> Result<Self, EngineError> {
        let mut changes = api.watch().await?;
        let items = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&items);
        let task = tokio::spawn(async move {
            while let Some(item) = changes.recv().await {
                into.lock().unwrap_or_else(PoisonError::into_inner).push(item);
            }
        });
        Ok(Self { items, task })
    }

    /// Takes nothing in any more.
    fn close(&self) {
        self.task.abort();
    }

    fn items(&self) -> Vec<WatchItem> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Told what happens now, and what clients have seen until then if there are any.
pub(super) type Tell<'a> = dyn FnMut(&str, Option<&Arc<Recorder>>) + Send + 'a;

pub(super) struct Run<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) backend: &'a mut dyn Backend,
    pub(super) api: &'a dyn ClusterApi,
    tell: &'a mut Tell<'a>,
    /// Cancelled when somebody wants the drill to end. What is asked for on the way back is not asked of it.
    abort: CancellationToken,
    pub(super) layout: Layout,
    pub(super) timing: Timing,
    pub(super) roles: Roles,
    pub(super) recorder: Arc<Recorder>,
    /// Which step is being done, of how many.
    pub(super) step: Option<(usize, usize)>,
    /// What was done, and when.
    pub(super) actions: Vec<(Instant, String)>,
    /// What did not go as the scenario says.
    pub(super) broken: Vec<String>,
    /// The specification before the first change of it.
    pub(super) spec_before: Option<ClusterSpec>,
    /// Whether Redis was made a replica.
    pub(super) redis_refuses: bool,
    load: Load,
    sampler: Sampler,
    prober: Option<Prober>,
    journal: Journal,
    store: Option<StoreFollower>,
    before: ClusterStatus,
}

impl<'a> Run<'a> {
    /// Everything up to the first step.
    pub(super) async fn new(
        scenario: &'a Scenario,
        backend: &'a mut dyn Backend,
        api: &'a dyn ClusterApi,
        abort: CancellationToken,
        tell: &'a mut Tell<'a>,
    ) -> Result<Self, EngineError> {
        let layout = backend.layout().clone();
        let timing = Timing::of(layout.profile);
        tell("waiting until all is healthy", None);
        let within = scenario.way_back.within.in_timing(&timing);
        backend.wait_healthy(within).await?;
        let healthy = super::conditions::wait_healthy(backend, api, within).await?;
        tell("looking at the guards", None);
        let before = arrange_leader(scenario.guards.leader, api, &layout, healthy).await?;
        let roles = Roles::new(&layout, &before)
            .ok_or_else(|| EngineError::Guard("nobody owns the floating address".to_owned()))?;
        let journal = Journal::start(api).await?;
        let store = match layout.redis_url() {
            Some(url) => Some(StoreFollower::start(&url, &layout.cluster).await?),
            None => None,
        };
        tell("clients begin", None);
        let load = Load::start(&scenario.load.plan(), &layout);
        let recorder = Arc::clone(load.recorder());
        let prober = backend.prober()?;
        let kernels = backend.kernels()?;
        let sampler = if kernels.is_empty() {
            Sampler::of_processes(layout.floating, backend.pids(), Arc::clone(&recorder))?
        } else {
            Sampler::of_hosts(kernels, Arc::clone(&recorder))?
        };
        let mut run = Self {
            scenario,
            backend,
            api,
            tell,
            abort,
            layout,
            timing,
            roles,
            recorder,
            step: None,
            actions: Vec::new(),
            broken: Vec::new(),
            spec_before: None,
            redis_refuses: false,
            load,
            sampler,
            prober,
            journal,
            store,
            before,
        };
        sleep(scenario.load.warm_up.0).await;
        for condition in [Condition::Answering, Condition::ParticipantsBack] {
            if !run.wait(condition, WARM_UP_MAX).await {
                let why = format!("{} was not so within {WARM_UP_MAX:?}", condition.as_str());
                return Err(EngineError::Guard(why));
            }
        }
        Ok(run)
    }

    /// The steps, the outcome, the way back and the audit.
    pub(super) async fn perform(mut self, number: u32) -> Result<(RunReport, Audit), EngineError> {
        let began = Instant::now();
        // Long enough before the first step to see what the instances announce in peace.
        self.pause(QUIET_BEFORE).await;
        let fault = Instant::now();
        let fault_wall = wall_now();
        let journal_before = self.journal.items().len();
        self.perform_steps().await;

        if !self.is_aborted() {
            self.tell_now("watching it settle");
        }
        let settle = self.scenario.observe.settle.in_timing(&self.timing);
        self.wait_settled(settle).await;
        let settled_at = Instant::now();
        self.pause(self.scenario.observe.hold.0).await;
        let observed_at = Instant::now();
        let after = self.status().await;
        let aborted = self.is_aborted();
        if aborted {
            self.did("aborted".to_owned());
        }
        // Nothing was promised of a drill that was cut short, but the audit.
        let expectations = if aborted { Vec::new() } else { self.look_at_outcome(after.as_ref()) };
        let (settled_site, silent_sites) = (self.owner_site(after.as_ref()), self.sites_without_nodes());
        let seen = self.recorder.recording();

        let mut windows = vec![
            self.window(began, fault, Some(&self.roles.owner_site.clone()), &[]),
            self.window(settled_at + ANNOUNCE_GRACE, observed_at, settled_site.as_ref(), &silent_sites),
        ];
        let journal = self.journal.items();
        let of_fault = journal.get(journal_before..).unwrap_or_default().to_vec();
        self.abort = CancellationToken::new();
        let healed_at = self.way_back().await?;
        if let Some(healed_at) = healed_at {
            let healed = self.status().await;
            sleep(HEALED_HOLD).await;
            let site = self.owner_site(healed.as_ref());
            windows.push(self.window(healed_at + ANNOUNCE_GRACE, Instant::now(), site.as_ref(), &[]));
        }
        self.load.stop().await;
        let Self { recorder, sampler, prober, journal, store, layout, actions, broken, before, .. } = self;
        // Ended here, so that its last period is in the recording.
        drop(sampler);

        let whole = recorder.recording();
        let writes = store.map(|store| store.writes()).unwrap_or_default();
        let mut audit = audit::audit(&whole, &journal.items(), &writes, &windows, fault);
        let observed = Period { from: fault, to: observed_at };
        let probing = prober.map(Prober::finish).transpose().map_err(super::BackendError::new)?;
        let answering = probing.map(|probing| who_answered(&probing, observed));
        let mut timeline = timeline(&layout, &seen, fault, fault_wall, &actions, &of_fault);
        if let Some(answering) = &answering {
            audit.take_hosts(answering, fault);
            let entry = |(at, what)| TimelineEntry { at_ms: since(fault, at), source: "probes".into(), what };
            timeline.extend(hosts::lines(answering, observed).into_iter().map(entry));
            timeline.sort_by_key(|entry| entry.at_ms);
        }
        let mut spans = spans::of_clients(&seen, observed, |at| since(fault, at));
        spans.phases = phases::spans(&of_fault, fault_wall);
        let report = RunReport {
            run: number,
            gap_ms: gaps(layout.ground, &seen, fault, observed_at),
            phases_ms: phases::of(&spans.phases),
            requests: (&seen.requests).into(),
            connects: (&seen.connects).into(),
            attempts: super::report::Attempts::of(&seen.requests, &seen.connects),
            tunnels: gap::tunnels(&seen.tunnels, fault, observed_at).into(),
            answering: answering.map(|answering| hosts::report(&answering, |at| since(fault, at))),
            owner_before: before.owner.as_ref().map(|(node, token)| format!("{node} ({token})")),
            owner_after: after
                .as_ref()
                .and_then(|after| after.owner.as_ref())
                .map(|(n, t)| format!("{n} ({t})")),
            expectations,
            broken,
            // Known to whoever watched the machine.
            machine_stalled_ms: None,
            aborted,
            spans,
            timeline,
            // Known to whoever has the processes.
            logs: Vec::new(),
        };
        Ok((report, audit))
    }

    pub(super) fn tell_now(&mut self, now: &str) {
        let step = self.step.map(|(number, of)| format!("step {number}/{of}: ")).unwrap_or_default();
        (self.tell)(&format!("{step}{now}"), Some(&self.recorder));
    }

    /// Whether somebody wants the drill to end.
    pub(super) fn is_aborted(&self) -> bool {
        self.abort.is_cancelled()
    }

    /// Sleeps and tends the cluster, unless somebody wants the drill to end.
    pub(super) async fn pause(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let nap = sleep(left.min(TEND_EVERY));
            if self.abort.run_until_cancelled(nap).await.is_none() || Instant::now() >= end {
                return;
            }
            self.tend();
        }
    }

    /// Waits for an answer and tends the cluster.
    pub(super) async fn tended<T>(&mut self, mut answer: BoxFuture<'_, T>) -> T {
        loop {
            match timeout(TEND_EVERY, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) => self.tend(),
            }
        }
    }

    async fn wait_settled(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        for condition in [Condition::Answering, Condition::MovesEnded, Condition::ParticipantsBack] {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.wait(condition, left).await && !self.is_aborted() {
                self.broken
                    .push(format!("not so within {within:?} after the last step: {}", condition.as_str()));
            }
        }
    }

    fn owner_site(&self, status: Option<&ClusterStatus>) -> Option<SiteName> {
        let (owner, _) = status?.owner.as_ref()?;
        Some(self.layout.node(owner)?.site.clone())
    }

    /// Sites at which nobody lives who could tell the instances what to announce.
    fn sites_without_nodes(&mut self) -> Vec<SiteName> {
        let mut silent = Vec::new();
        for site in &self.layout.sites {
            let mut nodes = self.layout.nodes_at(site);
            if !nodes.any(|node| self.backend.runs(&ProcessName::Node(node.name.clone()))) {
                silent.push(site.clone());
            }
        }
        silent
    }

    fn window(
        &self,
        from: Instant,
        to: Instant,
        owner_site: Option<&SiteName>,
        silent: &[SiteName],
    ) -> Settled {
        let instances = self.layout.instances.iter().filter(|instance| !silent.contains(&instance.site));
        let expected = instances
            .map(|instance| (instance.name.clone(), self.layout.announced(&instance.site, owner_site)))
            .collect();
        Settled { from, to: to.max(from), expected }
    }

    /// Makes the cluster whole again; says since when it is, or nothing for a new cluster.
    async fn way_back(&mut self) -> Result<Option<Instant>, EngineError> {
        self.tell_now("the way back");
        let within = self.scenario.way_back.within.in_timing(&self.timing);
        if self.scenario.way_back.by == WayBackKind::Rebuild {
            self.rebuild().await?;
            return Ok(None);
        }
        self.backend.mend()?;
        for process in self.backend.processes() {
            self.backend.thaw(&process)?;
            self.backend.start(&process)?;
        }
        let healed = match self.backend.wait_healthy(within).await {
            Ok(()) => self.wait_restored(within).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = healed {
            // Reported as what it is, a broken promise, and the next run gets a new cluster.
            self.broken.push(format!("the cluster did not heal: {error}"));
            self.rebuild().await?;
            return Ok(None);
        }
        if !self.wait(Condition::ParticipantsBack, within).await {
            self.broken.push("not all participants came back after the way back".to_owned());
        }
        Ok(Some(Instant::now()))
    }

    /// What was changed in what lives on is changed back, and then all is well.
    async fn wait_restored(&mut self, within: Duration) -> Result<(), EngineError> {
        if self.redis_refuses {
            self.backend.set_redis_replica(false).await?;
        }
        super::conditions::wait_healthy(self.backend, self.api, within).await?;
        if let Some(spec) = self.spec_before.take() {
            self.ask(|api| api.apply(&spec)).await?;
        }
        Ok(())
    }

    /// A new cluster. Its tokens begin anew, which whoever still looks would take for a step back.
    async fn rebuild(&mut self) -> Result<(), EngineError> {
        self.load.stop().await;
        if let Some(prober) = &self.prober {
            prober.stop();
        }
        self.journal.close();
        if let Some(store) = &self.store {
            store.close();
        }
        self.backend.rebuild().await.map_err(EngineError::from)
    }

    fn look_at_outcome(&mut self, after: Option<&ClusterStatus>) -> Vec<Check> {
        let Some(after) = after else {
            self.broken.push("the cluster could not be asked for its state afterwards".to_owned());
            return Vec::new();
        };
        let moves = super::verdict::moves(&self.journal.items());
        let checks = super::verdict::expectations(
            &self.scenario.expect,
            |node| self.layout.node(node).map(|node| &node.site),
            &self.before,
            after,
            &self.roles.other_site,
            moves,
        );
        self.broken.extend(checks.iter().filter(|check| !check.holds).map(|check| check.line.clone()));
        checks
    }
}

pub(super) async fn arrange_leader(
    place: LeaderPlace,
    api: &dyn ClusterApi,
    layout: &Layout,
    mut status: ClusterStatus,
) -> Result<ClusterStatus, EngineError> {
    let deadline = Instant::now() + LEADER_MAX;
    loop {
        let owner_site =
            status.owner.as_ref().and_then(|(owner, _)| layout.node(owner)).map(|node| &node.site);
        let fits = |name: &twinsite_model::NodeName| {
            let Some(node) = layout.node(name) else { return false };
            match place {
                LeaderPlace::Any => true,
                LeaderPlace::AwayFromOwnerSite => Some(&node.site) != owner_site,
                LeaderPlace::AtOwnerSite => Some(&node.site) == owner_site,
                LeaderPlace::Owner => status.owner.as_ref().is_some_and(|(owner, _)| owner == name),
                LeaderPlace::Witness => node.kind == NodeKind::Witness,
            }
        };
        if status.leader.as_ref().is_some_and(&fits) {
            return Ok(status);
        }
        let target = layout.nodes.iter().map(|node| &node.name).find(|name| fits(name));
        let refused = match target {
            Some(target) => api.lead(target).await.err().map(|error| error.to_string()),
            None => Some("there is no such node".to_owned()),
        };
        sleep(Duration::from_millis(100)).await;
        status = api.status().await.unwrap_or(status);
        if Instant::now() > deadline {
            let leader = status.leader.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            let why = refused.map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(EngineError::Guard(format!(
                "guards.leader: {leader} leads, and it could not be changed{why}"
            )));
        }
    }
}

fn gaps(ground: Ground, seen: &Recording, from: Instant, to: Instant) -> super::GapMs {
    let lasts = |gap: Option<Period>| gap.map(|gap| gap.lasts());
    let connections = lasts(gap::http(&seen.answers, Kind::NewConnection, from, to));
    let keep_alive = lasts(gap::http(&seen.answers, Kind::KeepAlive, from, to));
    let http = match ground {
        Ground::Loopback => connections.max(keep_alive),
        // What a client waits on a connection whose other end fell silent is its own kernel's doing: it asks again after
        // doubled pauses, and learns only then that somebody else is there.
        Ground::Lab => connections,
    };
    super::GapMs {
        http: http.map(whole_ms),
        keep_alive: keep_alive.map(whole_ms),
        websocket: lasts(gap::websocket(&seen.answers, from, to)).map(whole_ms),
    }
}

pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the fault.
pub(crate) fn since(fault: Instant, at: Instant) -> i64 {
    match at.checked_duration_since(fault) {
        Some(after) => whole_ms(after).cast_signed(),
        None => -whole_ms(fault.duration_since(at)).cast_signed(),
    }
}

pub(crate) fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(whole_ms(since))
}

fn timeline(
    layout: &Layout,
    seen: &Recording,
    fault: Instant,
    fault_wall: WallTime,
    actions: &[(Instant, String)],
    journal: &[WatchItem],
) -> Vec<TimelineEntry> {
    let mut entries = Vec::new();
    for (at, what) in actions {
        entries.push(TimelineEntry { at_ms: since(fault, *at), source: "drill".into(), what: what.clone() });
    }
    let name = |id| {
        let node = layout.nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| format!("node {id}"), |node| node.name.to_string())
    };
    for item in journal {
        if let Some(what) = phases::in_words(&item.event, name) {
            let at_ms = item.at.0.cast_signed() - fault_wall.0.cast_signed();
            entries.push(TimelineEntry { at_ms, source: "cluster".into(), what });
        }
    }
    for (at, what) in phases::who_answered(&seen.answers, fault) {
        entries.push(TimelineEntry { at_ms: since(fault, at), source: "clients".into(), what });
    }
    entries.sort_by_key(|entry| entry.at_ms);
    entries
}
