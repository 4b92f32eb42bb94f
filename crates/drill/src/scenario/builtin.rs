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
    "site-lost",
    "site-lost-with-leader",
    "leader-lost",
    "witness-lost",
    "site-isolated",
    "one-way-cut",
    "upstream-down",
    "redis-lost",
    "redis-flushed",
    "switchover",
    "majority-lost",
    "rolling-restart",
    "wan-lossy",
    "wan-slow",
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
