//! A provider that routes addresses, as the public contracts describe them: a call is taken and becomes a task, the
//! task works for a while, and whoever called last wins. And as their users describe them: tasks that fail, hang, or
//! come to pass a second time, answers that are lost, people who move an address at the console.

use super::kernel::Kernel;
use crate::clock::{TrueTime, nanos};
use crate::runtime::{Executor, ProcessId, SimRuntime, spawn};
use crate::trace::Trace;
use crate::violation::{Rule, Violation};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use twinsite_agents::Machine;
use twinsite_consensus::AsyncRuntime;
use twinsite_floating_ip::Work;
use twinsite_floating_ip::routed::{RoutedApi, RoutedError, Routing};
use twinsite_model::{BootTime, Errand, ErrandId, FloatingIpName, NodeId, Token};

/// How a provider behaves. Chances are out of a hundred.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// How long the way there, or back, takes at most.
    pub(super) way_max: Duration,
    /// How long it takes to be let in at most; a call that is given up meanwhile is none.
    pub(super) connect_max: Duration,
    /// How long a task works at most.
    pub(super) task_max: Duration,
    /// Answers that are lost.
    pub(super) lost: u32,
    /// Calls that are refused for no reason.
    pub(super) refused: u32,
    /// Tasks that end without having done anything.
    pub(super) fail: u32,
    /// Tasks that hang until the provider's people end them.
    pub(super) hang: u32,
    /// How restless people are at its console: of a hundred moments at which something could be asked of a node, how many
    /// see an address moved there.
    pub(super) restless: u32,
    /// Tasks that come to pass once more, later, without being shown.
    pub(super) twice: u32,
}

/// How long people of the provider need to end a task that hangs, at most.
const ENDED_BY_PEOPLE: Duration = Duration::from_secs(3);

/// How long what was done at the console takes, at most.
const BY_HAND_MAX: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Address {
    to: Option<NodeId>,
    /// Where it was routed before, and until when.
    before: Vec<(TrueTime, NodeId)>,
    /// Tasks that are not finished.
    tasks: u32,
    /// The newest errand that was sent here, by its token and number.
    newest: Option<(Token, ErrandId)>,
    /// Calls that were sent and have neither an answer nor been given up, with the clock and the time by which they
    /// are over.
    under_way: BTreeMap<ErrandId, (Kernel, BootTime)>,
}

/// What a task has done.
#[derive(Debug, Clone, Copy)]
enum Done {
    RoutedTo(NodeId),
    RoutedElsewhere,
    Nothing,
}

impl Address {
    fn route(&mut self, to: Option<NodeId>) {
        self.before.extend(self.to.map(|node| (Executor::now(), node)));
        self.to = to;
    }
}

/// What came up.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) tasks_failed: u64,
    pub(super) tasks_hung: u64,
    pub(super) tasks_twice: u64,
    pub(super) answers_lost: u64,
    pub(super) conflicts: u64,
}

struct Inside {
    habits: Habits,
    addresses: BTreeMap<FloatingIpName, Address>,
    /// The nodes from which nobody gets through.
    away_from: BTreeSet<NodeId>,
    well: bool,
    random: fastrand::Rng,
    violation: Option<Violation>,
    counts: Counts,
    told: Vec<String>,
}

/// The provider. Clones are the same one.
#[derive(Clone)]
pub(super) struct SimProvider(Arc<Mutex<Inside>>);

