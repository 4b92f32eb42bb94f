//! Drills: a fault, on purpose, with guards, clients, measurements and a report. See `OVERVIEW.md`.

pub mod archive;
pub mod audit;
pub mod engine;
pub mod lab;
pub mod layout;
pub mod live;
pub mod load;
pub mod measure;
pub mod meeting;
pub mod process;
pub mod random;
pub mod scenario;
pub mod side_by_side;
pub mod standing;
pub mod wan;

/// Says what cannot be checked here, where `cargo xtask test` finds it for its summary.
#[cfg(test)]
pub(crate) fn left_out(what: &str) {
    let Some(path) = std::env::var_os("TWINSITE_LEFT_OUT") else {
        eprintln!("left out: {what}");
        return;
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    std::io::Write::write_all(&mut file.unwrap(), format!("{what}\n").as_bytes()).unwrap();
}
