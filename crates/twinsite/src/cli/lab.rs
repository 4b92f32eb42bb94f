//! `twinsite lab`: a lab that stands by itself.

use super::lab_arguments::{
    CutArguments, DownArguments, LabCommand, LinkArguments, ProcessArguments, ShellArguments, UpArguments,
};
use super::{CliError, Exit, lab_status, lab_up, output};
use crate::client_file;
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use twinsite_drill::lab::life::Life;
use twinsite_drill::lab::{self, leftovers};
use twinsite_drill::standing::{
    ANSWER_PATIENCE, Answer, ControlError, Found, LabName, LinkChange, ProcessAct, Record, Register,
    RegisterError, Wish, ask,
};

/// How long a lab may take to hear that it shall go down.
const HEARING_MAX: Duration = Duration::from_secs(5);
/// How long a lab that goes down may take.
const GOING_DOWN_MAX: Duration = Duration::from_secs(40);
/// How long one may take that did not hear.
const TERMINATION_MAX: Duration = Duration::from_secs(10);

/// How long a process that was killed may take to be gone.
const DYING_MAX: Duration = Duration::from_secs(1);

/// `twinsite lab`.
pub fn run(command: &LabCommand) -> Result<Exit, CliError> {
    lab::require_root()?;
    match command {
        LabCommand::Up(arguments) => up(arguments),
        LabCommand::Status(arguments) => lab_status::run(arguments),
        LabCommand::Shell(arguments) => shell(arguments),
        LabCommand::Link(arguments) => link(arguments),
        LabCommand::Cut(arguments) => cut(arguments),
        LabCommand::Kill(arguments) => act(arguments, ProcessAct::Kill),
        LabCommand::Freeze(arguments) => act(arguments, ProcessAct::Freeze),
        LabCommand::Thaw(arguments) => act(arguments, ProcessAct::Thaw),
        LabCommand::Start(arguments) => act(arguments, ProcessAct::Start),
        LabCommand::Down(arguments) => down(arguments),
    }
}

fn up(arguments: &UpArguments) -> Result<Exit, CliError> {
    lab::require()?;
    if arguments.foreground || arguments.detached {
        crate::lab_keeper::keep(arguments)
    } else {
        lab_up::run(arguments)
    }
}

/// The lab that was named, or the only one.
pub fn find(name: Option<&LabName>) -> Result<Found, CliError> {
    let register = Register::default();
    if let Some(name) = name {
        return Ok(register.find(name)?);
    }
    let mut labs = register.labs()?;
    match (labs.pop(), labs.is_empty()) {
        (None, _) => Err(CliError::Unreachable("no lab is up; `twinsite lab up` makes one".to_owned())),
        (Some(found), true) => Ok(found),
        (Some(last), false) => {
            let names: Vec<_> = labs.iter().chain([&last]).map(|found| found.name.as_str()).collect();
            Err(CliError::Usage(format!("there are several labs: say --name, one of {}", names.join(", "))))
        }
    }
}

/// What is noted of a lab, if it is kept.
fn kept(found: &Found) -> Result<&Record, CliError> {
    let record = found.record.as_ref().filter(|_| found.is_kept());
    record.ok_or_else(|| CliError::Unreachable(nobody_keeps(found)))
}

/// What is said of a lab whose process has ended.
pub fn nobody_keeps(found: &Found) -> String {
    let name = &found.name;
    let pid = found.record.as_ref().map_or_else(String::new, |record| format!(" {}", record.keeper.pid));
    format!(
        "the process{pid} that kept the lab `{name}` is gone, killed perhaps; `twinsite lab down --name {name}` removes what \
         is left"
    )
}

/// Asks the process that keeps a lab.
pub fn ask_keeper(found: &Found, wish: Wish) -> Result<Answer, CliError> {
    let record = kept(found)?;
    if !found.control().exists() {
        let (name, pid) = (&found.name, record.keeper.pid);
        let problem = format!("the lab `{name}` is starting or going down (process {pid}); try again");
        return Err(CliError::Unreachable(problem));
    }
    match ask(&found.control(), wish, ANSWER_PATIENCE) {
        Ok(answer) => Ok(answer),
        // One that was killed just now refuses before it is gone.
        Err(ControlError::Silent { .. }) if record.keeper.wait(DYING_MAX) => {
            Err(CliError::Unreachable(nobody_keeps(found)))
        }
        Err(error @ ControlError::Silent { .. }) => Err(CliError::Unreachable(error.to_string())),
        Err(error @ ControlError::Strange { .. }) => Err(CliError::Refused(error.to_string())),
    }
}

/// Asks for something to be done, and prints what is so now.
fn have_done(name: Option<&LabName>, wish: Wish) -> Result<Exit, CliError> {
    match ask_keeper(&find(name)?, wish)? {
        Answer::Done(said) => output::line(&said).map(|()| Exit::Done),
        Answer::Refused(why) => Err(CliError::Refused(why)),
        Answer::Status(_) => Err(CliError::Refused("an answer to another question came back".to_owned())),
    }
}

fn act(arguments: &ProcessArguments, act: ProcessAct) -> Result<Exit, CliError> {
    have_done(arguments.name.as_ref(), Wish::Process { name: arguments.process.clone(), act })
}

