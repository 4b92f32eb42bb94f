//! The kernel's dead-man: tables of our own in the kernel's packet filter, made light for a moment at a time.
//!
//! Everything is one transaction or another, and each that lights an address names the generation of the rule set that
//! it was made for: if anybody has changed any rule since we looked (`nft flush ruleset`, a firewall's restart), the
//! kernel refuses it, we look at our own rules, and only if they are all there is the address lit.

use super::rules::{Chain, DEADLINE, LIT, Rule, Seen, Table, before, tables};
use super::socket::{Line, is};
use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, DevHookNumber, GenAttribute, GenMessage, Hook, HookNumber,
    InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableFlags,
    TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// `NFNL_SUBSYS_NFTABLES`: whom a batch is for.
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and its attribute, the generation of the rule set (`include/uapi/linux/netfilter/nfnetlink.h`).
const BATCH_BEGIN: u8 = 16;
const NFNL_BATCH_GENID: u16 = 1;
/// `include/uapi/linux/netfilter_arp.h`.
const NF_ARP_OUT: u32 = 1;
/// The kind of a rule's user data that `nft list` shows as its comment.
const COMMENT: u8 = 0;
/// Before what others filter, so that nothing of theirs is asked about a dark address (`NF_IP_PRI_RAW`).
const PRIORITY: i32 = -300;
/// Where tables of ours may be.
const FAMILIES: [NetfilterProtoFamily; 3] =
    [NetfilterProtoFamily::Inet, NetfilterProtoFamily::NetDev, NetfilterProtoFamily::ARP];
/// How often rules that others change meanwhile are looked at again before it is called an error.
const TRIES: usize = 5;

/// Why an address could not be lit.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLit {
    /// The rules that make it dark are not all there: it must not be on the interface.
    #[error("the rules that keep the address dark are not all there any more")]
    Unprotected,
    /// The kernel refused.
    #[error("the kernel's packet filter: {0}")]
    Refused(#[from] io::Error),
}

/// For how long an address is lit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the kernel's monotonic clock, from when it is written; none for ever.
    pub(super) timeout: Option<Duration>,
    /// By the wall clock: nanoseconds since 1970.
    pub(super) deadline: u64,
}

/// The tables of one address.
pub(super) struct Firewall {
    line: Line,
    name: String,
    address: IpAddr,
    interface: String,
    tables: Vec<Table>,
    /// The generation of the rule set at which our rules were last seen complete.
    generation: u32,
}

impl Firewall {
    /// Makes the tables, dark, in place of what an earlier life has left.
    pub(super) fn establish(name: &str, address: IpAddr, interface: &str) -> io::Result<Self> {
        let mut firewall = Self::over(name, address, interface)?;
        firewall.rebuild()?;
        Ok(firewall)
    }

    /// The tables as they are, if there are any: of whichever kind.
    pub(super) fn over(name: &str, address: IpAddr, interface: &str) -> io::Result<Self> {
        Ok(Self {
            line: Line::open(NETLINK_NETFILTER)?,
            name: format!("twinsite-{name}"),
            address,
            interface: interface.to_owned(),
            tables: tables(address, interface, true),
            generation: 0,
        })
    }

    /// Makes the tables anew, dark.
    pub(super) fn rebuild(&mut self) -> io::Result<()> {
        self.tables = tables(self.address, &self.interface, true);
        match self.make() {
            // Older than Linux 5.16, or built without it.
            Err(error) if is(&error, Errno::OPNOTSUPP) || is(&error, Errno::AFNOSUPPORT) => {
                self.tables = tables(self.address, &self.interface, false);
                self.make()?;
            }
            made => made?,
        }
        // The same name may have stood for an address of the other kind, or on another kernel.
        let unused = |family: &NetfilterProtoFamily| self.tables.iter().all(|table| table.family != *family);
        for family in FAMILIES.into_iter().filter(unused).collect::<Vec<_>>() {
            self.remove_table(family)?;
        }
        self.generation = self.read_generation()?;
        if self.is_complete()? {
            Ok(())
        } else {
            Err(io::Error::other(
                "the rules that were just made are not there: does something else remove them?",
            ))
        }
    }

