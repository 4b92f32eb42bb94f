//! `tls`: which certificate a site has.

use super::line;
use super::names::Names;
use super::notes::{Notes, shown};
use crate::document::Directive;
use crate::place::Place;
use std::path::PathBuf;
use twinsite_model::CertificateName;
use twinsite_model::spec::CertificateSpec;

/// The certificates that sites name, each once.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) list: Vec<(CertificateSpec, Place)>,
    names: Names,
}

impl Certificates {
    /// Reads a site's `tls`; `host` is the site's first one. Gives whether it has files.
    pub(super) fn read(&mut self, directive: &Directive, host: &str, notes: &mut Notes) -> bool {
        for one in directive.block.iter().flatten() {
            let remedy =
                "remove it: twinsite speaks TLS 1.2 and 1.3 to everybody, with the files of [[certificate]]";
            line::unknown::<()>("option", &one.name, remedy, notes);
        }
        let [chain, key] = directive.arguments.as_slice() else {
            if directive.arguments.len() > 2 {
                line::wrong::<()>(directive, "tls /CERTIFICATE.pem /KEY.pem", notes);
            }
            return false;
        };
        for file in [chain, key] {
            if !file.text.starts_with('/') {
                let what = format!("`{}` depends on where a node was started", shown(&file.text));
                notes.error::<()>(
                    &file.place,
                    what,
                    "write the whole path, from `/`, as it is on every node",
                );
            }
        }
        let (chain, key) = (PathBuf::from(&chain.text), PathBuf::from(&key.text));
        if !self.list.iter().any(|(other, _)| other.chain == chain && other.key == key)
            && let Ok(name) = CertificateName::new(self.names.free(host, "certificate"))
        {
            self.list.push((CertificateSpec { name, chain, key }, directive.name.place.clone()));
        }
        true
    }
}
