//! The exercises that come with the program, so that `demo --exercise NAME` works anywhere.

use super::Scenario;

/// An exercise in the program.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// Its file, as text.
    pub text: &'static str,
}

macro_rules! exercises {
    ($($name:literal),* $(,)?) => {
        const BUILTINS: &[Builtin] = &[$(Builtin {
            name: $name,
            text: include_str!(concat!("../../../../scenarios/", $name, ".toml")),
        }),*];
    };
}

exercises![
    "owner-killed",
    "owner-frozen",
    "node-paused",
    "leader-lost",
    "leader-lost-wan",
    "leader-frozen",
    "leader-isolated",
    "leader-and-owner-killed",
    "new-owner-dies",
    "host-killed",
    "host-cut",
    "host-cut-with-leader",
    "ipv6-host-cut",
    "host-frozen",
    "firewall-flushed",
    "guardian-killed",
    "guardian-restarted",
    "guardian-frozen",
    "disk-full-owner",
    "disk-full-leader",
    "site-loss",
    "site-loss-with-leader",
    "witness-lost",
    "witness-then-site",
    "majority-lost",
    "power-cut",
    "site-isolated",
    "site-isolated-with-leader",
    "other-site-isolated",
    "heal-at-lease-end",
    "one-way-cut",
    "one-way-cut-back",
    "witness-deaf",
    "sites-cut",
    "sites-cut-from-leader",
    "wan-flaps",
    "wan-lossy",
    "wan-slow",
    "upstream-down",
    "upstream-frozen",
    "upstream-slow",
    "upstream-errors",
    "upstream-wrong",
    "upstream-truncated",
    "upstream-flaps",
    "site-upstreams-down",
    "all-upstreams-down",
    "redis-lost",
    "redis-flushed",
    "redis-replica",
    "redis-hung-in-move",
    "owner-killed-redis-hung",
    "switchover",
    "switchover-and-back",
    "leader-handover",
    "switchover-target-dies",
    "bad-candidate",
    "breaker-open",
    "paused",
    "pause-expires",
    "policy-changed",
    "rolling-restart",
    "rooms",
    "rooms-embedded",
];

/// All exercises, in the order in which they are best read.
pub fn builtins() -> &'static [Builtin] {
    BUILTINS
}

/// The exercise with this name; or else the names of all.
pub fn builtin(name: &str) -> Result<&'static Builtin, Vec<&'static str>> {
    let found = BUILTINS.iter().find(|builtin| builtin.name == name);
    found.ok_or_else(|| BUILTINS.iter().map(|builtin| builtin.name).collect())
}

impl Builtin {
    /// The scenario.
    pub fn scenario(&self) -> Result<Scenario, Vec<super::ScenarioError>> {
        Scenario::parse(&format!("scenarios/{}.toml", self.name), self.text)
    }
}
