-- Functions of all scripts; scripts.ts puts this file in front of each of them.
-- The rules are those of state-machine.ts; a property test holds the two together.

local BELL_LENGTH = 1000
local DAY_MS = 24 * 60 * 60 * 1000
local UNCLAIMABLE = { suspended = true, quarantined = true, terminated = true }

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua would print large numbers as 1.7e+12.
local function int(number)
  return string.format('%.0f', number)
end

local function ring(bell)
  if redis.call('RPUSH', bell, '1') > BELL_LENGTH then
    redis.call('LTRIM', bell, -BELL_LENGTH, -1)
  end
end

-- A write of this connection, so that a WAIT after it covers everything before it.
local function touch(meta)
  redis.call('HINCRBY', meta, 'rt', 1)
end

-- Tells the operator; only sessions with an object have somebody to tell.
local function note_change(keys, member, log, now)
  if log.src ~= 'manifest' then return end
  redis.call('HSET', keys.state, member, '{"state":"' .. log.st .. '","reason":"' .. log.why ..
    '","seq":' .. int(log.seq) .. ',"ts":' .. int(now) .. '}')
  ring(keys.sbell)
end

-- log: {st, why, src, seq}
local function set_status(keys, member, log, st, why, now)
  if log.st == st and log.why == why then return end
  log.st = st
  log.why = why
  redis.call('HSET', keys.meta, 'st', st, 'why', why)
  note_change(keys, member, log, now)
end

local function make_due(keys, member, log, now)
  if UNCLAIMABLE[log.st] then return end
  redis.call('ZADD', keys.due, 'LT', now, member)
  ring(keys.bell)
end

-- ARGV from `at`: number of payloads, (sha, bytes)*, then events (id, type, json)*.
-- Returns the index of the first event.
local function store_payloads(keys, at)
  local last = at + 2 * tonumber(ARGV[at])
  for i = at + 1, last, 2 do
    redis.call('HSET', keys.payloads, ARGV[i], ARGV[i + 1])
  end
  return last + 1
end

local function first_event(at)
  return at + 2 * tonumber(ARGV[at]) + 1
end

-- The chain value of the last event, from the meta field `ch`, `<seq>:<value>`; '' when that event
-- has none, because it was appended by a version that knew no chain values.
local function chain_of(ch, seq)
  local at, value = string.match(ch or '', '^(%d+):(%x+)$')
  return at and tonumber(at) == seq and value or ''
end

-- Moves log.seq, log.lid, log.lts, log.chain; the caller writes them down. XADD refuses ids out of
-- order. The formula of the chain value is that of chain.ts.
local function append_one(keys, log, epoch, id, type_, json, now)
  log.seq = log.seq + 1
  log.lid = id
  log.lts = math.max(now, log.lts)
  log.chain = string.sub(redis.sha1hex(log.chain .. '\0' .. id .. '\0' .. type_ .. '\0' .. json), 1, 16)
  redis.call('XADD', keys.log, int(log.seq) .. '-0', 'i', id, 't', type_, 'e', int(epoch),
    'ts', int(log.lts), 'd', json, 'c', log.chain)
end

local function write_tail(keys, log)
  redis.call('HSET', keys.meta, 'seq', int(log.seq), 'lid', log.lid, 'lts', int(log.lts),
    'ch', int(log.seq) .. ':' .. log.chain)
end

-- Id and chain value of the event at this seq, or nil.
local function entry_at(keys, seq)
  local id = int(seq) .. '-0'
  local entry = redis.call('XRANGE', keys.log, id, id)[1]
  if not entry then return nil end
  return entry[2][2], entry[2][12] or ''
end

-- Appends the events from ARGV[first] on.
local function append(keys, log, epoch, first, now)
  for i = first, #ARGV, 3 do
    append_one(keys, log, epoch, ARGV[i], ARGV[i + 1], ARGV[i + 2], now)
  end
  write_tail(keys, log)
end

local function publish(channel, first, last)
  redis.call('SPUBLISH', channel, int(first) .. ':' .. int(last))
end

-- By equality, never by epoch: after a failover the same epoch may be given out twice.
local function holds(held, token)
  return token ~= '' and held == token
end

-- Equal chain values prove an equal prefix; the id is for events that have none.
local function matches(keys, log, prev_seq, prev_id, prev_chain)
  if prev_seq > log.seq then return false end
  if prev_seq == 0 then return true end
  if prev_seq == log.seq then return log.lid == prev_id and log.chain == prev_chain end
  local id, chain = entry_at(keys, prev_seq)
  return id == prev_id and chain == prev_chain
end

-- Ends the lease: kind idle | requeue | after | suspended | terminated, arg = reason or ms from now.
local function give_up(keys, member, log, token, kind, arg, unseen, now)
  redis.call('HSET', keys.meta, 'tok', '', 'own', '', 'rel', token, 'tk', '0', 'dt', '')
  redis.call('ZADD', keys.arch, now, member)
  if kind == 'requeue' or (unseen and (kind == 'after' or kind == 'suspended')) then
    redis.call('ZADD', keys.due, now, member)
    ring(keys.bell)
  elseif kind == 'after' then
    redis.call('ZADD', keys.due, int(now + tonumber(arg)), member)
  else
    redis.call('ZREM', keys.due, member)
    set_status(keys, member, log, kind, kind == 'suspended' and '' or arg, now)
  end
end

local function field(json, name)
  local ok, data = pcall(cjson.decode, json)
  if not ok or type(data) ~= 'table' then return nil end
  return data[name]
end

-- Reasons stand in hand-made JSON, so nothing but word characters gets there.
local function word(value)
  return type(value) == 'string' and (string.gsub(value, '[^%w_]', '')) or ''
end

-- The life of a worker to which a lease was given; '' for a token that names none.
local function incarnation_of(token)
  return string.match(token, '^%d+%.(%w+)%-') or ''
end

-- After the store itself stood still every lease looks expired, and its holder must get the time
-- to renew it. The caller says when (by this clock) it was last answered here and how long after
-- that it was quiet by its own choice; what is missing, it spent waiting for the store. Somebody
-- else's renewal in between shows that it was not the store.
-- Returns true while no lease may be taken. alive: hash; ttl in ms; seen '' for a first call.
local function in_grace(alive, ttl, seen, quiet, now)
  local kept = redis.call('HMGET', alive, ':last', ':grace')
  local grace = tonumber(kept[2] or '0')
  if seen ~= '' then
    local waited = math.min(now - tonumber(seen) - tonumber(quiet), now - tonumber(kept[1] or '0'))
    if waited > ttl / 2 then
      grace = now + 2 * ttl
      redis.call('HSET', alive, ':grace', int(grace))
    end
  end
  -- A clock that was set back must not leave a grace without end.
  return seen == '' or (now < grace and grace <= now + 2 * ttl)
end

-- Notes that a worker lives, and which suspect it holds.
local function heard_of(alive, incarnation, suspect, now)
  if incarnation == '' then return end
  redis.call('HSET', alive, incarnation, int(now) .. ':' .. suspect)
  if redis.call('HLEN', alive) <= 256 then return end
  local page = redis.call('HSCAN', alive, '0', 'COUNT', 1000)[2]
  for i = 1, #page, 2 do
    local at = string.match(page[i + 1], '^(%d+):')
    if at and tonumber(at) < now - 600000 then redis.call('HDEL', alive, page[i]) end
  end
end