    fn make(&mut self) -> io::Result<()> {
        let mut batch = Vec::new();
        for table in &self.tables {
            // To delete what may not be there, it is made first.
            for fresh in [true, false] {
                batch.push((table.family, self.table(), NLM_F_CREATE));
                if fresh {
                    batch.push((table.family, NfTablesMessage::DeleteTable(self.named()), 0));
                }
            }
            batch.push((table.family, self.set(table), NLM_F_CREATE));
            for chain in &table.chains {
                batch.push((table.family, self.chain(chain), NLM_F_CREATE));
            }
            for rule in &table.rules {
                batch.push((table.family, self.rule(rule), NLM_F_CREATE | NLM_F_APPEND));
            }
        }
        self.commit(None, batch)
    }

    /// Lets the address through for as long as `moment` says right before it is written; false when that says nothing.
    pub(super) fn lighten(&mut self, moment: impl Fn() -> Option<Moment>) -> Result<bool, NotLit> {
        for _ in 0..TRIES {
            let mut batch = self.darkness();
            let Some(Moment { timeout, deadline }) = moment() else { return Ok(false) };
            for table in &self.tables {
                batch.push((table.family, self.element(table, timeout), NLM_F_CREATE));
                batch.push((table.family, self.rule(&before(deadline)), NLM_F_CREATE | NLM_F_APPEND));
            }
            match self.commit(Some(self.generation), batch) {
                Ok(()) => {
                    self.generation = next_generation(self.generation);
                    return Ok(true);
                }
                Err(error) if is(&error, Errno::RESTART) => {}
                // A table is gone, or a set, or a chain.
                Err(error) if is(&error, Errno::NOENT) => return Err(NotLit::Unprotected),
                Err(error) => return Err(error.into()),
            }
            // Read before the rules are: what changes after this is told by the next refusal.
            self.generation = self.read_generation()?;
            if !self.is_complete()? {
                return Err(NotLit::Unprotected);
            }
        }
        Err(io::Error::from(Errno::RESTART).into())
    }

