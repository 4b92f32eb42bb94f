//! Every way that a request can take through a site's directives, as a route of its own.
//!
//! Routes are tried in order and the first that fits is taken. So a directive that is for some requests only becomes routes
//! for those, with all that comes after it, before the routes for the others; and each way ends with an answer, so that
//! none of those requests reaches the routes of the others.

use super::Wishes;
use super::condition::{Both, Condition};
use super::directive::{Answer, Change, Item, What};
use super::headers::Changes;
use super::matcher::For;
use super::names::Names;
use super::notes::Notes;
use super::route::{self, Route};
use super::site::{Site, Sites, Target};
use super::upstream::Upstream;
use crate::place::Place;
use twinsite_model::spec::validate::ROUTES_MAX;
use twinsite_model::spec::{Compression, Scheme};

/// Changes for some requests only on one way: each doubles what comes after it.
const CONDITIONAL_MAX: usize = 3;
/// Blocks for some requests only, one within or after the other, on one way.
const ENTERED_MAX: usize = 64;
/// Steps altogether, so that no file takes forever.
const STEPS_MAX: usize = 50_000;

/// The routes of all sites: those of HTTPS, those of HTTP, and what sends the one to the other.
pub(super) fn routes(
    sites: &Sites<'_>,
    upstreams: &[Upstream],
    wishes: &Wishes,
    notes: &mut Notes,
) -> Vec<Route> {
    let mut targets: Vec<(&Site<'_>, &Target)> =
        sites.list.iter().flat_map(|site| site.targets.iter().map(move |target| (site, target))).collect();
    targets.sort_by_key(|(_, target)| (target.scheme == Scheme::Http, target.rank));
    let mut walk = Walk {
        upstreams,
        wishes,
        notes,
        names: Names::default(),
        steps: 0,
        routes: Vec::new(),
        reached: Vec::new(),
    };
    let mut redirected = sites.redirected.as_ref();
    for (site, target) in targets {
        // As Caddy has it: after the sites in clear that name a host, before those that do not.
        if target.scheme == Scheme::Http && target.is_any() {
            walk.redirect(redirected.take());
        }
        walk.site(site, target);
    }
    walk.redirect(redirected);
    for site in &sites.list {
        walk.warn_of_unreached(&site.items);
    }
    walk.routes
}

/// What has come to pass on the way.
#[derive(Clone)]
pub(super) struct Way<'a> {
    pub(super) condition: Condition,
    /// What a route of it can be called if its path does not say.
    pub(super) name: &'a str,
    pub(super) answer: Vec<&'a Changes>,
    pub(super) request: Vec<&'a Changes>,
    pub(super) compress: &'a [Compression],
    conditional: usize,
    entered: usize,
}

/// A block on the way, and how far it has been gone through.
#[derive(Clone, Copy)]
struct Block<'a> {
    items: &'a [Item<'a>],
    /// Whether a `handle` of it was entered; then no other is.
    is_handled: bool,
}

struct Walk<'a, 'n> {
    upstreams: &'a [Upstream],
    wishes: &'a Wishes,
    notes: &'n mut Notes,
    names: Names,
    steps: usize,
    routes: Vec<Route>,
    /// Directives that answer somebody.
    reached: Vec<&'a Item<'a>>,
}

