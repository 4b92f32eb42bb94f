//! `reverse_proxy`: upstreams, how one of them is chosen, and how they are spoken to.

use super::headers::{Changes, Of};
use super::health::{Health, Said};
use super::line;
use super::notes::{Notes, shown};
use super::transport::Transport;
use super::upstream::{self, Pool, Speaks};
use crate::document::{Directive, Word};
use crate::place::Place;
use twinsite_model::spec::Balance;

/// What all `reverse_proxy` of a file say together.
#[derive(Debug, Default)]
pub(super) struct Backends {
    pub(super) pool: Pool,
    pub(super) health: Health,
    /// How many idle connections are kept, and where that is said.
    pub(super) idle: Option<(u32, Place)>,
}

/// What one `reverse_proxy` does.
#[derive(Debug)]
pub(super) struct Rule {
    /// By their places in the pool.
    pub(super) upstreams: Vec<usize>,
    pub(super) balance: Balance,
    /// Where it says how an upstream is chosen; the directive's own if it does not.
    pub(super) balance_place: Place,
    pub(super) up: Changes,
    pub(super) down: Changes,
    pub(super) transport: Transport,
    /// Whether Caddy looks whether its upstreams are well.
    pub(super) is_probed: bool,
}

/// What has been read of one so far.
struct Reading<'d> {
    to: Vec<&'d Word>,
    balance: Option<(Balance, &'d Place)>,
    weights: Option<&'d Directive>,
    up: Changes,
    down: Changes,
    health: Said,
    transport: Option<Transport>,
}

/// `reverse_proxy [<matcher>] UPSTREAM... { ... }`.
pub(super) fn read(
    directive: &Directive,
    arguments: &[Word],
    backends: &mut Backends,
    notes: &mut Notes,
) -> Option<Rule> {
    let place = &directive.name.place;
    let mut reading = Reading {
        to: arguments.iter().collect(),
        balance: None,
        weights: None,
        up: Changes::none(place),
        down: Changes::none(place),
        health: Said::default(),
        transport: None,
    };
    for one in directive.block.iter().flatten() {
        reading.line(one, notes);
    }
    let Reading { to, balance, weights, mut up, mut down, health, transport } = reading;
    up.put_in_order();
    down.put_in_order();
    let is_probed = health.is_probed();
    backends.health.add(health, notes);
    let transport = transport.unwrap_or_default();
    if let Some((idle, at)) = &transport.idle {
        match &backends.idle {
            Some((first, _)) if first != idle => {
                let what = format!(
                    "twinsite keeps so many idle connections to every upstream, and {first} was said before; that counts"
                );
                notes.trap(at, what, "write the same for all");
            }
            _ => backends.idle.clone_from(&transport.idle),
        }
    }
    if to.is_empty() {
        return notes.error(place, "`reverse_proxy` has no upstreams", "write `reverse_proxy HOST:PORT ...`");
    }
    let upstreams = upstreams(&to, &transport, backends, notes)?;
    if let Some(weights) = weights {
        weigh(weights, &upstreams, &mut backends.pool, notes);
    }
    // Caddy takes any by chance if it is not told.
    let (balance, balance_place) = balance.unwrap_or((Balance::RoundRobin, place));
    Some(Rule { upstreams, balance, balance_place: balance_place.clone(), up, down, transport, is_probed })
}

/// Puts upstreams into the pool; gives their places there.
fn upstreams(
    to: &[&Word],
    transport: &Transport,
    backends: &mut Backends,
    notes: &mut Notes,
) -> Option<Vec<usize>> {
    let errors = notes.errors.len();
    let mut indices = Vec::new();
    for word in to {
        for address in upstream::addresses(word, notes).into_iter().flatten() {
            let (speaks, at) = match (&transport.speaks, address.speaks) {
                (Some((said, at)), own) if own.is_none_or(|own| own == *said) => (*said, at),
                (Some((said, _)), _) => {
                    let what = format!("`{}` is not what `transport` says: {said:?}", shown(&word.text));
                    return notes.error(
                        &word.place,
                        what,
                        "write the address without scheme, or change `transport`",
                    );
                }
                (None, own) => (own.unwrap_or(Speaks::Http), &word.place),
            };
            let index = backends.pool.add(&address, &word.place, (speaks, at), &transport.tls, notes);
            if indices.contains(&index) {
                let what = format!("`{}` names an upstream for the second time", shown(&word.text));
                return notes.error(
                    &word.place,
                    what,
                    "write each once; `weighted_round_robin` gives one more than another",
                );
            }
            indices.push(index);
        }
    }
    (notes.errors.len() == errors).then_some(indices)
}

/// `lb_policy weighted_round_robin 3 1`.
fn weigh(line: &Directive, upstreams: &[usize], pool: &mut Pool, notes: &mut Notes) {
    let words = line.arguments.get(1..).unwrap_or_default();
    if words.len() != upstreams.len() {
        let what = format!("there are {} weights for {} upstreams", words.len(), upstreams.len());
        notes.error::<()>(&line.name.place, what, "write one weight for each upstream, in their order");
        return;
    }
    for (word, index) in words.iter().zip(upstreams) {
        match word.text.parse() {
            Ok(weight @ 1..=1_000) => pool.weigh(*index, weight, &word.place, notes),
            _ => {
                let what = format!("`{}` is not a weight", shown(&word.text));
                notes.error::<()>(&word.place, what, "write a whole number from 1 to 1000");
            }
        }
    }
}