impl SimProvider {
    pub(super) fn new(habits: Habits, ips: impl IntoIterator<Item = FloatingIpName>) -> Self {
        let addresses = ips.into_iter().map(|ip| (ip, Address::default())).collect();
        Self(Arc::new(Mutex::new(Inside {
            habits,
            addresses,
            away_from: BTreeSet::new(),
            well: false,
            random: Executor::random(),
            violation: None,
            counts: Counts::default(),
            told: Vec::new(),
        })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it routes any address.
    pub(super) fn is_used(&self) -> bool {
        !self.inside().addresses.is_empty()
    }

    /// Whether it routes this address.
    pub(super) fn routes(&self, ip: &FloatingIpName) -> bool {
        self.inside().addresses.contains_key(ip)
    }

    /// Where it routes an address, and whether that is about to change.
    pub(super) fn routing(&self, ip: &FloatingIpName) -> Option<Routing> {
        let inside = self.inside();
        let address = inside.addresses.get(ip)?;
        Some(Routing { to: address.to, busy: address.tasks > 0 })
    }

    /// Whether it routed an address to one of these nodes at any time since then.
    pub(super) fn has_routed(
        &self,
        ip: &FloatingIpName,
        since: TrueTime,
        is_one: impl Fn(NodeId) -> bool,
    ) -> bool {
        let inside = self.inside();
        let Some(address) = inside.addresses.get(ip) else { return false };
        let mut before = address.before.iter().filter(|(until, _)| *until >= since);
        address.to.is_some_and(&is_one) || before.any(|(_, node)| is_one(*node))
    }

    /// Nobody gets through from these nodes, or everybody does.
    pub(super) fn set_away_from(&self, nodes: BTreeSet<NodeId>) {
        self.inside().away_from = nodes;
    }

    /// Somebody moves an address at the console.
    pub(super) fn moved_by_hand(&self, to: Option<NodeId>) {
        let mut inside = self.inside();
        let ips: Vec<_> = inside.addresses.keys().cloned().collect();
        for ip in ips {
            let works = inside.random.u64(..=nanos(BY_HAND_MAX));
            if let Some(address) = inside.addresses.get_mut(&ip) {
                address.tasks += 1;
            }
            let provider = self.clone();
            drop(spawn(ProcessId::WORLD, async move {
                SimRuntime::sleep(Duration::from_nanos(works)).await;
                provider.task_ends(&ip, to.map_or(Done::RoutedElsewhere, Done::RoutedTo));
            }));
        }
    }

    /// From here on everything works, and what was begun ends.
    pub(super) fn heal(&self) {
        let mut inside = self.inside();
        inside.well = true;
        inside.away_from.clear();
    }

    /// What must not have happened, what came up, and what is to be put down.
    pub(super) fn look(&self, now: TrueTime, trace: &mut Trace) -> Option<Violation> {
        let mut inside = self.inside();
        for line in std::mem::take(&mut inside.told) {
            trace.note(now, || line);
        }
        inside.violation.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        self.inside().counts
    }

    /// The way to it from a node on this machine, for an address.
    pub(super) fn api(&self, ip: FloatingIpName, from: NodeId, kernel: Kernel) -> Arc<dyn RoutedApi> {
        Arc::new(Api { provider: self.clone(), ip, from, kernel })
    }

    /// A call arrives. Tasks work in nobody's process.
    fn arrives(&self, ip: &FloatingIpName, errand: &Errand) -> Result<(), RoutedError> {
        let mut inside = self.inside();
        let well = inside.well;
        let Inside { habits, addresses, random, counts, .. } = &mut *inside;
        let Some(address) = addresses.get_mut(ip) else {
            return Err(RoutedError::Refused("no such address".to_owned()));
        };
        let mut happens = |chance| !well && random.u32(..100) < chance;
        if happens(habits.refused) {
            return Err(RoutedError::Refused("not now".to_owned()));
        }
        if address.tasks > 0 {
            counts.conflicts += 1;
            return Err(RoutedError::Refused("another task works on this address".to_owned()));
        }
        let (fails, hangs, twice) = (happens(habits.fail), happens(habits.hang), happens(habits.twice));
        counts.tasks_failed += u64::from(fails);
        counts.tasks_hung += u64::from(hangs);
        counts.tasks_twice += u64::from(twice && !fails && !hangs);
        address.tasks += 1;
        let works = random.u64(..=nanos(if hangs { ENDED_BY_PEOPLE } else { habits.task_max }));
        let again = random.u64(..=nanos(2 * habits.task_max));
        let (provider, ip, to) = (self.clone(), ip.clone(), errand.to);
        drop(inside);
        drop(spawn(ProcessId::WORLD, async move {
            SimRuntime::sleep(Duration::from_nanos(works)).await;
            provider.task_ends(&ip, if fails || hangs { Done::Nothing } else { Done::RoutedTo(to) });
            if twice && !fails && !hangs {
                SimRuntime::sleep(Duration::from_nanos(again)).await;
                let mut inside = provider.inside();
                let well = inside.well;
                if let Some(address) = inside.addresses.get_mut(&ip).filter(|_| !well) {
                    address.route(Some(to));
                }
            }
        }));
        Ok(())
    }

    fn task_ends(&self, ip: &FloatingIpName, done: Done) {
        let mut inside = self.inside();
        let Some(address) = inside.addresses.get_mut(ip) else { return };
        address.tasks -= 1;
        match done {
            Done::Nothing => {}
            Done::RoutedTo(node) => address.route(Some(node)),
            Done::RoutedElsewhere => address.route(None),
        }
        let told = match done {
            Done::RoutedTo(node) => format!("the provider routes {ip} to {node}"),
            Done::RoutedElsewhere => format!("the provider routes {ip} to none of the nodes"),
            Done::Nothing => format!("a task of the provider for {ip} has done nothing"),
        };
        inside.told.push(told);
    }

    /// A call is sent. No older one is sent after it, and no other one is under way.
    fn is_sent(&self, ip: &FloatingIpName, errand: &Errand, kernel: &Kernel, until: BootTime) {
        let mut inside = self.inside();
        inside.counts.calls += 1;
        let Errand { id, by, to, token, .. } = errand;
        inside.told.push(format!("{by} calls the provider: {ip} to {to} (errand {id})"));
        let Some(address) = inside.addresses.get_mut(ip) else { return };
        let other = address.under_way.iter().find(|(_, (kernel, until))| {
            !kernel.is_excused() && Executor::boot(kernel.machine()).is_some_and(|now| now < *until)
        });
        let other =
            other.map(|(other, _)| format!("{ip}: {by} makes call {id} while call {other} is under way"));
        let newer = address.newest.filter(|newest| *newest >= (*token, *id) && !kernel.is_excused());
        let newer = newer.map(|(after, other)| {
            format!("{ip}: {by} makes call {id} under {token} after call {other} under {after}")
        });
        address.newest = address.newest.max(Some((*token, *id)));
        address.under_way.insert(*id, (kernel.clone(), until));
        let wrong = newer.map(|detail| (Rule::TokensGrow, detail));
        if let Some((rule, detail)) = wrong.or(other.map(|detail| (Rule::OneCall, detail))) {
            let at_seconds = Executor::now() as f64 / 1e9;
            inside.violation.get_or_insert(Violation { rule, at_seconds, detail });
        }
    }

    fn is_over(&self, ip: &FloatingIpName, id: ErrandId) {
        if let Some(address) = self.inside().addresses.get_mut(ip) {
            address.under_way.remove(&id);
        }
    }

    fn time(&self, max: impl FnOnce(&Habits) -> Duration) -> Duration {
        let mut inside = self.inside();
        let max = if inside.well { Duration::from_millis(5) } else { max(&inside.habits) };
        Duration::from_nanos(inside.random.u64(..=nanos(max)))
    }

    fn loses_an_answer(&self) -> bool {
        let mut inside = self.inside();
        let lost = inside.habits.lost;
        let lost = !inside.well && inside.random.u32(..100) < lost;
        inside.counts.answers_lost += u64::from(lost);
        lost
    }
}

/// The way to the provider from one node.
struct Api {
    provider: SimProvider,
    ip: FloatingIpName,
    from: NodeId,
    kernel: Kernel,
}

impl Api {
    /// Until it is let in. Who gives up until then has not called.
    async fn connect(&self) {
        SimRuntime::sleep(self.provider.time(|habits| habits.connect_max)).await;
        if self.provider.inside().away_from.contains(&self.from) {
            std::future::pending::<()>().await;
        }
    }
}

/// A call, for as long as its node waits for the answer.
struct UnderWay<'a>(&'a Api, ErrandId);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.provider.is_over(&self.0.ip, self.1);
    }
}

