//! With what a simulated node holds an address: its machine's kernel, which takes a moment for everything.

use super::Mistake;
use super::guardian::Guardian;
use super::kernel::Kernel;
use crate::runtime::{Executor, SimRuntime};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use twinsite_agents::{DataPlane, Tools};
use twinsite_consensus::AsyncRuntime;
use twinsite_controller::StopReason;
use twinsite_floating_ip::{Fencing, Observation, Provider, ProviderError, Work};
use twinsite_model::{BootTime, FloatingIpName, Incarnation, Token};

/// How long the kernel and the data plane take for things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// For a rule, at most.
    pub(super) rule_max: Duration,
    /// For the end of the connections, at most; less if there is less time.
    pub(super) goodbye_max: Duration,
}

/// The tools of one life of a node for one address.
pub(super) fn tools(
    ip: &FloatingIpName,
    kernel: &Kernel,
    guardian: &Guardian,
    incarnation: Incarnation,
    pace: Pace,
    mistake: Option<Mistake>,
) -> Tools {
    let address = Address {
        ip: ip.clone(),
        kernel: kernel.clone(),
        guardian: guardian.clone(),
        pace,
        random: Mutex::new(Executor::random()),
        mistake,
    };
    Tools {
        provider: Arc::new(address),
        data_plane: Arc::new(Connections { pace, random: Mutex::new(Executor::random()) }),
        guard: Arc::new(guardian.line(incarnation)),
        interface: None,
    }
}

struct Address {
    ip: FloatingIpName,
    kernel: Kernel,
    guardian: Guardian,
    pace: Pace,
    random: Mutex<fastrand::Rng>,
    mistake: Option<Mistake>,
}

fn up_to(random: &Mutex<fastrand::Rng>, max: Duration) -> Duration {
    let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.lock().unwrap_or_else(PoisonError::into_inner).u64(..=max))
}

impl Provider for Address {
    fn fencing(&self) -> Fencing {
        Fencing::KernelDeadline
    }

    fn hold(&self, token: Token, until: BootTime) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            assert!(self.guardian.knows(&self.ip, token), "{token} is held and nobody watches");
            SimRuntime::sleep(up_to(&self.random, self.pace.rule_max)).await;
            let forgets_the_deadline = self.mistake == Some(Mistake::NoKernelDeadline);
            self.kernel.hold(
                &self.ip,
                token,
                if forgets_the_deadline { BootTime(Duration::MAX) } else { until },
            );
            Ok(())
        })
    }

    fn end(&self, token: Token) {
        self.kernel.silence(&self.ip, Some(token));
    }

    fn until(&self, token: Token) -> Option<BootTime> {
        self.kernel.answers(&self.ip).filter(|(held, _)| *held == token).map(|(_, until)| until)
    }

    fn close(&self) -> Work<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn release(&self) -> Work<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            SimRuntime::sleep(up_to(&self.random, self.pace.rule_max)).await;
            if self.mistake != Some(Mistake::ReleasedAndStillThere) {
                self.kernel.silence(&self.ip, None);
            }
            Ok(())
        })
    }

    fn observe(&self) -> Observation {
        let attached = self.kernel.answers(&self.ip).map(|(token, _)| token);
        Observation { attached, ..Observation::default() }
    }
}

/// Connections that take their time to end.
struct Connections {
    pace: Pace,
    random: Mutex<fastrand::Rng>,
}

impl DataPlane for Connections {
    fn close<'a>(&'a self, _: &'a FloatingIpName, why: StopReason, within: Duration) -> Work<'a, ()> {
        let takes = match why {
            StopReason::Planned => up_to(&self.random, self.pace.goodbye_max.min(within)),
            StopReason::Involuntary => Duration::ZERO,
        };
        Box::pin(SimRuntime::sleep(takes))
    }
}
