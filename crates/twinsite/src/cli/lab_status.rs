//! `twinsite lab status`.

use super::lab::{ask_keeper, find, nobody_keeps};
use super::lab_arguments::LabQueryArguments;
use super::{CliError, Exit, output};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use twinsite_drill::lab::holding::{Gate, Holding};
use twinsite_drill::lab::leftovers;
use twinsite_drill::standing::{Answer, Found, LabStatus, ProcessStatus, Wish};

/// `twinsite lab status`.
pub fn run(arguments: &LabQueryArguments) -> Result<Exit, CliError> {
    let found = find(arguments.name.as_ref())?;
    if !found.is_kept() {
        return remains(&found, arguments.json);
    }
    let answer = match ask_keeper(&found, Wish::Status) {
        Err(_) if !found.is_kept() => return remains(&found, arguments.json),
        answer => answer?,
    };
    match answer {
        Answer::Status(status) if arguments.json => {
            let mut value = serde_json::to_value(&status).map_err(|error| CliError::Output(error.into()))?;
            value["state"] = Value::from("up");
            output::json(&value)?;
        }
        Answer::Status(status) => output::line(&text(&status))?,
        Answer::Refused(why) => return Err(CliError::Refused(why)),
        Answer::Done(_) => {
            return Err(CliError::Refused("an answer to another question came back".to_owned()));
        }
    }
    Ok(Exit::Done)
}

/// What is there of a lab that nobody keeps.
fn remains(found: &Found, json: bool) -> Result<Exit, CliError> {
    let namespaces = found.namespaces();
    let processes = leftovers::inhabitants(&namespaces);
    if json {
        output::json(&json!({
            "name": found.name,
            "state": "killed",
            "pid": found.record.as_ref().map(|record| record.keeper.pid),
            "namespaces": namespaces,
            "processes": processes,
            "directory": found.files(),
        }))?;
    } else {
        output::line(&format!("lab {}: NOBODY KEEPS IT; its links carry nothing", found.name))?;
        let numbers = processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        output::line(&format!("left: {} namespaces; processes: {}", namespaces.len(), or_none(&numbers)))?;
        output::line(&format!("logs: {}, {}", found.files().display(), found.log().display()))?;
    }
    Err(CliError::Unreachable(nobody_keeps(found)))
}

fn text(status: &LabStatus) -> String {
    let began = SystemTime::UNIX_EPOCH + Duration::from_millis(status.began_unix_ms);
    let up = SystemTime::now().duration_since(began).unwrap_or_default();
    let up = humantime::format_duration(Duration::from_secs(up.as_secs()));
    let mut hosts = output::table(&["HOST", "SITE", "ADDRESS", "NAMESPACE", "PROCESS", "PID", "STATE"]);
    for host in &status.hosts {
        let place = &host.place;
        let site = place.site.as_ref().map_or("-", |site| site.as_str());
        let row = |process: Option<&ProcessStatus>| {
            let pid =
                process.and_then(|process| process.pid).map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            [
                place.name.clone(),
                site.to_owned(),
                if host.is_cut { format!("{} CUT OFF", place.address) } else { place.address.to_string() },
                place.namespace.clone(),
                process.map_or_else(|| "-".to_owned(), |process| process.name.clone()),
                pid,
                process.map_or("-", |process| process.state.as_str()).to_owned(),
            ]
        };
        let rows = host.processes.iter().map(|process| row(Some(process)));
        let rows: Vec<_> = if host.processes.is_empty() { vec![row(None)] } else { rows.collect() };
        hosts.add_rows(rows);
    }
    let mut links = output::table(&["FROM", "TO", "LINK"]);
    for link in &status.links {
        links.add_row([link.from.as_str(), link.to.as_str(), &link.shape().to_string()]);
    }
    let holders = status.hosts.iter().filter_map(|host| Some((host.place.name.as_str(), host.floating?)));
    let holders = holders.filter(|(_, holding)| holding.present);
    let holders: Vec<_> = holders.map(|(name, holding)| format!("{name} ({})", in_words(holding))).collect();
    let ended = status
        .links_ended
        .as_ref()
        .map_or_else(String::new, |why| format!("\nTHE LINKS CARRY NOTHING: {why}"));
    format!(
        "lab {name}: up for {up}, profile {profile}, kept by process {pid}\n\
         floating address {floating}: by the kernels on {holders}\n\
         {hosts}\n\
         {links}{ended}\n\
         logs: {directory}\n\
         client file: {client}",
        name = status.name,
        profile = status.profile,
        pid = status.pid,
        floating = status.floating,
        holders = if holders.is_empty() { "no host".to_owned() } else { holders.join(", ") },
        directory = status.directory.display(),
        client = status.client_file.display(),
    )
}

fn in_words(holding: Holding) -> String {
    let gate = match holding.gate {
        Gate::Dark => "dark",
        Gate::Light => "light",
        Gate::Missing => "WITHOUT RULES",
    };
    let listening = match holding.listening {
        Some(true) => ", listening",
        Some(false) => ", nobody listens",
        None => "",
    };
    format!("{gate}{listening}")
}

fn or_none(list: &str) -> &str {
    if list.is_empty() { "none" } else { list }
}
