//! The journal of calls at a provider. At most one errand for an address is under way, and none under an older token
//! than the owner's.

use super::{Effect, Handled, Refusal};
use crate::command::Command;
use crate::errand::{Errand, ErrandEnd};
use crate::event::Event;
use crate::ids::{ErrandId, FloatingIpName};
use crate::state::{FloatingIpState, State};

impl State {
    /// Commands about errands.
    pub(super) fn drive_errand(&mut self, command: &Command) -> Handled {
        match command {
            Command::SendErrand { ip, .. } => self.send_errand(ip, command),
            Command::RecallErrand { ip, errand } => {
                let under_way = under_way(self.errands_of(ip)?, *errand)?;
                if under_way.recalled {
                    return Ok((Effect::Unchanged, Vec::new()));
                }
                under_way.recalled = true;
                Ok((Effect::Done, vec![Event::ErrandRecalled { ip: ip.clone(), errand: *errand }]))
            }
            Command::EndErrand { ip, errand, end } => {
                let entry = self.errands_of(ip)?;
                let known = under_way(entry, *errand)?;
                if *end == ErrandEnd::WaitedOut && !known.recalled {
                    return Err(Refusal::ErrandStands(*errand));
                }
                entry.errand = None;
                Ok((Effect::Done, vec![Event::ErrandEnded { ip: ip.clone(), errand: *errand, end: *end }]))
            }
            _ => unreachable!("carry_out sends only the commands listed above"),
        }
    }

    fn errands_of(&mut self, ip: &FloatingIpName) -> Result<&mut FloatingIpState, Refusal> {
        self.floating_ips.get_mut(ip).ok_or_else(|| Refusal::UnknownFloatingIp(ip.clone()))
    }

    fn send_errand(&mut self, ip: &FloatingIpName, command: &Command) -> Handled {
        let Command::SendErrand { by, incarnation, token, to, within, .. } = command else {
            unreachable!("called for SendErrand only");
        };
        let now = self.wall;
        let named = self.spec.as_ref().and_then(|spec| spec.floating_ip(ip));
        if !named.is_some_and(|ip| ip.provider.is_routed()) {
            return Err(Refusal::UnknownFloatingIp(ip.clone()));
        }
        if self.nodes.get(by).map(|life| life.incarnation) != Some(*incarnation) {
            return Err(Refusal::UnknownNode(*by));
        }
        let entry = self.errands_of(ip)?;
        if let Some(errand) = &entry.errand {
            return Err(Refusal::ErrandUnderWay(errand.id));
        }
        let owner = entry.owner.as_ref().map(|owner| (owner.token, owner.node));
        if owner != Some((*token, *to)) {
            let current = owner.map(|(token, _)| token);
            return Err(Refusal::OwnerChanged { given: Some(*token), current });
        }
        entry.errands = ErrandId(entry.errands.0 + 1);
        let errand = Errand {
            id: entry.errands,
            by: *by,
            incarnation: *incarnation,
            token: *token,
            to: *to,
            within: *within,
            since: now,
            recalled: false,
        };
        entry.errand = Some(errand.clone());
        Ok((Effect::Done, vec![Event::ErrandSent { ip: ip.clone(), errand }]))
    }
}

