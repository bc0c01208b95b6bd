-- Appends events of gateway or operator; wakes the session when nobody holds it.
-- KEYS meta, log, due, bell, idempotency keys, state, sbell, payloads
-- ARGV member, channel, idempotency key, wake 0|1, seq at which it must be idle or '', payloads, events*
-- Reply: OK, first, last | DUP, first | MORE, seq | CLOSED | QUARANTINED | NOSESSION

local keys = { meta = KEYS[1], log = KEYS[2], due = KEYS[3], bell = KEYS[4],
  state = KEYS[6], sbell = KEYS[7], payloads = KEYS[8] }
local member = ARGV[1]
local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'lts', 'st', 'why', 'src', 'tok', 'kh', 'kt',
  'ch')
if not meta[1] then return { 'NOSESSION' } end

local known = redis.call('HGET', KEYS[5], ARGV[3])
if known then
  touch(keys.meta)
  return { 'DUP', string.match(known, '^%d+') }
end
local log = { seq = tonumber(meta[1]), lid = meta[2], lts = tonumber(meta[3]), st = meta[4],
  why = meta[5], src = meta[6], chain = chain_of(meta[10], tonumber(meta[1])) }
if log.st == 'terminated' then return { 'CLOSED' } end
if log.st == 'quarantined' then
  -- Nobody would answer what a person or a client says: the sender has to know.
  for i = first_event(6) + 1, #ARGV, 3 do
    if string.find(ARGV[i], '^user%.') or string.find(ARGV[i], '^system%.') then
      return { 'QUARANTINED' }
    end
  end
end
if ARGV[5] ~= '' and (meta[7] ~= '' or log.seq ~= tonumber(ARGV[5])) then
  return { 'MORE', int(log.seq) }
end

local now = now_ms()
local first = log.seq + 1
local first_at = store_payloads(keys, 6)
append(keys, log, 0, first_at, now)

-- Beside the keys stands a queue of them, oldest first, in fields that no key can be called: NUL and
-- a number from kh up to kt. So those older than a day are found without looking at the others.
local oldest, newest = tonumber(meta[8] or '0'), tonumber(meta[9] or '0') + 1
redis.call('HSET', KEYS[5], ARGV[3], int(first) .. ':' .. int(now),
  '\0' .. int(newest), int(now) .. ':' .. ARGV[3])
for _ = 1, 4 do
  local field_ = '\0' .. int(oldest + 1)
  local entry = oldest + 1 < newest and redis.call('HGET', KEYS[5], field_)
  local ms, key = string.match(entry or '', '^(%d+):(.*)$')
  if not ms or tonumber(ms) >= now - DAY_MS then break end
  redis.call('HDEL', KEYS[5], key, field_)
  oldest = oldest + 1
end
redis.call('HSET', keys.meta, 'kh', int(oldest), 'kt', int(newest))

if meta[7] == '' then
  -- Control events act at once on a session nobody holds; a holder obeys by itself.
  for i = first_at, #ARGV, 3 do
    local type_ = ARGV[i + 1]
    local parked = log.st == 'suspended' or log.st == 'quarantined'
    if type_ == 'session.suspend_requested' and not UNCLAIMABLE[log.st] then
      redis.call('ZREM', keys.due, member)
      set_status(keys, member, log, 'suspended', '', now)
    elseif type_ == 'session.resume_requested' and parked then
      redis.call('HSET', keys.meta, 'tk', '0', 'qr', '')
      set_status(keys, member, log, 'idle', '', now)
    elseif type_ == 'session.stop_requested' and log.st == 'suspended' then
      set_status(keys, member, log, 'idle', '', now)
    elseif type_ == 'session.stop_requested' and log.st == 'quarantined' then
      -- The next worker that looks for work closes the log.
      redis.call('HSET', keys.meta, 'qr', '1')
      redis.call('ZADD', keys.due, int(now), member)
      set_status(keys, member, log, 'terminated', word(field(ARGV[i + 2], 'reason')), now)
    end
  end
  if ARGV[4] == '1' then make_due(keys, member, log, now) end
end
publish(ARGV[2], first, log.seq)
return { 'OK', int(first), int(log.seq) }
