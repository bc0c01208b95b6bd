-- Proves that the token holds and that what was read still stands; a WAIT after it commits that.
-- KEYS meta, log
-- ARGV token, prev seq, prev id, prev chain
-- Reply: OK | FENCED | REWOUND, seq | NOSESSION

local keys = { meta = KEYS[1], log = KEYS[2] }
local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'tok', 'ch')
if not meta[1] then return { 'NOSESSION' } end
if not holds(meta[3], ARGV[1]) then return { 'FENCED' } end
local seq = tonumber(meta[1])
local log = { seq = seq, lid = meta[2], chain = chain_of(meta[4], seq) }
if not matches(keys, log, tonumber(ARGV[2]), ARGV[3], ARGV[4]) then
  return { 'REWOUND', int(log.seq) }
end
touch(keys.meta)
return { 'OK' }
