//! `twinsite drill random`: faults that are drawn from a seed.

use super::drill_arguments::RandomArguments;
use super::drill_run::{Plan, conduct, ground};
use super::{CliError, Exit, output};
use crate::local_cluster;
use crate::scenarios::Chosen;
use twinsite_drill::layout::{Shape, Store};
use twinsite_drill::process::Launcher;
use twinsite_drill::random::{self, Wish};

/// A seed that is drawn is short enough to be typed again.
const SEED_MAX: u64 = 1_000_000_000;

/// `twinsite drill random`.
pub fn run(arguments: &RandomArguments) -> Result<Exit, CliError> {
    let launcher = Launcher::new(std::env::current_exe().map_err(CliError::Output)?);
    let cluster = &arguments.cluster;
    let store = local_cluster::store(cluster.redis.as_deref(), cluster.embedded, None, &launcher)?;
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => new_seed()?,
    };
    let wish = Wish {
        seed,
        minutes: arguments.minutes,
        shape: Shape::default(),
        ground: ground(cluster, None)?,
        own_redis: store == Store::OwnRedis,
    };
    let drawn = random::scenario(&wish).map_err(|errors| {
        CliError::Usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    if arguments.print {
        return output::line(drawn.text.trim_end()).map(|()| Exit::Done);
    }
    anstream::eprintln!("seed {seed}: {} faults in about {} min", drawn.faults, wish.minutes);
    let text = drawn.text;
    let chosen = Chosen { scenario: drawn.scenario, text };
    let plan = Plan { chosen, runs: 1, ground: wish.ground, store, launcher };
    conduct(plan, cluster, &arguments.outcome)
}

fn new_seed() -> Result<u64, CliError> {
    let failed = |error: getrandom::Error| CliError::System { what: "draw a seed", source: error.into() };
    getrandom::u64().map(|seed| seed % SEED_MAX).map_err(failed)
}
