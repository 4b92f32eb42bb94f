//! A node on errands, with a real log and a provider that does what the test says.

use super::*;
use crate::alone::{Lead, Nobody, becomes};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::watch;
use twinsite_floating_ip::Work;
use twinsite_floating_ip::routed::Routing;
use twinsite_model::spec::{HumanDuration, ProviderKind};
use twinsite_model::{Command, Fence, Format, OperationKind, Reason, Token};

const INCARNATION: Incarnation = Incarnation(7);
/// Nothing is given up while a test runs.
const LONG: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Told {
    to: Mutex<Option<NodeId>>,
    /// How often it was looked at.
    looks: AtomicU32,
    calls: Mutex<Vec<ErrandId>>,
    /// It says no.
    refuses: AtomicBool,
    /// It says nothing as long as this is set.
    hangs: watch::Sender<bool>,
}

impl Told {
    fn calls(&self) -> Vec<ErrandId> {
        self.calls.lock().unwrap().clone()
    }
}

impl RoutedApi for Told {
    fn routing(&self) -> Work<'_, Result<Routing, RoutedError>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let to = *self.to.lock().unwrap();
        Box::pin(std::future::ready(Ok(Routing { to, busy: false })))
    }

    fn route<'a>(&'a self, errand: &'a Errand, until: BootTime) -> Work<'a, Result<(), RoutedError>> {
        Box::pin(async move {
            assert!(twinsite_floating_ip::boot_now() < until, "its time is over");
            self.calls.lock().unwrap().push(errand.id);
            let mut hangs = self.hangs.subscribe();
            drop(hangs.wait_for(|hangs| !hangs).await);
            if self.refuses.load(Ordering::Relaxed) {
                return Err(RoutedError::Refused("no".to_owned()));
            }
            *self.to.lock().unwrap() = Some(errand.to);
            Ok(())
        })
    }
}

/// The first node owns a routed address and looks at its provider.
struct Away {
    lead: Lead,
    told: Arc<Told>,
    errands: Errands,
    stop: CancellationToken,
}

impl Away {
    async fn start() -> Self {
        let lead = lead().await;
        lead.agree_on_spec().await;
        lead.agree(Command::RaiseFormat { format: Format::NEWEST }).await;
        let (ip, me) = (lead.ip(), lead.spec.nodes[0].id);
        let begun = lead
            .agree(Command::BeginOperation {
                ip: ip.clone(),
                kind: OperationKind::Placement,
                reason: Reason::NoOwner,
                evidence: Vec::new(),
                from: None,
                target: me,
                target_incarnation: INCARNATION,
                overrides: Vec::new(),
            })
            .await;
        let twinsite_model::Effect::Began(operation) = begun else { panic!("{begun:?}") };
        let (fence, detail) = (Fence::NoOwner, String::new());
        lead.agree(Command::CompleteFence { ip: ip.clone(), operation, fence, detail }).await;
        lead.agree(Command::Assign { ip: ip.clone(), operation }).await;
        Self::run(lead)
    }

    fn run(lead: Lead) -> Self {
        let (ip, me) = (lead.ip(), lead.spec.nodes[0].id);
        let (told, errands, stop) = (Arc::<Told>::default(), Errands::default(), CancellationToken::new());
        let runner = Runner {
            ip,
            me,
            incarnation: INCARNATION,
            raft: lead.raft.clone(),
            peers: Nobody,
            api: Arc::clone(&told) as Arc<dyn RoutedApi>,
            errands: errands.clone(),
            changed: Arc::default(),
        };
        tokio::spawn(runner.run(stop.clone()));
        Self { lead, told, errands, stop }
    }

    fn token(&self) -> Token {
        self.lead.raft.state().owner(&self.lead.ip()).unwrap().token
    }

    /// Sends the node on an errand that may take so long.
    async fn send(&self, within: Duration) -> ErrandId {
        let (ip, me) = (self.lead.ip(), self.lead.spec.nodes[0].id);
        let token = self.token();
        let command = Command::SendErrand { ip, by: me, incarnation: INCARNATION, token, to: me, within };
        self.lead.agree(command).await;
        self.lead.raft.state().floating_ips[&self.lead.ip()].errands
    }

    fn said(&self) -> Said {
        self.errands.of(&self.lead.ip())
    }

