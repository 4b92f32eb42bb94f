//! The embedded store over a state of its own, in place of a cluster's log.

use crate::contract::StoreUnderTest;
use std::sync::{Arc, Mutex};
use twinsite_model::spec::from_toml;
use twinsite_model::{Applied, Command, Epoch, Format, Proposal, State, Token, WallTime};
use twinsite_sessions::{BoxFuture, EmbeddedStore, ProposeFailed, Proposer, Store};

const SPEC: &str = r#"
version = 1
cluster = "meet"

[[site]]
name = "gra"
announced_ip = "192.0.2.10"

[[site]]
name = "sbg"
announced_ip = "198.51.100.10"

[[node]]
id = 1
name = "gra-1"
site = "gra"
peer = "10.1.0.1:7100"
api = "10.1.0.1:7101"
http = ["10.1.0.1:8080"]

[[upstream]]
name = "one"
site = "gra"
address = "10.1.0.11:3443"

[[upstream]]
name = "two"
site = "gra"
address = "10.1.0.12:3443"

[[upstream]]
name = "three"
site = "gra"
address = "10.1.0.13:3443"
"#;

/// A log of one: what is proposed is applied at once.
#[derive(Clone, Default)]
pub(crate) struct OneLog(Arc<Mutex<(u64, State)>>);

impl OneLog {
    fn apply(&self, command: Command) -> Applied {
        let (index, state) = &mut *self.0.lock().unwrap();
        *index = (*index).max(state.revision.0) + 1;
        state.apply(*index, &Proposal::by_controller(WallTime(*index), command))
    }
}

impl Proposer for OneLog {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ProposeFailed>> {
        Box::pin(async move { Ok(self.apply(command)) })
    }

    fn state(&self) -> Arc<State> {
        Arc::new(self.0.lock().unwrap().1.clone())
    }
}

pub(crate) struct Embedded {
    log: OneLog,
    store: EmbeddedStore<OneLog>,
}

impl Embedded {
    pub(crate) fn start() -> Self {
        let log = OneLog::default();
        log.0.lock().unwrap().1.format = Format::NEWEST;
        let spec = Arc::new(from_toml(SPEC).unwrap());
        assert!(log.apply(Command::ApplySpec { spec }).result.is_ok());
        Self { store: EmbeddedStore::new(log.clone()), log }
    }
}

impl StoreUnderTest for Embedded {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    /// An owner changes: that is what makes a token old in the replicated state.
    fn raise(&mut self) -> Token {
        let state = &mut self.log.0.lock().unwrap().1;
        state.moves = Epoch(state.moves.0 + 1);
        state.session_token()
    }

    /// It forgets nothing that it has acknowledged.
    async fn forget(&mut self) -> bool {
        false
    }
}
