-- Closes what is open in the log of a session that is set aside; once, whoever does it.
-- KEYS meta, log, due, payloads
-- ARGV member, channel, epoch, payloads, events*
-- Reply: OK | DONE | NOSESSION

local keys = { meta = KEYS[1], log = KEYS[2], due = KEYS[3], payloads = KEYS[4] }
local meta = redis.call('HMGET', keys.meta, 'seq', 'lid', 'lts', 'qr', 'ep', 'ch')
if not meta[1] then return { 'NOSESSION' } end
if meta[4] ~= '1' or meta[5] ~= ARGV[3] then return { 'DONE' } end
local seq = tonumber(meta[1])
local log = { seq = seq, lid = meta[2], lts = tonumber(meta[3]), chain = chain_of(meta[6], seq) }
local before = log.seq
append(keys, log, 0, store_payloads(keys, 4), now_ms())
redis.call('HSET', keys.meta, 'qr', '')
redis.call('ZREM', keys.due, ARGV[1])
if log.seq > before then publish(ARGV[2], before + 1, log.seq) end
return { 'OK' }