    async fn ends(&self, errand: ErrandId, end: ErrandEnd) {
        becomes("its end", || self.said().errand == Some((errand, end))).await;
    }

    async fn end(&self, errand: ErrandId, end: ErrandEnd) {
        self.lead.agree(Command::EndErrand { ip: self.lead.ip(), errand, end }).await;
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn lead() -> Lead {
    Lead::start(INCARNATION, |spec| {
        spec.nodes.truncate(1);
        spec.floating_ips[0].provider = ProviderKind::Ovh;
        spec.floating_ips[0].interface = None;
        spec.timing.provider_call = Some(HumanDuration(Duration::from_millis(400)));
    })
    .await
}

/// A look before that would have the default patience: for ten seconds nothing else would be seen.
#[tokio::test]
async fn nothing_is_looked_at_before_there_is_a_specification() {
    let away = Away::run(lead().await);
    // On one thread, whatever was ready before this is done then.
    tokio::task::yield_now().await;
    assert_eq!(away.told.looks.load(Ordering::Relaxed), 0);
    away.lead.agree_on_spec().await;
    becomes("a look", || away.said().routing.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errand_is_one_call_and_what_is_seen_afterwards_says_so() {
    let away = Away::start().await;
    becomes("a look", || away.said().routing.is_some_and(|seen| seen.to.is_none())).await;
    let errand = away.send(LONG).await;
    away.ends(errand, ErrandEnd::Accepted).await;
    assert_eq!(away.told.calls(), [errand]);
    // Looks until the end is agreed say nothing about what came of it.
    assert!(away.said().routing.is_none_or(|seen| seen.after < errand));
    away.end(errand, ErrandEnd::Accepted).await;
    let me = away.lead.spec.nodes[0].id;
    let seen = || away.said().routing.is_some_and(|seen| seen.after == errand && seen.to == Some(me));
    becomes("a look after it", seen).await;
    assert_eq!(away.told.calls(), [errand], "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_given_up_in_time_and_a_refusal_is_told() {
    let away = Away::start().await;
    away.told.hangs.send_replace(true);
    let first = away.send(Duration::from_millis(300)).await;
    away.ends(first, ErrandEnd::Unanswered).await;
    away.end(first, ErrandEnd::Unanswered).await;
    away.told.hangs.send_replace(false);
    away.told.refuses.store(true, Ordering::Relaxed);
    let second = away.send(LONG).await;
    away.ends(second, ErrandEnd::Refused).await;
    assert_eq!(away.told.calls(), [first, second]);
}

/// The node is told of an errand late, when it has long been recalled: nothing is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recalled_or_lost_its_owner_is_not_begun() {
    let away = Away::start().await;
    away.told.hangs.send_replace(true);
    let first = away.send(LONG).await;
    becomes("the call", || away.told.calls() == [first]).await;
    // While it is away, another errand is sent and recalled: the log allows it, once the first has its end.
    away.end(first, ErrandEnd::Unanswered).await;
    let second = away.send(LONG).await;
    away.lead.agree(Command::RecallErrand { ip: away.lead.ip(), errand: second }).await;
    away.told.hangs.send_replace(false);
    away.ends(second, ErrandEnd::NotMade).await;
    away.end(second, ErrandEnd::NotMade).await;

    away.told.hangs.send_replace(true);
    let third = away.send(LONG).await;
    becomes("the call", || away.told.calls().contains(&third)).await;
    away.end(third, ErrandEnd::Unanswered).await;
    let fourth = away.send(LONG).await;
    // The owner loses its right to the address.
    let ip = away.lead.ip();
    let operation = away.lead.raft.state().floating_ips[&ip].operation.as_ref().map(|running| running.id);
    away.lead.finish(operation.unwrap()).await;
    away.lead
        .agree(Command::BeginOperation {
            ip,
            kind: OperationKind::Failover,
            reason: Reason::Operator,
            evidence: Vec::new(),
            from: Some(away.token()),
            target: away.lead.spec.nodes[0].id,
            target_incarnation: INCARNATION,
            overrides: Vec::new(),
        })
        .await;
    away.told.hangs.send_replace(false);
    away.ends(fourth, ErrandEnd::NotMade).await;
    let called: BTreeSet<_> = away.told.calls().into_iter().collect();
    assert_eq!(called, BTreeSet::from([first, third]));
    assert_eq!(away.told.calls().len(), 2);
}
