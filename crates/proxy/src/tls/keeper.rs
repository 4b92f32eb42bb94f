//! Keeps those certificates in force that are in the files. One that cannot be used changes nothing: the former one stays.

use super::certificates::{CertificateError, Certificates, Loaded, Resolver};
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use twinsite_model::CertificateName;
use twinsite_model::spec::CertificateSpec;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a node has of its certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificatesState {
    /// Each that the specification names, in its order.
    pub certificates: Vec<CertificateState>,
}

impl CertificatesState {
    /// Whether clients of every name can be served: each certificate is there, if perhaps an older one.
    pub fn is_complete(&self) -> bool {
        self.certificates.iter().all(|certificate| certificate.expires.is_some())
    }

    /// Why no client at all can be served; none if some can. With one of several it serves some, and that is better than
    /// nobody.
    pub fn nobody_because(&self) -> Option<&str> {
        if self.certificates.iter().any(|certificate| certificate.expires.is_some()) {
            return None;
        }
        let mut problems = self.certificates.iter().filter_map(|certificate| certificate.problem.as_deref());
        Some(problems.next().unwrap_or("none was read yet"))
    }
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateState {
    /// Its name in the specification.
    pub name: CertificateName,
    /// The host names that it is for, of the one in force.
    pub hosts: Vec<String>,
    /// When the one in force ends, in seconds since 1970; none if none is.
    pub expires: Option<i64>,
    /// Why what is in the files now is not in force.
    pub problem: Option<String>,
}

/// A thread that looks at files.
pub(super) struct Keeper {
    wanted: Mutex<Vec<CertificateSpec>>,
    sender: Sender<Vec<CertificateSpec>>,
    state: Arc<ArcSwap<CertificatesState>>,
}

impl Keeper {
    /// Starts it. It ends when this is dropped.
    pub(super) fn start(resolver: Arc<Resolver>, provider: Arc<CryptoProvider>) -> io::Result<Self> {
        let (sender, inbox) = channel();
        let state = Arc::new(ArcSwap::default());
        let work = Work {
            resolver,
            provider,
            state: Arc::clone(&state),
            specs: Vec::new(),
            loaded: BTreeMap::new(),
            seen: BTreeMap::new(),
            problems: BTreeMap::new(),
        };
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || work.run(&inbox))?;
        Ok(Self { wanted: Mutex::default(), sender, state })
    }

    /// These are to be in force from now on.
    pub(super) fn want(&self, certificates: &[CertificateSpec]) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *wanted != certificates {
            *wanted = certificates.to_vec();
            // It ends only with the process.
            let _ended = self.sender.send(wanted.clone());
        }
    }

    pub(super) fn state(&self) -> Arc<CertificatesState> {
        self.state.load_full()
    }
}

/// What tells a file from another one in its place.
type Mark = Option<(u64, u64, i64, i64, u64)>;

fn mark(path: &Path) -> Mark {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

fn named<'a>(specs: &'a [CertificateSpec], name: &CertificateName) -> Option<&'a CertificateSpec> {
    specs.iter().find(|spec| spec.name == *name)
}

struct Work {
    resolver: Arc<Resolver>,
    provider: Arc<CryptoProvider>,
    state: Arc<ArcSwap<CertificatesState>>,
    specs: Vec<CertificateSpec>,
    loaded: BTreeMap<CertificateName, Loaded>,
    /// The files as they were when they were last read.
    seen: BTreeMap<CertificateName, [Mark; 2]>,
    problems: BTreeMap<CertificateName, String>,
}