fn link(arguments: &LinkArguments) -> Result<Exit, CliError> {
    let wish = match (&arguments.from, &arguments.to) {
        (Some(from), Some(to)) if arguments.heal => Wish::Heal { from: from.clone(), to: to.clone() },
        (Some(from), Some(to)) => {
            let change = &arguments.change;
            if change.is_empty() {
                let problem =
                    "say what becomes of the link: --delay, --jitter, --loss, --rate, --cut or --heal";
                return Err(CliError::Usage(problem.to_owned()));
            }
            Wish::Link(LinkChange {
                from: from.clone(),
                to: to.clone(),
                cut: change.cut,
                delay: change.delay,
                jitter: change.jitter,
                rate: change.rate,
                loss_percent: change.loss,
            })
        }
        _ => Wish::HealAll,
    };
    have_done(arguments.name.as_ref(), wish)
}

fn cut(arguments: &CutArguments) -> Result<Exit, CliError> {
    have_done(arguments.name.as_ref(), Wish::Host { name: arguments.host.clone(), cut: !arguments.heal })
}

/// Becomes a shell, or the command, on a host.
fn shell(arguments: &ShellArguments) -> Result<Exit, CliError> {
    let found = find(arguments.name.as_ref())?;
    let record = kept(&found)?;
    let Some(host) = record.host(&arguments.host) else {
        let names: Vec<_> = record.hosts.iter().map(|host| host.name.as_str()).collect();
        let problem = format!("there is no host `{}`; there are: {}", arguments.host, names.join(", "));
        return Err(CliError::Usage(problem));
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &host.namespace]);
    match &arguments.command[..] {
        [] => {
            let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
            command.arg(shell.unwrap_or_else(|| OsString::from("/bin/sh")));
            if std::io::stdin().is_terminal() {
                anstream::eprintln!(
                    "On {} ({}) of the lab `{}`; `exit` leaves it.",
                    host.name,
                    host.address,
                    found.name
                );
            }
        }
        given => {
            command.args(given);
        }
    }
    let prompt = format!("({} {}) ", found.name, host.name);
    command.env("TWINSITE_LAB", found.name.as_str()).env("TWINSITE_LAB_HOST", &host.name);
    command.env("TWINSITE_CLIENT", found.client_file());
    // For sh; bash gets its prompt from its start-up files, and puts ours before it.
    command.env("PS1", format!("{prompt}# "));
    command.env("PROMPT_COMMAND", format!("case $PS1 in '{prompt}'*) ;; *) PS1=\"{prompt}$PS1\";; esac"));
    command.env("PATH", path_with_this_program());
    let source = command.exec();
    Err(CliError::System { what: "run `ip netns exec`", source })
}

/// The search path on which `twinsite` is this program.
fn path_with_this_program() -> OsString {
    let usual = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().ok().and_then(|program| program.parent().map(PathBuf::from));
    let folders = own.into_iter().chain(std::env::split_paths(&usual));
    std::env::join_paths(folders).unwrap_or(usual)
}

fn down(arguments: &DownArguments) -> Result<Exit, CliError> {
    let register = Register::default();
    let labs = match &arguments.name {
        None if arguments.all => register.labs()?,
        name => match find(name.as_ref()) {
            Ok(found) => vec![found],
            // It is down already.
            Err(CliError::Register(RegisterError::Unknown { .. }) | CliError::Unreachable(_)) => Vec::new(),
            Err(error) => return Err(error),
        },
    };
    if labs.is_empty() {
        output::line(
            &arguments
                .name
                .as_ref()
                .map_or_else(|| "no lab is up".to_owned(), |name| format!("no lab called `{name}` is up")),
        )?;
    }
    for found in &labs {
        take_down(found)?;
    }
    // What a killed demo has left, too.
    lab::remove_leftovers();
    Ok(Exit::Done)
}

fn take_down(found: &Found) -> Result<(), CliError> {
    let name = &found.name;
    if let Some(place) = leftovers::own_place(&found.namespaces()) {
        let problem = format!(
            "this is within the lab `{name}`, in {place}: leave the shell first, which would end too"
        );
        return Err(CliError::Usage(problem));
    }
    let was_kept = found.is_kept();
    if let Some(record) = found.record.as_ref().filter(|_| was_kept) {
        end_keeper(found, record.keeper)?;
    }
    let removed = found.remove()?;
    client_file::forget_demo(&found.client_file());
    if !removed.left.is_empty() {
        let left: Vec<_> = removed.left.iter().map(ToString::to_string).collect();
        let problem = format!("processes of the lab `{name}` that cannot be ended: {}", left.join(", "));
        return Err(CliError::Refused(problem));
    }
    output::line(&if was_kept {
        format!("the lab `{name}` is down")
    } else {
        format!("what was left of the lab `{name}` is removed: {} namespaces", removed.namespaces)
    })
}

/// Has the process that keeps a lab take it down; one that does not do so is killed, and what it leaves is removed later.
fn end_keeper(found: &Found, keeper: Life) -> Result<(), CliError> {
    let failed = |source| CliError::System { what: "end the process that keeps the lab", source };
    let patience = match ask(&found.control(), Wish::Down, HEARING_MAX) {
        Ok(_) => GOING_DOWN_MAX,
        // It starts, or hangs, or was told before.
        Err(_) => {
            keeper.signal(Signal::TERM).map_err(failed)?;
            TERMINATION_MAX
        }
    };
    if keeper.wait(patience) {
        return Ok(());
    }
    keeper.signal(Signal::KILL).map_err(failed)?;
    if keeper.wait(TERMINATION_MAX) {
        return Ok(());
    }
    let problem = format!("process {}, which keeps the lab `{}`, cannot be ended", keeper.pid, found.name);
    Err(CliError::Refused(problem))
}
