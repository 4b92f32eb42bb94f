//! The simulation tells the scripts a second time (`sim/src/cluster/redis_data.rs`). Here both are given the same
//! commands, and must answer the same and keep the same, to the millisecond.

#[path = "../../../sim/src/cluster/redis_data.rs"]
mod redis_data;
#[path = "../../src/redis/scripts.rs"]
mod scripts;

use crate::name;
use crate::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use redis_data::{Answer, Call, Data, Kept, What, sortable};
use scripts::Scripts;
use std::collections::BTreeMap;
use twinsite_model::{RoomKey, Token, UpstreamName};
use twinsite_sessions::{Pin, PinUpdate};

/// Commands that are compared, for each seed, and how many more may be needed on a machine that is busy.
const COMPARED: u32 = 3_000;
const COMMANDS_MAX: u32 = 60_000;
const PREFIX: &str = "twinsite:{meet}:";

/// Every key of ours with its end and what it holds, at one instant.
const DUMP: &str = r"
local all = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind = redis.call('TYPE', key)['ok']
  local value = {}
  if kind == 'string' then value = {redis.call('GET', key)} end
  if kind == 'hash' then value = redis.call('HGETALL', key) end
  if kind ~= 'stream' then
    all[#all + 1] = {key, string.format('%.0f', redis.call('PEXPIRETIME', key)), value}
  end
end
return all
";

struct Bench {
    connection: MultiplexedConnection,
    scripts: Scripts,
    random: fastrand::Rng,
    audited: bool,
    data: Data,
    base: u64,
}

fn pin_key(room: RoomKey) -> String {
    format!("{PREFIX}pin:{room}")
}

impl Bench {
    async fn now(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) =
            redis::cmd("TIME").query_async(&mut self.connection).await.unwrap();
        seconds * 1_000 + micros / 1_000
    }

    async fn dump(&mut self) -> Data {
        let mut dump = redis::cmd("EVAL");
        dump.arg(DUMP).arg(0).arg(PREFIX);
        let all: Vec<(String, String, Vec<String>)> = dump.query_async(&mut self.connection).await.unwrap();
        let mut data = Data::default();
        for (key, until, values) in all {
            let rest = key.strip_prefix(PREFIX).unwrap();
            let fields = || values.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            if rest == "token" {
                assert_eq!(until, "-1", "a fence that expires is none");
                let fields: BTreeMap<_, _> = fields().collect();
                data.token = Some((fields["token"].parse().unwrap(), fields["born"].parse().unwrap()));
                continue;
            }
            if rest == "audit-refused" {
                continue;
            }
            let until = until.parse().unwrap();
            if let Some(room) = rest.strip_prefix("pin:") {
                let pin = Kept { value: values[0].parse().unwrap(), until };
                data.pins.insert(room.parse().unwrap(), pin);
            } else if rest.starts_with("node:") {
                data.presence.insert(key, Kept { value: values[0].parse().unwrap(), until });
            } else {
                data.hashes.insert(key, Kept { value: fields().collect(), until });
            }
        }
        data
    }

    fn token(&mut self) -> Token {
        Token::new(1, self.base + self.random.u64(..3))
    }

    fn room(&mut self) -> RoomKey {
        RoomKey([self.random.u8(..6); 16])
    }

    fn upstream(&mut self) -> UpstreamName {
        name(["one", "two", "three"][self.random.usize(..3)])
    }

    fn ttl(&mut self) -> u64 {
        [1, 3, 10, 60, 3_600_000][self.random.usize(..5)]
    }

    fn some_pin(&mut self, now: u64) -> PinUpdate {
        let room = self.room();
        let known = self.data.pins.get(&room).map_or(now, |kept| kept.value.version);
        let version = [1, 2, known - 1, known, known, known + 1, now][self.random.usize(..7)];
        PinUpdate { room, pin: Pin { upstream: self.upstream(), version, token: self.token() } }
    }

    fn call(&mut self, now: u64) -> Call {
        let not_after = [0, 0, now + 10_000, now - 1][self.random.usize(..4)];
        let ttl = self.ttl();
        let what = match self.random.u32(..10) {
            0..5 => What::Place {
                room: self.room(),
                proposal: self.upstream(),
                replace: self.random.bool().then(|| self.upstream()),
                ttl,
                peers_asked: self.random.bool(),
                settle: [0, 5, 200][self.random.usize(..3)],
            },
            5..8 => {
                let count = self.random.usize(1..=5);
                What::Keep { pins: (0..count).map(|_| self.some_pin(now)).collect(), ttl }
            }
            8 => What::Beat { key: format!("{PREFIX}node:{}", self.random.u8(..3)), ttl },
            _ => {
                let entries = (0..self.random.usize(..3)).map(|n| (format!("room:{n}"), n.to_string()));
                What::Replace { key: format!("{PREFIX}drains"), entries: entries.collect(), ttl }
            }
        };
        Call { token: self.token(), not_after, what }
    }

    /// The same to the server, and what it says.
    async fn ask(&mut self, call: &Call) -> Vec<String> {
        let (script, keys) = match &call.what {
            What::Place { room, .. } => (&self.scripts.place, vec![pin_key(*room)]),
            What::Keep { pins, .. } => {
                (&self.scripts.keep, pins.iter().map(|update| pin_key(update.room)).collect())
            }
            What::Beat { key, .. } => (&self.scripts.beat, vec![key.clone()]),
            What::Replace { key, .. } => (&self.scripts.replace, vec![key.clone()]),
        };
        let mut script = script.prepare_invoke();
        for key in ["token", "audit", "audit-refused"] {
            script.key(format!("{PREFIX}{key}"));
        }
        script.key(keys);
        script.arg(sortable(call.token)).arg(call.not_after).arg(1).arg(if self.audited { 100 } else { 0 });
        match &call.what {
            What::Place { room, proposal, replace, ttl, peers_asked, settle } => {
                let replace = replace.as_ref().map_or("", UpstreamName::as_str);
                script.arg(proposal.as_str()).arg(replace).arg(*ttl).arg(u8::from(*peers_asked));
                script.arg(*settle).arg(room.to_string());
            }
            What::Keep { pins, ttl } => {
                script.arg(*ttl);
                for PinUpdate { pin, .. } in pins {
                    script.arg(pin.version).arg(sortable(pin.token)).arg(pin.upstream.as_str());
                }
            }
            What::Beat { ttl, .. } => {
                script.arg(*ttl);
            }
            What::Replace { ttl, entries, .. } => {
                script.arg(*ttl).arg("drains");
                for (field, value) in entries {
                    script.arg(field).arg(value);
                }
            }
        }
        let answer: Vec<redis::Value> = script.invoke_async(&mut self.connection).await.unwrap();
        answer.into_iter().map(|value| redis::from_redis_value(value).unwrap()).collect()
    }
}

