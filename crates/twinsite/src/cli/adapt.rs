//! `twinsite adapt`: a Caddyfile as a part of a specification, or put into a whole one.

use super::{CliError, Exit, output};
use crate::config::ConfigError;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use twinsite_caddyfile::{Adapted, Surroundings, Trap, Wishes, adapt, read};
use twinsite_model::SiteName;
use twinsite_model::spec::{
    self, CertificateSpec, Cidr, ClusterSpec, HealthSpec, RouteSpec, Scheme, UpstreamSpec, validate,
};

/// `adapt`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  twinsite adapt Caddyfile --site gra                         upstreams and routes, to look at
  twinsite adapt Caddyfile --cluster cluster.toml > new.toml  cluster.toml with them instead of its own
  twinsite adapt Caddyfile --cluster cluster.toml --upstream-site meet-7:3443=sbg
  DOMAIN=meet.example.org twinsite adapt Caddyfile --site gra

An upstream is at the site that `--upstream-site` says, else at that one of the cluster's sites with whose name its host
begins (`gra-1:3443` at `gra`), else at the one of `--site`. What twinsite cannot do is an error and nothing is printed; what
it does otherwise than one might think is a warning. `twinsite apply new.toml --dry-run` shows what it would change.")]
pub struct AdaptArguments {
    /// The Caddyfile; `{$NAME}` in it is the variable NAME of the environment
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print this specification with the Caddyfile's upstreams, routes, health checks and certificates
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// The site of upstreams whose names do not say it
    #[arg(long, value_name = "NAME")]
    pub site: Option<SiteName>,
    /// The site of one upstream; may be given several times
    #[arg(long = "upstream-site", value_name = "HOST:PORT=SITE", value_parser = upstream_site)]
    pub upstream_sites: Vec<(String, SiteName)>,
    /// Leave `ip_hash` on Socket.IO as it is, instead of keeping the people of a room together
    #[arg(long)]
    pub keep_ip_hash: bool,
    /// Print JSON, with the warnings in it
    #[arg(long)]
    pub json: bool,
}

fn upstream_site(text: &str) -> Result<(String, SiteName), String> {
    let (address, site) =
        text.rsplit_once('=').ok_or("write HOST:PORT=SITE, as in `meet-1.example.org:3443=gra`")?;
    Ok((address.to_owned(), site.parse().map_err(|error| format!("{error}"))?))
}

/// Prints what the Caddyfile means, or everything that is wrong with it.
pub fn run(arguments: &AdaptArguments) -> Result<Exit, CliError> {
    let cluster = arguments.cluster.as_deref().map(read_cluster).transpose()?;
    let text = fs::read_to_string(&arguments.file)
        .map_err(|source| ConfigError::Read { path: arguments.file.clone(), source })?;
    let name = arguments.file.display().to_string();
    let document = match read(&name, &text, &Host) {
        Ok(document) => document,
        Err(error) => return Ok(wrong([error])),
    };
    let adapted = match adapt(&document, &wishes(arguments, cluster.as_ref())) {
        Ok(adapted) => adapted,
        Err(errors) => return Ok(wrong(errors)),
    };
    check_named(arguments, &adapted)?;
    match cluster {
        Some(cluster) => print_whole(arguments, &adapted, cluster),
        None => print_part(arguments, &adapted),
    }
}

/// Tells everything that is wrong, each in a line of its own.
fn wrong(errors: impl IntoIterator<Item: std::fmt::Display>) -> Exit {
    for error in errors {
        anstream::eprintln!("{error}");
    }
    Exit::Wrong
}

fn read_cluster(path: &Path) -> Result<ClusterSpec, CliError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Ok(spec::from_toml(&text).map_err(|source| ConfigError::Spec { path: path.to_owned(), source })?)
}

fn wishes(arguments: &AdaptArguments, cluster: Option<&ClusterSpec>) -> Wishes {
    let sites = cluster.into_iter().flat_map(|cluster| &cluster.sites);
    Wishes {
        upstream_sites: arguments.upstream_sites.iter().cloned().collect(),
        known_sites: sites.filter(|site| !site.witness).map(|site| site.name.clone()).collect(),
        site: arguments.site.clone(),
        keep_ip_hash: arguments.keep_ip_hash,
    }
}

/// A site for an upstream that there is none of is a slip of the pen.
fn check_named(arguments: &AdaptArguments, adapted: &Adapted) -> Result<(), CliError> {
    let is_known = |address: &String| adapted.upstreams.iter().any(|upstream| upstream.address == *address);
    match arguments.upstream_sites.iter().find(|(address, _)| !is_known(address)) {
        Some((address, _)) => Err(CliError::Usage(format!(
            "--upstream-site {address}: the Caddyfile has no such upstream; write host and port as `address` below [[upstream]]"
        ))),
        None => Ok(()),
    }
}

/// What a Caddyfile says, as `cluster.toml` has it.
#[derive(Serialize)]
struct Part<'a> {
    upstream: &'a [UpstreamSpec],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    certificate: &'a [CertificateSpec],
    route: &'a [RouteSpec],
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'a HealthSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyPart<'a>>,
}

#[derive(Serialize)]
struct ProxyPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_per_upstream_max: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    trusted_proxies: &'a [Cidr],
}

