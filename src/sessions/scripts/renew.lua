-- Renews leases of one partition; an expired lease that nobody claimed may be renewed.
-- KEYS due        (meta keys are computed: same slot)
-- ARGV prefix of keys, ttl ms, (member, token)*
-- Reply: per lease the log's seq, or -1 when the token holds nothing

local until_ = now_ms() + tonumber(ARGV[2])
local seqs = {}
for i = 3, #ARGV, 2 do
  local meta = redis.call('HMGET', ARGV[1] .. ARGV[i] .. ':m', 'tok', 'seq')
  if meta[1] and holds(meta[1], ARGV[i + 1]) then
    redis.call('ZADD', KEYS[1], until_, ARGV[i])
    seqs[#seqs + 1] = meta[2]
  else
    seqs[#seqs + 1] = '-1'
  end
end
return seqs
