//! Keeps the `announcedIp` of this site's meeting instances right, from what is observed and never from what is
//! intended.

use super::run::Shared;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use twinsite_announce::{Announcement, Announcer, FloatingObserved, Reconciled, decide};
use twinsite_consensus::TokioRuntime;
use twinsite_health::{OutsideAnswer, ReadBack};
use twinsite_model::{ClusterSpec, FloatingIpName, State, Token, UpstreamName};

/// How often files are compared with what they should hold, if nothing happens.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// A handle to the delivery.
#[derive(Clone)]
pub struct Announcing {
    again: Arc<Notify>,
    read_back: Arc<ReadBack>,
    instances: Arc<Vec<UpstreamName>>,
}

impl Announcing {
    /// Delivers to the instances of this node's configuration.
    pub fn new(read_back: Arc<ReadBack>, instances: Vec<UpstreamName>) -> Self {
        Self { again: Arc::default(), read_back, instances: Arc::new(instances) }
    }

    /// Something changed that an announcement may follow from.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    /// Follows a new specification.
    pub fn configure(&self, spec: &ClusterSpec) {
        let mine = spec.upstreams.iter().filter(|upstream| self.instances.contains(&upstream.name));
        self.read_back
            .configure(mine.map(|upstream| (upstream.name.clone(), upstream.address.clone())).collect());
    }

    /// Delivers until cancelled.
    pub async fn run(
        self,
        shared: Arc<Shared>,
        announcer: Announcer,
        mut outside: watch::Receiver<Arc<std::collections::BTreeMap<FloatingIpName, OutsideAnswer>>>,
        token: Arc<Mutex<Token>>,
        stop: CancellationToken,
    ) {
        let mut announcer = Some(announcer);
        loop {
            let wanted = wanted(&shared, &outside.borrow_and_update());
            if let Some(wanted) = wanted
                && let Some(mut writer) = announcer.take()
            {
                let written = tokio::task::spawn_blocking(move || {
                    let done = writer.reconcile(&wanted);
                    (writer, wanted, done)
                });
                let Ok((writer, wanted, done)) = written.await else { return }; // only at the end of the process
                announcer = Some(writer);
                self.note(&wanted, &done, &token);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.again.notified() => {}
                Ok(()) = outside.changed() => {}
                () = tokio::time::sleep(COMPARE_EVERY) => {}
            }
        }
    }

    fn note(&self, wanted: &Announcement, done: &[Reconciled], token: &Mutex<Token>) {
        let before =
            std::mem::replace(&mut *token.lock().unwrap_or_else(PoisonError::into_inner), wanted.token);
        // Another node of this site may deliver it first.
        let mut changed = before != wanted.token;
        for outcome in done {
            match &outcome.result {
                Ok(wrote) => changed |= *wrote,
                Err(error) => {
                    tracing::warn!(upstream = %outcome.upstream, %error, "announcedIp not delivered");
                }
            }
        }
        if changed {
            tracing::info!(address = %wanted.address, token = %wanted.token, "announcedIp is to be");
            self.read_back.read_soon();
        }
    }
}

/// What the instances of this site should announce, by what is observed now. `None`: nothing can be told.
fn wanted(
    shared: &Shared,
    outside: &std::collections::BTreeMap<FloatingIpName, OutsideAnswer>,
) -> Option<Announcement> {
    let state = shared.raft.state();
    let spec = state.spec.as_ref()?;
    let site = spec.site(&spec.node(shared.me)?.site)?;
    let cut_off = shared.quorum.age::<TokioRuntime>().is_some_and(|age| age > spec.timing().lease);
    let observed = spec.floating_ips.iter().filter_map(|ip| {
        let held = shared.hands.of(&ip.name).and_then(|hands| hands.observe().attached);
        let outside = outside.get(&ip.name).map(|answer| answer.for_cluster(&spec.cluster));
        let seen = match (held, outside) {
            (Some(token), _) => Some((token, true)),
            (None, Some(OutsideAnswer::Answered { node, token, .. })) => {
                let there = spec.node(node).map(|node| &node.site);
                Some((token, there == Some(&site.name)))
            }
            // Whoever holds it renews through a quorum. Nobody answers here, and no quorum was heard of for a whole
            // lease: this site is cut off, and whether or not another one holds it by now, this one does not.
            (None, Some(OutsideAnswer::Silent { .. })) if cut_off => {
                Some((state.owner(&ip.name).map_or_else(Token::default, |owner| owner.token), false))
            }
            (None, _) => None,
        };
        let (token, at_this_site) = seen?;
        Some(FloatingObserved {
            address: ip.address,
            token,
            at_this_site,
            fresh: is_newest(&state, &ip.name, token),
        })
    });
    decide(site.announce, site.announced_ip, &observed.collect::<Vec<_>>())
}

/// An answer under an older token than the agreed one is on its way out.
fn is_newest(state: &State, ip: &FloatingIpName, token: Token) -> bool {
    state.owner(ip).is_none_or(|owner| token >= owner.token)
}