    /// Lets nothing through from now on. What is not there is dark only if the address is not there either.
    pub(super) fn darken(&mut self) -> io::Result<()> {
        let batch = self.darkness();
        match self.commit(None, batch) {
            Ok(()) => {
                // Whether somebody else changed something is found out at the next lighting.
                self.generation = next_generation(self.generation);
                Ok(())
            }
            // One of the tables is gone; that must not keep the other from going dark.
            Err(error) if is(&error, Errno::NOENT) => {
                for message in self.darkness() {
                    match self.commit(None, vec![message]) {
                        Err(error) if !is(&error, Errno::NOENT) => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn darkness(&self) -> Vec<(NetfilterProtoFamily, NfTablesMessage, u16)> {
        let darkness = self.tables.iter().flat_map(|table| {
            let all = SetElementMessage { attributes: self.set_named() };
            let rules =
                vec![RuleAttribute::Table(self.name.clone()), RuleAttribute::Chain(DEADLINE.to_owned())];
            let rules = RuleMessage { attributes: rules };
            [
                (table.family, NfTablesMessage::DeleteSetElement(all), 0),
                (table.family, NfTablesMessage::DeleteRule(rules), 0),
            ]
        });
        darkness.collect()
    }

    /// Whether frames that programs make by hand are held back too.
    pub(super) fn holds_frames_back(&self) -> bool {
        self.address.is_ipv6() || self.tables.iter().any(|table| table.family == NetfilterProtoFamily::NetDev)
    }

    fn remove_table(&mut self, family: NetfilterProtoFamily) -> io::Result<()> {
        let delete = NfTablesMessage::DeleteTable(self.named());
        match self.commit(None, vec![(family, delete, 0)]) {
            Err(error) if !is(&error, Errno::NOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether all our rules are there, in their order, and nothing else in our tables.
    pub(super) fn is_complete(&mut self) -> io::Result<bool> {
        for at in 0..self.tables.len() {
            let table = &self.tables[at];
            let family = table.family;
            let mut wanted: Vec<_> =
                table.rules.iter().map(|rule| (rule.chain.to_owned(), self.comment(rule))).collect();
            wanted.sort_by(|one, other| one.0.cmp(&other.0)); // stable: the order within a chain stays
            let mut found = match self.list_rules(family) {
                Err(error) if is(&error, Errno::NOENT) => return Ok(false),
                found => found?,
            };
            found.retain(|(chain, _)| chain != DEADLINE);
            found.sort_by(|one, other| one.0.cmp(&other.0));
            if found != wanted || self.is_dormant(family)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn list_rules(&mut self, family: NetfilterProtoFamily) -> io::Result<Vec<(String, Vec<u8>)>> {
        let of_table = RuleMessage { attributes: vec![RuleAttribute::Table(self.name.clone())] };
        let answers = self.line.list(message(family, NfTablesMessage::GetRule(of_table)))?;
        let rules = answers.into_iter().filter_map(|answer| match answer.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) => Some(rule.attributes),
            _ => None,
        });
        let rules = rules.filter_map(|attributes| {
            let (mut ours, mut chain, mut name) = (false, String::new(), Vec::new());
            for attribute in attributes {
                match attribute {
                    RuleAttribute::Table(table) => ours = table == self.name,
                    RuleAttribute::Chain(of) => chain = of,
                    RuleAttribute::UserData(data) => name = data,
                    _ => {}
                }
            }
            ours.then_some((chain, name))
        });
        Ok(rules.collect())
    }

    /// Whether somebody has switched the table off.
    fn is_dormant(&mut self, family: NetfilterProtoFamily) -> io::Result<bool> {
        let answers = self.line.get(message(family, NfTablesMessage::GetTable(self.named())));
        let answers = match answers {
            Err(error) if is(&error, Errno::NOENT) => return Ok(true),
            answers => answers?,
        };
        let mut attributes = answers.into_iter().flat_map(|answer| match answer.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => table.attributes,
            _ => Vec::new(),
        });
        Ok(attributes.any(|attribute| {
            matches!(attribute, TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant))
        }))
    }

    fn read_generation(&mut self) -> io::Result<u32> {
        let question = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        let answers = self.line.get(message(NetfilterProtoFamily::Unspec, question))?;
        let attributes = answers.into_iter().flat_map(|answer| match answer.inner {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(generation)) => generation.attributes,
            _ => Vec::new(),
        });
        let mut generations = attributes.filter_map(|attribute| match attribute {
            GenAttribute::Id(id) => Some(id),
            _ => None,
        });
        generations.next().ok_or_else(|| io::Error::other("the kernel told no generation of its rule set"))
    }

    fn commit(
        &mut self,
        generation: Option<u32>,
        messages: Vec<(NetfilterProtoFamily, NfTablesMessage, u16)>,
    ) -> io::Result<()> {
        let generation =
            generation.map(|generation| DefaultNla::new(NFNL_BATCH_GENID, generation.to_be_bytes().to_vec()));
        let begin =
            ControlMessage::Other { message_type: BATCH_BEGIN, attributes: generation.into_iter().collect() };
        let control = |what| {
            NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES), what)
        };
        let last = messages.len().saturating_sub(1);
        let within = messages.into_iter().enumerate().map(|(at, (family, inner, flags))| {
            // The kernel answers when all is done, good or bad; one word is enough.
            let answer = if at == last { NLM_F_ACK } else { 0 };
            (message(family, inner), NLM_F_REQUEST | flags | answer)
        });
        let batch = std::iter::once((control(begin), NLM_F_REQUEST))
            .chain(within)
            .chain([(control(ControlMessage::BatchEnd), NLM_F_REQUEST)]);
        self.line.transact(batch)
    }

    /// A rule's name as its user data: kind, length, text, and the zero that ends it. With the address: rules of the
    /// same name for another one are not these.
    fn comment(&self, rule: &Rule) -> Vec<u8> {
        let text = format!("{} {}", rule.name, self.address);
        let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
        [&[COMMENT, length], text.as_bytes(), &[0]].concat()
    }

    fn named(&self) -> TableMessage {
        TableMessage { attributes: vec![TableAttribute::Name(self.name.clone())] }
    }

    fn table(&self) -> NfTablesMessage {
        NfTablesMessage::NewTable(self.named())
    }

    fn set_named(&self) -> Vec<SetElementList> {
        vec![SetElementList::Table(self.name.clone()), SetElementList::Set(LIT.to_owned())]
    }

    fn set(&self, table: &Table) -> NfTablesMessage {
        let length = u32::try_from(table.key.len()).unwrap_or_default();
        let attributes = vec![
            SetAttribute::Table(self.name.clone()),
            SetAttribute::Name(LIT.to_owned()),
            SetAttribute::Flags(SetFlags::Timeout),
            SetAttribute::KeyType(table.key_type),
            SetAttribute::KeyLen(length),
            SetAttribute::Id(1),
        ];
        NfTablesMessage::NewSet(SetMessage { attributes })
    }

    fn element(&self, table: &Table, timeout: Option<Duration>) -> NfTablesMessage {
        let mut element = vec![SetElementAttribute::Key(DataAttribute::Value(table.key.clone()))];
        element.extend(timeout.map(|timeout| {
            // No time at all would stand for "for ever".
            SetElementAttribute::Timeout(u64::try_from(timeout.as_millis()).unwrap_or_default().max(1))
        }));
        let mut attributes = self.set_named();
        attributes.push(SetElementList::Elements(vec![ListAttribute::Element(element)]));
        NfTablesMessage::NewSetElement(SetElementMessage { attributes })
    }

    fn chain(&self, chain: &Chain) -> NfTablesMessage {
        let mut attributes =
            vec![ChainAttribute::Table(self.name.clone()), ChainAttribute::Name(chain.name.to_owned())];
        if let Some(seen) = &chain.seen {
            let mut hook = match seen {
                Seen::Input => vec![Hook::Number(InetHookNumber::LocalIn.into())],
                Seen::Output => vec![Hook::Number(InetHookNumber::LocalOut.into())],
                Seen::ArpOutput => vec![Hook::Number(HookNumber::Other(NF_ARP_OUT))],
                Seen::Egress(interface) => {
                    vec![Hook::Number(DevHookNumber::Egress.into()), Hook::NetDeviceName(interface.clone())]
                }
            };
            hook.push(Hook::Priority(PRIORITY.cast_unsigned()));
            attributes.push(ChainAttribute::Hook(hook));
            attributes.push(ChainAttribute::Type("filter".to_owned()));
        }
        NfTablesMessage::NewChain(ChainMessage { attributes })
    }

    fn rule(&self, rule: &Rule) -> NfTablesMessage {
        let expressions = rule.expressions.iter().cloned().map(ListAttribute::from).collect();
        let attributes = vec![
            RuleAttribute::Table(self.name.clone()),
            RuleAttribute::Chain(rule.chain.to_owned()),
            RuleAttribute::Expressions(expressions),
            RuleAttribute::UserData(self.comment(rule)),
        ];
        NfTablesMessage::NewRule(RuleMessage { attributes })
    }
}

fn message(family: NetfilterProtoFamily, inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

/// The kernel counts from one, and skips zero when it comes round.
fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
