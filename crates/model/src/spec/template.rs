//! Text with variables in it, as in `https://{host}{uri}`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest text, in bytes.
const BYTES_MAX: usize = 8 * 1024;

/// Text with variables. Braces that are meant as they are, are written twice: `{{` and `}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(String),
    /// What a request says in its place.
    Variable(Variable),
}

/// What can be said of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The host that was asked for, without port.
    Host,
    /// The same with its port, if one was written.
    HostPort,
    /// Path and query.
    Uri,
    /// The path.
    Path,
    /// The query without `?`.
    Query,
    /// `GET`.
    Method,
    /// `http` or `https`, as the client asked.
    Scheme,
    /// The port at which the request came in.
    Port,
    /// The client's address: behind trusted proxies what they say, else that of the connection.
    ClientIp,
    /// The address of the connection's other end.
    RemoteIp,
    /// The request's id.
    RequestId,
    /// A header of the request, `{header.User-Agent}`; nothing if it has none. In lower case.
    Header(String),
    /// A parameter of the query, `{query.roomId}`, decoded.
    Parameter(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`.
    #[error("a variable begins with `{{` and does not end; write `}}`, or `{{{{` for a brace")]
    WithoutEnd,
    /// `}` without `{`.
    #[error("`}}` ends no variable; write `}}}}` for a brace")]
    WithoutBegin,
    /// A name that means nothing.
    #[error(
        "there is no variable `{{{0}}}`; known are host, hostport, uri, path, query, method, scheme, port, client_ip, \
         remote_ip, request_id, header.NAME and query.NAME"
    )]
    Unknown(String),
    /// A control character: it could end a header.
    #[error("it contains the control character {0:?}")]
    Control(char),
    /// More than can be meant.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
}

impl Template {
    /// Its pieces, in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it is the same for all requests.
    pub fn is_fixed(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text with every variable in its place, as `write` writes it.
    pub fn render(&self, mut write: impl FnMut(&Variable, &mut String)) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text += fixed,
                Part::Variable(variable) => write(variable, &mut text),
            }
        }
        text
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(written: &str) -> Result<Self, TemplateError> {
        if written.len() > BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        if let Some(control) = written.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(TemplateError::Control(control));
        }
        let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), written);
        while let Some(at) = rest.find(['{', '}']) {
            text += &rest[..at];
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text += brace;
                rest = after;
            } else if brace == "}" {
                return Err(TemplateError::WithoutBegin);
            } else {
                let (name, after) = rest.split_once('}').ok_or(TemplateError::WithoutEnd)?;
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Variable(name.parse()?));
                rest = after;
            }
        }
        text += rest;
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self { parts })
    }
}

impl FromStr for Variable {
    type Err = TemplateError;

    fn from_str(name: &str) -> Result<Self, TemplateError> {
        let unknown = || TemplateError::Unknown(name.chars().take(64).collect());
        let is_token = |name: &&str| !name.is_empty() && name.bytes().all(is_token_byte);
        Ok(match name {
            "host" => Self::Host,
            "hostport" => Self::HostPort,
            "uri" => Self::Uri,
            "path" => Self::Path,
            "query" => Self::Query,
            "method" => Self::Method,
            "scheme" => Self::Scheme,
            "port" => Self::Port,
            "client_ip" => Self::ClientIp,
            "remote_ip" => Self::RemoteIp,
            "request_id" => Self::RequestId,
            other => {
                if let Some(header) = other.strip_prefix("header.").filter(is_token) {
                    Self::Header(header.to_ascii_lowercase())
                } else if let Some(parameter) = other.strip_prefix("query.").filter(is_token) {
                    Self::Parameter(parameter.to_owned())
                } else {
                    return Err(unknown());
                }
            }
        })
    }
}

/// `tchar` of RFC 9110 section 5.6.2: what names of headers are made of.
pub(in crate::spec) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::HostPort => f.write_str("hostport"),
            Self::Uri => f.write_str("uri"),
            Self::Path => f.write_str("path"),
            Self::Query => f.write_str("query"),
            Self::Method => f.write_str("method"),
            Self::Scheme => f.write_str("scheme"),
            Self::Port => f.write_str("port"),
            Self::ClientIp => f.write_str("client_ip"),
            Self::RemoteIp => f.write_str("remote_ip"),
            Self::RequestId => f.write_str("request_id"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Parameter(name) => write!(f, "query.{name}"),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Variable(variable) => write!(f, "{{{variable}}}"),
        })
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(written: String) -> Result<Self, TemplateError> {
        written.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn template(written: &str) -> Template {
        written.parse().unwrap()
    }

    #[test]
    fn variables_are_put_in() {
        let all =
            |written: &str| template(written).render(|variable, text| *text += &format!("<{variable}>"));
        assert_eq!(all("https://{host}{uri}"), "https://<host><uri>");
        assert_eq!(all("{header.User-Agent} {query.roomId}"), "<header.user-agent> <query.roomId>");
        assert_eq!(all("a {{b}} {{{path}}}"), "a {b} {<path>}");
        assert_eq!(all(""), "");
        assert!(template("public, max-age=31536000").is_fixed() && !template("{scheme}").is_fixed());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let error = |written: &str| written.parse::<Template>().unwrap_err();
        assert_eq!(error("{host"), TemplateError::WithoutEnd);
        assert_eq!(error("host}"), TemplateError::WithoutBegin);
        assert_eq!(error("{nonsense}"), TemplateError::Unknown("nonsense".to_owned()));
        assert_eq!(error("{header.}"), TemplateError::Unknown("header.".to_owned()));
        assert_eq!(error("{header.a b}"), TemplateError::Unknown("header.a b".to_owned()));
        assert_eq!(error("a\r\nb"), TemplateError::Control('\r'));
        assert_eq!(error(&"x".repeat(BYTES_MAX + 1)), TemplateError::TooLong);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(written in r"([a-z{}. ]|\{host\}|\{header\.X-Y\}|\{\{|\}\}){0,12}") {
            if let Ok(template) = written.parse::<Template>() {
                prop_assert_eq!(template.to_string().parse::<Template>().unwrap(), template);
            }
        }
    }
}
