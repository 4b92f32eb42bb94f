//! Which route comes first, and who is left out of it.

use super::{routes, site};

fn answers(directives: &str) -> Vec<String> {
    routes(&site(directives)).iter().map(|line| line.replace("http://a.org", "")).collect()
}

#[test]
fn handles_are_sorted_by_their_paths_and_exclude_each_other() {
    let all = "handle {\nrespond rest\n}\nhandle /a/* {\nrespond a\n}\nhandle /a/b/* {\nrespond ab\n}\nhandle /a/b {\nrespond b\n}";
    assert_eq!(
        answers(all),
        [
            "a-b: /a/b/* -> 200 \"ab\"",
            "a-b-2: /a/b -> 200 \"b\"",
            "a: /a/* -> 200 \"a\"",
            "answer: /* -> 200 \"rest\""
        ]
    );
    let named = "@post method POST\nhandle {\nrespond rest\n}\nhandle @post {\nrespond post\n}";
    assert_eq!(answers(named), ["post: /* POST -> 200 \"post\"", "answer: /* -> 200 \"rest\""]);
}

#[test]
fn a_path_without_star_comes_before_the_same_with_one() {
    let both = "respond /a* begin\nrespond /a one\nrespond /b/* b";
    assert_eq!(
        answers(both),
        [
            "b: /b/* -> 200 \"b\"",
            "a: /a -> 200 \"one\"",
            "a-2: /a* -> 200 \"begin\"",
            "nothing: /* -> 200 \"\""
        ]
    );
}

#[test]
fn directives_are_in_the_order_of_caddy_and_not_of_the_file() {
    assert_eq!(
        answers("respond hello\nheader X-A 1\nredir /old https://b.org/"),
        ["old: /old -> 302 https://b.org/ <x-a=1", "answer: /* -> 200 \"hello\" <x-a=1"]
    );
    // In a `route` they are as they are written, and what comes after an answer is never reached.
    assert_eq!(
        answers("route {\nrespond hello\nheader X-A 1\nredir /old https://b.org/\n}"),
        ["answer: /* -> 200 \"hello\""]
    );
}

#[test]
fn a_handle_that_does_not_answer_goes_on_after_the_others() {
    let both = "handle /a/* {\nheader X-A 1\n}\nhandle {\nheader X-B 1\n}\nrespond hello";
    assert_eq!(answers(both), ["a: /a/* -> 200 \"hello\" <x-a=1", "answer: /* -> 200 \"hello\" <x-b=1"]);
}

#[test]
fn a_change_for_some_requests_makes_routes_for_them() {
    let two = "header /a/* X-A 1\nhandle /a/b/* {\nrespond ab\n}\nhandle {\nrespond rest\n}";
    assert_eq!(
        answers(two),
        ["a-b: /a/b/* -> 200 \"ab\" <x-a=1", "a: /a/* -> 200 \"rest\" <x-a=1", "answer: /* -> 200 \"rest\""]
    );
}

#[test]
fn matchers_within_each_other_add_up() {
    let inner = "@get method GET\nhandle /a/* {\n@b path /a/b /c\nhandle @b {\nhandle @get {\nrespond get\n}\nrespond b\n}\nrespond a\n}\nrespond rest";
    assert_eq!(
        answers(inner),
        [
            "a-b: /a/b GET -> 200 \"get\"",
            "a-b-2: /a/b -> 200 \"b\"",
            "a: /a/* -> 200 \"a\"",
            "answer: /* -> 200 \"rest\""
        ]
    );
}

#[test]
fn exact_hosts_come_before_those_with_a_star_and_any() {
    let text = ":80 {\nrespond any\n}\nhttp://*.a.org {\nrespond star\n}\nhttp://*.b.a.org {\nrespond longer\n}\nhttp://x.a.org {\nrespond x\n}\n";
    assert_eq!(
        routes(text),
        [
            "answer: http://x.a.org/* -> 200 \"x\"",
            "answer-2: http://*.b.a.org/* -> 200 \"longer\"",
            "answer-3: http://*.a.org/* -> 200 \"star\"",
            "answer-4: http:///* -> 200 \"any\""
        ]
    );
}

#[test]
fn hosts_of_https_are_redirected_unless_they_are_in_clear_too() {
    let text = "a.org, b.org {\nrespond s\n}\nhttp://b.org {\nrespond c\n}\n:80 {\nrespond any\n}\n";
    assert_eq!(
        routes(text),
        [
            "answer: https://a.org,b.org/* -> 200 \"s\"",
            "answer-2: http://b.org/* -> 200 \"c\"",
            "to-https: http://a.org/* -> 308 https://{host}{uri}",
            "answer-3: http:///* -> 200 \"any\""
        ]
    );
    for off in ["off", "disable_redirects"] {
        assert_eq!(routes(&format!("{{\nauto_https {off}\n}}\na.org {{\nrespond s\n}}")).len(), 1);
    }
    assert_eq!(routes("https://a.org:443, a.org:80, :443 {\nrespond s\n}").len(), 3);
    assert_eq!(routes("{\nauto_https disable_certs\n}\na.org {\nrespond s\n}").len(), 2);
}

#[test]
fn a_host_matcher_is_within_the_hosts_of_its_site() {
    let text = "http://*.a.org {\n@x host x.a.org y.b.org\nhandle @x {\nrespond x\n}\nrespond rest\n}";
    assert_eq!(
        routes(text),
        ["x: http://x.a.org/* -> 200 \"x\"", "answer: http://*.a.org/* -> 200 \"rest\""]
    );
    assert_eq!(answers("@s protocol https\nrespond @s no\nrespond yes"), ["answer: /* -> 200 \"yes\""]);
}
