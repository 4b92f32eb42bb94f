//! Certificates on this host, looked at before anybody needs them.

use super::certificates::Loaded;
use crate::wall::wall_clock;
use rustls::crypto::ring::default_provider;
use std::time::Duration;
use twinsite_model::spec::CertificateSpec;

/// A certificate that ends within this should have been renewed: those of Let's Encrypt are 30 days before their end.
const ENDS_SOON: Duration = Duration::from_hours(14 * 24);

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFinding {
    /// Clients cannot be served with it.
    Unusable(String),
    /// It should have been renewed.
    EndsSoon(String),
}

/// Reads all certificates as a node does.
pub fn examine_certificates(certificates: &[CertificateSpec]) -> Vec<CertificateFinding> {
    let provider = default_provider();
    let now = i64::try_from(wall_clock().0 / 1_000).unwrap_or(i64::MAX);
    let finding = |spec: &CertificateSpec| match Loaded::read(spec, &provider) {
        Err(error) => Some(CertificateFinding::Unusable(format!("certificate `{}`: {error}", spec.name))),
        Ok(loaded) => of_end(&spec.name.to_string(), loaded.expires, now),
    };
    certificates.iter().filter_map(finding).collect()
}

fn of_end(name: &str, expires: i64, now: i64) -> Option<CertificateFinding> {
    let left = expires - now;
    let days = left / 86_400;
    if left <= 0 {
        return Some(CertificateFinding::Unusable(format!("certificate `{name}` has ended: renew it")));
    }
    let is_soon = left < i64::try_from(ENDS_SOON.as_secs()).unwrap_or(i64::MAX);
    is_soon.then(|| {
        CertificateFinding::EndsSoon(format!(
            "certificate `{name}` ends in {days} days: see why it is not renewed"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::tests::written;

    #[test]
    fn files_are_read_as_a_node_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let good = written(&folder, "good", &["a.example"]);
        let missing = CertificateSpec { chain: folder.path().join("none.pem"), ..good.clone() };
        assert_eq!(examine_certificates(std::slice::from_ref(&good)), []);
        let found = examine_certificates(&[missing, good]);
        assert!(
            matches!(&found[..], [CertificateFinding::Unusable(what)] if what.contains("none.pem")),
            "{found:?}"
        );
    }

    #[test]
    fn the_end_is_told_in_time() {
        assert_eq!(of_end("meet", 100 * 86_400, 0), None);
        assert!(
            matches!(of_end("meet", 3 * 86_400, 0), Some(CertificateFinding::EndsSoon(what)) if what.contains("3 days"))
        );
        assert!(matches!(of_end("meet", 5, 5), Some(CertificateFinding::Unusable(_))));
    }
}
