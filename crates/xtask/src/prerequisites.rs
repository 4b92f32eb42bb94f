//! What the tests need beside Rust: installed from Debian's packages where that is possible.

use crate::run::{found, output, run};
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
