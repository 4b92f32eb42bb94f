//! Structured logs. `RUST_LOG` chooses what is said; the default is everything of ours from `info` up.

use crate::cli::arguments::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise. openraft narrates every vote; its warnings are enough.
const DEFAULT_FILTER: &str = "warn,twinsite=info,openraft=error";

/// Starts logging to standard error.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Does something in which a library may panic over damaged data. The panic is caught there and becomes an error of one
/// line; its own message would only be noise. To be called before there are other threads that matter.
pub fn without_panic_messages<T>(work: impl FnOnce() -> T) -> T {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = work();
    std::panic::set_hook(usual);
    done
}
