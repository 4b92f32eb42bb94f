//! What the tests need beside Rust: installed from Debian's packages where that is possible.

use crate::run::{TaskError, found, output, root, run, target};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes sure that `program` is here; installs `package` if this is Debian and we are root. Says what happened.
pub fn ensure(program: &str, package: &str) -> bool {
    if found(program) {
        return true;
    }
    let root = output(Command::new("id").arg("-u")).as_deref() == Some("0");
    if !(root && found("apt-get")) {
        anstream::println!("{program} is missing; `apt-get install {package}` (as root) provides it");
        return false;
    }
    anstream::println!("{program} is missing: installing {package}");
    let install = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        // The service that the package would start is not wanted; tests start their own.
        command.env("RUNLEVEL", "1").args([
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
            package,
        ]);
        run(&mut command)
    };
    let installed = install().is_ok()
        || (run(Command::new("apt-get").args(["update", "--quiet"])).is_ok() && install().is_ok());
    installed && found(program)
}

/// Installs the packages of npm that the tests of real Socket.IO clients use, as their lock file says, into the folder of
/// what is built. Says why not, where that is so.
pub fn npm_packages() -> Result<(), String> {
    if !(ensure("node", "nodejs") && ensure("npm", "npm")) {
        return Err("node or npm is not installed".to_owned());
    }
    let (source, folder) = (root().join("tests/socketio"), target().join("socketio"));
    let read = |folder: &Path| fs::read(folder.join("package-lock.json")).ok();
    // npm writes this last.
    if folder.join("node_modules/.package-lock.json").is_file() && read(&folder) == read(&source) {
        return Ok(());
    }
    let install = || -> Result<(), TaskError> {
        let failed = |source| TaskError::File { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        for file in [".npmrc", "package.json", "package-lock.json"] {
            fs::copy(source.join(file), folder.join(file)).map_err(failed)?;
        }
        // None of them needs to run anything to be installed.
        let arguments = ["ci", "--ignore-scripts", "--no-progress", "--prefix"];
        run(Command::new("npm").args(arguments).arg(&folder).current_dir(&folder)).map(drop)
    };
    install().map_err(|error| error.to_string())
}

/// Whether a lab can be made here: network namespaces and TAPs, and who may make them. Else why not.
pub fn lab() -> Result<(), &'static str> {
    if output(Command::new("id").arg("-u")).as_deref() != Some("0") {
        return Err("a lab needs root");
    }
    if !ensure("ip", "iproute2") {
        return Err("a lab needs `ip` of the package iproute2");
    }
    let probe = format!("twinsite-probe-{}", std::process::id());
    let netns = |verb| output(Command::new("ip").args(["netns", verb, &probe])).is_some();
    if !(netns("add") && netns("delete")) {
        return Err("network namespaces cannot be made here");
    }
    if fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        return Err("/dev/net/tun cannot be opened here");
    }
    Ok(())
}
