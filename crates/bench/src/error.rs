//! Why nothing was measured.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A program cannot be started.
    #[error("cannot start {program}: {source}; is it installed?")]
    Start { program: String, source: io::Error },
    /// A proxy does not answer.
    #[error("{proxy} gave no good answer within {seconds} s, or ended; it said: {said}")]
    NotReady { proxy: String, seconds: u64, said: String },
    /// A generator ended badly.
    #[error("{program} failed: {why}")]
    Load { program: String, why: String },
    /// A file or socket.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Answers were wrong, so that their speed says nothing.
    #[error("{proxy}, {case}: {failed} of {of} requests failed")]
    Failures { proxy: String, case: String, failed: u64, of: u64 },
    /// Something is missing in the report.
    #[error("{0} of the measurements failed; the lines above say which")]
    NotAll(u32),
    /// Certificates cannot be made.
    #[error(transparent)]
    Certificate(#[from] twinsite_drill::process::CertificateError),
}

impl BenchError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
