//! The scripts that run inside Redis. Each checks the writer's token first and keeps the highest it has seen, in the
//! same step as the write, so that no stale writer can slip in between.

use redis::Script;

/// Common beginning.
///
/// `KEYS`: 1 the token, 2 the audit stream, 3 the refused counts. `ARGV`: 1 the writer's token, sortable; 2 the time
/// on this server's clock after which the command does nothing (`0`: none); 3 the writer's node; 4 how many entries
/// the audit stream keeps (`0`: no audit).
///
/// The time limit is for commands that lay in the buffers of a stopped server or a cut network: their sender has long
/// decided otherwise. The token key has no time to live: a fence that expires is none.
const BEGIN: &str = r"
if redis.replicate_commands then redis.replicate_commands() end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local limit = tonumber(ARGV[2])
if limit > 0 and now > limit then return {'LATE'} end
local seen = redis.call('HGET', KEYS[1], 'token')
local born = tonumber(redis.call('HGET', KEYS[1], 'born') or '0') or 0
local stale = seen and ARGV[1] < seen
local audited = tonumber(ARGV[4])

local function refuse()
  if audited > 0 then redis.call('HINCRBY', KEYS[3], ARGV[3], 1) end
end

local function accept(kind, what)
  if not seen then redis.call('HSET', KEYS[1], 'born', string.format('%.0f', now)) end
  if not seen or ARGV[1] > seen then redis.call('HSET', KEYS[1], 'token', ARGV[1]) end
  if audited > 0 then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*',
      'token', ARGV[1], 'node', ARGV[3], 'kind', kind, 'what', what)
    redis.call('PEXPIRE', KEYS[2], 604800000)
    redis.call('PEXPIRE', KEYS[3], 604800000)
  end
end

local function read(pin)
  if not pin then return nil end
  local version, token, upstream = string.match(pin, '^(%d+) (%S+) (%S+)$')
  return tonumber(version), token, upstream
end

-- A node that knows less of a room must not shorten what another gave it.
local function lengthen(key, ttl)
  if redis.call('PTTL', key) < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end

local function write(key, version, token, upstream, ttl)
  local pin = string.format('%.0f', version) .. ' ' .. token .. ' ' .. upstream
  local left = math.max(redis.call('PTTL', key), tonumber(ttl))
  redis.call('SET', key, pin, 'PX', string.format('%.0f', left))
  return pin
end
";

/// Places a room. `KEYS`: 4 the pin. `ARGV`: 5 the proposal; 6 the place to be replaced, or empty; 7 time to live,
/// ms; 8 `1` if the peers were asked; 9 how long the store counts as young, ms; 10 the room.
const PLACE: &str = r"
local current = redis.call('GET', KEYS[4])
if stale then refuse() return {'STALE', seen, current or ''} end
local version, _, upstream = read(current)
if version and upstream ~= ARGV[6] then
  accept('touch', ARGV[10])
  lengthen(KEYS[4], ARGV[7])
  return {'KEPT', current}
end
if not version and ARGV[8] == '0' and (not seen or now - born < tonumber(ARGV[9])) then return {'ASK'} end
accept('place', ARGV[10])
return {'NEW', write(KEYS[4], math.max(now, (version or 0) + 1), ARGV[1], ARGV[5], ARGV[7])}
";

/// Confirms pins in use. `KEYS`: 4 and on, the pins. `ARGV`: 5 time to live, ms; then version, token and upstream of
/// each.
const KEEP: &str = r"
if stale then refuse() return {'STALE', seen} end
local ttl = ARGV[5]
local answer = {'OK', seen and '0' or '1'}
accept('keep', tostring(#KEYS - 3))
for i = 4, #KEYS do
  local at = 6 + (i - 4) * 3
  local version, token, upstream = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  local current = redis.call('GET', KEYS[i])
  local stored, stored_token, stored_upstream = read(current)
  if not stored or version > stored then
    current = write(KEYS[i], version, token, upstream, ttl)
  elseif upstream == stored_upstream then
    lengthen(KEYS[i], ttl)
  elseif version == stored then
    current = write(KEYS[i], stored + 1, stored_token, stored_upstream, ttl)
  end
  answer[#answer + 1] = current
end
return answer
";

/// Raises the token and shows that this node is there and that writes are accepted. `KEYS`: 4 the node's presence.
/// `ARGV`: 5 its time to live, ms.
const BEAT: &str = r"
local ms = string.format('%.0f', now)
if stale then return {'STALE', seen, ms} end
local blank = seen and '0' or '1'
if not seen or ARGV[1] > seen then accept('token', '') end
redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[5])
return {'OK', blank, ms}
";

/// Replaces a hash. `KEYS`: 4 the hash. `ARGV`: 5 time to live, ms; 6 what it is, for the audit; then field and value
/// of each entry.
const REPLACE: &str = r"
if stale then refuse() return {'STALE', seen} end
accept(ARGV[6], '')
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 'token', ARGV[1])
for i = 7, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[4], ARGV[5])
return {'OK'}
";

/// The compiled scripts.
pub(super) struct Scripts {
    pub place: Script,
    pub keep: Script,
    pub beat: Script,
    pub replace: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |body: &str| Script::new(&format!("{BEGIN}{body}"));
        Self { place: script(PLACE), keep: script(KEEP), beat: script(BEAT), replace: script(REPLACE) }
    }
}
