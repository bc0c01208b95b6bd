-- Proves that the token holds and that what was read still stands; a WAIT after it commits that.
-- KEYS meta, log
-- ARGV token, prev seq, prev id
-- Reply: OK | FENCED | REWOUND, seq, last id | NOSESSION

local keys = { meta = KEYS[1], log = KEYS[2] }
local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'tok')
if not meta[1] then return { 'NOSESSION' } end
if not holds(meta[3], ARGV[1]) then return { 'FENCED' } end
local log = { seq = tonumber(meta[1]), lid = meta[2] }
if not matches(keys, log, tonumber(ARGV[2]), ARGV[3]) then
  return { 'REWOUND', int(log.seq), log.lid }
end
touch(keys.meta)
return { 'OK' }
