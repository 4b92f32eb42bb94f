//! The controller: one entry point for everything that happens.

use crate::explain::Explanation;
use crate::faults::Faults;
use crate::input::{Effect, Input};
use crate::operator::{MoveRequest, OperatorRefusal};
use crate::plan::Plan;
use twinsite_model::{BootTime, FloatingIpName, NodeId, State, WallTime};

/// Decides, while its node leads. It lives on every node and keeps nothing that must survive.
#[derive(Debug, Clone)]
pub struct Controller {
    me: NodeId,
    faults: Faults,
}

impl Controller {
    /// A controller on this node.
    pub fn new(me: NodeId) -> Self {
        Self { me, faults: Faults::default() }
    }

    /// Makes deliberate mistakes from here on.
    #[cfg(feature = "seeded-faults")]
    pub fn seed_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Something happened. `now` never goes back; `state` is the newest applied here.
    pub fn step(&mut self, now: BootTime, wall: WallTime, state: &State, input: Input) -> Vec<Effect> {
        let _ = (now, wall, state, input, self.me, &self.faults);
        Vec::new()
    }

    /// When [`Input::Tick`] is due at the latest, if nothing else happens before.
    pub fn next_wake(&self, now: BootTime, state: &State) -> Option<BootTime> {
        let _ = (now, state, self.me);
        None
    }

    /// Why things are as they are. `None`: there is no such address.
    pub fn explain(
        &self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        ip: &FloatingIpName,
    ) -> Option<Explanation> {
        let _ = (now, wall, state, ip, self.me);
        None
    }

    /// What a move would do. Changes nothing.
    pub fn plan(
        &self,
        now: BootTime,
        wall: WallTime,
        state: &State,
        request: &MoveRequest,
    ) -> Result<Plan, OperatorRefusal> {
        let _ = (now, wall, state, self.me);
        Err(OperatorRefusal::UnknownFloatingIp(request.ip.clone()))
    }

    /// The term in which this controller acts; `None` while its node does not lead.
    pub fn term(&self) -> Option<u64> {
        None
    }
}
