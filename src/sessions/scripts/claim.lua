-- Takes sessions of a partition whose time has come: one holder per token, by construction.
-- KEYS due, state, sbell        (meta keys are computed: same slot)
-- ARGV prefix of keys, worker, nonce, ttl ms, max, steal expired leases 0|1
-- Reply: claimed*, quarantined*; claimed = member, epoch, token, seq, last id, takeover, previous owner;
--        quarantined = member, epoch

local QUARANTINE_AFTER = 5
-- Expired leases that must not be stolen stand in front of sessions that are free.
local SPARE = 64

local keys = { due = KEYS[1], state = KEYS[2], sbell = KEYS[3] }
local max = tonumber(ARGV[5])
local now = now_ms()
local claimed, quarantined = {}, {}
local members = redis.call('ZRANGE', keys.due, '-inf', int(now), 'BYSCORE', 'LIMIT', 0, max + SPARE)
for _, member in ipairs(members) do
  if #claimed >= max then break end
  keys.meta = ARGV[1] .. member .. ':m'
  local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'st', 'why', 'src', 'tok', 'ep', 'tk', 'own')
  if not meta[1] or UNCLAIMABLE[meta[3]] then
    redis.call('ZREM', keys.due, member)
  elseif meta[6] == '' or ARGV[6] == '1' then
    local taken = meta[6] ~= ''
    local takeover = taken and tonumber(meta[8]) + 1 or 0
    if takeover >= QUARANTINE_AFTER then
      redis.call('HSET', keys.meta, 'tok', '', 'own', '', 'rel', '', 'tk', takeover)
      redis.call('ZREM', keys.due, member)
      local log = { seq = tonumber(meta[1]), st = meta[3], why = meta[4], src = meta[5] }
      set_status(keys, member, log, 'quarantined', 'takeovers', now)
      quarantined[#quarantined + 1] = { member, meta[7] }
    else
      local epoch = int(tonumber(meta[7]) + 1)
      local token = epoch .. '.' .. ARGV[3]
      redis.call('HSET', keys.meta, 'ep', epoch, 'tok', token, 'own', ARGV[2], 'rel', '', 'wn', '0',
        'wid', '', 'ws', '0', 'wc', '0', 'tk', takeover)
      redis.call('ZADD', keys.due, now + tonumber(ARGV[4]), member)
      claimed[#claimed + 1] = { member, epoch, token, meta[1], meta[2], int(takeover), meta[9] }
    end
  end
end
return { claimed, quarantined }
