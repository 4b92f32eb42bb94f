//! Who answers for the addresses, looked at whenever anything has happened anywhere.

use super::node::Node;
use super::oracle::Oracle;
use crate::clock::TrueTime;
use crate::trace::Trace;
use crate::violation::Rule;
use std::collections::BTreeMap;
use twinsite_model::{FloatingIpName, NodeId, Token};

/// The memory of who answered.
#[derive(Default)]
pub(super) struct Addresses {
    answering: BTreeMap<FloatingIpName, Option<(NodeId, Token)>>,
    newest: BTreeMap<FloatingIpName, Token>,
    /// How often somebody began to answer.
    pub(super) taken_over: u64,
}

impl Addresses {
    pub(super) fn new(ips: Vec<FloatingIpName>) -> Self {
        Self { answering: ips.into_iter().map(|ip| (ip, None)).collect(), ..Self::default() }
    }

    /// At most one node answers for an address at any instant, and none under an older token than one before it. Nobody
    /// begins to answer between two instants at which something happens.
    pub(super) fn look(&mut self, nodes: &[Node], now: TrueTime, trace: &mut Trace, oracle: &mut Oracle) {
        for (ip, known) in &mut self.answering {
            let mut answering = None;
            for node in nodes {
                let Some((token, _)) = node.kernel.answers(ip) else { continue };
                if node.kernel.is_excused() {
                    continue;
                }
                if let Some((other, under)) = answering.replace((node.id, token)) {
                    let detail = format!("{ip}: {other} answers under {under}, {} under {token}", node.id);
                    oracle.report(Rule::OneAnswer, now, detail);
                }
            }
            if answering == *known {
                continue;
            }
            *known = answering;
            let Some((node, token)) = answering else {
                trace.note(now, || format!("nobody answers for {ip}"));
                continue;
            };
            trace.mix(&[now, node.0, token.epoch.0]);
            trace.note(now, || format!("{node} answers for {ip} under {token}"));
            self.taken_over += 1;
            let newest = self.newest.entry(ip.clone()).or_insert(token);
            if token < *newest {
                let detail = format!("{ip}: {node} answers under {token} after {newest}");
                oracle.report(Rule::TokensGrow, now, detail);
            }
            *newest = token.max(*newest);
        }
    }

    /// Who answers for an address.
    pub(super) fn answers(&self, ip: &FloatingIpName) -> Option<(NodeId, Token)> {
        self.answering.get(ip).copied().flatten()
    }

    /// All addresses.
    pub(super) fn all(&self) -> impl Iterator<Item = &FloatingIpName> {
        self.answering.keys()
    }
}
