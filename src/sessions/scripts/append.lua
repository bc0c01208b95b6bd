-- Appends events of gateway or operator; wakes the session when nobody holds it.
-- KEYS meta, log, due, bell, idempotency keys, state, sbell, payloads
-- ARGV member, channel, idempotency key, wake 0|1, seq at which it must be idle or '', payloads, events*
-- Reply: OK, first, last | DUP, first | MORE, seq | CLOSED | NOSESSION

local keys = { meta = KEYS[1], log = KEYS[2], due = KEYS[3], bell = KEYS[4],
  state = KEYS[6], sbell = KEYS[7], payloads = KEYS[8] }
local member = ARGV[1]
local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'lts', 'st', 'why', 'src', 'tok', 'kc')
if not meta[1] then return { 'NOSESSION' } end

local known = redis.call('HGET', KEYS[5], ARGV[3])
if known then
  touch(keys.meta)
  return { 'DUP', string.match(known, '^%d+') }
end
local log = { seq = tonumber(meta[1]), lid = meta[2], lts = tonumber(meta[3]), st = meta[4],
  why = meta[5], src = meta[6] }
if log.st == 'terminated' then return { 'CLOSED' } end
if ARGV[5] ~= '' and (meta[7] ~= '' or log.seq ~= tonumber(ARGV[5])) then
  return { 'MORE', int(log.seq) }
end

local now = now_ms()
local first = log.seq + 1
local first_at = store_payloads(keys, 6)
append(keys, log, 0, first_at, now)
redis.call('HSET', KEYS[5], ARGV[3], int(first) .. ':' .. int(now))

-- Keys older than a day go, at most 32 a call, a part of the table each time.
if redis.call('HLEN', KEYS[5]) > 32 then
  local page = redis.call('HSCAN', KEYS[5], meta[8] or '0', 'COUNT', 32)
  local dropped = 0
  for i = 1, #page[2], 2 do
    local ms = tonumber(string.match(page[2][i + 1], ':(%d+)$'))
    if ms < now - DAY_MS and dropped < 32 then
      redis.call('HDEL', KEYS[5], page[2][i])
      dropped = dropped + 1
    end
  end
  redis.call('HSET', keys.meta, 'kc', page[1])
end

if meta[7] == '' then
  -- Control events act at once on a session nobody holds; a holder obeys by itself.
  for i = first_at, #ARGV, 3 do
    local type_ = ARGV[i + 1]
    local parked = log.st == 'suspended' or log.st == 'quarantined'
    if type_ == 'session.suspend_requested' and not UNCLAIMABLE[log.st] then
      redis.call('ZREM', keys.due, member)
      set_status(keys, member, log, 'suspended', '', now)
    elseif type_ == 'session.resume_requested' and parked then
      redis.call('HSET', keys.meta, 'tk', '0')
      set_status(keys, member, log, 'idle', '', now)
    elseif type_ == 'session.stop_requested' and log.st == 'suspended' then
      set_status(keys, member, log, 'idle', '', now)
    elseif type_ == 'session.stop_requested' and log.st == 'quarantined' then
      redis.call('ZREM', keys.due, member)
      set_status(keys, member, log, 'terminated', word(field(ARGV[i + 2], 'reason')), now)
    end
  end
  if ARGV[4] == '1' then make_due(keys, member, log, now) end
end
publish(ARGV[2], first, log.seq)
return { 'OK', int(first), int(log.seq) }
