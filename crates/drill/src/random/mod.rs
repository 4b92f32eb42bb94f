//! Random drills: one fault after the other, drawn from a seed, each mended before the next.
//!
//! What is drawn is a scenario like any other: its text can be kept, read and run again, and the same seed draws the same
//! text. Nothing is asked of it that the cluster does not promise: at any moment at most one site, host, node or link is
//! broken, and beside it perhaps the meeting instances of one place, or Redis. What must come of it is what must come of
//! every drill: the audit finds nothing, and after each fault all is healthy again.

mod faults;
#[cfg(test)]
mod tests;

use crate::layout::{Ground, Layout, Shape, Store};
use crate::scenario::{Scenario, ScenarioError};
use fastrand::Rng;
use faults::{Fault, Menu};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use twinsite_model::Profile;

/// How long a drawn drill may be, in minutes: faults for longer are more text than a scenario may have.
pub const MINUTES: RangeInclusive<u32> = 1..=45;
/// What a fault takes with its mending and the pause before it, on the average, in seconds.
const SECONDS_EACH: u32 = 5;
/// How long a fault stays, in milliseconds: shorter than any lease up to longer than most waits.
const HOLD_MS: RangeInclusive<u64> = 50..=5_000;
/// The pause between two faults, in milliseconds.
const PAUSE_MS: RangeInclusive<u64> = 100..=2_000;
/// Of so many faults one comes with another one beside it.
const PAIRED_ONE_IN: u32 = 4;

/// What kind of drill is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// From which everything is drawn.
    pub seed: u64,
    /// About how long it shall be, within [`MINUTES`].
    pub minutes: u32,
    /// The cluster.
    pub shape: Shape,
    /// Where it runs: a lab has faults of its own.
    pub ground: Ground,
    /// Whether Redis may be broken.
    pub own_redis: bool,
}

/// A drawn drill.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// As it is written.
    pub text: String,
    /// As it is run.
    pub scenario: Scenario,
    /// How many faults there are in it.
    pub faults: u32,
}

/// Draws a drill. The same wish draws the same one. An error is a defect of this program.
pub fn scenario(wish: &Wish) -> Result<Drawn, Vec<ScenarioError>> {
    let mut drawing = Drawing { rng: Rng::with_seed(wish.seed), text: head(wish), faults: 0 };
    let minutes = wish.minutes.clamp(*MINUTES.start(), *MINUTES.end());
    // Who has which name depends on the shape only.
    let layout = Layout::on(wish.ground, 0, Profile::Lan, &wish.shape, Store::Embedded);
    let menu = Menu::new(&layout, wish.own_redis);
    for _ in 0..minutes * 60 / SECONDS_EACH {
        drawing.episode(&menu);
    }
    let Drawing { text, faults, .. } = drawing;
    let scenario = Scenario::parse(&format!("random-{}.toml", wish.seed), &text)?;
    Ok(Drawn { text, scenario, faults })
}

/// Everything but the steps.
fn head(wish: &Wish) -> String {
    let Wish { seed, minutes, shape, .. } = wish;
    let mut guards = String::new();
    if wish.own_redis {
        guards.push_str("store = \"own-redis\"\n");
    }
    if wish.ground == Ground::Lab {
        guards.push_str("network = \"lab\"\n");
    }
    format!(
        "version = 1\n\
         name = \"random-{seed}\"\n\
         description = \"Faults drawn from the seed {seed}, for about {minutes} min, each mended before the next\"\n\
         \n\
         [topology]\n\
         nodes_per_site = {}\n\
         instances_per_site = {}\n\
         \n\
         [load]\n\
         # As much as can be kept for so long.\n\
         connect_every = \"10ms\"\n\
         participants = 12\n\
         rooms = 4\n\
         say_every = \"250ms\"\n\
         \n\
         [guards]\n\
         {guards}\
         \n\
         [observe]\n\
         settle = \"30s\"\n\
         hold = \"2s\"\n\
         \n\
         [return]\n\
         within = \"60s\"\n",
        shape.nodes_per_site, shape.instances_per_site,
    )
}

struct Drawing {
    rng: Rng,
    text: String,
    faults: u32,
}

impl Drawing {
    /// A fault, perhaps another one beside it, and the mending of both.
    fn episode(&mut self, menu: &Menu) {
        let fault = menu.draw(&mut self.rng);
        let beside =
            if self.rng.u32(..PAIRED_ONE_IN) == 0 { menu.draw_beside(&fault, &mut self.rng) } else { None };
        let pause = self.rng.u64(PAUSE_MS);
        self.breaks(pause, &fault);
        let mut faults = vec![fault];
        if let Some(beside) = beside {
            let after = self.rng.u64(HOLD_MS);
            self.breaks(after, &beside);
            // Which one is mended first is open too.
            faults.insert(self.rng.usize(..=1), beside);
        }
        let hold = self.rng.u64(HOLD_MS);
        for (index, mend) in faults.iter().flat_map(|fault| &fault.mends).enumerate() {
            self.step(if index == 0 { hold } else { 0 }, mend);
        }
        // As a service manager does, also with who was ended by its guardian, on a machine that is too busy for a lease.
        self.step(0, "do.start = { guardians = \"all\", nodes = \"all\" }");
        self.step(0, "do.wait = { until = \"healthy\", within = \"30s\" }");
        self.step(0, "do.wait = { until = \"participants-back\", within = \"30s\" }");
    }

    fn breaks(&mut self, after_ms: u64, fault: &Fault) {
        self.faults += 1;
        self.step(after_ms, &fault.breaks);
    }

    fn step(&mut self, after_ms: u64, action: &str) {
        let after = if after_ms == 0 { String::new() } else { format!("after = \"{after_ms}ms\"\n") };
        // Writing to a string cannot fail.
        let _ = write!(self.text, "\n[[step]]\n{after}{action}\n");
    }
}