impl<'d> Reading<'d> {
    fn line(&mut self, one: &'d Directive, notes: &mut Notes) -> Option<()> {
        let place = &one.name.place;
        if self.health.line(one, notes) {
            return Some(());
        }
        match one.name.text.as_str() {
            "to" => self.to.extend(line::some(one, "to HOST:PORT ...", notes)?),
            "lb_policy" => self.balance = Some((self.policy(one, notes)?, place)),
            "lb_retries" | "lb_try_duration" | "lb_try_interval" => {
                line::one(one, &format!("{} VALUE", one.name.text), notes)?;
                let what = format!(
                    "`{}`: twinsite tries a second upstream at once, and no third one",
                    one.name.text
                );
                let remedy =
                    "remove it; `retry_percent` below [proxy] bounds how many requests are tried again";
                notes.trap(place, what, remedy);
            }
            "header_up" | "header_down" => self.header(one, notes)?,
            "flush_interval" => {
                line::one(one, "flush_interval -1", notes)?;
                let what =
                    "`flush_interval` has no meaning here: what comes from an upstream goes on at once";
                notes.trap(place, what, "remove it");
            }
            "stream_timeout" => {
                line::one(one, "stream_timeout DURATION", notes)?;
                let what = "`stream_timeout`: twinsite ends no WebSocket that is used, however old it is";
                notes.trap(place, what, "remove it; silent ones end after `tunnel_idle_timeout`");
            }
            "stream_close_delay" => {
                line::one(one, "stream_close_delay DURATION", notes)?;
                let what = "`stream_close_delay` has no meaning here: a new specification ends only WebSockets to upstreams that are gone";
                notes.trap(place, what, "remove it");
            }
            "transport" if self.transport.is_none() => self.transport = Some(Transport::read(one, notes)),
            "transport" => return notes.error(place, "`transport` is there twice", "write one of them"),
            "trusted_proxies" => {
                let remedy = "write `servers { trusted_proxies static ... }` in the global options, which counts for all routes";
                return line::unknown("subdirective", &one.name, remedy, notes);
            }
            "dynamic" => {
                let remedy =
                    "write the upstreams; a host that is a name is looked up again every few seconds";
                return line::unknown("subdirective", &one.name, remedy, notes);
            }
            "handle_response" | "replace_status" | "method" | "rewrite" => {
                let remedy = "remove it: twinsite passes requests and answers on as they come";
                return line::unknown("subdirective", &one.name, remedy, notes);
            }
            name if name.starts_with("health_") || name.starts_with("unhealthy_") => {
                let remedy = "use health_uri, health_interval, health_timeout, health_status, health_passes, health_fails, \
                              max_fails and fail_duration";
                return line::unknown("subdirective", &one.name, remedy, notes);
            }
            _ => {
                let remedy = "remove it; known are to, lb_policy, health_uri and its like, header_up, header_down, transport";
                return line::unknown("subdirective", &one.name, remedy, notes);
            }
        }
        Some(())
    }

    fn header(&mut self, one: &Directive, notes: &mut Notes) -> Option<()> {
        let name = &one.name.text;
        let Some((field, values)) = one.arguments.split_first().filter(|_| one.block.is_none()) else {
            return line::wrong(one, &format!("{name} FIELD VALUE"), notes);
        };
        if name == "header_up" {
            self.up.line(field, values, Of::Request, notes);
        } else {
            self.down.line(field, values, Of::Answer, notes);
        }
        Some(())
    }

    fn policy(&mut self, one: &'d Directive, notes: &mut Notes) -> Option<Balance> {
        let [name, options @ ..] = line::some(one, "lb_policy POLICY", notes)? else { return None };
        let balance = match name.text.as_str() {
            "ip_hash" | "client_ip_hash" => Balance::IpHash,
            "round_robin" => Balance::RoundRobin,
            "least_conn" => Balance::LeastConn,
            "first" => Balance::First,
            "random" => {
                let what = "`random`: twinsite takes one upstream after the other";
                notes.trap(&name.place, what, "write `round_robin`");
                Balance::RoundRobin
            }
            "weighted_round_robin" => {
                self.weights = Some(one);
                return Some(Balance::RoundRobin);
            }
            "query" | "cookie" | "header" | "uri_hash" => {
                let remedy = "use `ip_hash`; for Socket.IO twinsite then keeps everybody of a room together by `room_query`";
                return line::unknown("policy", name, remedy, notes);
            }
            _ => {
                let remedy = "use ip_hash, round_robin, weighted_round_robin, least_conn or first";
                return line::unknown("policy", name, remedy, notes);
            }
        };
        if let Some(option) = options.first() {
            let what = format!("the policy `{}` has no options", name.text);
            return notes.error(&option.place, what, "remove it");
        }
        Some(balance)
    }
}
