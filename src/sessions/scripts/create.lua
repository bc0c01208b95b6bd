-- Creates a log with its first events, or answers the one that stands.
-- KEYS meta, log, due, bell, snapshot, index, state, sbell, payloads
-- ARGV member, session id, gen, src, snapshot JSON, wake 0|1, payloads, events*
-- Reply: OK | EXISTS, gen, seq, last id, its chain value, st, why

local keys = { meta = KEYS[1], log = KEYS[2], due = KEYS[3], bell = KEYS[4],
  state = KEYS[7], sbell = KEYS[8], payloads = KEYS[9] }
local member = ARGV[1]
local known = redis.call('HMGET', keys.meta, 'gen', 'seq', 'lid', 'ch', 'st', 'why')
if known[1] then
  touch(keys.meta)
  return { 'EXISTS', known[1], known[2], known[3], chain_of(known[4], tonumber(known[2])), known[5],
    known[6] }
end

local now = now_ms()
local log = { seq = 0, lid = '', lts = 0, chain = '', st = 'created', why = '', src = ARGV[4] }
redis.call('HSET', keys.meta, 'ep', '0', 'tok', '', 'own', '', 'rel', '', 'wn', '0', 'wid', '',
  'ws', '0', 'wc', '0', 'st', log.st, 'why', log.why, 'src', log.src, 'gen', ARGV[3],
  'tk', '0', 'ver', '1', 'ct', int(now), 'rt', '0', 'kh', '0', 'kt', '0')
append(keys, log, 0, store_payloads(keys, 7), now)
redis.call('SET', KEYS[5], ARGV[5])
redis.call('ZADD', KEYS[6], now, ARGV[2])
if ARGV[6] == '1' then make_due(keys, member, log, now) end
note_change(keys, member, log, now)
return { 'OK', ARGV[3], int(log.seq), log.lid, log.chain, log.st, log.why }