impl RoutedApi for Api {
    fn routing(&self) -> Work<'_, Result<Routing, RoutedError>> {
        Box::pin(async move {
            self.connect().await;
            SimRuntime::sleep(self.provider.time(|habits| habits.way_max)).await;
            let seen = self.provider.routing(&self.ip);
            SimRuntime::sleep(self.provider.time(|habits| habits.way_max)).await;
            seen.ok_or_else(|| RoutedError::Refused("no such address".to_owned()))
        })
    }

    fn route<'a>(&'a self, errand: &'a Errand, until: BootTime) -> Work<'a, Result<(), RoutedError>> {
        Box::pin(async move {
            self.connect().await;
            if SimRuntime::boot_now() >= until {
                return Err(RoutedError::Refused("too late to be sent".to_owned()));
            }
            self.provider.is_sent(&self.ip, errand, &self.kernel, until);
            let _under_way = UnderWay(self, errand.id);
            // From here on it is out of the node's hands, whatever becomes of the node.
            let (provider, ip, errand) = (self.provider.clone(), self.ip.clone(), errand.clone());
            let (way, back) =
                (provider.time(|habits| habits.way_max), provider.time(|habits| habits.way_max));
            let (tell, told) = oneshot::channel();
            drop(spawn(ProcessId::WORLD, async move {
                SimRuntime::sleep(way).await;
                let answer = provider.arrives(&ip, &errand);
                SimRuntime::sleep(back).await;
                if !provider.loses_an_answer() {
                    let _gone = tell.send(answer);
                }
            }));
            match told.await {
                Ok(answer) => answer,
                Err(_) => Err(RoutedError::Unanswered("the connection broke".to_owned())),
            }
        })
    }
}