fn print_part(arguments: &AdaptArguments, adapted: &Adapted) -> Result<Exit, CliError> {
    let proxy = ProxyPart {
        idle_per_upstream_max: adapted.idle_per_upstream_max,
        trusted_proxies: &adapted.trusted_proxies,
    };
    let says_of_proxy = proxy.idle_per_upstream_max.is_some() || !proxy.trusted_proxies.is_empty();
    let part = Part {
        upstream: &adapted.upstreams,
        certificate: &adapted.certificates,
        route: &adapted.routes,
        health: adapted.health.as_ref(),
        proxy: says_of_proxy.then_some(proxy),
    };
    let text =
        toml::to_string(&part).map_err(|error| CliError::Usage(format!("TOML cannot hold it: {error}")))?;
    print(arguments, &part, &text, &adapted.traps, &[])
}

fn print_whole(
    arguments: &AdaptArguments,
    adapted: &Adapted,
    mut cluster: ClusterSpec,
) -> Result<Exit, CliError> {
    adapted.put_into(&mut cluster);
    let text =
        spec::to_toml(&cluster).map_err(|error| CliError::Usage(format!("TOML cannot hold it: {error}")))?;
    // What was read may not be what can be agreed on: an upstream at a site that there is none of, say.
    let cluster = match spec::from_toml(&text) {
        Ok(cluster) => cluster,
        Err(error) => return Ok(wrong([error.in_file(arguments.file.display())])),
    };
    let mut warnings: Vec<_> = validate::warnings(&cluster).iter().map(ToString::to_string).collect();
    let is_of_https = |route: &RouteSpec| route.matches.scheme == Some(Scheme::Https);
    if cluster.routes.iter().any(is_of_https) && !cluster.speaks_tls() {
        let what = "route: no port speaks TLS, and there are routes for HTTPS only; write `tls_ports` at the [[floating_ip]]";
        warnings.push(what.to_owned());
    }
    print(arguments, &cluster, &text, &adapted.traps, &warnings)
}

fn print(
    arguments: &AdaptArguments,
    spec: &impl Serialize,
    text: &str,
    traps: &[Trap],
    warnings: &[String],
) -> Result<Exit, CliError> {
    if arguments.json {
        let traps = traps
            .iter()
            .map(|trap| json!({ "place": trap.place.to_string(), "what": trap.what, "remedy": trap.remedy }));
        output::json(&json!({ "spec": spec, "traps": traps.collect::<Vec<_>>(), "warnings": warnings }))?;
        return Ok(Exit::Done);
    }
    for trap in traps {
        anstream::eprintln!("{trap}");
    }
    for warning in warnings {
        anstream::eprintln!("warning: {warning}");
    }
    output::line(text.trim_end())?;
    Ok(Exit::Done)
}

/// What this process has around it: its environment, and its files.
struct Host;

impl Surroundings for Host {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn files(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let path = Path::new(from).parent().unwrap_or_else(|| Path::new("")).join(pattern);
        let mut files = Vec::new();
        for path in matching(&path)? {
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            files.push((path.display().to_string(), text));
        }
        Ok(files)
    }
}

/// The file, or those that a name with `*` stands for, in their order. None is no error then, as a folder may be empty.
fn matching(path: &Path) -> Result<Vec<PathBuf>, String> {
    let written = path.to_string_lossy();
    if !written.contains('*') {
        return Ok(vec![path.to_owned()]);
    }
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if folder.to_string_lossy().contains('*') {
        return Err("`*` may stand in the name of the file only, not in that of a folder".to_owned());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Files that are hidden are so for a reason: an editor's copies, for one.
        if !name.starts_with('.') && is_like(&pattern, &name) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name is like a pattern in which each `*` stands for anything.
fn is_like(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|begin| name.strip_prefix(begin)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(end) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        assert!(is_like("*.caddy", "a.caddy") && !is_like("*.caddy", "a.caddy2"));
        assert!(is_like("a*b*c", "abbc") && !is_like("a*b*c", "ac") && is_like("*", "x"));
        assert!(!is_like("aa*aa", "aaa"));
    }

    #[test]
    fn files_are_looked_for_beside_the_one_that_imports_them() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("b.caddy", "respond 2"), ("a.caddy", "respond 1"), (".c.caddy", "respond 3")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let from = folder.path().join("Caddyfile");
        let files = Host.files("*.caddy", &from.to_string_lossy()).unwrap();
        let texts: Vec<_> = files.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["respond 1", "respond 2"]);
        assert!(Host.files("none", &from.to_string_lossy()).is_err());
        assert_eq!(Host.files("none*", &from.to_string_lossy()), Ok(Vec::new()));
    }

    #[test]
    fn a_caddyfile_replaces_the_upstreams_and_routes_of_a_cluster() {
        let text = include_str!("../../../caddyfile/examples/meeting-ha.Caddyfile");
        let mut cluster = spec::from_toml(include_str!("../../../../deploy/example/cluster.toml")).unwrap();
        let wishes = Wishes {
            known_sites: cluster.sites.iter().map(|site| site.name.clone()).collect(),
            ..Wishes::default()
        };
        let document = read("Caddyfile", text, &Host).unwrap();
        adapt(&document, &wishes).unwrap().put_into(&mut cluster);
        let written = spec::to_toml(&cluster).unwrap();
        assert_eq!(spec::from_toml(&written).unwrap(), cluster);
        assert_eq!(cluster.upstreams.len(), 4);
    }

    #[test]
    fn a_site_is_said_after_the_address() {
        let (address, site) = upstream_site("[::1]:3443=gra").unwrap();
        assert_eq!((address.as_str(), site.as_str()), ("[::1]:3443", "gra"));
        assert!(upstream_site("a:1").is_err() && upstream_site("a:1=Gra 1").is_err());
    }
}
