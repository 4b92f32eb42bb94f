//! Changes of headers as a route wants them: worked out once for each table, but for what each request says.

use crate::facts::Facts;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use twinsite_model::spec::{self, HeaderEdits, Template};

/// What a route changes of the headers in one direction.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Value)>,
    add: Vec<(HeaderName, Value)>,
}

#[derive(Debug)]
enum Value {
    /// The same for all requests.
    Fixed(HeaderValue),
    /// With something of the request in it.
    Of(Template),
}

impl Edits {
    pub(crate) fn new(spec: &HeaderEdits) -> Self {
        let all = |headers: &std::collections::BTreeMap<spec::HeaderName, Template>| {
            headers.iter().filter_map(|(header, value)| Some((name(header)?, Value::new(value)))).collect()
        };
        Self {
            remove: spec.remove.iter().filter_map(name).collect(),
            set: all(&spec.set),
            add: all(&spec.add),
        }
    }

    /// What it does for one request, which need not be there any more when it is done.
    pub(crate) fn of(&self, facts: &Facts<'_>) -> EditsOf<'_> {
        let both = self.set.iter().chain(&self.add);
        let values = both.filter_map(|(_, value)| match value {
            Value::Fixed(_) => None,
            Value::Of(template) => Some(facts.header_value(template)),
        });
        EditsOf { edits: self, values: values.collect() }
    }
}

/// A name that the specification allows is one.
fn name(header: &spec::HeaderName) -> Option<HeaderName> {
    HeaderName::from_bytes(header.as_str().as_bytes()).ok()
}

impl Value {
    fn new(template: &Template) -> Self {
        let fixed = template.is_fixed().then(|| template.render(|_, _| ()));
        match fixed.and_then(|text| HeaderValue::try_from(text).ok()) {
            Some(fixed) => Self::Fixed(fixed),
            None => Self::Of(template.clone()),
        }
    }
}

/// The same for one request.
#[derive(Debug)]
pub(crate) struct EditsOf<'a> {
    edits: &'a Edits,
    /// Of those that are not fixed, in their order; none for what is empty or cannot be a header's value.
    values: Vec<Option<HeaderValue>>,
}

impl EditsOf<'_> {
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        for name in &self.edits.remove {
            headers.remove(name);
        }
        let mut values = self.values.into_iter();
        let mut value = |of: &Value| match of {
            Value::Fixed(value) => Some(value.clone()),
            Value::Of(_) => values.next().flatten(),
        };
        for (name, of) in &self.edits.set {
            // What says nothing must not let through what somebody else has said.
            match value(of) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
        for (name, of) in &self.edits.add {
            if let Some(value) = value(of) {
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::with_facts;

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let spec: HeaderEdits = serde_json::from_value(serde_json::json!({
            "remove": ["server", "x-gone"],
            "set": { "cache-control": "public", "x-host": "{host}", "x-empty": "{header.X-None}", "x-bad": "{query.bad}" },
            "add": { "x-more": "{method}", "x-gone": "again" },
        }))
        .unwrap();
        let mut headers = HeaderMap::new();
        for name in ["server", "x-gone", "cache-control", "x-host", "x-empty", "x-bad", "x-more", "x-kept"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("old"));
        }
        let edits = Edits::new(&spec);
        with_facts("GET /x?bad=a%0d%0ab HTTP/1.1\r\nhost: meet.example.org:81\r\n", |facts| {
            edits.of(facts).apply(&mut headers);
        });
        let all = |name: &str| {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(all("cache-control"), ["public"]);
        assert_eq!(all("x-host"), ["meet.example.org"]);
        assert_eq!(all("x-more"), ["old", "GET"]);
        assert_eq!((all("x-gone"), all("x-kept")), (vec!["again"], vec!["old"]));
        for gone in ["server", "x-empty", "x-bad"] {
            assert!(all(gone).is_empty(), "{gone}");
        }
    }
}