fn under_way(entry: &mut FloatingIpState, id: ErrandId) -> Result<&mut Errand, Refusal> {
    entry.errand.as_mut().filter(|errand| errand.id == id).ok_or(Refusal::NoSuchErrand(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Proposal;
    use crate::ids::{NodeId, Token};
    use crate::samples;
    use crate::spec::ProviderKind;
    use crate::state::Format;
    use crate::time::WallTime;
    use std::sync::Arc;
    use std::time::Duration;

    struct Cluster {
        state: State,
        ip: FloatingIpName,
    }

    impl Cluster {
        /// Node 1 owns an address that a provider routes.
        fn new() -> Self {
            let mut state = samples::rich_state();
            state.format = Format::NEWEST;
            let ip: FloatingIpName = "public".parse().unwrap();
            let mut spec = samples::spec();
            let named = spec.floating_ips.iter_mut().find(|named| named.name == ip).unwrap();
            named.provider = ProviderKind::Ovh;
            state.spec = Some(Arc::new(spec));
            Self { state, ip }
        }

        fn apply(&mut self, command: Command) -> Result<Effect, Refusal> {
            let at = self.state.revision.0 + 1;
            self.state.apply(at, &Proposal::by_controller(WallTime(0), command)).result
        }

        fn send(&mut self, token: Token, to: NodeId) -> Result<Effect, Refusal> {
            let by = *self.state.nodes.keys().next().unwrap();
            let incarnation = self.state.nodes[&by].incarnation;
            let (ip, within) = (self.ip.clone(), Duration::from_secs(10));
            self.apply(Command::SendErrand { ip, by, incarnation, token, to, within })
        }

        fn owner(&self) -> (Token, NodeId) {
            let owner = self.state.owner(&self.ip).unwrap();
            (owner.token, owner.node)
        }

        fn end(&mut self, errand: u64, end: ErrandEnd) -> Result<Effect, Refusal> {
            self.apply(Command::EndErrand { ip: self.ip.clone(), errand: ErrandId(errand), end })
        }
    }

    #[test]
    fn one_errand_at_a_time_for_the_owners_token_and_its_node() {
        let mut cluster = Cluster::new();
        let (token, owner) = cluster.owner();
        let older = Token::new(token.generation.0, token.epoch.0 - 1);
        assert!(matches!(cluster.send(older, owner), Err(Refusal::OwnerChanged { .. })));
        assert!(matches!(cluster.send(token, NodeId(99)), Err(Refusal::OwnerChanged { .. })));
        assert_eq!(cluster.send(token, owner), Ok(Effect::Done));
        assert_eq!(cluster.send(token, owner), Err(Refusal::ErrandUnderWay(ErrandId(1))));
        assert_eq!(cluster.end(2, ErrandEnd::Accepted), Err(Refusal::NoSuchErrand(ErrandId(2))));
        assert_eq!(cluster.end(1, ErrandEnd::Accepted), Ok(Effect::Done));
        assert_eq!(cluster.end(1, ErrandEnd::Accepted), Err(Refusal::NoSuchErrand(ErrandId(1))));
        assert_eq!(cluster.send(token, owner), Ok(Effect::Done));
        assert_eq!(cluster.state.floating_ips[&cluster.ip].errands, ErrandId(2), "numbers do not come back");
    }

    #[test]
    fn what_is_not_recalled_is_not_waited_out() {
        let mut cluster = Cluster::new();
        let (token, owner) = cluster.owner();
        cluster.send(token, owner).unwrap();
        assert_eq!(cluster.end(1, ErrandEnd::WaitedOut), Err(Refusal::ErrandStands(ErrandId(1))));
        let recall = Command::RecallErrand { ip: cluster.ip.clone(), errand: ErrandId(1) };
        assert_eq!(cluster.apply(recall.clone()), Ok(Effect::Done));
        assert_eq!(cluster.apply(recall), Ok(Effect::Unchanged));
        assert_eq!(cluster.end(1, ErrandEnd::WaitedOut), Ok(Effect::Done));
    }

    #[test]
    fn an_address_that_no_provider_routes_and_an_older_format_know_no_errands() {
        let mut cluster = Cluster::new();
        let (token, owner) = cluster.owner();
        cluster.state.format = Format::FIRST;
        assert!(matches!(cluster.send(token, owner), Err(Refusal::FormatTooNew(_))));
        cluster.state.format = Format::NEWEST;
        cluster.state.spec = Some(Arc::new(samples::spec()));
        assert!(matches!(cluster.send(token, owner), Err(Refusal::UnknownFloatingIp(_))));
    }
}