/// An answer of the second telling, in the words of the scripts.
fn words(answer: Answer) -> Vec<String> {
    let blank = |blank: bool| if blank { "1" } else { "0" }.to_owned();
    let word = |word: &str| word.to_owned();
    match answer {
        Answer::Late => vec![word("LATE")],
        Answer::Stale { seen, known: None } => vec![word("STALE"), sortable(seen)],
        Answer::Stale { seen, known: Some(pin) } => vec![word("STALE"), sortable(seen), pin.to_string()],
        Answer::StaleBeat { seen, now } => vec![word("STALE"), sortable(seen), now.to_string()],
        Answer::New(pin) => vec![word("NEW"), pin.to_string()],
        Answer::Kept(pin) => vec![word("KEPT"), pin.to_string()],
        Answer::Ask => vec![word("ASK")],
        Answer::Confirmed { blank: was, pins } => {
            [word("OK"), blank(was)].into_iter().chain(pins.iter().map(ToString::to_string)).collect()
        }
        Answer::Beaten { blank: was, now } => vec![word("OK"), blank(was), now.to_string()],
        Answer::Replaced => vec![word("OK")],
    }
}

fn assert_same(told: &Data, real: &Data, seed: u64, step: u32) {
    assert_eq!(told.token, real.token, "seed {seed}, step {step}");
    assert_eq!(told.pins, real.pins, "seed {seed}, step {step}");
    assert_eq!(told.presence, real.presence, "seed {seed}, step {step}");
    assert_eq!(told.hashes, real.hashes, "seed {seed}, step {step}");
}

#[tokio::test]
async fn the_scripts_and_what_the_simulation_makes_of_them_are_the_same() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let mut came: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 1..=4 {
        let mut bench = Bench {
            connection: client.get_multiplexed_async_connection().await.unwrap(),
            scripts: Scripts::new(),
            random: fastrand::Rng::with_seed(seed),
            audited: seed % 2 == 0,
            data: Data::default(),
            base: 0,
        };
        let _: String = redis::cmd("FLUSHALL").query_async(&mut bench.connection).await.unwrap();
        let mut compared = 0;
        let mut step = 0;
        while compared < COMPARED {
            step += 1;
            assert!(step < COMMANDS_MAX, "only {compared} could be compared");
            if bench.random.u32(..300) == 0 {
                let _: String = redis::cmd("FLUSHALL").query_async(&mut bench.connection).await.unwrap();
                bench.data = Data::default();
            }
            bench.base += u64::from(bench.random.u32(..50) == 0);
            let before = bench.now().await;
            bench.data.forget(before);
            let call = bench.call(before);
            let answer = bench.ask(&call).await;
            if bench.now().await != before {
                // Across the edge of a millisecond nobody can say what the script's clock showed.
                bench.data = bench.dump().await;
                continue;
            }
            let mut told = words(bench.data.apply(&call, before));
            if matches!(call.what, What::Place { .. }) && told.len() == 2 && told[0] == "STALE" {
                told.push(String::new());
            }
            assert_eq!(told, answer, "seed {seed}, step {step}: {call:?}");
            *came.entry(format!("{} {}", kind(&call.what), answer[0])).or_default() += 1;
            compared += 1;
            if step.is_multiple_of(50) {
                let mut real = bench.dump().await;
                let after = bench.now().await;
                bench.data.forget(after);
                real.forget(after);
                assert_same(&bench.data, &real, seed, step);
            }
        }
    }
    for needed in [
        "place LATE",
        "place STALE",
        "place ASK",
        "place NEW",
        "place KEPT",
        "keep OK",
        "keep STALE",
        "beat OK",
        "beat STALE",
        "replace OK",
        "replace STALE",
    ] {
        assert!(came.contains_key(needed), "{needed} never came up: {came:?}");
    }
}

fn kind(what: &What) -> &'static str {
    match what {
        What::Place { .. } => "place",
        What::Keep { .. } => "keep",
        What::Beat { .. } => "beat",
        What::Replace { .. } => "replace",
    }
}
