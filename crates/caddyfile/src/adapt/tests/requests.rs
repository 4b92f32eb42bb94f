//! Each request gets from the routes what it gets by going through the directives one after the other, as Caddy does.

use super::{document, site, wishes};
use crate::adapt::adapt;
use crate::adapt::condition::Condition;
use crate::adapt::directive::{self, Answer, Change, Item, Level, What};
use crate::adapt::headers::{self, Changes};
use crate::adapt::matcher::{For, Named};
use crate::adapt::notes::Notes;
use crate::adapt::proxy::Backends;
use proptest::prelude::*;
use twinsite_model::spec::{HeaderEdits, MatchSpec, RouteSpec};

/// A request, as far as these tests look at it.
#[derive(Debug)]
struct Request {
    path: &'static str,
    method: &'static str,
    has_header: bool,
}

impl Request {
    fn fits(&self, path: &str, matches: &MatchSpec) -> bool {
        let path = path.strip_suffix('*').map_or(path == self.path, |begin| self.path.starts_with(begin));
        let method = matches.methods.is_empty() || matches.methods.iter().any(|method| method == self.method);
        path && method && (matches.headers.is_empty() || self.has_header)
    }

    fn is_like(&self, condition: &Condition) -> bool {
        self.fits(&condition.paths.to_string(), &condition.matches())
    }
}

/// What it gets.
type Outcome = (String, HeaderEdits);

/// Goes through a block; none if nothing in it answers.
fn go<'a>(items: &'a [Item<'a>], request: &Request, changes: &mut Vec<&'a Changes>) -> Option<&'a Answer> {
    let mut is_handled = false;
    for item in items {
        let is_for_it = match &item.to {
            For::All => true,
            For::Some(matcher) => matcher.alternatives.iter().any(|wanted| request.is_like(wanted)),
        };
        if !is_for_it {
            continue;
        }
        let answer = match &item.what {
            What::Change(Change::Answer(change)) => {
                changes.push(change);
                None
            }
            What::Change(_) => None,
            What::Handle(_) if is_handled => None,
            What::Handle(inner) => {
                is_handled = true;
                go(inner, request, changes)
            }
            What::Route(inner) => go(inner, request, changes),
            What::Answer(answer) => Some(answer),
        };
        if answer.is_some() {
            return answer;
        }
    }
    None
}

fn by_directives(items: &[Item<'_>], request: &Request) -> Outcome {
    let mut changes = Vec::new();
    let what = match go(items, request, &mut changes) {
        None => "200 ".to_owned(),
        Some(Answer::Redirect(redirect)) => format!("{} {}", redirect.status, redirect.to),
        Some(Answer::Respond(respond)) => format!("{} {}", respond.status, respond.body),
        Some(Answer::Proxy(_)) => "upstreams".to_owned(),
    };
    let edits = headers::together(headers::in_order_of_answer(changes.into_iter()), &mut Notes::default());
    (what, edits.unwrap())
}

fn by_routes(routes: &[RouteSpec], request: &Request) -> Outcome {
    let route = routes.iter().find(|route| request.fits(&route.path, &route.matches)).unwrap();
    let what = match (&route.redirect, &route.respond) {
        (Some(redirect), _) => format!("{} {}", redirect.status, redirect.to),
        (None, Some(respond)) => format!("{} {}", respond.status, respond.body),
        (None, None) => "upstreams".to_owned(),
    };
    (what, route.response_headers.clone())
}

fn directives() -> impl Strategy<Value = String> {
    let matchers = vec!["", "", "/a/* ", "/a/b/* ", "/b ", "@post ", "@two ", "@header "];
    let matcher = || prop::sample::select(matchers.clone());
    let leaf = prop_oneof![
        (matcher(), 0..3_u8, any::<u8>())
            .prop_map(|(to, name, value)| format!("header {to}X-{name} {value}")),
        (matcher(), 0..3_u8, any::<u8>())
            .prop_map(|(to, name, value)| format!("header {to}>X-{name} {value}")),
        (matcher(), 0..3_u8).prop_map(|(to, name)| format!("header {to}-X-{name}")),
        (matcher(), any::<u8>()).prop_map(|(to, body)| format!("respond {to}b{body}")),
        (matcher(), any::<u8>()).prop_map(|(to, body)| format!("redir {to}b{body}")),
        matcher().prop_map(|to| format!("reverse_proxy {to}a:1")),
    ];
    let tree = leaf.prop_recursive(3, 24, 5, move |inner| {
        let kind = prop::sample::select(vec!["handle", "route"]);
        let to = prop::sample::select(matchers.clone());
        (kind, to, prop::collection::vec(inner, 0..5))
            .prop_map(|(kind, to, inner)| format!("{kind} {to}{{\n{}\n}}", inner.join("\n")))
    });
    prop::collection::vec(tree, 1..6).prop_map(|all| all.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn routes_do_what_directives_do(directives in directives()) {
        let named = "@post method POST\n@two path /a/* /b\n@header header X-H y\n";
        let document = document(&site(&format!("{named}{directives}")));
        let Ok(adapted) = adapt(&document, &wishes()) else { return Ok(()) };
        let (mut backends, mut notes) = (Backends::default(), Notes::default());
        let items =
            directive::block(&document.sites[0].directives, &Named::new(), Level::Site, &mut backends, &mut notes);
        for path in ["/a/b/c", "/a/x", "/b", "/c"] {
            for method in ["GET", "POST"] {
                for has_header in [false, true] {
                    let request = Request { path, method, has_header };
                    prop_assert_eq!(
                        by_routes(&adapted.routes, &request),
                        by_directives(&items, &request),
                        "{:?}",
                        request
                    );
                }
            }
        }
    }
}