impl<'a> Walk<'a, '_> {
    fn site(&mut self, site: &'a Site<'a>, target: &Target) {
        let condition =
            Condition { hosts: target.hosts.clone(), scheme: Some(target.scheme), ..Condition::default() };
        let way = Way {
            condition,
            name: "",
            answer: Vec::new(),
            request: Vec::new(),
            compress: &[],
            conditional: 0,
            entered: 0,
        };
        let mut done = Vec::new();
        self.blocks(site, vec![Block { items: &site.items, is_handled: false }], way, &mut done);
    }

    fn redirect(&mut self, redirected: Option<&(Vec<String>, Place)>) {
        if let Some((hosts, place)) = redirected {
            self.routes.extend(route::to_https(hosts, place, &mut self.names));
        }
    }

    /// Goes on through the innermost block and those around it. `done` is what earlier routes of the site take.
    fn blocks(
        &mut self,
        site: &'a Site<'a>,
        mut blocks: Vec<Block<'a>>,
        mut way: Way<'a>,
        done: &mut Vec<Condition>,
    ) {
        loop {
            self.steps += 1;
            if self.steps > STEPS_MAX || self.routes.len() > ROUTES_MAX {
                let what = "these directives make more routes, or ways to one, than there may be";
                return self.say(site.place, what, "use fewer matchers, or `handle` blocks that answer");
            }
            if done.iter().any(|earlier| earlier.covers(&way.condition)) {
                return;
            }
            let Some(block) = blocks.last_mut() else {
                return self.nothing(site, way, done);
            };
            let Some((item, rest)) = block.items.split_first() else {
                blocks.pop();
                continue;
            };
            block.items = rest;
            if matches!(item.what, What::Handle(_)) && block.is_handled {
                continue;
            }
            let Some(ways) = self.ways(item, &way) else { return };
            match ways {
                // For all that have come so far.
                None => match &item.what {
                    What::Change(change) => way.apply(change),
                    What::Handle(items) => {
                        block.is_handled = true;
                        blocks.push(Block { items, is_handled: false });
                    }
                    What::Route(items) => blocks.push(Block { items, is_handled: false }),
                    What::Answer(answer) => return self.answer(item, answer, way, done),
                },
                Some(ways) => {
                    for mut other in ways {
                        let mut blocks = blocks.clone();
                        match &item.what {
                            What::Change(change) => {
                                other.conditional += 1;
                                if other.conditional > CONDITIONAL_MAX {
                                    let what = format!(
                                        "more than {CONDITIONAL_MAX} directives with matchers of their own change the same requests"
                                    );
                                    return self.say(item.place, &what, "put them into `handle` blocks");
                                }
                                other.apply(change);
                                self.blocks(site, blocks, other, done);
                            }
                            What::Handle(items) | What::Route(items) => {
                                other.entered += 1;
                                if other.entered > ENTERED_MAX {
                                    let what =
                                        "too many blocks with matchers follow each other without an answer";
                                    return self.say(item.place, what, "answer in each, or use fewer");
                                }
                                if let Some(around) = blocks.last_mut() {
                                    around.is_handled |= matches!(item.what, What::Handle(_));
                                }
                                blocks.push(Block { items, is_handled: false });
                                self.blocks(site, blocks, other, done);
                            }
                            What::Answer(answer) => self.answer(item, answer, other, done),
                        }
                    }
                }
            }
        }
    }

    /// The ways of those for whom a directive is. `Some(None)` if these are all; nothing if it cannot be said.
    #[allow(clippy::option_option)] // the first is about errors, as everywhere here
    fn ways(&mut self, item: &'a Item<'a>, way: &Way<'a>) -> Option<Option<Vec<Way<'a>>>> {
        let For::Some(matcher) = &item.to else { return Some(None) };
        if matcher.alternatives.iter().any(|wanted| wanted.covers(&way.condition)) {
            return Some(None);
        }
        let mut ways = Vec::new();
        for wanted in &matcher.alternatives {
            match way.condition.and(wanted) {
                Both::Never => {}
                Both::Is(condition) => {
                    let name = if matcher.name.is_empty() { way.name } else { matcher.name.as_str() };
                    ways.push(Way { condition: *condition, name, ..way.clone() });
                }
                Both::Unsayable(name) => {
                    let what =
                        format!("two matchers ask for different values of `{name}`, which one route cannot");
                    return self.notes.error(item.place, what, "ask for it in one of them only");
                }
            }
        }
        Some(Some(ways))
    }

    fn answer(&mut self, item: &'a Item<'a>, answer: &'a Answer, way: Way<'a>, done: &mut Vec<Condition>) {
        if done.iter().any(|earlier| earlier.covers(&way.condition)) {
            return;
        }
        let answering =
            route::Answering { upstreams: self.upstreams, wishes: self.wishes, place: item.place };
        self.routes.extend(answering.route(answer, &way, &mut self.names, self.notes));
        done.push(way.condition);
        if !self.reached.iter().any(|reached| std::ptr::eq(*reached, item)) {
            self.reached.push(item);
        }
    }

    /// What answers nobody is dropped, and not in silence.
    fn warn_of_unreached(&mut self, items: &'a [Item<'a>]) {
        for item in items {
            match &item.what {
                What::Handle(items) | What::Route(items) => self.warn_of_unreached(items),
                What::Answer(_) if !self.reached.iter().any(|reached| std::ptr::eq(*reached, item)) => {
                    let what =
                        format!("no request gets to this `{}`, for something before it answers", item.name);
                    let remedy = "mind that Caddy has an order of its own (`respond` before `reverse_proxy`, say); write \
                                  `route {` around directives to keep theirs";
                    self.notes.trap(item.place, what, remedy);
                }
                What::Answer(_) | What::Change(_) => {}
            }
        }
    }

    /// No directive has answered.
    fn nothing(&mut self, site: &'a Site<'a>, way: Way<'a>, done: &mut Vec<Condition>) {
        let what = "what no directive of this site answers, Caddy answers with 200 and nothing, and so does twinsite now";
        self.notes.trap(site.place, what, "write `respond 404` at the end of the site, or what is meant");
        self.routes.extend(route::nothing(&way, site.place, &mut self.names, self.notes));
        done.push(way.condition);
    }

    fn say(&mut self, place: &Place, what: &str, remedy: &str) {
        self.notes.error::<()>(place, what, remedy);
    }
}

impl<'a> Way<'a> {
    fn apply(&mut self, change: &'a Change) {
        match change {
            Change::Answer(changes) => self.answer.push(changes),
            Change::Request(changes) => self.request.push(changes),
            Change::Encode(ways) => self.compress = ways,
        }
    }
}
