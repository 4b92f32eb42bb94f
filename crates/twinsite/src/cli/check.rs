//! `twinsite check`: what can be known before a node starts.

use super::arguments::CheckArguments;
use super::{CliError, Exit};
use crate::config::{self, Loaded};
use crate::identity::Credentials;
use crate::node::may_hold;
use serde_json::json;
use twinsite_floating_ip::{HostFinding, examine};
use twinsite_model::FloatingIpName;
use twinsite_model::spec::validate;
use twinsite_model::timing::Inequality;
use twinsite_model::{Profile, Timing};
use twinsite_proxy::{CertificateFinding, examine_certificates};

/// Checks the configuration, or only the timings of a profile.
pub fn run(arguments: &CheckArguments) -> Result<Exit, CliError> {
    let loaded = arguments.config.as_deref().map(config::load).transpose()?;
    if let Some(loaded) = &loaded {
        let credentials = Credentials::load(&loaded.node.tls)?;
        credentials.check_node(&loaded.node.tls.cert, &loaded.spec.cluster, loaded.me.id)?;
    }
    let timing = match &loaded {
        Some(loaded) => loaded.spec.timing(),
        None => Timing::of(profile(&arguments.profile)?),
    };
    let warnings = loaded.as_ref().map(|loaded| validate::warnings(&loaded.spec)).unwrap_or_default();
    let mut warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let mut problems = Vec::new();
    for (ip, HostFinding { forbids, what }) in loaded.iter().flat_map(of_host) {
        let list = if forbids { &mut problems } else { &mut warnings };
        list.push(format!("floating IP `{ip}`: {what}"));
    }
    if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.me.kind.serves()) {
        for found in examine_certificates(&loaded.spec.certificates) {
            match found {
                CertificateFinding::Unusable(what) => problems.push(what),
                CertificateFinding::EndsSoon(what) => warnings.push(what),
            }
        }
    }
    let rules = timing.inequalities();
    let holds = problems.is_empty() && rules.iter().all(|rule| rule.holds);
    if arguments.json {
        let rules: Vec<_> = rules.iter().map(to_json).collect();
        let wait_ms = timing.wait().as_secs_f64() * 1e3;
        let round_trip_max_ms = timing.round_trip_max().as_secs_f64() * 1e3;
        super::output::json(&json!({
            "ok": holds, "problems": problems, "warnings": warnings, "wait_ms": wait_ms,
            "round_trip_max_ms": round_trip_max_ms, "timing": rules
        }))?;
    } else {
        if let Some(loaded) = &loaded {
            super::output::line(&format!(
                "node {} (id {}) of cluster {}, site {}: configuration and certificate fit together",
                loaded.me.name, loaded.me.id, loaded.spec.cluster, loaded.me.site
            ))?;
        }
        for warning in &warnings {
            super::output::line(&format!("warning: {warning}"))?;
        }
        for problem in &problems {
            super::output::line(&format!("problem: {problem}"))?;
        }
        if arguments.timing || rules.iter().any(|rule| !rule.holds) {
            print_timing(&timing, &rules)?;
        }
    }
    Ok(if holds { Exit::Done } else { Exit::Refused })
}

/// What stands in the way of the addresses that this host may hold.
fn of_host(loaded: &Loaded) -> Vec<(FloatingIpName, HostFinding)> {
    let held = loaded.spec.floating_ips.iter().filter(|ip| may_hold(loaded, ip));
    let found = held.filter_map(|ip| Some((ip, loaded.node.interface(ip)?))).flat_map(|(ip, interface)| {
        examine(ip.address, &interface).into_iter().map(|finding| (ip.name.clone(), finding))
    });
    found.collect()
}

fn profile(name: &str) -> Result<Profile, CliError> {
    match name {
        "lan" => Ok(Profile::Lan),
        "wan" => Ok(Profile::Wan),
        other => Err(CliError::Usage(format!("--profile `{other}`: write lan or wan"))),
    }
}

fn print_timing(timing: &Timing, rules: &[Inequality]) -> Result<(), CliError> {
    let mut table = super::output::table(&["", "RULE", "NUMBERS", "WHY"]);
    for rule in rules {
        let mark = if rule.holds { "ok" } else { "BROKEN" };
        table.add_row([mark, rule.rule, &format!("{:?} < {:?}", rule.low, rule.high), rule.why]);
    }
    super::output::line(&table.to_string())?;
    super::output::line(&format!(
        "\nA silent owner is waited out for W = lease*(1+r)/(1-r) + slack = {:.1} ms (r = {} ppm).\n\
         A message between any two nodes and its answer must take less than {:.1} ms, or nobody can lead.\n\
         Assumed of every machine: no clock is wrong in rate by more than r; disks keep what they have synced; the\n\
         kernel ends a process within the slack after SIGKILL; all holders of a loopback address share one network\n\
         namespace. A hypervisor that pauses a whole guest may stop its clocks: give such machines a longer lease.",
        timing.wait().as_secs_f64() * 1e3,
        timing.drift_ppm,
        timing.round_trip_max().as_secs_f64() * 1e3
    ))
}

fn to_json(rule: &Inequality) -> serde_json::Value {
    json!({
        "rule": rule.rule,
        "low_ms": rule.low.as_secs_f64() * 1e3,
        "high_ms": rule.high.as_secs_f64() * 1e3,
        "holds": rule.holds,
        "why": rule.why,
    })
}
