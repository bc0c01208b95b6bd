-- Renews leases of one partition; an expired lease that nobody claimed may be renewed.
-- KEYS due, alive        (meta keys are computed: same slot)
-- ARGV prefix of keys, ttl ms, incarnation of the worker, suspect it holds or '',
--      last answer here or '', ms quiet since, (member, token)*
-- Reply: now, then per lease the log's seq, or -1 when the token holds nothing

local now = now_ms()
local ttl = tonumber(ARGV[2])
in_grace(KEYS[2], ttl, ARGV[5], ARGV[6], now)
redis.call('HSET', KEYS[2], ':last', int(now))
heard_of(KEYS[2], ARGV[3], ARGV[4], now)
local reply = { int(now) }
for i = 7, #ARGV, 2 do
  local key = ARGV[1] .. ARGV[i] .. ':m'
  local meta = redis.call('HMGET', key, 'tok', 'seq', 'dt')
  if meta[1] and holds(meta[1], ARGV[i + 1]) then
    redis.call('ZADD', KEYS[1], int(now + ttl), ARGV[i])
    -- Whoever renews lives: what was held against the session for this lease is looked at anew.
    if meta[3] == meta[1] then redis.call('HSET', key, 'dt', '') end
    reply[#reply + 1] = meta[2]
  else
    reply[#reply + 1] = '-1'
  end
end
return reply
