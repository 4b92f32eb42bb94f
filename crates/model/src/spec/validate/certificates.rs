//! Certificates, and whether there are any where TLS is spoken.

use super::{Findings, key, unique};
use crate::spec::ClusterSpec;

/// Certificates of one cluster: each handshake looks for its name among them, and each node reads them all.
const CERTIFICATES_MAX: usize = 1_000;

pub(super) fn check(spec: &ClusterSpec, findings: &mut Findings) {
    findings.count("certificate", spec.certificates.len(), 0..=CERTIFICATES_MAX);
    let certificates = || spec.certificates.iter().enumerate();
    unique(
        certificates().map(|(index, it)| (&it.name, key("certificate", index, &it.name, "name"))),
        "give each certificate its own name",
        findings,
    );
    for (index, certificate) in certificates() {
        for (field, path) in [("chain", &certificate.chain), ("key", &certificate.key)] {
            if !path.is_absolute() {
                findings.add(
                    key("certificate", index, &certificate.name, field),
                    format!("`{}` depends on where a node was started", path.display()),
                    "write the whole path, from `/`",
                );
            }
        }
    }
    if spec.certificates.is_empty() && spec.speaks_tls() {
        findings.add(
            "certificate",
            "clients are to be served by TLS, and there is no certificate",
            "write a [[certificate]] with `chain` and `key`, or remove `https` and `tls_ports`",
        );
    }
}

pub(super) fn warn(spec: &ClusterSpec, findings: &mut Findings) {
    if !spec.certificates.is_empty() && !spec.speaks_tls() {
        findings.add(
            "certificate",
            "no port speaks TLS, so no client is given it",
            "write `tls_ports = [443]` at the [[floating_ip]], or `https` at the nodes",
        );
    }
    for (index, ip) in spec.floating_ips.iter().enumerate() {
        if ip.ports.contains(&443) && !ip.tls_ports.contains(&443) {
            findings.add(
                key("floating_ip", index, &ip.name, "ports"),
                "443 is the port of HTTPS, and without TLS browsers find nothing there",
                "write `tls_ports = [443]` and a [[certificate]]",
            );
        }
    }
}