impl Work {
    fn run(mut self, inbox: &Receiver<Vec<CertificateSpec>>) {
        loop {
            match inbox.recv_timeout(LOOK_EVERY) {
                Ok(specs) => self.follow(specs),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn follow(&mut self, specs: Vec<CertificateSpec>) {
        // What another name or other files stand for now is read anew.
        let known = std::mem::replace(&mut self.specs, specs);
        let specs = &self.specs;
        self.seen.retain(|name, _| named(specs, name) == named(&known, name));
        self.loaded.retain(|name, _| named(specs, name).is_some());
        self.problems.retain(|name, _| named(specs, name).is_some());
        self.read_what_changed();
        self.publish();
    }

    fn look(&mut self) {
        if self.read_what_changed() {
            self.publish();
        }
    }

    /// Whether anything is different now.
    fn read_what_changed(&mut self) -> bool {
        let mut changed = false;
        for spec in self.specs.clone() {
            let marks = [mark(&spec.chain), mark(&spec.key)];
            // What could not be used may have been in the middle of being written.
            if self.seen.get(&spec.name) == Some(&marks) && !self.problems.contains_key(&spec.name) {
                continue;
            }
            self.seen.insert(spec.name.clone(), marks);
            let read = Loaded::read(&spec, &self.provider);
            changed |= self.note(spec.name, read);
        }
        changed
    }

    fn note(&mut self, name: CertificateName, read: Result<Loaded, CertificateError>) -> bool {
        match read {
            Ok(loaded) => {
                tracing::info!(certificate = %name, hosts = ?loaded.hosts, "a certificate is in force");
                metrics::counter!("twinsite_certificate_loads_total", "result" => "ok").increment(1);
                let expires = metrics::gauge!("twinsite_certificate_expires_seconds", "certificate" => name.to_string());
                expires.set(loaded.expires as f64);
                self.problems.remove(&name);
                self.loaded.insert(name, loaded);
                true
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problems.get(&name) == Some(&problem) {
                    return false; // said before
                }
                let former = self.loaded.contains_key(&name);
                tracing::warn!(certificate = %name, %error, "cannot be used{}", if former { "; the former one stays" } else { "" });
                metrics::counter!("twinsite_certificate_loads_total", "result" => "failed").increment(1);
                self.problems.insert(name, problem);
                true
            }
        }
    }

    fn publish(&self) {
        let in_order = || self.specs.iter().filter_map(|spec| self.loaded.get(&spec.name));
        self.resolver.set(Certificates::new(in_order()));
        let state = |spec: &CertificateSpec| {
            let loaded = self.loaded.get(&spec.name);
            CertificateState {
                name: spec.name.clone(),
                hosts: loaded.map(|loaded| loaded.hosts.clone()).unwrap_or_default(),
                expires: loaded.map(|loaded| loaded.expires),
                problem: self.problems.get(&spec.name).cloned(),
            }
        };
        let certificates = self.specs.iter().map(state).collect();
        self.state.store(Arc::new(CertificatesState { certificates }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates::tests::written;
    use rustls::crypto::ring::default_provider;
    use std::fs;

    fn work() -> Work {
        Work {
            resolver: Arc::default(),
            provider: Arc::new(default_provider()),
            state: Arc::default(),
            specs: Vec::new(),
            loaded: BTreeMap::new(),
            seen: BTreeMap::new(),
            problems: BTreeMap::new(),
        }
    }

    fn hosts(work: &Work) -> Vec<Vec<String>> {
        work.state.load().certificates.iter().map(|certificate| certificate.hosts.clone()).collect()
    }

    #[test]
    fn a_new_file_takes_the_place_of_the_former_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let one = written(&folder, "one", &["a.example"]);
        let two = written(&folder, "two", &["b.example"]);
        let mut work = work();
        work.follow(vec![one.clone(), two.clone()]);
        assert_eq!(hosts(&work), [["a.example"], ["b.example"]]);
        assert!(work.state.load().is_complete());

        fs::write(&one.chain, "not a certificate").unwrap();
        work.look();
        assert_eq!(hosts(&work), [["a.example"], ["b.example"]], "the former one stays");
        let problem = work.state.load().certificates[0].problem.clone().unwrap();
        assert!(problem.contains("one.pem"), "{problem}");
        assert!(work.state.load().is_complete());

        written(&folder, "one", &["c.example"]);
        work.look();
        assert_eq!(hosts(&work), [["c.example"], ["b.example"]]);
        assert_eq!(work.state.load().certificates[0].problem, None);

        work.follow(vec![two]);
        assert_eq!(hosts(&work), [["b.example"]]);
    }

    #[test]
    fn one_that_is_missing_does_not_keep_the_others_from_being_used() {
        let folder = tempfile::tempdir().unwrap();
        let one = written(&folder, "one", &["a.example"]);
        let missing =
            CertificateSpec { name: "missing".parse().unwrap(), chain: "/none".into(), key: "/none".into() };
        let mut work = work();
        work.follow(vec![missing, one]);
        assert_eq!(hosts(&work), [vec![], vec!["a.example".to_owned()]]);
        assert!(!work.state.load().is_complete());
        assert_eq!(work.state.load().nobody_because(), None);
    }

    #[test]
    fn without_any_it_is_told_why() {
        assert_eq!(CertificatesState::default().nobody_because(), Some("none was read yet"));
        let missing = CertificateSpec {
            name: "missing".parse().unwrap(),
            chain: "/none.pem".into(),
            key: "/none".into(),
        };
        let mut work = work();
        work.follow(vec![missing]);
        let state = work.state.load();
        assert!(state.nobody_because().is_some_and(|why| why.contains("/none.pem")), "{state:?}");
    }
}
